//! Whether to provision: the decision of docs/spec/04 §4, as a pure function over observed facts.
//!
//! [`observe`] looks at the disk, [`decide`] thinks, [`begin`] does both, removes credentials that are no good
//! and returns the configuration to run with. A running node that can no longer log in may ask again.

mod decide;
mod observe;

use std::path::{Path, PathBuf};

use choria_host::Settings;
use choria_host::private_file::{self, PrivateFileError};

use crate::config::{ConfigError, ServerConfig};

pub use decide::{Because, Decision, Refusal, decide};
pub use observe::{
    BadCredentials, ConfigFile, Credentials, JwtPlace, Observed, Provisioning, find_provisioning_jwt, observe,
};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("could not remove credentials that are no longer good: {0}")]
    Credentials(#[from] PrivateFileError),
}

/// Settings that name credential files, token files first: a token without its seed is harmless, a new seed
/// beside an old token is not (docs/spec/10 §7).
const CREDENTIALS: [&str; 4] = [
    "plugin.choria.security.server.token_file",
    "plugin.security.choria.token_file",
    "plugin.choria.security.server.seed_file",
    "plugin.security.choria.seed_file",
];

/// Looks, decides, and returns the configuration to run with. `flag` is the file given by
/// `--provisioning-jwt`.
///
/// # Errors
/// The node may neither run as configured nor provision; the message says what to change.
pub fn begin(
    config: &Path,
    flag: Option<&Path>,
    host_identity: &str,
    now: i64,
) -> Result<ServerConfig, StartError> {
    let (jwt, place) = find_provisioning_jwt(config, flag);
    tracing::info!(path = %jwt.display(), place = place.words(), "looking for the provisioning token");
    let (observed, settings, token) = observe(config, &jwt, host_identity, now);
    match decide(&observed) {
        Decision::Normal { warning } => {
            if let Some(bad) = warning {
                tracing::warn!(reason = bad.word(), "starting with credentials that are no good: {bad}");
            }
            let settings = settings.unwrap_or_default();
            Ok(ServerConfig::from_settings(config, settings, host_identity, token.as_ref())?)
        }
        Decision::Provision { because, delete_credentials, keep_settings } => {
            tracing::warn!(reason = because.word(), "switching to provisioning: {because}");
            let settings = settings.unwrap_or_default();
            if delete_credentials {
                delete(&settings)?;
            }
            let settings = if keep_settings { settings } else { Settings::empty() };
            // decide() chose provisioning because there is a token.
            let Some(token) = token else { return Err(Refusal::NoToken { jwt }.into()) };
            Ok(ServerConfig::provisioning(config, settings, host_identity, &token)?)
        }
        Decision::Refuse(refusal) => Err(refusal.into()),
    }
}

fn delete(settings: &Settings) -> Result<(), PrivateFileError> {
    for key in CREDENTIALS {
        let Some(path) = settings.path(key) else { continue };
        if path.exists() {
            tracing::warn!(path = %path.display(), setting = key, "removing credentials");
        }
        private_file::remove(&path)?;
    }
    Ok(())
}

/// The file that `configure` writes the server token to.
pub fn server_jwt_beside(config: &Path) -> PathBuf {
    config.with_file_name("server.jwt")
}

#[cfg(test)]
mod tests;
