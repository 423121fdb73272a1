//! Issuing tokens: as an organization, or as a chain issuer on its behalf. docs/spec/01 §6.6 and §6.8.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::chain::{self, TrustChain};
use crate::claims::{Claims, ClientClaims, DEFAULT_ORG, ProvisioningClaims, Purpose, ServerClaims, Standard};
use crate::compact::{MAX_TOKEN, peek_client};
use crate::json;
use crate::key::{Key, PublicKey, Seed};
use crate::ksuid;
use crate::provider;
use crate::published::is_published_test_key;
use crate::reject::Reject;
use crate::vault::VaultError;
use crate::verifier::Verifier;

/// `iss` of tokens that are signed by the organization itself and whose caller chose none.
const DEFAULT_ISS: &str = "Choria Tokens Package";
/// A token's life when none is asked for.
const DEFAULT_VALIDITY: i64 = 3600;

/// Why a token could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A claim that brokers would refuse.
    #[error("claim '{0}' is missing or not acceptable, see docs/spec/10 K9")]
    Claim(&'static str),
    /// The holder's key is published as test data.
    #[error("the public key {0} is published as test data and protects nothing")]
    PublishedTestKey(String),
    /// A chain issuer's own token cannot be read or verified.
    #[error("the chain issuer's token is not usable: {0}")]
    IssuerToken(#[from] Reject),
    /// The token is not one of a chain issuer.
    #[error(
        "the token of {0:?} does not allow it to issue others; make one with 'choria jwt client --issuer'"
    )]
    NotAnIssuer(String),
    /// Seed and token do not belong together.
    #[error("the chain issuer's seed does not belong to its token")]
    SeedMismatch,
    /// The chain issuer's own token has expired, or never expires.
    #[error("the chain issuer's token has expired or has no expiry; it can issue nothing")]
    IssuerExpired,
    /// Only the organization may issue this.
    #[error("only the organization issuer's Ed25519 key can issue {0}")]
    OrganizationOnly(&'static str),
    /// The claims are too large to be used.
    #[error("the token would be longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// The random source or the encoder failed.
    #[error("cannot make the token: {0}")]
    Failed(String),
    /// Vault did not sign.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Signs tokens with a key in this process. `choria jwt` also signs with RSA and Vault, see [`crate::SigningKey`].
#[derive(Debug)]
pub enum Issuer {
    /// The organization issuer.
    Org(Seed),
    /// A chain issuer: what it signs carries the organization's signature for it.
    Chain {
        /// The chain issuer's seed.
        seed: Seed,
        /// Its own token's claims, checked by [`Issuer::chain`].
        token: Box<ClientClaims>,
    },
}

impl Issuer {
    /// A chain issuer from its seed and token. With the organization's key given, the token must be signed by it;
    /// without, the token only has to be consistent in itself.
    pub fn chain(seed: Seed, token_text: &str, org_key: Option<PublicKey>) -> Result<Issuer, IssueError> {
        let claims = match org_key {
            Some(org) => {
                let verifier = Verifier::single(Key::Ed25519(org));
                verifier.verify_signatures::<ClientClaims>(token_text)?.into_claims()
            }
            None => peek_client(token_text)?.into_claims(),
        };
        match TrustChain::of(&claims.standard) {
            TrustChain::CanIssue(org) if org_key.is_none_or(|expected| expected == org) => {}
            _ => return Err(IssueError::NotAnIssuer(claims.caller_id)),
        }
        let holder = claims.standard.public_key.as_deref().and_then(|text| PublicKey::from_hex(text).ok());
        if holder != Some(seed.public()) {
            return Err(IssueError::SeedMismatch);
        }
        if claims.standard.exp.is_none() {
            return Err(IssueError::IssuerExpired);
        }
        Ok(Issuer::Chain { seed, token: Box::new(claims) })
    }

    /// When what this issuer signs stops being valid at the latest, seconds since 1970.
    pub fn expires(&self) -> Option<i64> {
        match self {
            Issuer::Org(_) => None,
            Issuer::Chain { token, .. } => token.standard.exp,
        }
    }

    /// The key that signs.
    pub fn public(&self) -> PublicKey {
        match self {
            Issuer::Org(seed) | Issuer::Chain { seed, .. } => seed.public(),
        }
    }

    /// Issues a client token valid from `now_unix` on; no validity means an hour.
    pub fn issue_client(
        &self,
        claims: ClientClaims,
        validity: Duration,
        now_unix: i64,
    ) -> Result<String, IssueError> {
        self.seal(prepare(claims, validity, now_unix)?)
    }

    /// Issues a server token.
    pub fn issue_server(
        &self,
        claims: ServerClaims,
        validity: Duration,
        now_unix: i64,
    ) -> Result<String, IssueError> {
        self.seal(prepare(claims, validity, now_unix)?)
    }

    /// Issues a provisioning token; the organization only.
    pub fn issue_provisioning(
        &self,
        claims: ProvisioningClaims,
        validity: Duration,
        now_unix: i64,
    ) -> Result<String, IssueError> {
        self.seal(prepare(claims, validity, now_unix)?)
    }

    /// Issues the token of a chain issuer; the organization only. `claims.standard.public_key` is the key that will
    /// issue.
    pub fn issue_chain_issuer(
        &self,
        claims: ClientClaims,
        validity: Duration,
        now_unix: i64,
    ) -> Result<String, IssueError> {
        let Issuer::Org(seed) = self else { return Err(IssueError::OrganizationOnly("chain issuers")) };
        let mut claims = prepare(claims, validity, now_unix)?;
        vouch_for_issuer(&mut claims, &seed.public(), |data| Ok(seed.sign(data)))?;
        self.seal(claims)
    }

    fn seal<T: Claims>(&self, mut claims: T) -> Result<String, IssueError> {
        match self {
            Issuer::Org(seed) => sign_with_seed(&claims, seed),
            Issuer::Chain { .. } if T::PURPOSE == Purpose::Provisioning => {
                Err(IssueError::OrganizationOnly("provisioning tokens"))
            }
            Issuer::Chain { seed, token } => {
                let issuer = &token.standard;
                let standard = claims.standard_mut();
                let (Some(issuer_exp), Some(issuer_tcs), Some(issuer_jti)) =
                    (issuer.exp, &issuer.tcs, &issuer.jti)
                else {
                    return Err(IssueError::IssuerExpired);
                };
                if standard.iat.is_none_or(|now| issuer_exp <= now) {
                    return Err(IssueError::IssuerExpired);
                }
                let jti = standard.jti.as_deref().unwrap_or_default();
                if !names_key(standard) {
                    return Err(IssueError::Claim("public_key"));
                }
                let signature = hex::encode(seed.sign(chain::issued_data(jti, issuer_tcs).as_bytes()));
                standard.tcs = Some(format!("{issuer_tcs}.{signature}"));
                standard.iss = format!("C-{issuer_jti}.{}", seed.public().to_hex());
                standard.issexp = Some(issuer_exp);
                standard.exp = Some(standard.exp.map_or(issuer_exp, |exp| exp.min(issuer_exp)));
                sign_with_seed(&claims, seed)
            }
        }
    }
}

/// Whether the claims say whose key the token is for.
fn names_key(standard: &Standard) -> bool {
    standard.public_key.as_deref().is_some_and(|key| !key.is_empty())
}

/// Fills in kind, times and id, and refuses what brokers would refuse.
pub(crate) fn prepare<T: Claims>(mut claims: T, validity: Duration, now_unix: i64) -> Result<T, IssueError> {
    claims.set_defaults();
    if T::PURPOSE == Purpose::Server && !names_key(claims.standard()) {
        return Err(IssueError::Claim("public_key"));
    }
    if let Some(claim) = claims.unfit() {
        return Err(IssueError::Claim(claim));
    }
    let validity = match i64::try_from(validity.as_secs()) {
        Ok(0) => DEFAULT_VALIDITY,
        Ok(seconds) => seconds,
        Err(_) => i64::MAX,
    };
    let mut payload = [0_u8; 16];
    getrandom::fill(&mut payload).map_err(|e| IssueError::Failed(e.to_string()))?;
    let standard = claims.standard_mut();
    if let Some(text) = standard.public_key.as_deref().filter(|text| !text.is_empty()) {
        let key = PublicKey::from_hex(text).map_err(|_| IssueError::Claim("public_key"))?;
        if is_published_test_key(&key) {
            return Err(IssueError::PublishedTestKey(key.to_hex()));
        }
        standard.public_key = Some(key.to_hex());
    }
    T::PURPOSE.as_str().clone_into(&mut standard.purpose);
    if T::PURPOSE == Purpose::Provisioning {
        standard.sub = Some(T::PURPOSE.as_str().to_owned());
    }
    if standard.iss.is_empty() || standard.iss.starts_with("C-") || standard.iss.starts_with("I-") {
        DEFAULT_ISS.clone_into(&mut standard.iss);
    }
    standard.tcs = None;
    standard.issexp = None;
    standard.iat = Some(now_unix);
    standard.nbf = Some(now_unix);
    standard.exp = Some(now_unix.saturating_add(validity));
    standard.jti = Some(ksuid::new(now_unix, &payload));
    Ok(claims)
}

/// Adds the organization's signature for a chain issuer to its prepared claims.
pub(crate) fn vouch_for_issuer(
    claims: &mut ClientClaims,
    org: &PublicKey,
    sign: impl FnOnce(&[u8]) -> Result<[u8; 64], IssueError>,
) -> Result<(), IssueError> {
    let standard = &mut claims.standard;
    if !names_key(standard) {
        return Err(IssueError::Claim("public_key"));
    }
    standard.tcs = Some(hex::encode(sign(chain::issuer_data(standard).as_bytes())?));
    standard.iss = format!("I-{}", org.to_hex());
    Ok(())
}

/// The first two parts of a token.
pub(crate) fn signing_input<T: Claims>(claims: &T, algorithm: &str) -> Result<String, IssueError> {
    let payload = json::to_string(claims).map_err(|e| IssueError::Failed(e.to_string()))?;
    let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    // Room for the longest signature, 1024 bytes.
    if text.len() > MAX_TOKEN.saturating_sub(2048) {
        return Err(IssueError::TooLong);
    }
    Ok(text)
}

pub(crate) fn sign_with_seed<T: Claims>(claims: &T, seed: &Seed) -> Result<String, IssueError> {
    let secret = seed.secret_bytes();
    sign_with(claims, &EncodingKey::from_ed_der(secret.as_slice()), Algorithm::EdDSA, "EdDSA")
}

pub(crate) fn sign_with<T: Claims>(
    claims: &T,
    key: &EncodingKey,
    algorithm: Algorithm,
    name: &str,
) -> Result<String, IssueError> {
    let input = signing_input(claims, name)?;
    let signature = provider::sign(&input, key, algorithm).map_err(|e| IssueError::Failed(e.to_string()))?;
    Ok(format!("{input}.{signature}"))
}

impl ClientClaims {
    /// Claims of this caller in the organization `choria`, with nothing permitted.
    pub fn new(caller_id: &str, holder: &PublicKey) -> ClientClaims {
        let mut claims = ClientClaims {
            caller_id: caller_id.to_owned(),
            org: DEFAULT_ORG.to_owned(),
            ..Default::default()
        };
        claims.standard.public_key = Some(holder.to_hex());
        claims
    }
}

impl ServerClaims {
    /// Claims of this server in the organization and collective `choria`, with nothing permitted.
    pub fn new(identity: &str, holder: &PublicKey) -> ServerClaims {
        let mut claims = ServerClaims {
            identity: identity.to_owned(),
            collectives: vec![DEFAULT_ORG.to_owned()],
            org: DEFAULT_ORG.to_owned(),
            ..Default::default()
        };
        claims.standard.public_key = Some(holder.to_hex());
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../tests/fixtures/tokens/chain.json")).unwrap()
    }

    /// Claims as they were when the vector was made, without what its issuer added.
    fn unsigned<T: Claims>(vector: &serde_json::Value) -> T {
        let mut claims: T = serde_json::from_str(vector["claims_json"].as_str().unwrap()).unwrap();
        let standard = claims.standard_mut();
        standard.tcs = None;
        standard.issexp = None;
        if standard.iss.starts_with("C-") || standard.iss.starts_with("I-") {
            DEFAULT_ISS.clone_into(&mut standard.iss);
        }
        claims
    }

    fn seed(vectors: &serde_json::Value, name: &str) -> Seed {
        Seed::from_hex(vectors["keys"][name]["seed_hex"].as_str().unwrap()).unwrap()
    }

    fn reissue<T: Claims>(vectors: &serde_json::Value, vector: &serde_json::Value) -> String {
        let signer = vector["signed_by"].as_str().unwrap();
        let issuer = if signer == "org_issuer" {
            Issuer::Org(seed(vectors, signer))
        } else {
            let org = seed(vectors, "org_issuer").public();
            let token = vectors["tokens"][signer]["token"].as_str().unwrap();
            Issuer::chain(seed(vectors, signer), token, Some(org)).unwrap()
        };
        issuer.seal(unsigned::<T>(vector)).unwrap()
    }

    #[test]
    fn every_vector_is_signed_again_to_the_same_bytes() {
        let vectors = vectors();
        for (name, vector) in vectors["tokens"].as_object().unwrap() {
            let token = match vector["kind"].as_str().unwrap() {
                "client" if vector.get("tcs_input").is_some() => {
                    let org = seed(&vectors, "org_issuer");
                    let mut claims = unsigned::<ClientClaims>(vector);
                    assert_eq!(chain::issuer_data(&claims.standard), vector["tcs_input"].as_str().unwrap());
                    vouch_for_issuer(&mut claims, &org.public(), |data| Ok(org.sign(data))).unwrap();
                    sign_with_seed(&claims, &org).unwrap()
                }
                "client" => reissue::<ClientClaims>(&vectors, vector),
                "server" => reissue::<ServerClaims>(&vectors, vector),
                _ => reissue::<ProvisioningClaims>(&vectors, vector),
            };
            assert_eq!(token, vector["token"].as_str().unwrap(), "{name}");
        }
    }

    #[test]
    fn t_026_a_published_key_gets_no_token() {
        let vectors = vectors();
        let org = Issuer::Org(Seed::generate().unwrap());
        let claims = ClientClaims::new("up=x", &seed(&vectors, "alice").public());
        let refused = org.issue_client(claims, Duration::ZERO, 1_800_000_000).unwrap_err();
        assert!(matches!(refused, IssueError::PublishedTestKey(_)));
        choria_rows::row(26, "a client token for a published vector key", "PublishedTestKey");
    }
}
