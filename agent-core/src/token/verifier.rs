//! Verification (`docs/spec/01 §6.7`). The only maker of [`Verified`].

use super::chain::{Chain, ChainIssuer};
use super::claims::{Claim, Claims};
use super::compact::Compact;
use super::kinds::{ClientClaims, Kind, ProvisioningClaims, Read, ServerClaims};
use super::proven::Proven;
use super::reject::Reject;
use crate::ed25519;

/// The issuer of one organization. An organization may have several while one replaces the other.
#[derive(Debug, Clone, Copy)]
pub struct Issuer<'k> {
    pub organization: &'k str,
    pub key: [u8; 32],
}

/// Whose tokens are believed.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'k> {
    /// The issuer of the token's `ou`.
    Issuers(&'k [Issuer<'k>]),
    /// Any of these keys, whatever the organization; older deployments.
    Signers(&'k [[u8; 32]]),
}

/// Verifies tokens with configured keys.
#[derive(Debug, Clone, Copy)]
pub struct Verifier<'k> {
    trust: Trust<'k>,
    /// Seconds that `now` may lie behind the time.
    behind: i64,
}

/// Seconds that a time may be behind that a time server said a day ago: 50 ppm of a crystal, and the way of the answer.
const HEARD: i64 = 5;

/// A token whose signature, chain and times were found good. Its text lies in the scratch lent for verification.
#[derive(Debug, Clone, Copy)]
pub struct Verified<'s, T> {
    claims: T,
    jti: &'s str,
    key: Option<[u8; 32]>,
    expires: Option<i64>,
    issued: Option<i64>,
    chain: Option<ChainIssuer<'s>>,
    anchor: [u8; 32],
}

impl<'s, T> Verified<'s, T> {
    pub fn claims(&self) -> &T {
        &self.claims
    }

    /// The token's id, empty when it has none.
    pub fn jti(&self) -> &'s str {
        self.jti
    }

    /// The holder's key.
    pub fn public_key(&self) -> Option<&[u8; 32]> {
        self.key.as_ref()
    }

    /// The earlier of `exp` and `issexp`, Unix seconds.
    pub fn expires(&self) -> Option<i64> {
        self.expires
    }

    /// When the token was issued, Unix seconds.
    pub fn issued(&self) -> Option<i64> {
        self.issued
    }

    /// Who issued the token, when it was not the organization itself.
    pub fn chain_issuer(&self) -> Option<&ChainIssuer<'s>> {
        self.chain.as_ref()
    }

    /// The configured key at the root of this verification; of an organization with several, its first, whichever of
    /// them it was: two tokens with the same are of the same organization.
    pub(crate) fn anchor(&self) -> &[u8; 32] {
        &self.anchor
    }
}

/// Claims nobody has checked, for a holder reading its own token.
#[derive(Debug, Clone, Copy)]
pub struct Unverified<'s, T> {
    claims: T,
    key: Option<[u8; 32]>,
    expires: Option<i64>,
    jti: &'s str,
}

impl<'s, T> Unverified<'s, T> {
    pub fn claims(&self) -> &T {
        &self.claims
    }

    /// The holder's key, as the token says.
    pub fn public_key(&self) -> Option<&[u8; 32]> {
        self.key.as_ref()
    }

    /// The earlier of `exp` and `issexp`, Unix seconds.
    pub fn expires(&self) -> Option<i64> {
        self.expires
    }

    /// The token's id, empty when it has none.
    pub fn jti(&self) -> &'s str {
        self.jti
    }
}

impl<'k> Verifier<'k> {
    pub fn new(trust: Trust<'k>) -> Verifier<'k> {
        Verifier { trust, behind: 0 }
    }

    /// For a node that does not know the time: `now` is the earliest that it can be, so that a token may be over and cannot
    /// be early.
    #[must_use]
    pub fn without_clock(self) -> Verifier<'k> {
        Verifier { behind: i64::MAX, ..self }
    }

    /// For a node whose clock is set by a time server now and then: a token that was issued a moment ago is not early there.
    #[must_use]
    pub fn with_heard_time(self) -> Verifier<'k> {
        Verifier { behind: HEARD, ..self }
    }

    /// Verifies a client token at `now`, Unix seconds. `scratch` must hold the claims without their policy; 2 KiB do for
    /// what login services issue.
    pub fn verify_client<'s>(
        &self,
        token: &str,
        now: i64,
        scratch: &'s mut [u8],
    ) -> Result<Verified<'s, ClientClaims<'s>>, Reject> {
        self.verify(token, now, scratch, None)
    }

    /// The same; signatures that `proven` remembers are not checked again, new ones are remembered.
    pub fn verify_client_again<'s>(
        &self,
        token: &str,
        now: i64,
        scratch: &'s mut [u8],
        proven: Option<&Proven>,
    ) -> Result<Verified<'s, ClientClaims<'s>>, Reject> {
        self.verify(token, now, scratch, proven)
    }

    /// Verifies a server token; see [`Verifier::verify_client`].
    pub fn verify_server<'s>(
        &self,
        token: &str,
        now: i64,
        scratch: &'s mut [u8],
    ) -> Result<Verified<'s, ServerClaims<'s>>, Reject> {
        self.verify(token, now, scratch, None)
    }

    /// Verifies a provisioning token signed with EdDSA; see [`Verifier::verify_client`].
    pub fn verify_provisioning<'s>(
        &self,
        token: &str,
        now: i64,
        scratch: &'s mut [u8],
    ) -> Result<Verified<'s, ProvisioningClaims<'s>>, Reject> {
        self.verify(token, now, scratch, None)
    }

    fn verify<'s, T: Read<'s>>(
        &self,
        token: &str,
        now: i64,
        scratch: &'s mut [u8],
        proven: Option<&Proven>,
    ) -> Result<Verified<'s, T>, Reject> {
        let (claims, chain, anchor) = self.check(token, T::KIND, now, scratch, proven)?;
        Ok(Verified {
            claims: T::read(&claims)?,
            jti: claims.text(Claim::Id)?.unwrap_or_default(),
            key: claims.public_key()?,
            expires: expires(&claims)?,
            // Asked for by nobody but a clock: a date that is none is no reason to refuse.
            issued: claims.date(Claim::IssuedAt).ok().flatten(),
            chain,
            anchor,
        })
    }

    /// What is the same for every kind of token, once in an image.
    fn check<'s>(
        &self,
        token: &str,
        kind: Kind,
        now: i64,
        scratch: &'s mut [u8],
        proven: Option<&Proven>,
    ) -> Result<(Claims<'s>, Option<ChainIssuer<'s>>, [u8; 32]), Reject> {
        let compact = Compact::split(token)?;
        compact.check_header()?;
        let claims = Claims::read(&compact, scratch)?;
        if Kind::of(&claims)? != Some(kind) {
            return Err(Reject::KindMismatch);
        }
        let chain = if kind == Kind::Provisioning { None } else { Chain::read(&claims)? };
        let signature = compact.signature()?;
        let anchor = self.anchor(&claims, |key| {
            let Some(proven) = proven else {
                return check_signatures(key, chain.as_ref(), &compact, &signature);
            };
            let digest = Proven::digest(key, token);
            if !proven.holds(&digest) {
                check_signatures(key, chain.as_ref(), &compact, &signature)?;
                proven.remember(digest);
            }
            Ok(())
        })?;
        check_times(&claims, kind, now, self.behind)?;
        Ok((claims, chain.map(|chain| chain.issuer), anchor))
    }

    /// The anchor of a token that passes `check` with a configured key.
    fn anchor(
        &self,
        claims: &Claims<'_>,
        check: impl Fn(&[u8; 32]) -> Result<(), Reject>,
    ) -> Result<[u8; 32], Reject> {
        match self.trust {
            Trust::Signers(keys) => first(keys.iter(), check, Reject::SignatureBad),
            Trust::Issuers(issuers) => {
                let organization = claims
                    .some_text(Claim::Organization)
                    .ok()
                    .flatten()
                    .ok_or(Reject::OrganizationMissing)?;
                let mut keys = issuers
                    .iter()
                    .filter(|issuer| issuer.organization == organization)
                    .map(|issuer| &issuer.key);
                let found = first(keys.clone(), check, Reject::OrganizationUnknown)?;
                Ok(keys.next().copied().unwrap_or(found))
            }
        }
    }
}

fn first<'k>(
    keys: impl Iterator<Item = &'k [u8; 32]>,
    check: impl Fn(&[u8; 32]) -> Result<(), Reject>,
    without_keys: Reject,
) -> Result<[u8; 32], Reject> {
    let mut refusal = without_keys;
    for key in keys {
        match check(key) {
            Ok(()) => return Ok(*key),
            Err(reject) if reject.depends_on_key() => refusal = reject,
            Err(reject) => return Err(reject),
        }
    }
    Err(refusal)
}

fn check_signatures(
    key: &[u8; 32],
    chain: Option<&Chain<'_>>,
    compact: &Compact<'_>,
    signature: &[u8; 64],
) -> Result<(), Reject> {
    let signer = match chain {
        Some(chain) => {
            chain.verify(key)?;
            &chain.issuer.key
        }
        None => key,
    };
    if ed25519::verify(signer, &[compact.signed], signature) { Ok(()) } else { Err(Reject::SignatureBad) }
}

/// No leeway but for a clock that may be `behind`; the issuer's expiry counts for tokens it issued (`docs/spec/01 §6.7` steps 4 and 6).
fn check_times(claims: &Claims<'_>, kind: Kind, now: i64, behind: i64) -> Result<(), Reject> {
    if claims.date(Claim::Expiry)?.is_some_and(|expiry| expiry <= now) {
        return Err(Reject::Expired);
    }
    if claims.date(Claim::NotBefore)?.is_some_and(|start| start > now.saturating_add(behind)) {
        return Err(Reject::Early);
    }
    if claims.some_text(Claim::Tcs)?.is_none() {
        return Ok(());
    }
    let chained = claims.text(Claim::Issuer)?.is_some_and(|issuer| issuer.starts_with("C-"));
    match (kind, chained) {
        (Kind::Client | Kind::Server, true) => match claims.date(Claim::IssuerExpiry)? {
            Some(expiry) if expiry > now => Ok(()),
            Some(_) => Err(Reject::IssuerExpired),
            None => Err(Reject::ChainIncomplete("no expiry of the issuer")),
        },
        // A chain issuer may present itself, but only as a client.
        (Kind::Client, false) => Ok(()),
        (Kind::Server | Kind::Provisioning, _) => Err(Reject::ClaimInvalid("tcs")),
    }
}

fn expires(claims: &Claims<'_>) -> Result<Option<i64>, Reject> {
    let (own, issuer) = (claims.date(Claim::Expiry)?, claims.date(Claim::IssuerExpiry)?);
    Ok(own.into_iter().chain(issuer).min())
}

/// Reads a client token without checking it.
pub fn peek_client<'s>(
    token: &str,
    scratch: &'s mut [u8],
) -> Result<Unverified<'s, ClientClaims<'s>>, Reject> {
    peek(token, scratch)
}

/// Reads a server token without checking it: a node looking at its own.
pub fn peek_server<'s>(
    token: &str,
    scratch: &'s mut [u8],
) -> Result<Unverified<'s, ServerClaims<'s>>, Reject> {
    peek(token, scratch)
}

/// Reads a provisioning token without checking it, whatever signed it: the broker and the provisioner verify it.
pub fn peek_provisioning<'s>(
    token: &str,
    scratch: &'s mut [u8],
) -> Result<Unverified<'s, ProvisioningClaims<'s>>, Reject> {
    peek(token, scratch)
}

fn peek<'s, T: Read<'s>>(token: &str, scratch: &'s mut [u8]) -> Result<Unverified<'s, T>, Reject> {
    let claims = Claims::read(&Compact::split(token)?, scratch)?;
    if Kind::of(&claims)? != Some(T::KIND) {
        return Err(Reject::KindMismatch);
    }
    Ok(Unverified {
        claims: T::read(&claims)?,
        key: claims.public_key()?,
        expires: expires(&claims)?,
        jti: claims.text(Claim::Id)?.unwrap_or_default(),
    })
}
