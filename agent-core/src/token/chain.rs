//! The trust chain: the organization vouches for a chain issuer, which vouches for a token (`docs/spec/01 §6.6`).

use super::claims::{Claim, Claims};
use super::reject::Reject;
use crate::ed25519;
use crate::encoding::hex;
use crate::ids::ksuid_time;

/// The chain issuer of a verified token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainIssuer<'s> {
    /// The id of the issuer's own token.
    pub jti: &'s str,
    pub key: [u8; 32],
}

/// What a chained token must hold before any signature is worth checking.
#[derive(Clone, Copy)]
pub(super) struct Chain<'s> {
    pub(super) issuer: ChainIssuer<'s>,
    jti: &'s str,
    /// The organization's signature for the issuer, as hex text and as bytes.
    for_issuer: (&'s str, [u8; 64]),
    /// The issuer's signature for the token.
    for_token: [u8; 64],
}

impl<'s> Chain<'s> {
    /// `None` when the issuer in the token is no chain issuer.
    // inlined into its one caller it makes a device's image larger by 290 bytes
    #[inline(never)]
    pub(super) fn read(claims: &Claims<'s>) -> Result<Option<Chain<'s>>, Reject> {
        let issuer = claims.text(Claim::Issuer)?.and_then(|issuer| issuer.strip_prefix("C-"));
        let Some(issuer) = issuer else { return Ok(None) };
        let present = |claim, what| claims.some_text(claim)?.ok_or(Reject::ChainIncomplete(what));
        let date = |claim, what| claims.date(claim)?.ok_or(Reject::ChainIncomplete(what));
        if claims.public_key()?.is_none() {
            return Err(Reject::ChainIncomplete("no public key"));
        }
        let tcs = present(Claim::Tcs, "no trust chain signature")?;
        let jti = present(Claim::Id, "no id")?;
        let issued_at = date(Claim::IssuedAt, "no time of issue")?;
        date(Claim::Expiry, "no expiry")?;
        date(Claim::IssuerExpiry, "no expiry of the issuer")?;

        let time = ksuid_time(jti).ok_or(Reject::ChainForged("the id is no KSUID"))?;
        if time != issued_at {
            return Err(Reject::ChainForged("the id is not of the time of issue"));
        }
        let (issuer_jti, issuer_key) =
            two_parts(issuer).ok_or(Reject::ChainIncomplete("the issuer is not named"))?;
        let key = hex::decode_array(issuer_key.as_bytes())
            .map_err(|_| Reject::ChainIncomplete("the issuer's key is no key"))?;
        let (for_issuer, for_token) =
            two_parts(tcs).ok_or(Reject::ChainIncomplete("the trust chain signature has not two parts"))?;
        let signature = |text: &str| {
            hex::decode_array(text.as_bytes())
                .map_err(|_| Reject::ChainForged("the trust chain signature is no signature"))
        };
        Ok(Some(Chain {
            issuer: ChainIssuer { jti: issuer_jti, key },
            jti,
            for_issuer: (for_issuer, signature(for_issuer)?),
            for_token: signature(for_token)?,
        }))
    }

    /// Both signatures of the chain; the token itself is then checked with the issuer's key.
    pub(super) fn verify(&self, organization: &[u8; 32]) -> Result<(), Reject> {
        let mut room = [0; 64];
        let key = hex::encode_to_slice(&self.issuer.key, &mut room)
            .map_err(|_| Reject::ChainIncomplete("the issuer's key is no key"))?;
        // Without this check anybody could name himself an issuer.
        let named = [self.issuer.jti.as_bytes(), b".", key.as_bytes()];
        if !ed25519::verify(organization, &named, &self.for_issuer.1) {
            return Err(Reject::ChainForged("the organization did not name this issuer"));
        }
        let issued = [self.jti.as_bytes(), b".", self.for_issuer.0.as_bytes()];
        if !ed25519::verify(&self.issuer.key, &issued, &self.for_token) {
            return Err(Reject::ChainForged("the issuer did not issue this token"));
        }
        Ok(())
    }
}

fn two_parts(text: &str) -> Option<(&str, &str)> {
    let (first, second) = text.split_once('.')?;
    (!first.is_empty() && !second.is_empty() && !second.contains('.')).then_some((first, second))
}
