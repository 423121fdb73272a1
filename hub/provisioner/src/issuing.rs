//! The key that signs server tokens, read again whenever its files change, so that replacing them takes effect
//! at once (`docs/spec/04 §10.8`, `docs/spec/10 §7`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use choria_token::{IssueError, Issuer, PublicKey, Seed, peek_client};

use crate::claims::Grant;

/// A chain token that ends sooner than this is announced at start, seconds.
const EXPIRES_SOON: i64 = 30 * 86_400;

/// Why no token was signed.
#[derive(Debug, thiserror::Error)]
pub enum IssuingError {
    #[error("cannot read `jwt_signing_key` {path}: {source}")]
    Key { path: PathBuf, source: choria_token::KeyError },
    #[error("cannot read `jwt_signing_token` {path}: {detail}")]
    Token { path: PathBuf, detail: String },
    #[error("`jwt_signing_token` {path} cannot issue server tokens: {source}")]
    Chain { path: PathBuf, source: IssueError },
    #[error("`jwt_signing_token` {path} has expired; issue a new one and put it in its place")]
    Expired { path: PathBuf },
    #[error("the node belongs to organization `{node}`, the signing key to `{issuer}`")]
    Organization { node: String, issuer: String },
    #[error("the server token cannot be signed: {0}")]
    Sign(IssueError),
}

/// The issuer as it was read last.
#[derive(Debug)]
pub struct Loaded {
    issuer: Issuer,
    /// The organization of the chain token; a bare seed has none.
    org: Option<String>,
}

/// Where the issuer comes from.
pub struct Signer {
    key: PathBuf,
    token: Option<PathBuf>,
    org_keys: Vec<PublicKey>,
    cache: Mutex<Option<(Stamp, Arc<Loaded>)>>,
}

type Stamp = [Option<(SystemTime, u64)>; 2];

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("key", &self.key).field("token", &self.token).finish()
    }
}

impl Signer {
    /// Signs with the seed in `key`; as a chain issuer when `token` is given, which one of `org_keys` must have signed
    /// when there are any.
    pub fn new(key: PathBuf, token: Option<PathBuf>, org_keys: Vec<PublicKey>) -> Signer {
        Signer { key, token, org_keys, cache: Mutex::new(None) }
    }

    /// What is in the files now, refused when it has expired.
    pub fn current(&self, now_unix: i64) -> Result<Arc<Loaded>, IssuingError> {
        let stamp = [Some(self.key.as_path()), self.token.as_deref()].map(|path| path.and_then(stamp_of));
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let loaded = match cached {
            Some((known, loaded)) if known == stamp => loaded,
            _ => {
                let loaded = Arc::new(self.load()?);
                *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, loaded.clone()));
                loaded
            }
        };
        match (loaded.issuer.expires(), &self.token) {
            (Some(at), Some(path)) if at <= now_unix => Err(IssuingError::Expired { path: path.clone() }),
            _ => Ok(loaded),
        }
    }

    /// A sentence for the log when the chain token ends within 30 days.
    pub fn warning(&self, loaded: &Loaded, now_unix: i64) -> Option<String> {
        let (at, path) = (loaded.issuer.expires()?, self.token.as_ref()?);
        (at - now_unix < EXPIRES_SOON).then(|| {
            format!(
                "{} expires at {}; what it issues ends then too",
                path.display(),
                choria_host::clock::rfc3339_seconds(at)
            )
        })
    }

    fn load(&self) -> Result<Loaded, IssuingError> {
        let seed =
            Seed::load(&self.key).map_err(|source| IssuingError::Key { path: self.key.clone(), source })?;
        let Some(path) = &self.token else { return Ok(Loaded { issuer: Issuer::Org(seed), org: None }) };
        let unreadable = |detail: String| IssuingError::Token { path: path.clone(), detail };
        let text =
            choria_host::private_file::read_secret(path).map_err(|error| unreadable(error.to_string()))?;
        let claims =
            peek_client(text.expose()).map_err(|reject| unreadable(reject.to_string()))?.into_claims();
        // the one that vouches for it, or any, which then says what is wrong
        let vouching = self.org_keys.iter().find(|key| claims.is_chain_issuer(key));
        let issuer = Issuer::chain(seed, text.expose(), vouching.or(self.org_keys.first()).copied())
            .map_err(|source| IssuingError::Chain { path: path.clone(), source })?;
        let org = if claims.org.is_empty() { "choria".to_string() } else { claims.org };
        Ok(Loaded { issuer, org: Some(org) })
    }
}

impl Loaded {
    /// The organization that tokens are issued for: the chain token's, which a node's must equal; a bare seed signs
    /// for the organization whose provisioning token it verified.
    pub fn organization(&self, of_node: Option<&str>) -> Result<String, IssuingError> {
        match (&self.org, of_node) {
            (Some(issuer), Some(node)) if issuer != node => {
                Err(IssuingError::Organization { node: node.to_string(), issuer: issuer.clone() })
            }
            (Some(issuer), _) => Ok(issuer.clone()),
            (None, node) => Ok(node.unwrap_or("choria").to_string()),
        }
    }

    /// Signs a server token.
    pub fn issue(&self, grant: Grant, now_unix: i64) -> Result<String, IssuingError> {
        self.issuer.issue_server(grant.claims, grant.validity, now_unix).map_err(IssuingError::Sign)
    }

    /// The key that signs.
    pub fn public(&self) -> PublicKey {
        self.issuer.public()
    }
}

fn stamp_of(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
