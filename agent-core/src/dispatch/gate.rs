//! The two questions whose answers differ between worlds: may this caller ask, and is this node meant.

use crate::ed25519;
use crate::ids::{PrivateId, private_network_id, private_network_id_sha256};
use crate::secure::{self, Policy};
use crate::token::{Permissions, Verifier};
use crate::wire::{Span, request, secure_request, transport};

/// Names that a caller's reply inbox may carry.
#[derive(Debug, Clone, Copy)]
pub struct Inbox {
    pub md5: PrivateId<32>,
    pub sha256: PrivateId<64>,
}

impl Inbox {
    /// Of the caller id as it stands in the caller's token, before any rewriting by a signer.
    #[must_use]
    pub fn of(caller_id: &str) -> Inbox {
        Inbox { md5: private_network_id(caller_id), sha256: private_network_id_sha256(caller_id) }
    }
}

/// A request that the gate let through.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    pub transport: transport::Transport,
    pub request: request::Request,
    /// The caller's token; empty when nobody verified one.
    pub caller_token: Span,
    pub signer_token: Option<Span>,
    pub inbox: Inbox,
    /// When the caller's token was issued, Unix seconds; `None` when nobody verified one.
    pub issued: Option<i64>,
}

/// Asked by the machine for every message.
pub trait Gate {
    /// Takes the message that fills `buffer` apart, in place, and verifies it. The error is a reason word.
    ///
    /// `now` is Unix nanoseconds, `None` without a clock.
    fn accept(&mut self, buffer: &mut [u8], now: Option<i64>) -> Result<Accepted, &'static str>;

    /// Whether the node matches the filter, a JSON object. A filter that cannot be evaluated matches nothing.
    fn matches(&mut self, filter: &[u8]) -> bool;

    /// Whether no object in the inputs of a call has two names that a reader could take for one. Asked only for inputs with
    /// more names than the core has room to compare; without an answer of the host's they are refused.
    fn is_unambiguous(&mut self, _data: &[u8]) -> bool {
        false
    }
}

/// Takes every request without looking at signatures: an unprovisioned node, which the broker's account and the access
/// token of its agent protect (`docs/spec/04 §5`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Unverified;

impl Unverified {
    /// Parses without verifying.
    pub fn read(buffer: &mut [u8]) -> Result<Accepted, &'static str> {
        let transport = transport::parse(buffer).map_err(|error| error.reason())?;
        let secure = secure_request::parse(buffer, transport.data).map_err(|error| error.reason())?;
        let request = request::parse(buffer, secure.request).map_err(|error| error.reason())?;
        let inbox = Inbox::of(request.caller.text(buffer));
        Ok(Accepted {
            transport,
            request,
            caller_token: Span::default(),
            signer_token: None,
            inbox,
            issued: None,
        })
    }
}

/// [`Gate::accept`] of a member of the fleet: caller, signature and delegation are proved. `now` is Unix seconds; `scratch`
/// holds the claims of one token.
pub fn member(
    buffer: &mut [u8],
    policy: &Policy<'_>,
    now: i64,
    scratch: &mut [u8],
) -> Result<Accepted, &'static str> {
    let envelope = secure::open(buffer).map_err(|error| error.reason())?;
    let request = envelope.verify(buffer, policy, now, scratch).map_err(|refusal| refusal.reason())?;
    Ok(Accepted {
        transport: *request.transport(),
        request: *request.request(),
        caller_token: request.caller_token(),
        signer_token: request.signer().map(|signer| signer.token),
        inbox: Inbox::of(request.caller().claims().caller_id),
        issued: request.caller().issued(),
    })
}

/// [`Gate::accept`] of a candidate that knows its organization's issuer: it obeys only a provisioner of that organization,
/// by its own signature (`docs/spec/10 §5.4` V6).
pub fn candidate(
    buffer: &mut [u8],
    verifier: &Verifier<'_>,
    now: i64,
    scratch: &mut [u8],
) -> Result<Accepted, &'static str> {
    let transport = transport::parse(buffer).map_err(|error| error.reason())?;
    let secure = secure_request::parse(buffer, transport.data).map_err(|error| error.reason())?;
    if secure.signer.is_some() {
        return Err("delegator_refused");
    }
    let caller =
        verifier.verify_client(secure.caller.text(buffer), now, scratch).map_err(|reject| reject.reason())?;
    if !caller.claims().permissions.has(Permissions::PROVISIONER) {
        return Err("permission_missing");
    }
    let key = caller.public_key().ok_or("key_missing")?;
    if !ed25519::verify(key, &[secure.request.of(buffer)], secure.signature.of(buffer)) {
        return Err("sig_bad");
    }
    // From here on the signed bytes are gone.
    let request = request::parse(buffer, secure.request).map_err(|error| error.reason())?;
    if request.caller.text(buffer) != caller.claims().caller_id {
        return Err("caller_mismatch");
    }
    let inbox = Inbox::of(caller.claims().caller_id);
    Ok(Accepted {
        transport,
        request,
        caller_token: secure.caller,
        signer_token: None,
        inbox,
        issued: caller.issued(),
    })
}
