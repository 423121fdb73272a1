//! Whether a secure request may be acted upon: who asks, who signed, and does it fit (docs/spec/01 §7.1, 05 §7.5).

use std::collections::BTreeMap;

use choria_token::{
    ClientClaims, Key, PublicKey, Purpose, Reject, Verified, Verifier, peek_client, purpose_of,
};
use thiserror::Error;

use crate::{ProtocolError, Request, SIGNER_AGENT, SecureRequest};

/// Why a request is not acted upon. Nobody is told but the log.
#[derive(Debug, Error)]
pub enum Denied {
    #[error(transparent)]
    Malformed(#[from] ProtocolError),
    #[error("the token is refused: {0}")]
    Token(#[from] Reject),
    #[error("the caller holds no fleet permission")]
    NoFleetAccess,
    #[error("the caller's requests have to be signed by a delegator")]
    DelegationMissing,
    #[error("the signer's token does not allow signing for others")]
    DelegatorRefused,
    #[error("a token without public key cannot sign")]
    KeyMissing,
    #[error("the request's signature does not match")]
    SignatureBad,
    #[error("the request names caller '{request}', its token '{token}'")]
    CallerMismatch { request: String, token: String },
    #[error("the request is not signed")]
    Insecure,
}

impl Denied {
    /// The word that logs carry as `reason=`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(error) => error.reason(),
            Self::Token(reject) => reject.reason(),
            Self::NoFleetAccess => "permission_missing",
            Self::DelegationMissing => "delegation_missing",
            Self::DelegatorRefused => "delegator_refused",
            Self::KeyMissing => "key_missing",
            Self::SignatureBad | Self::Insecure => "sig_bad",
            Self::CallerMismatch { .. } => "caller_mismatch",
        }
    }
}

/// A request that was accepted; only this module makes one.
#[derive(Debug)]
pub struct Accepted {
    request: Request,
    caller: Option<Verified<ClientClaims>>,
    signer: Option<Verified<ClientClaims>>,
}

impl Accepted {
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The caller's token; `None` only for unsigned requests to the signer service.
    pub fn caller(&self) -> Option<&Verified<ClientClaims>> {
        self.caller.as_ref()
    }

    /// The token of the delegate that signed.
    pub fn signer(&self) -> Option<&Verified<ClientClaims>> {
        self.signer.as_ref()
    }
}

/// Accepts a request to the signer service, whose protection is inside its body. The envelope is not verified;
/// any other agent is refused, so that skipping verification cannot spread (docs/spec/05 §7.3).
pub fn accept_for_signer(secure: &SecureRequest) -> Result<Accepted, Denied> {
    let request = secure.request()?;
    if request.agent != SIGNER_AGENT {
        return Err(Denied::Insecure);
    }
    Ok(Accepted { request, caller: None, signer: None })
}

/// Verifies requests against configured keys.
#[derive(Debug, Clone)]
pub struct RequestVerifier {
    trust: Trust,
    any_delegated_caller: bool,
}

#[derive(Debug, Clone)]
enum Trust {
    Issuers(BTreeMap<String, Vec<PublicKey>>),
    Signers(Vec<PublicKey>),
}

impl RequestVerifier {
    /// Trusts the issuers of each organization.
    pub fn issuers(issuers: BTreeMap<String, Vec<PublicKey>>) -> Self {
        Self { trust: Trust::Issuers(issuers), any_delegated_caller: false }
    }

    /// Trusts each of these keys; older deployments.
    pub fn trusted_signers(keys: Vec<PublicKey>) -> Self {
        Self { trust: Trust::Signers(keys), any_delegated_caller: false }
    }

    /// Lets a delegator set any caller name, as peers do, in place of the token's own or its rewriting
    /// (`plugin.security.choria.delegated_caller = any`, docs/spec/10 N3).
    #[must_use]
    pub fn allowing_any_delegated_caller(mut self) -> Self {
        self.any_delegated_caller = true;
        self
    }

    /// Verifies tokens, signature and caller at this time, Unix seconds. Time to live, collective and agent are the
    /// business of whoever serves the request.
    pub fn accept(&self, secure: &SecureRequest, now_unix: i64) -> Result<Accepted, Denied> {
        if secure.is_insecure() {
            return Err(Denied::Insecure);
        }
        // The organization of whoever signed chooses the key; the caller's token has to be by the same.
        let chooser = secure.signer.as_deref().unwrap_or(&secure.caller);
        let mut refusal = Denied::Token(Reject::SignatureBad);
        for key in self.keys(chooser)? {
            match self.accept_with(secure, &Verifier::single(Key::Ed25519(key)), now_unix) {
                Ok(accepted) => return Ok(accepted),
                Err(error @ Denied::Token(Reject::SignatureBad | Reject::ChainForged(_))) => refusal = error,
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    fn keys(&self, token: &str) -> Result<Vec<PublicKey>, Denied> {
        match &self.trust {
            Trust::Signers(keys) => Ok(keys.clone()),
            Trust::Issuers(issuers) => {
                // a server's token ends here as well: it is no client's
                let org = peek_client(token)?.claims().org.clone();
                if org.is_empty() {
                    return Err(Reject::OrganizationMissing.into());
                }
                issuers.get(&org).cloned().ok_or_else(|| Reject::OrganizationUnknown(org).into())
            }
        }
    }

    fn accept_with(
        &self,
        secure: &SecureRequest,
        verifier: &Verifier,
        now_unix: i64,
    ) -> Result<Accepted, Denied> {
        if purpose_of(&secure.caller) == Some(Purpose::Server) {
            return Err(Reject::KindMismatch {
                expected: Purpose::Client.as_str(),
                found: Purpose::Server.as_str().to_owned(),
            }
            .into());
        }
        let signer = match &secure.signer {
            Some(token) => {
                let signer = verifier.verify_client(token, now_unix)?;
                if !signer.claims().permissions.authentication_delegator {
                    return Err(Denied::DelegatorRefused);
                }
                Some(signer)
            }
            None => None,
        };
        let caller = verifier.verify_client(&secure.caller, now_unix)?;
        let permissions = &caller.claims().permissions;
        if signer.is_none() && permissions.signed_fleet_management {
            return Err(Denied::DelegationMissing);
        }
        if !permissions.fleet_management && !permissions.signed_fleet_management {
            return Err(Denied::NoFleetAccess);
        }
        let key = signer.as_ref().unwrap_or(&caller).holder().ok_or(Denied::KeyMissing)?;
        if !key.verify(&secure.request, &secure.signature) {
            return Err(Denied::SignatureBad);
        }
        let request = secure.request()?;
        let name = &caller.claims().caller_id;
        let same = request.caller == *name
            || signer.is_some() && (self.any_delegated_caller || request.caller == rewritten(name));
        if !same {
            return Err(Denied::CallerMismatch { request: shown(&request.caller), token: shown(name) });
        }
        Ok(Accepted { request, caller: Some(caller), signer })
    }
}

/// How the AAA signer writes a caller id (docs/spec/01 §9.1).
pub fn rewritten(caller: &str) -> String {
    caller.replace(['@', '.'], "_")
}

fn shown(text: &str) -> String {
    text.chars().take(256).flat_map(char::escape_default).collect()
}
