//! The keys that `choria jwt` signs with: an Ed25519 seed, an RSA key of an older deployment, or a key inside Vault.

use std::path::Path;
use std::time::Duration;

use choria_host::private_file;
use jsonwebtoken::Algorithm;

use crate::claims::{Claims, ClientClaims, ProvisioningClaims, ServerClaims};
use crate::issuer::{IssueError, prepare, sign_with, sign_with_seed, signing_input, vouch_for_issuer};
use crate::key::{KeyError, PublicKey, Seed, read_private};
use crate::published::is_published_test_key;
use crate::rsa::RsaPrivateKey;
use crate::vault::VaultKey;

/// An organization's signing key, wherever it is kept.
#[derive(Debug)]
pub enum SigningKey {
    /// An Ed25519 seed.
    Seed(Seed),
    /// An RSA key: signs RS256, has no part in trust chains.
    Rsa(RsaPrivateKey),
    /// An Ed25519 key of Vault's transit engine, which never leaves Vault.
    Vault(VaultKey),
}

impl SigningKey {
    /// From a file that only its owner can read: PEM is RSA, 64 hexadecimal digits are a seed.
    pub fn load(path: &Path) -> Result<SigningKey, KeyError> {
        let secret = read_private(path, private_file::read_owner_only)?;
        let text = secret.expose();
        if text.starts_with("-----BEGIN") {
            return Ok(SigningKey::Rsa(RsaPrivateKey::from_pem(text)?));
        }
        let seed = Seed::from_hex(text)?;
        if is_published_test_key(&seed.public()) {
            return Err(KeyError::PublishedTestKey(seed.public().to_hex()));
        }
        Ok(SigningKey::Seed(seed))
    }

    /// The public half of an Ed25519 key; asks Vault for one that is kept there.
    pub fn public(&self) -> Result<Option<PublicKey>, IssueError> {
        Ok(match self {
            SigningKey::Seed(seed) => Some(seed.public()),
            SigningKey::Rsa(_) => None,
            SigningKey::Vault(vault) => Some(vault.public()?),
        })
    }

    /// Issues a client token valid from `now_unix` on, seconds since 1970; no validity means an hour.
    pub fn issue_client(
        &self,
        claims: ClientClaims,
        validity: Duration,
        now_unix: i64,
    ) -> Result<String, IssueError> {
        self.sign(&prepare(claims, validity, now_unix)?)
    }

    /// Issues the token of a chain issuer.
    pub fn issue_chain_issuer(
        &self,
        claims: ClientClaims,
        validity: Duration,
        now_unix: i64,
    ) -> Result<String, IssueError> {
        let mut claims = prepare(claims, validity, now_unix)?;
        match self {
            SigningKey::Seed(seed) => {
                vouch_for_issuer(&mut claims, &seed.public(), |data| Ok(seed.sign(data)))?;
            }
            SigningKey::Vault(vault) => {
                let org = vault.public()?;
                vouch_for_issuer(&mut claims, &org, |data| Ok(vault.sign(data)?))?;
            }
            SigningKey::Rsa(_) => return Err(IssueError::OrganizationOnly("chain issuers")),
        }
        self.sign(&claims)
    }

    /// Issues a server token.
    pub fn issue_server(
        &self,
        claims: ServerClaims,
        validity: Duration,
        now_unix: i64,
    ) -> Result<String, IssueError> {
        self.sign(&prepare(claims, validity, now_unix)?)
    }

    /// Issues a provisioning token.
    pub fn issue_provisioning(
        &self,
        claims: ProvisioningClaims,
        validity: Duration,
        now_unix: i64,
    ) -> Result<String, IssueError> {
        self.sign(&prepare(claims, validity, now_unix)?)
    }

    fn sign<T: Claims>(&self, claims: &T) -> Result<String, IssueError> {
        match self {
            SigningKey::Seed(seed) => sign_with_seed(claims, seed),
            SigningKey::Rsa(key) => sign_with(claims, key.encoding_key(), Algorithm::RS256, "RS256"),
            SigningKey::Vault(vault) => Ok(vault.sign_token(&signing_input(claims, "EdDSA")?)?),
        }
    }
}
