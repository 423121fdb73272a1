//! Whom a node obeys and who decides: what a HUP replaces while the node runs (docs/spec/10 §7.1).

use choria_host::Settings;
use choria_host::settings::Warning;

use crate::authorization::Provider;
use crate::config::{ConfigError, ServerConfig};
use crate::driver::Trusted;

/// Settings, or beginnings of settings, that take effect when the file is read again. What they name is read at each
/// request anyway: facts, classes, policies; token and seed at each connect.
const READ_AGAIN: [&str; 9] = [
    "loglevel",
    "rpcauthorization",
    "rpcauthprovider",
    "plugin.actionpolicy.",
    "plugin.security.issuer.",
    "plugin.security.choria.trusted_signers",
    "plugin.security.choria.delegated_caller",
    "plugin.yaml",
    "classesfile",
];

/// Why a configuration that was read again is not used.
#[derive(Debug, thiserror::Error)]
pub enum RereadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Wrong(Warning),
    #[error("{place}'{key}' is no public key: 64 hex digits are needed")]
    Key { place: String, key: String },
}

/// Whose requests are obeyed, and what they may do.
#[derive(Debug)]
pub struct Rules {
    pub trusted: Trusted,
    pub match_delegated_caller: bool,
    pub authorization: Provider,
}

impl Rules {
    /// # Errors
    /// The first key that is no key.
    pub fn of(config: &ServerConfig) -> Result<Rules, RereadError> {
        let trusted = Trusted::of(&config.signers).map_err(|key| {
            let settings = &config.settings;
            let named = settings.keys().find(|name| {
                (name.starts_with("plugin.security.issuer.") || name.ends_with(".trusted_signers"))
                    && settings.get(name).is_some_and(|value| value.contains(&key))
            });
            RereadError::Key { place: named.map(|name| settings.place_of(name)).unwrap_or_default(), key }
        })?;
        Ok(Rules {
            trusted,
            match_delegated_caller: config.match_delegated_caller,
            authorization: config.authorization.clone(),
        })
    }
}

/// The settings that differ from those the node runs with, and that only a new start applies.
pub fn need_a_restart(running: &Settings, fresh: &Settings) -> Vec<String> {
    let mut keys = fresh.differing_keys(running);
    keys.retain(|key| {
        !READ_AGAIN.iter().any(|known| key == known || known.ends_with('.') && key.starts_with(known))
    });
    keys
}
