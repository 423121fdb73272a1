//! What a running service cannot take over from a file that is read again, and where in the file an error is.

use std::path::Path;

use crate::config::{AaaConfig, AuditorConfig};
use crate::error::AaaError;

/// The settings that differ from those the service was started with and that only a new start applies.
pub(crate) fn need_a_restart(started: &AaaConfig, fresh: &AaaConfig) -> Vec<&'static str> {
    let jetstream = |config: &AaaConfig| {
        config.auditors.iter().find_map(|auditor| match auditor {
            AuditorConfig::JetStream { servers, topic } => Some((servers.clone(), topic.clone())),
            AuditorConfig::LogFile { .. } => None,
        })
    };
    let service = |config: &AaaConfig| config.signer.as_ref().is_some_and(|signer| signer.choria_service);
    [
        ("port, listen_address", started.listen != fresh.listen),
        ("monitor_port, monitor_address", started.monitor != fresh.monitor),
        ("tls_certificate", started.tls.is_some() != fresh.tls.is_some()),
        ("site", started.site != fresh.site),
        ("choria_config", started.choria_config != fresh.choria_config),
        ("basicjwt_signer.choria_service", service(started) != service(fresh)),
        ("jetstream_auditor", jetstream(started) != jetstream(fresh)),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

/// `file:line: ` of the setting that an error names, where it names one; a JSON error brings its own line.
pub(crate) fn place_of(path: &Path, error: &AaaError) -> String {
    let AaaError::Setting { key, .. } = error else { return String::new() };
    let name = format!("\"{}\"", key.rsplit('.').next().unwrap_or(key));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    match text.lines().position(|line| line.contains(&name)) {
        Some(line) => format!("{}:{}: ", path.display(), line + 1),
        None => format!("{}: ", path.display()),
    }
}
