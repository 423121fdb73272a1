//! The token that says who we are, and the seed that proves it (docs/spec/07 §3.5).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use choria_host::{clock, private_file};
use choria_token::{PublicKey, Purpose, Seed, peek_client, peek_provisioning, peek_server, purpose_of};

use crate::{ClientError, token_pair};

/// Clocks of client and issuer may differ by this many seconds.
const LEEWAY: i64 = 5;

/// Where token and seed come from. Files are read again at each connection, so that a renewed token is used.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    Files { token: PathBuf, seed: Option<PathBuf> },
    Memory(Identity),
}

/// A token read together with its seed. Nothing about the token has been verified: that is for the peers.
#[derive(Clone)]
pub struct Identity {
    token: Arc<str>,
    seed: Option<Arc<Seed>>,
    /// `callerid` of a client token, `identity` of a server token.
    caller: Arc<str>,
    expires: Option<i64>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("caller", &self.caller)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Uses a token and seed that are in memory already.
    ///
    /// # Errors
    /// A token that cannot be read, is out of its time, or belongs to another seed.
    pub fn new(token: &str, seed: Option<Seed>) -> Result<Self, ClientError> {
        let nowhere = Path::new("in memory");
        let identity = Self::read(token, seed, nowhere, nowhere)?;
        Ok(identity)
    }

    fn read(
        token: &str,
        seed: Option<Seed>,
        token_path: &Path,
        seed_path: &Path,
    ) -> Result<Self, ClientError> {
        let token = token.trim();
        let bad = |reason: String| ClientError::TokenNotValid { path: token_path.to_owned(), reason };
        let (caller, standard) = match purpose_of(token) {
            Some(Purpose::Client) => {
                let claims = peek_client(token).map_err(|e| bad(e.to_string()))?;
                (claims.claims().caller_id.clone(), claims.claims().standard.clone())
            }
            Some(Purpose::Server) => {
                let claims = peek_server(token).map_err(|e| bad(e.to_string()))?;
                (claims.claims().identity.clone(), claims.claims().standard.clone())
            }
            Some(Purpose::Provisioning) => {
                let claims = peek_provisioning(token).map_err(|e| bad(e.to_string()))?;
                (String::new(), claims.claims().standard.clone())
            }
            None => return Err(bad("it is no Choria token".to_owned())),
        };
        if let (Some(key), Some(seed)) = (standard.public_key.as_deref().filter(|key| !key.is_empty()), &seed)
        {
            let holder = PublicKey::from_hex(key).map_err(|e| bad(e.to_string()))?;
            if holder.as_bytes() != seed.public().as_bytes() {
                return Err(ClientError::SeedMismatch {
                    seed: seed_path.to_owned(),
                    token: token_path.to_owned(),
                });
            }
        }
        let identity = Self {
            token: token.into(),
            seed: seed.map(Arc::new),
            caller: caller.into(),
            expires: standard.effective_expiry(),
        };
        let now = clock::unix_seconds();
        if let Some(expired) = identity.expires.filter(|expires| expires.saturating_add(LEEWAY) <= now) {
            return Err(ClientError::TokenExpired {
                path: token_path.to_owned(),
                expired: clock::rfc3339_seconds(expired),
            });
        }
        if standard.nbf.is_some_and(|nbf| nbf.saturating_sub(LEEWAY) > now) {
            return Err(bad("it is not valid yet; is the clock right?".to_owned()));
        }
        Ok(identity)
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn seed(&self) -> Option<&Seed> {
        self.seed.as_deref()
    }

    /// The caller id that peers will know us by.
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// When the token ends, Unix seconds.
    pub fn expires(&self) -> Option<i64> {
        self.expires
    }
}

impl CredentialSource {
    /// Reads what is there now.
    pub fn load(&self) -> Result<Identity, ClientError> {
        let (token_path, seed_path) = match self {
            Self::Memory(identity) => return Ok(identity.clone()),
            Self::Files { token, seed } => (token.clone(), seed.clone()),
        };
        let halves = seed_path.as_deref().and_then(|seed| token_pair::interrupted(&token_path, seed));
        let (token_path, seed_path) = match halves {
            Some((token, seed)) => {
                tracing::warn!(token = %token.display(), "a login was interrupted; the token from before it is used");
                (token, Some(seed))
            }
            None => (token_path, seed_path),
        };
        let (token_path, seed_path) = (&token_path, &seed_path);
        let token = private_file::read_secret(token_path)
            .map_err(|e| ClientError::Token { path: token_path.clone(), reason: e.to_string() })?;
        let seed = match seed_path {
            None => None,
            Some(path) => Some(
                Seed::load(path)
                    .map_err(|e| ClientError::Seed { path: path.clone(), reason: e.to_string() })?,
            ),
        };
        Identity::read(token.expose(), seed, token_path, seed_path.as_deref().unwrap_or(token_path))
    }
}
