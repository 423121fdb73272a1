//! What provisioning does to the disk of a server (docs/spec/04 §7, §8; docs/spec/10 V9, V10).
//!
//! The order makes every interruption harmless. `gen25519` removes the old token before the new seed has its
//! name, so a start finds credentials that do not fit and provisions again. `configure` first completes all
//! files under temporary names, then removes the old configuration, and gives the new one its name last: until
//! that moment the node has no configuration and provisions again, after it everything else is in place. A
//! kill at any write therefore ends provisioned or blank, never with the settings of one and the key of
//! another.

mod policies;

use std::path::{Path, PathBuf};

use agent_core::json::Object;
use agent_core::provision::{Configuration, Effect};
use choria_host::Settings;
use choria_host::one_line;
use choria_host::private_file::{self, PrivateFileError};

use crate::seed::NodeSeed;

/// Name of the seed file beside the configuration.
pub const SEED: &str = "server.seed";
/// Name of the token file beside the configuration.
pub const TOKEN: &str = "server.jwt";
/// Longest value of one member of a request, unescaped.
const MAX_TEXT: usize = 256 * 1024;

/// Why something could not be stored. Becomes the status text of the reply.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    File(#[from] PrivateFileError),
    #[error("could not prepare {}: {source}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("the {0} of the request cannot be read")]
    Request(&'static str),
    #[error("the new configuration would not read back as it was sent")]
    NotReadable,
    #[error("the configuration {} cannot be read: {reason}", path.display())]
    Configuration { path: PathBuf, reason: String },
    #[error("Configuration file {} enables provisioning, restart cannot continue", .0.display())]
    StillProvisioning(PathBuf),
    #[error(
        "this agent makes no certificate requests: it supports protocol version 2, where servers use gen25519"
    )]
    NoCertificates,
    #[error(
        "private keys and certificates are not accepted by this agent: it supports protocol version 2 only"
    )]
    NoPrivateKeys,
    #[error("this agent cannot replace its own program; update its package")]
    NoUpdate,
    #[error("the seed that was drawn is no key")]
    Seed,
}

/// What an effect came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Done,
    /// Lines of the configuration written, with its comment.
    Lines(u32),
    /// The `provisioned` event is to be published.
    Announce,
}

/// The files of one server.
#[derive(Debug)]
pub struct ProvisionFiles {
    /// The configuration file; links are followed when it is written.
    config: PathBuf,
    /// Settings that a reprovisioned node keeps, see [`ProvisionFiles::kept_settings`].
    kept: Vec<(String, String)>,
}

impl ProvisionFiles {
    pub fn new(config: &Path) -> Self {
        ProvisionFiles { config: config.to_path_buf(), kept: Vec::new() }
    }

    /// Remembers what `reprovision` keeps: the log file, and the registration data where the provisioning token
    /// brings none of its own (docs/spec/04 §7.6).
    #[must_use]
    pub fn kept_settings(mut self, settings: &Settings, token_registers: bool) -> Self {
        let mut keep = |key: &str| {
            if let Some(value) = settings.get(key) {
                self.kept.push((key.to_owned(), value.to_owned()));
            }
        };
        keep("logfile");
        if !token_registers && settings.list("registration").iter().any(|kind| kind == "file_content") {
            keep("registration");
            keep("plugin.choria.registration.file_content.data");
        }
        self
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.config.with_file_name(name)
    }

    /// Does what the machine asks for. Durable when it returns.
    ///
    /// # Errors
    /// One sentence for the caller.
    pub fn perform(&self, effect: &Effect<'_>) -> Result<Stored, StoreError> {
        match effect {
            Effect::EraseToken => private_file::remove(&self.beside(TOKEN))?,
            Effect::StoreSeed(seed) => {
                let seed = NodeSeed::from_bytes(seed.0).ok_or(StoreError::Seed)?;
                private_file::write_private(&self.beside(SEED), seed.file_text().as_bytes())?;
            }
            Effect::Configure(request) => return self.configure(request).map(Stored::Lines),
            Effect::CheckConfig => self.check_config()?,
            Effect::Reprovision => self.reprovision()?,
            Effect::AnnounceProvisioned => return Ok(Stored::Announce),
            Effect::MakeCsr(_) => return Err(StoreError::NoCertificates),
            Effect::Update { .. } => return Err(StoreError::NoUpdate),
        }
        Ok(Stored::Done)
    }

    fn configure(&self, request: &Configuration<'_>) -> Result<u32, StoreError> {
        for name in ["key", "certificate", "ca"] {
            if text(&request.args, name, "certificate material")?.is_some_and(|text| !text.is_empty()) {
                return Err(StoreError::NoPrivateKeys);
            }
        }
        let (content, lines) = render(request)?;
        let config = resolve_links(&self.config);
        // Everything is on disk under another name before the first visible change.
        let new_config = private_file::stage(&config, content.as_bytes(), 0o600)?;
        let new_token = match request.server_jwt {
            "" => None,
            token => Some(private_file::stage(&self.beside(TOKEN), token.as_bytes(), 0o600)?),
        };
        let new_policies = policies::Staged::prepare(
            &self.beside("policies"),
            request.action_policies.as_ref(),
            request.opa_policies.as_ref(),
        )?;
        private_file::remove(&config)?;
        if let Some(policies) = new_policies {
            policies.commit()?;
        }
        if let Some(token) = new_token {
            token.commit()?;
        }
        new_config.commit()?;
        Ok(lines)
    }

    fn check_config(&self) -> Result<(), StoreError> {
        let settings = Settings::load(&self.config).map_err(|error| StoreError::Configuration {
            path: self.config.clone(),
            reason: error.to_string(),
        })?;
        if settings.bool("plugin.choria.server.provision", false) {
            return Err(StoreError::StillProvisioning(self.config.clone()));
        }
        Ok(())
    }

    fn reprovision(&self) -> Result<(), StoreError> {
        let mut content = String::from("plugin.choria.server.provision=1\nloglevel=debug\n");
        for (key, value) in &self.kept {
            content.push_str(&format!("{key}={value}\n"));
        }
        private_file::write_private(&resolve_links(&self.config), content.as_bytes())?;
        Ok(())
    }
}

/// The text member `name`, unescaped; `None` when absent or null.
fn text(object: &Object<'_>, name: &str, what: &'static str) -> Result<Option<String>, StoreError> {
    let Some(value) = object.get(name).map_err(|_| StoreError::Request(what))? else { return Ok(None) };
    match value.as_text() {
        Some(text) => Ok(Some(text.chars().take(MAX_TEXT).collect())),
        None if value.raw() == b"null" => Ok(None),
        None => Err(StoreError::Request(what)),
    }
}

/// The configuration file and its number of lines. What was rendered is read back before anyone relies on it.
fn render(request: &Configuration<'_>) -> Result<(String, u32), StoreError> {
    let mut content = format!(
        "# configuration file written in request {} from {} ({}) at {}\n",
        one_line(request.request_id),
        one_line(request.caller),
        one_line(request.sender),
        choria_host::clock::rfc3339_seconds(choria_host::clock::unix_seconds()),
    );
    let mut lines: u32 = 1;
    let mut sent = Vec::new();
    for (key, value) in request.settings.entries() {
        let key: String = key.chars().collect();
        let value: String =
            value.as_text().ok_or(StoreError::Request("configuration"))?.chars().take(MAX_TEXT).collect();
        content.push_str(&format!("{key}={value}\n"));
        lines = lines.saturating_add(1);
        sent.push((key, value));
    }
    let read = Settings::parse(&content, Path::new("configure")).map_err(|_| StoreError::NotReadable)?;
    let faithful = sent.iter().all(|(key, value)| match value.trim() {
        "" => read.get(key).is_none(),
        value => read.get(key) == Some(value),
    });
    if !faithful || read.keys().count() > sent.len() {
        return Err(StoreError::NotReadable);
    }
    Ok((content, lines))
}

/// Where a write to `path` ends up when it is a link: configuration files are often links into a volume.
fn resolve_links(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..8 {
        match std::fs::read_link(&path) {
            Ok(target) if target.is_absolute() => path = target,
            Ok(target) => path = path.parent().unwrap_or(Path::new(".")).join(target),
            Err(_) => break,
        }
    }
    path
}

#[cfg(test)]
mod tests;
