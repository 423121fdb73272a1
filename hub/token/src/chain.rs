//! The trust chain of docs/spec/01 §6.6: the organization issuer vouches for a chain issuer, which vouches for a token.

use crate::claims::{ClientClaims, Standard};
use crate::key::PublicKey;
use crate::ksuid;
use crate::reject::Reject;

/// The chain issuer of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainIssuerRef {
    /// Id of the issuer's own token.
    pub jti: String,
    /// The issuer's key.
    pub key: PublicKey,
}

/// What a client or server token says about its place in a trust chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustChain {
    /// Signed by the organization, not an issuer.
    None,
    /// Issued by the chain issuer whose token has this id.
    IssuedBy(String),
    /// May itself issue tokens, on the authority of this organization issuer.
    CanIssue(PublicKey),
    /// Carries chain data that does not hold.
    Broken,
}

impl TrustChain {
    /// What the claims say. `CanIssue` means that the signature by the named organization key holds; whether that key
    /// is one to trust is for the caller to compare.
    pub fn of(standard: &Standard) -> TrustChain {
        let Some(tcs) = standard.tcs.as_deref() else { return TrustChain::None };
        if let Some(org_hex) = standard.iss.strip_prefix("I-") {
            return match PublicKey::from_hex(org_hex) {
                Ok(org) if vouches(&org, &issuer_data(standard), tcs) => TrustChain::CanIssue(org),
                _ => TrustChain::Broken,
            };
        }
        match issuer_of(&standard.iss) {
            Some((jti, _)) => TrustChain::IssuedBy(jti.to_owned()),
            None => TrustChain::Broken,
        }
    }
}

impl ClientClaims {
    /// Whether the holder's key may issue tokens on the authority of this organization issuer.
    pub fn is_chain_issuer(&self, org: &PublicKey) -> bool {
        TrustChain::of(&self.standard) == TrustChain::CanIssue(*org)
    }
}

/// What the organization signs for a chain issuer.
pub(crate) fn issuer_data(standard: &Standard) -> String {
    format!(
        "{}.{}",
        standard.jti.as_deref().unwrap_or_default(),
        standard.public_key.as_deref().unwrap_or_default().to_ascii_lowercase()
    )
}

/// What a chain issuer signs for a token: its id and the organization's signature for the issuer.
pub(crate) fn issued_data(jti: &str, issuer_tcs: &str) -> String {
    format!("{jti}.{issuer_tcs}")
}

/// Checks the chain of a token whose `iss` begins with `C-`, steps 2.1 to 2.6 of docs/spec/01 §6.7. The caller then
/// verifies the token itself with the key that is returned.
pub(crate) fn verify(standard: &Standard, org: &PublicKey) -> Result<ChainIssuerRef, Reject> {
    verify_with(standard, |issuer_jti, issuer, for_issuer| {
        // Without this check anybody could name himself an issuer.
        vouches(org, &format!("{issuer_jti}.{}", issuer.to_hex()), for_issuer)
    })
}

/// The same for a verifier that was given the chain issuer's own key: it trusts that issuer and no other, whatever the
/// organization says about it (docs/spec/05 §7.1).
pub(crate) fn verify_pinned(standard: &Standard, pinned: &PublicKey) -> Result<ChainIssuerRef, Reject> {
    verify_with(standard, |_, issuer, _| issuer == pinned)
}

/// Whether a token says that this very key issued it.
pub(crate) fn names_issuer(standard: &Standard, key: &PublicKey) -> bool {
    issuer_of(&standard.iss).is_some_and(|(_, hex)| PublicKey::from_hex(hex).is_ok_and(|named| named == *key))
}

fn verify_with(
    standard: &Standard,
    trusts: impl Fn(&str, &PublicKey, &str) -> bool,
) -> Result<ChainIssuerRef, Reject> {
    fn present<'a>(claim: Option<&'a String>, what: &'static str) -> Result<&'a str, Reject> {
        claim.map(String::as_str).filter(|text| !text.is_empty()).ok_or(Reject::ChainIncomplete(what))
    }
    present(standard.public_key.as_ref(), "no public key")?;
    let tcs = present(standard.tcs.as_ref(), "no trust chain signature")?;
    let jti = present(standard.jti.as_ref(), "no id")?;
    let iat = standard.iat.ok_or(Reject::ChainIncomplete("no time of issue"))?;
    standard.exp.ok_or(Reject::ChainIncomplete("no expiry"))?;
    standard.issexp.ok_or(Reject::ChainIncomplete("no expiry of the issuer"))?;

    let id = ksuid::parse(jti).ok_or(Reject::ChainForged("the id is no KSUID"))?;
    if id.unix != iat {
        return Err(Reject::ChainForged("the id is not of the time of issue"));
    }
    let (issuer_jti, issuer_hex) =
        issuer_of(&standard.iss).ok_or(Reject::ChainIncomplete("the issuer is not named"))?;
    let issuer =
        PublicKey::from_hex(issuer_hex).map_err(|_| Reject::ChainIncomplete("the issuer's key is no key"))?;
    let (for_issuer, for_token) =
        two_parts(tcs).ok_or(Reject::ChainIncomplete("the trust chain signature has not two parts"))?;
    if !trusts(issuer_jti, &issuer, for_issuer) {
        return Err(Reject::ChainForged("the organization did not name this issuer"));
    }
    if !vouches(&issuer, &issued_data(jti, for_issuer), for_token) {
        return Err(Reject::ChainForged("the issuer did not issue this token"));
    }
    Ok(ChainIssuerRef { jti: issuer_jti.to_owned(), key: issuer })
}

fn issuer_of(iss: &str) -> Option<(&str, &str)> {
    two_parts(iss.strip_prefix("C-")?)
}

fn two_parts(text: &str) -> Option<(&str, &str)> {
    let (a, b) = text.split_once('.')?;
    (!a.is_empty() && !b.is_empty() && !b.contains('.')).then_some((a, b))
}

fn vouches(key: &PublicKey, data: &str, signature_hex: &str) -> bool {
    let mut signature = [0_u8; 64];
    hex::decode_to_slice(signature_hex, &mut signature).is_ok() && key.verify(data.as_bytes(), &signature)
}
