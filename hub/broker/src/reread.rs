//! Which settings a running broker takes over when its file is read again.

use choria_host::settings::Settings;

use crate::config::ConfigError;

/// Settings, or beginnings of settings, that take effect with a HUP; everything else needs a new start.
const READ_AGAIN: [&str; 16] = [
    "loglevel",
    "plugin.security.issuer.",
    "plugin.security.choria.certificate",
    "plugin.security.choria.key",
    "plugin.security.choria.ca",
    "plugin.security.choria.trusted_signers",
    "plugin.security.file.",
    "plugin.choria.network.constrained.certificate",
    "plugin.choria.network.constrained.key",
    "plugin.choria.network.constrained.max_fragment",
    "plugin.choria.network.client_signer_cert",
    "plugin.choria.network.server_signer_cert",
    "plugin.choria.network.client_hosts",
    "plugin.choria.network.deny_server_connections",
    "plugin.choria.network.require_token_expiry",
    "plugin.choria.network.system.",
];

/// Below `plugin.choria.network.provisioning.`, all but what makes the accounts.
const PROVISIONING: &str = "plugin.choria.network.provisioning.";
const LIFECYCLE_IMPORT: &str = "plugin.choria.network.provisioning.lifecycle_import";

/// The settings that differ from those the broker was started with and that only a new start applies.
pub(crate) fn need_a_restart(started: &Settings, fresh: &Settings) -> Vec<String> {
    let taken_over = |key: &str| {
        READ_AGAIN.iter().any(|known| key == *known || known.ends_with('.') && key.starts_with(known))
            || key.starts_with(PROVISIONING) && key != LIFECYCLE_IMPORT
    };
    let mut keys = fresh.differing_keys(started);
    keys.retain(|key| !taken_over(key));
    keys
}

/// `file:line: ` of the setting that an error names. Errors of [`Settings`] name theirs themselves.
pub(crate) fn place_of(error: &ConfigError, settings: &Settings) -> String {
    match error {
        ConfigError::Key { key, .. } | ConfigError::Value { key, .. } => settings.place_of(key),
        ConfigError::Conflict(key) => settings.place_of(key),
        _ => String::new(),
    }
}
