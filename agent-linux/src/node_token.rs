//! What a node reads from its own tokens without verifying them.
//!
//! Brokers and provisioners verify a node's tokens; the node only needs to know who it is, whether its
//! credentials still fit together and where to provision (docs/spec/04 §2, §4). Callers' tokens are another
//! matter: those are verified in agent-core before anything here sees them.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_host::Secret;
use choria_host::private_file::{self, PrivateFileError};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a token file tells a node nothing.
#[derive(Debug, thiserror::Error)]
pub enum NodeTokenError {
    #[error(transparent)]
    File(#[from] PrivateFileError),
    #[error("{} is not a token: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
}

impl NodeTokenError {
    /// Whether the file simply is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, NodeTokenError::File(error) if error.is_missing())
    }
}

/// The claims of a server token that a node acts on (docs/spec/01 §6.4).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ServerClaims {
    #[serde(default)]
    pub purpose: String,
    #[serde(default)]
    pub identity: String,
    /// 64 hex digits.
    #[serde(default)]
    pub public_key: String,
    /// Unix seconds; fractions are legal on the wire.
    #[serde(default)]
    pub exp: Option<f64>,
    #[serde(default)]
    pub issexp: Option<f64>,
}

impl ServerClaims {
    /// The earlier of `exp` and `issexp`, Unix seconds; `None` when the token has neither.
    pub fn expires(&self) -> Option<i64> {
        let seconds = [self.exp, self.issexp].into_iter().flatten().filter(|at| *at > 0.0);
        // A token's time fits an i64 many times over, and the conversion saturates.
        #[allow(clippy::cast_possible_truncation)]
        seconds.reduce(f64::min).map(|at| at as i64)
    }
}

/// The claims of a provisioning token (docs/spec/01 §6.5), with our extension (docs/spec/10 §5.4 V6).
#[derive(Default, Deserialize)]
pub struct ProvisioningClaims {
    #[serde(default)]
    pub purpose: String,
    #[serde(default)]
    pub sub: String,
    /// Access token of the `choria_provision` agent.
    #[serde(default)]
    pub cht: String,
    /// Requests are validated while provisioning.
    #[serde(default)]
    pub chs: bool,
    #[serde(default)]
    pub chu: String,
    #[serde(default)]
    pub chsrv: String,
    /// Provision when the configuration does not say otherwise.
    #[serde(default)]
    pub chpd: bool,
    #[serde(default)]
    pub chrd: String,
    #[serde(default)]
    pub chf: String,
    #[serde(default)]
    pub chusr: String,
    #[serde(default)]
    pub chpwd: String,
    #[serde(default)]
    pub v2: bool,
    #[serde(default)]
    pub update: bool,
    #[serde(default)]
    pub ou: String,
    #[serde(default)]
    pub extensions: Option<serde_json::Value>,
}

impl std::fmt::Debug for ProvisioningClaims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // `cht` and `chpwd` are secrets.
        f.debug_struct("ProvisioningClaims")
            .field("chu", &self.chu)
            .field("chsrv", &self.chsrv)
            .field("chpd", &self.chpd)
            .field("v2", &self.v2)
            .finish_non_exhaustive()
    }
}

impl ProvisioningClaims {
    /// Pins of the provisioning broker from `extensions.choria.tls_pin`, a text or a list of texts.
    pub fn tls_pins(&self) -> Vec<String> {
        self.texts("tls_pin")
    }

    /// The organization issuer's public keys from `extensions.choria.issuer`, 64 hex digits, a text or a list of
    /// texts while one replaces the other. A node that knows any obeys only a provisioner of that organization.
    pub fn issuers(&self) -> Vec<String> {
        self.texts("issuer")
    }

    fn texts(&self, key: &str) -> Vec<String> {
        match self.extensions.as_ref().and_then(|extensions| extensions.get("choria")?.get(key)) {
            Some(serde_json::Value::String(text)) => vec![text.clone()],
            Some(serde_json::Value::Array(texts)) => {
                texts.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A server token as found on disk.
#[derive(Debug)]
pub struct ServerToken {
    pub claims: ServerClaims,
    /// The original text: what the broker is shown.
    pub text: Secret,
}

/// A provisioning token as found on disk.
#[derive(Debug)]
pub struct ProvisioningToken {
    pub path: PathBuf,
    pub claims: ProvisioningClaims,
    pub text: Secret,
}

/// Reads a server token.
///
/// # Errors
/// The file cannot be read, or is not a token of a server.
pub fn read_server(path: &Path) -> Result<ServerToken, NodeTokenError> {
    let text = private_file::read_secret(path)?;
    let claims: ServerClaims = claims(text.expose()).map_err(|reason| malformed(path, reason))?;
    if claims.purpose != "choria_server" {
        return Err(malformed(path, format!("its purpose is '{}', not 'choria_server'", claims.purpose)));
    }
    if claims.identity.is_empty() {
        return Err(malformed(path, "it names no identity".to_owned()));
    }
    Ok(ServerToken { claims, text })
}

/// Reads a provisioning token.
///
/// # Errors
/// The file cannot be read, is no provisioning token, or lacks what a node needs of one.
pub fn read_provisioning(path: &Path) -> Result<ProvisioningToken, NodeTokenError> {
    let text = private_file::read_secret(path)?;
    let claims: ProvisioningClaims = claims(text.expose()).map_err(|reason| malformed(path, reason))?;
    const KIND: &str = "choria_provisioning";
    if claims.purpose != KIND && claims.sub != KIND {
        return Err(malformed(path, "it is not a provisioning token".to_owned()));
    }
    if claims.cht.is_empty() {
        return Err(malformed(path, "no auth token: the claim 'cht' is empty".to_owned()));
    }
    if claims.chu.trim().is_empty() == claims.chsrv.trim().is_empty() {
        return Err(malformed(path, "exactly one of broker URLs and an SRV domain must be in it".to_owned()));
    }
    Ok(ProvisioningToken { path: path.to_path_buf(), claims, text })
}

fn malformed(path: &Path, reason: String) -> NodeTokenError {
    NodeTokenError::Malformed { path: path.to_path_buf(), reason }
}

/// The claims of a compact token, not verified.
///
/// # Errors
/// The reason in words; never the text of the token.
pub(crate) fn claims<T: DeserializeOwned>(token: &str) -> Result<T, String> {
    let mut parts = token.split('.');
    let (Some(_), Some(body), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("it does not have three parts".to_owned());
    };
    let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| "its claims are not base64url".to_owned())?;
    serde_json::from_slice(&json).map_err(|error| format!("its claims cannot be read ({error})"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn token(claims: &serde_json::Value) -> String {
        format!("eyJhbGciOiJFZERTQSJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn expiry_is_the_earlier_one() {
        let claims = |exp, issexp| ServerClaims { exp, issexp, ..Default::default() };
        assert_eq!(claims(Some(20.5), Some(10.0)).expires(), Some(10));
        assert_eq!(claims(Some(20.5), None).expires(), Some(20));
        assert_eq!(claims(None, None).expires(), None);
    }

    #[test]
    fn provisioning_tokens_must_be_usable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("provisioning.jwt");
        let check = |claims: serde_json::Value| {
            private_file::write_private(&path, token(&claims).as_bytes()).unwrap();
            read_provisioning(&path).map(|t| t.claims).map_err(|e| e.to_string())
        };
        let good = serde_json::json!({"purpose":"choria_provisioning","cht":"x","chu":"nats://b:4222","chpd":true,
            "v2":true,"extensions":{"choria":{"tls_pin":["aa"],"issuer":"bb"}}});
        let claims = check(good.clone()).unwrap();
        assert!(claims.chpd && claims.v2);
        assert_eq!((claims.tls_pins(), claims.issuers()), (vec!["aa".to_owned()], vec!["bb".to_owned()]));
        assert!(!format!("{claims:?}").contains("cht"));
        let with = |key: &str, value: serde_json::Value| {
            let mut claims = good.clone();
            claims[key] = value;
            check(claims)
        };
        assert!(with("cht", "".into()).unwrap_err().contains("no auth token"));
        assert!(with("chsrv", "example.net".into()).unwrap_err().contains("exactly one"));
        assert!(with("chu", "".into()).unwrap_err().contains("exactly one"));
        assert!(with("purpose", "choria_server".into()).unwrap_err().contains("not a provisioning"));
        private_file::write_private(&path, b"a.b").unwrap();
        assert!(read_provisioning(&path).unwrap_err().to_string().contains("three parts"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_token_or_refused(text in "[A-Za-z0-9_.-]{0,200}") {
            let _refused = claims::<ProvisioningClaims>(&text);
            let _refused = claims::<ServerClaims>(&format!("a.{}.b", URL_SAFE_NO_PAD.encode(&text)));
        }
    }
}
