//! Verification of tokens, docs/spec/01 §6.7. The only maker of [`Verified`].

use std::collections::BTreeMap;
use std::fmt;

use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use sha2::{Digest as _, Sha256};

use crate::chain::{self, ChainIssuerRef};
use crate::claims::{Claims, ClientClaims, ProvisioningClaims, Purpose, ServerClaims};
use crate::compact::Compact;
use crate::key::{Key, PublicKey};
use crate::provider;
use crate::reject::Reject;

/// A token whose signature, chain and times were found good. Only a [`Verifier`] makes one.
#[derive(Clone)]
pub struct Verified<T> {
    claims: T,
    token: String,
    holder: Option<PublicKey>,
    chain: Option<ChainIssuerRef>,
    trusted: Option<PublicKey>,
}

impl<T: Claims> Verified<T> {
    /// The claims.
    pub fn claims(&self) -> &T {
        &self.claims
    }

    /// The claims, without the proof.
    pub fn into_claims(self) -> T {
        self.claims
    }

    /// The token's text, without surrounding white space.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The holder's public key, parsed once. Always present in server and chained tokens.
    pub fn holder(&self) -> Option<&PublicKey> {
        self.holder.as_ref()
    }

    /// The earlier of `exp` and `issexp`, seconds since 1970; `None` when neither is set.
    pub fn expires(&self) -> Option<i64> {
        self.claims.standard().effective_expiry()
    }

    /// Who issued the token, when it was not the organization itself.
    pub fn chain_issuer(&self) -> Option<&ChainIssuerRef> {
        self.chain.as_ref()
    }

    /// The configured Ed25519 key that vouches for the token, at the end of its chain.
    pub fn trusted_key(&self) -> Option<&PublicKey> {
        self.trusted.as_ref()
    }

    /// Checks the times again, for a token that was verified earlier.
    pub fn check_times(&self, now_unix: i64) -> Result<(), Reject> {
        check_times(&self.claims, now_unix)
    }

    /// The first eight hexadecimal digits of the SHA-256 of the text: how logs name a token, docs/spec/10 §10.
    pub fn short_hash(&self) -> String {
        hex::encode(Sha256::digest(self.token.as_bytes())).chars().take(8).collect()
    }
}

impl<T: Claims> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("kind", &T::PURPOSE)
            .field("name", &self.claims.subject_name())
            .field("jti", &self.claims.standard().jti)
            .field("expires", &self.expires())
            .field("token", &self.short_hash())
            .finish_non_exhaustive()
    }
}

/// Verifies tokens with configured keys.
#[derive(Debug, Clone)]
pub struct Verifier(Trust);

#[derive(Debug, Clone)]
enum Trust {
    /// Organization to its issuers; the token's `ou` chooses.
    Issuers(BTreeMap<String, Vec<PublicKey>>),
    /// Any of these, whatever the organization.
    Signers(Vec<Key>),
    /// A request signer's keys, in both readings of docs/spec/05 §7.1.
    Certificates(Vec<Key>),
}

impl Verifier {
    /// Trusts one issuer for each organization.
    pub fn issuers(issuers: BTreeMap<String, PublicKey>) -> Verifier {
        Verifier(Trust::Issuers(issuers.into_iter().map(|(org, key)| (org, vec![key])).collect()))
    }

    /// Trusts several issuers for each organization, while one replaces the other (docs/spec/10 §7.1).
    pub fn rotating_issuers(issuers: BTreeMap<String, Vec<PublicKey>>) -> Verifier {
        Verifier(Trust::Issuers(issuers))
    }

    /// Trusts any of these signers; older deployments.
    pub fn trusted_signers(keys: Vec<Key>) -> Verifier {
        Verifier(Trust::Signers(keys))
    }

    /// Trusts one key as AAA's `signing_certificate`: the key of the organization, of an RSA signer, or of the chain
    /// issuer itself. In the last case that issuer's tokens are accepted without the organization's word for it, since
    /// whoever configured the key gave his own.
    pub fn signing_certificate(key: Key) -> Verifier {
        Verifier::signing_certificates(vec![key])
    }

    /// Trusts any of these keys as [`Verifier::signing_certificate`] does one, while one replaces the other.
    pub fn signing_certificates(keys: Vec<Key>) -> Verifier {
        Verifier(Trust::Certificates(keys))
    }

    /// Trusts one key.
    pub fn single(key: Key) -> Verifier {
        Verifier(Trust::Signers(vec![key]))
    }

    /// Verifies a client token at this time, seconds since 1970.
    pub fn verify_client(&self, token: &str, now_unix: i64) -> Result<Verified<ClientClaims>, Reject> {
        self.verify(token, now_unix)
    }

    /// Verifies a server token.
    pub fn verify_server(&self, token: &str, now_unix: i64) -> Result<Verified<ServerClaims>, Reject> {
        self.verify(token, now_unix)
    }

    /// Verifies a provisioning token. These are never chain issued.
    pub fn verify_provisioning(
        &self,
        token: &str,
        now_unix: i64,
    ) -> Result<Verified<ProvisioningClaims>, Reject> {
        self.verify(token, now_unix)
    }

    /// Verifies a token of the kind `T`.
    pub fn verify<T: Claims>(&self, token: &str, now_unix: i64) -> Result<Verified<T>, Reject> {
        let verified = self.verify_signatures(token)?;
        verified.check_times(now_unix)?;
        Ok(verified)
    }

    /// Everything but the clock.
    pub(crate) fn verify_signatures<T: Claims>(&self, token: &str) -> Result<Verified<T>, Reject> {
        let compact = Compact::parse(token)?;
        let (text, signing_input, signature) = (compact.text, compact.signing_input, compact.signature);
        let algorithm = compact.algorithm;
        compact.expect_kind::<T>()?;
        let keys: Vec<Key> = match &self.0 {
            Trust::Signers(keys) | Trust::Certificates(keys) => keys.clone(),
            Trust::Issuers(issuers) => {
                let org = compact.org().ok_or(Reject::OrganizationMissing)?;
                let keys = issuers
                    .get(org)
                    .ok_or_else(|| Reject::OrganizationUnknown(org.chars().take(64).collect()))?;
                keys.iter().map(|key| Key::Ed25519(*key)).collect()
            }
        };
        let claims: T = compact.claims()?;
        let pinning = matches!(self.0, Trust::Certificates(_));
        let mut refusal = Reject::SignatureBad;
        for key in &keys {
            let checked = check_algorithm(algorithm, key)
                .and_then(|()| check_signatures(&claims, signing_input, signature, algorithm, key, pinning));
            match checked {
                Ok(chain) => {
                    let holder = holder(&claims)?;
                    let trusted = match key {
                        Key::Ed25519(key) => Some(*key),
                        Key::Rsa(_) => None,
                    };
                    return Ok(Verified { claims, token: text.to_owned(), holder, chain, trusted });
                }
                Err(reject) if reject.depends_on_key() => refusal = reject,
                Err(reject) => return Err(reject),
            }
        }
        Err(refusal)
    }
}

/// The configured key's family decides, never the token.
fn check_algorithm(algorithm: jsonwebtoken::Algorithm, key: &Key) -> Result<(), Reject> {
    let family = match key {
        Key::Ed25519(_) => AlgorithmFamily::Ed,
        Key::Rsa(_) => AlgorithmFamily::Rsa,
    };
    if algorithm.family() == family {
        Ok(())
    } else {
        Err(Reject::AlgorithmRefused(format!("{algorithm:?}")))
    }
}

fn check_signatures<T: Claims>(
    claims: &T,
    signing_input: &str,
    signature: &str,
    algorithm: jsonwebtoken::Algorithm,
    key: &Key,
    pinning: bool,
) -> Result<Option<ChainIssuerRef>, Reject> {
    let standard = claims.standard();
    let (chain, verify_with) = match key {
        Key::Ed25519(pinned)
            if pinning && chain::names_issuer(standard, pinned) && T::PURPOSE != Purpose::Provisioning =>
        {
            let issuer = chain::verify_pinned(standard, pinned)?;
            let key = DecodingKey::from_ed_der(issuer.key.as_bytes());
            (Some(issuer), key)
        }
        Key::Ed25519(org) if standard.chained() && T::PURPOSE != Purpose::Provisioning => {
            let issuer = chain::verify(standard, org)?;
            let key = DecodingKey::from_ed_der(issuer.key.as_bytes());
            (Some(issuer), key)
        }
        Key::Ed25519(org) => (None, DecodingKey::from_ed_der(org.as_bytes())),
        Key::Rsa(rsa) => (None, rsa.decoding_key().clone()),
    };
    if !provider::verify(signing_input, signature, &verify_with, algorithm) {
        return Err(Reject::SignatureBad);
    }
    // A chain may not lead further than one step, and only to clients and servers.
    match T::PURPOSE {
        Purpose::Provisioning if standard.tcs.is_some() => {
            Err(Reject::ChainForged("provisioning tokens are signed by the organization only"))
        }
        Purpose::Server if standard.tcs.is_some() && chain.is_none() => {
            Err(Reject::ChainForged("a chain issuer is no server"))
        }
        _ => Ok(chain),
    }
}

fn holder<T: Claims>(claims: &T) -> Result<Option<PublicKey>, Reject> {
    match claims.standard().public_key.as_deref() {
        None | Some("") if T::PURPOSE == Purpose::Server => Err(Reject::KeyMissing),
        None | Some("") => Ok(None),
        Some(text) if text.len() == 64 => match PublicKey::from_hex(text) {
            Ok(key) => Ok(Some(key)),
            Err(_) => Err(Reject::ClaimInvalid("public_key")),
        },
        Some(_) => Err(Reject::ClaimInvalid("public_key")),
    }
}

fn check_times<T: Claims>(claims: &T, now_unix: i64) -> Result<(), Reject> {
    let standard = claims.standard();
    if let Some(exp) = standard.exp.filter(|exp| *exp <= now_unix) {
        return Err(Reject::Expired(exp));
    }
    if let Some(nbf) = standard.nbf.filter(|nbf| *nbf > now_unix) {
        return Err(Reject::Early(nbf));
    }
    if standard.tcs.is_some()
        && standard.chained()
        && let Some(issexp) = standard.issexp.filter(|issexp| *issexp <= now_unix)
    {
        return Err(Reject::IssuerExpired(issexp));
    }
    Ok(())
}
