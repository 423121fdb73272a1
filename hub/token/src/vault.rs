//! Signing with Ed25519 keys of Vault's transit engine, docs/spec/01 §6.9. The key never leaves Vault; only https is
//! spoken, and the server is verified.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use choria_host::private_file::Secret;
use choria_host::tls;
use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::key::PublicKey;

/// Longest answer read, bytes.
const MAX_ANSWER: u64 = 1024 * 1024;

/// Why Vault did not sign.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// An environment variable is missing.
    #[error("{0} is not set; --vault needs VAULT_ADDR (https://...) and VAULT_TOKEN")]
    NotSet(&'static str),
    /// `VAULT_ADDR` is unusable.
    #[error("VAULT_ADDR {0:?} is not an https URL; a token signed over plain http could be anybody's")]
    Address(String),
    /// The key's name would change the URL.
    #[error("{0:?} is not the name of a transit key")]
    Name(String),
    /// `VAULT_CACERT` is unusable.
    #[error("VAULT_CACERT: {0}")]
    Ca(#[from] tls::TlsError),
    /// The request failed.
    #[error("Vault at {host} did not answer: {source}")]
    Request {
        /// Host and port.
        host: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// Vault refused.
    #[error(
        "Vault at {host} answered status {status} for transit key {key:?}; check the key's name and the token's policy"
    )]
    Status {
        /// Host and port.
        host: String,
        /// Name of the key.
        key: String,
        /// HTTP status.
        status: u16,
    },
    /// The answer is not what transit answers.
    #[error("Vault's answer for transit key {key:?} is not usable: {what}")]
    Answer {
        /// Name of the key.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A key of the transit engine.
pub struct VaultKey {
    host: String,
    name: String,
    token: Secret,
    agent: ureq::Agent,
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultKey").field("host", &self.host).field("name", &self.name).finish_non_exhaustive()
    }
}

impl VaultKey {
    /// The key of this name in the Vault that `VAULT_ADDR` and `VAULT_TOKEN` name. `VAULT_CACERT`, a PEM file, replaces
    /// the system's roots.
    pub fn from_environment(name: &str, timeout: Duration) -> Result<VaultKey, VaultError> {
        let get = |key| std::env::var(key).ok().filter(|value| !value.is_empty());
        let address = get("VAULT_ADDR").ok_or(VaultError::NotSet("VAULT_ADDR"))?;
        let token = get("VAULT_TOKEN").map(Secret::new).ok_or(VaultError::NotSet("VAULT_TOKEN"))?;
        VaultKey::new(name, &address, token, get("VAULT_CACERT").as_deref().map(Path::new), timeout)
    }

    /// The key of this name in the Vault at `address`, an https URL whose path is ignored.
    pub fn new(
        name: &str,
        address: &str,
        token: Secret,
        ca: Option<&Path>,
        timeout: Duration,
    ) -> Result<VaultKey, VaultError> {
        let host = address
            .strip_prefix("https://")
            .and_then(|rest| rest.split(['/', '?', '#']).next())
            .filter(|host| {
                !host.is_empty() && !host.contains(|c: char| c == '@' || c.is_whitespace() || c.is_control())
            })
            .ok_or_else(|| VaultError::Address(address.to_owned()))?
            .to_owned();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || !name.bytes().all(plain) || name.starts_with('.') {
            return Err(VaultError::Name(name.to_owned()));
        }
        let roots = match ca {
            None => RootCerts::PlatformVerifier,
            Some(path) => {
                let certificates: Vec<Certificate<'static>> =
                    tls::certificates_of(path)?.iter().map(|c| Certificate::from_der(c).to_owned()).collect();
                RootCerts::new_with_certs(&certificates)
            }
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(tls::provider())
            .root_certs(roots)
            .build();
        let config = ureq::Agent::config_builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(timeout))
            .tls_config(tls)
            .build();
        Ok(VaultKey { host, name: name.to_owned(), token, agent: config.into() })
    }

    /// The newest public key.
    pub fn public(&self) -> Result<PublicKey, VaultError> {
        Ok(self.newest()?.1)
    }

    /// Vault's signature over these bytes, checked against the newest public key.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], VaultError> {
        let (version, public) = self.newest()?;
        let body = json!({ "signature_algorithm": "ed25519", "input": STANDARD.encode(message) });
        let request = self.agent.post(self.url("sign")).header("X-Vault-Token", self.token.expose());
        let answer = self.answer(request.send_json(body))?;
        let text =
            answer.pointer("/data/signature").and_then(Value::as_str).ok_or(self.unusable("no signature"))?;
        let (signed_with, encoded) = text
            .strip_prefix("vault:v")
            .and_then(|rest| rest.split_once(':'))
            .ok_or(self.unusable("the signature has not the form vault:vN:..."))?;
        if signed_with.parse() != Ok(version) {
            return Err(self.unusable("the key was rotated while signing; try again"));
        }
        let signature: [u8; 64] = STANDARD
            .decode(encoded)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(self.unusable("the signature has not 64 bytes"))?;
        if !public.verify(message, &signature) {
            return Err(self.unusable("the signature does not verify; is it an ed25519 key?"));
        }
        Ok(signature)
    }

    /// Appends the signature to the first two parts of a token.
    pub(crate) fn sign_token(&self, signing_input: &str) -> Result<String, VaultError> {
        let signature = self.sign(signing_input.as_bytes())?;
        Ok(format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn newest(&self) -> Result<(u64, PublicKey), VaultError> {
        let request = self.agent.get(self.url("keys")).header("X-Vault-Token", self.token.expose());
        let answer = self.answer(request.call())?;
        let keys = answer.pointer("/data/keys").and_then(Value::as_object).ok_or(self.unusable("no keys"))?;
        let (version, key) = keys
            .iter()
            .filter_map(|(version, key)| Some((version.parse::<u64>().ok()?, key)))
            .max_by_key(|(version, _)| *version)
            .ok_or(self.unusable("no version of the key"))?;
        let bytes: [u8; 32] = key
            .get("public_key")
            .and_then(Value::as_str)
            .and_then(|text| STANDARD.decode(text).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(self.unusable("the public key has not 32 bytes; is it an ed25519 key?"))?;
        let public = PublicKey::from_bytes(&bytes).map_err(|_| self.unusable("the public key is weak"))?;
        Ok((version, public))
    }

    fn answer(
        &self,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, VaultError> {
        let failed = |source| VaultError::Request { host: self.host.clone(), source: Box::new(source) };
        let mut response = result.map_err(failed)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(VaultError::Status { host: self.host.clone(), key: self.name.clone(), status });
        }
        let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string().map_err(failed)?;
        serde_json::from_str(&text).map_err(|_| self.unusable("it is not JSON"))
    }

    fn url(&self, verb: &str) -> String {
        format!("https://{}/v1/transit/{verb}/{}", self.host, self.name)
    }

    fn unusable(&self, what: &'static str) -> VaultError {
        VaultError::Answer { key: self.name.clone(), what }
    }
}
