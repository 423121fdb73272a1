//! The compact form of a token: three strict base64url parts joined by dots, and what can be read without a key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::claims::{Claims, ClientClaims, ProvisioningClaims, Purpose, ServerClaims};
use crate::json;
use crate::reject::Reject;

/// A longer text is no token. A policy of 64 KiB fits.
pub const MAX_TOKEN: usize = 128 * 1024;

/// Every name that a verifier or broker acts upon; other spellings of them are refused.
const KNOWN_CLAIMS: &[&str] = &[
    "purpose",
    "tcs",
    "public_key",
    "issexp",
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "callerid",
    "agents",
    "ou",
    "user_properties",
    "opa_policy",
    "permissions",
    "pub_subjects",
    "sub_subjects",
    "identity",
    "collectives",
    "cht",
    "chs",
    "chu",
    "chsrv",
    "chpd",
    "chrd",
    "chf",
    "chusr",
    "chpwd",
    "extensions",
    "v2",
    "update",
];

const KNOWN_PERMISSIONS: &[&str] = &[
    "streams_admin",
    "streams_user",
    "events_viewer",
    "election_user",
    "system_user",
    "governor",
    "org_admin",
    "fleet_management",
    "signed_fleet_management",
    "service",
    "authentication_delegator",
    "provisioner",
    "submission",
    "streams",
    "service_host",
];

/// A token taken apart. Its claims are decoded once; what is verified and what is used are the same bytes.
#[derive(Debug)]
pub(crate) struct Compact<'a> {
    /// The token without surrounding white space.
    pub(crate) text: &'a str,
    /// Header and payload as signed.
    pub(crate) signing_input: &'a str,
    /// The signature's base64url text.
    pub(crate) signature: &'a str,
    /// The header's algorithm, one of the four accepted.
    pub(crate) algorithm: Algorithm,
    claims: Map<String, Value>,
}

impl<'a> Compact<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Compact<'a>, Reject> {
        let text = token.trim();
        if text.len() > MAX_TOKEN {
            return Err(Reject::Malformed("it is too long"));
        }
        let three = Reject::Malformed("it has not three parts");
        let (signing_input, signature) = text.rsplit_once('.').ok_or(three.clone())?;
        let (header, payload) = signing_input.split_once('.').ok_or(three.clone())?;
        if header.is_empty() || payload.is_empty() || payload.contains('.') {
            return Err(three);
        }
        let algorithm = algorithm(&decode(header)?)?;
        if signature.is_empty() {
            return Err(Reject::Malformed("it has no signature"));
        }
        decode(signature)?;
        let mut claims = json::object(&decode(payload)?)
            .map_err(|_| Reject::Malformed("its claims are not one unambiguous JSON object"))?;
        refuse_other_spellings(&claims, KNOWN_CLAIMS)?;
        // An absent claim and a null one mean the same to existing readers.
        claims.retain(|_, value| !value.is_null());
        if let Some(Value::Object(permissions)) = claims.get_mut("permissions") {
            refuse_other_spellings(permissions, KNOWN_PERMISSIONS)?;
            permissions.retain(|_, value| !value.is_null());
        }
        Ok(Compact { text, signing_input, signature, algorithm, claims })
    }

    /// The `purpose` claim; `sub` counts only when there is none.
    pub(crate) fn purpose(&self) -> &str {
        match self.claims.get("purpose") {
            Some(Value::String(purpose)) if !purpose.is_empty() => purpose,
            None | Some(Value::String(_)) => match self.claims.get("sub") {
                Some(Value::String(sub)) if sub == Purpose::Provisioning.as_str() => sub,
                _ => "",
            },
            Some(_) => "",
        }
    }

    /// The organization, as text in the token: never a default.
    pub(crate) fn org(&self) -> Option<&str> {
        self.claims.get("ou").and_then(Value::as_str).filter(|ou| !ou.is_empty())
    }

    /// Refuses a token of another kind than `T`.
    pub(crate) fn expect_kind<T: Claims>(&self) -> Result<(), Reject> {
        let expected = T::PURPOSE.as_str();
        let found = self.purpose();
        if found != expected {
            return Err(Reject::KindMismatch { expected, found: found.chars().take(64).collect() });
        }
        // A token that is one kind by its purpose and another by its subject would be read differently elsewhere.
        let subject = self.claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if T::PURPOSE != Purpose::Provisioning && subject == Purpose::Provisioning.as_str() {
            return Err(Reject::KindMismatch { expected, found: subject.to_owned() });
        }
        Ok(())
    }

    /// The claims as those of kind `T`.
    pub(crate) fn claims<T: Claims>(self) -> Result<T, Reject> {
        self.expect_kind::<T>()?;
        let mut claims: T = serde_json::from_value(Value::Object(self.claims))
            .map_err(|_| Reject::Malformed("a claim has the wrong type"))?;
        if let Some(claim) = claims.missing() {
            return Err(Reject::ClaimInvalid(claim));
        }
        claims.set_defaults();
        Ok(claims)
    }
}

/// Strict base64url: no padding, no other alphabet, no stray bits at the end.
fn decode(part: &str) -> Result<Vec<u8>, Reject> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Reject::Malformed("a part is not base64url"))
}

fn algorithm(header: &[u8]) -> Result<Algorithm, Reject> {
    let header = json::object(header).map_err(|_| Reject::Malformed("its header is not one JSON object"))?;
    refuse_other_spellings(&header, &["alg", "crit"])?;
    if header.contains_key("crit") {
        return Err(Reject::Malformed("its header asks for extensions that are not supported"));
    }
    match header.get("alg").and_then(Value::as_str) {
        Some("EdDSA") => Ok(Algorithm::EdDSA),
        Some("RS256") => Ok(Algorithm::RS256),
        Some("RS384") => Ok(Algorithm::RS384),
        Some("RS512") => Ok(Algorithm::RS512),
        Some(other) => Err(Reject::AlgorithmRefused(other.chars().take(16).collect())),
        None => Err(Reject::Malformed("its header names no algorithm")),
    }
}

fn refuse_other_spellings(object: &Map<String, Value>, known: &[&str]) -> Result<(), Reject> {
    let ambiguous = |name: &String| known.iter().any(|k| name != k && json::same_ignoring_case(name, k));
    if object.keys().any(ambiguous) {
        return Err(Reject::Malformed("a claim is spelled with other capitals"));
    }
    Ok(())
}

/// A token that was only read: its claims are what somebody says.
#[derive(Debug, Clone)]
pub struct Unverified<T> {
    claims: T,
}

impl<T> Unverified<T> {
    /// The claims, on nobody's authority.
    pub fn claims(&self) -> &T {
        &self.claims
    }

    /// The claims, on nobody's authority.
    pub fn into_claims(self) -> T {
        self.claims
    }
}

fn peek<T: Claims>(token: &str) -> Result<Unverified<T>, Reject> {
    Ok(Unverified { claims: Compact::parse(token)?.claims()? })
}

/// Reads a client token without verifying it.
pub fn peek_client(token: &str) -> Result<Unverified<ClientClaims>, Reject> {
    peek(token)
}

/// Reads a server token without verifying it.
pub fn peek_server(token: &str) -> Result<Unverified<ServerClaims>, Reject> {
    peek(token)
}

/// Reads a provisioning token without verifying it, as a new node does: it knows no key yet.
pub fn peek_provisioning(token: &str) -> Result<Unverified<ProvisioningClaims>, Reject> {
    peek(token)
}

/// The kind a token says it is, or why that cannot be told.
pub fn read_purpose(token: &str) -> Result<Purpose, Reject> {
    let compact = Compact::parse(token)?;
    let found = compact.purpose();
    Purpose::parse(found).ok_or_else(|| Reject::KindMismatch {
        expected: "client, server or provisioning",
        found: found.chars().take(64).collect(),
    })
}

/// Whether the token says that it is signed with Ed25519; which key to try depends on it in provisioning.
pub fn is_ed25519_signed(token: &str) -> bool {
    Compact::parse(token).is_ok_and(|compact| compact.algorithm == Algorithm::EdDSA)
}

/// The kind a token says it is; `None` when it is none of the three or cannot be read.
pub fn purpose_of(token: &str) -> Option<Purpose> {
    read_purpose(token).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Instant;

    #[test]
    fn dots_without_end_are_refused_at_once() {
        let texts = ["", ".", "..", "a.b", "a.b.c.d", "......", &".".repeat(1 << 20)];
        // the best of many: what else the machine does is not this code's time
        let quickest = (0..20).map(|_| {
            let start = Instant::now();
            for text in texts {
                assert_eq!(Compact::parse(text).unwrap_err().reason(), "token_malformed");
            }
            start.elapsed().as_millis()
        });
        assert!(quickest.min() < Some(100));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(text in "\\PC{0,200}") {
            let _read = Compact::parse(&text).is_ok();
        }

        #[test]
        fn any_claims_are_refused_or_read(header in "\\PC{0,60}", payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let token = format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
            let _read = peek_client(&token).is_ok();
        }
    }
}
