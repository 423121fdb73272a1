//! Whether a request is accepted: the server side of protocol v2 (`docs/spec/01 §7.1`, `docs/spec/10 §5.6`).
//!
//! ```text
//! received bytes -> Envelope -> VerifiedRequest      signature, caller and delegation proved
//!                            -> UnverifiedRequest    insecure provisioning only
//! ```
//! The two results are different types, so that code which needs a proved caller cannot be handed another.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::ed25519;
use crate::token::{ClientClaims, Permissions, Proven, Reject, Verified, Verifier};
use crate::wire::request::{self, Request};
use crate::wire::secure_request::{self, SecureRequest};
use crate::wire::transport::{self, Transport};
use crate::wire::{Span, WireError};

/// How the caller named in a delegated request must relate to the caller's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DelegatedCaller {
    /// The token's caller id, or that with `@` and `.` replaced by `_` as signers do.
    #[default]
    Match,
    /// Anything; for foreign signers that rename callers.
    Any,
}

/// Whose requests are accepted.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'k> {
    pub verifier: Verifier<'k>,
    pub delegated_caller: DelegatedCaller,
    /// Signatures of tokens that need no second look.
    pub proven: Option<&'k Proven>,
}

/// Why a request is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Wire(WireError),
    /// The caller's token.
    Caller(Reject),
    /// The delegated signer's token.
    Signer(Reject),
    /// The request is not signed by the key that had to sign it.
    SignatureBad,
    /// The caller needs a delegated signer and used none.
    DelegationMissing,
    /// The signer is no delegator, or serves another organization.
    DelegatorRefused,
    /// The caller may not manage the fleet.
    PermissionMissing,
    /// The token holds no key to check the signature with.
    KeyMissing,
    /// The request speaks for another caller than its token.
    CallerMismatch,
}

impl Refusal {
    /// The stable word for logs and counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Wire(error) => error.reason(),
            Refusal::Caller(reject) => reject.reason(),
            Refusal::Signer(Reject::KindMismatch) | Refusal::DelegatorRefused => "delegator_refused",
            Refusal::Signer(reject) => reject.reason(),
            Refusal::SignatureBad => "sig_bad",
            Refusal::DelegationMissing => "delegation_missing",
            Refusal::PermissionMissing => "permission_missing",
            Refusal::KeyMissing => "key_missing",
            Refusal::CallerMismatch => "caller_mismatch",
        }
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Refusal {
        Refusal::Wire(error)
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Refusal::Wire(error) => error.fmt(f),
            Refusal::Caller(reject) => write!(f, "the caller's token is refused: {reject}"),
            Refusal::Signer(reject) => write!(f, "the delegated signer's token is refused: {reject}"),
            Refusal::SignatureBad => f.write_str("the request is not signed by its caller or signer"),
            Refusal::DelegationMissing => {
                f.write_str("the caller's requests must be signed by a delegated signer")
            }
            Refusal::DelegatorRefused => f.write_str("the signer of the request may not sign for others"),
            Refusal::PermissionMissing => f.write_str("the caller may not manage the fleet"),
            Refusal::KeyMissing => f.write_str("the token names no key to check the request with"),
            Refusal::CallerMismatch => f.write_str("the request speaks for another caller than its token"),
        }
    }
}

impl core::error::Error for Refusal {}

/// A received request, taken apart down to the signed bytes, not yet believed.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    transport: Transport,
    secure: SecureRequest,
}

/// Takes the message that fills `buffer` apart.
pub fn open(buffer: &mut [u8]) -> Result<Envelope, WireError> {
    let transport = transport::parse(buffer)?;
    let secure = secure_request::parse(buffer, transport.data)?;
    Ok(Envelope { transport, secure })
}

/// A request whose signature, tokens and caller were proved. Its age, filter, collective and reply subject are still to be
/// checked.
#[derive(Debug, Clone, Copy)]
pub struct VerifiedRequest<'s> {
    transport: Transport,
    request: Request,
    caller: Verified<'s, ClientClaims<'s>>,
    caller_token: Span,
    signer: Option<Signer>,
}

/// The delegated signer of a request.
#[derive(Debug, Clone, Copy)]
pub struct Signer {
    /// The signer's token, in the receive buffer.
    pub token: Span,
    pub key: [u8; 32],
    /// When the signer's token expires, Unix seconds.
    pub expires: Option<i64>,
}

impl<'s> VerifiedRequest<'s> {
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The caller's token, verified.
    pub fn caller(&self) -> &Verified<'s, ClientClaims<'s>> {
        &self.caller
    }

    /// The text of the caller's token, in the receive buffer.
    pub fn caller_token(&self) -> Span {
        self.caller_token
    }

    /// The delegated signer, when the caller did not sign.
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }
}

/// A request nobody vouches for. Only a node in insecure provisioning looks at one.
#[derive(Debug, Clone, Copy)]
pub struct UnverifiedRequest {
    pub transport: Transport,
    pub request: Request,
}

impl Envelope {
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Reads the request without proof.
    pub fn into_unverified(self, buffer: &mut [u8]) -> Result<UnverifiedRequest, WireError> {
        let request = request::parse(buffer, self.secure.request)?;
        Ok(UnverifiedRequest { transport: self.transport, request })
    }

    /// Proves the request at `now`, Unix seconds. `scratch` receives the caller's claims, without policy.
    pub fn verify<'s>(
        self,
        buffer: &mut [u8],
        policy: &Policy<'_>,
        now: i64,
        scratch: &'s mut [u8],
    ) -> Result<VerifiedRequest<'s>, Refusal> {
        let (caller, signer) = match self.secure.signer {
            None => (self.verify_own(buffer, policy, now, scratch)?, None),
            Some(token) => {
                let (caller, signer) = self.verify_delegated(token, buffer, policy, now, scratch)?;
                (caller, Some(signer))
            }
        };
        // From here on the signed bytes are gone.
        let request = request::parse(buffer, self.secure.request)?;
        let named = request.caller.text(buffer);
        let own = caller.claims().caller_id;
        let agrees = named == own
            || match (&signer, policy.delegated_caller) {
                (None, _) => false,
                (Some(_), DelegatedCaller::Match) => is_rewritten(named, own),
                (Some(_), DelegatedCaller::Any) => true,
            };
        if !agrees {
            return Err(Refusal::CallerMismatch);
        }
        Ok(VerifiedRequest {
            transport: self.transport,
            request,
            caller,
            caller_token: self.secure.caller,
            signer,
        })
    }

    fn signed_by(&self, key: &[u8; 32], buffer: &[u8]) -> Result<(), Refusal> {
        let request = self.secure.request.of(buffer);
        if ed25519::verify(key, &[request], self.secure.signature.of(buffer)) {
            Ok(())
        } else {
            Err(Refusal::SignatureBad)
        }
    }

    /// The caller signed.
    fn verify_own<'s>(
        &self,
        buffer: &[u8],
        policy: &Policy<'_>,
        now: i64,
        scratch: &'s mut [u8],
    ) -> Result<Verified<'s, ClientClaims<'s>>, Refusal> {
        let token = self.secure.caller.text(buffer);
        let caller = policy
            .verifier
            .verify_client_again(token, now, scratch, policy.proven)
            .map_err(Refusal::Caller)?;
        let permissions = caller.claims().permissions;
        if permissions.has(Permissions::SIGNED_FLEET_MANAGEMENT) {
            return Err(Refusal::DelegationMissing);
        }
        if !permissions.has(Permissions::FLEET_MANAGEMENT) {
            return Err(Refusal::PermissionMissing);
        }
        self.signed_by(caller.public_key().ok_or(Refusal::KeyMissing)?, buffer)?;
        Ok(caller)
    }

    /// A delegated signer signed for the caller. The signer's claims are done with before the caller's take their place in
    /// the scratch.
    fn verify_delegated<'s>(
        &self,
        signer_token: Span,
        buffer: &[u8],
        policy: &Policy<'_>,
        now: i64,
        scratch: &'s mut [u8],
    ) -> Result<(Verified<'s, ClientClaims<'s>>, Signer), Refusal> {
        let token = signer_token.text(buffer);
        let (signer, anchor) = {
            let verified = policy
                .verifier
                .verify_client_again(token, now, scratch, policy.proven)
                .map_err(Refusal::Signer)?;
            if !verified.claims().permissions.has(Permissions::AUTHENTICATION_DELEGATOR) {
                return Err(Refusal::DelegatorRefused);
            }
            let key = *verified.public_key().ok_or(Refusal::KeyMissing)?;
            (Signer { token: signer_token, key, expires: verified.expires() }, *verified.anchor())
        };
        let token = self.secure.caller.text(buffer);
        let caller = policy
            .verifier
            .verify_client_again(token, now, scratch, policy.proven)
            .map_err(Refusal::Caller)?;
        if caller.anchor() != &anchor {
            return Err(Refusal::DelegatorRefused);
        }
        let permissions = caller.claims().permissions;
        if !permissions.has(Permissions::FLEET_MANAGEMENT)
            && !permissions.has(Permissions::SIGNED_FLEET_MANAGEMENT)
        {
            return Err(Refusal::PermissionMissing);
        }
        self.signed_by(&signer.key, buffer)?;
        Ok((caller, signer))
    }
}

/// Whether `named` is `own` after the character rewriting of signers.
fn is_rewritten(named: &str, own: &str) -> bool {
    let rewritten = own.bytes().map(|b| if matches!(b, b'@' | b'.') { b'_' } else { b });
    named.bytes().eq(rewritten)
}
