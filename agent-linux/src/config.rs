//! The configuration of a server, from its settings (docs/spec/03 §14, 01 §7.1).
//!
//! Two ways lead to one: [`ServerConfig::from_settings`] for a provisioned node and
//! [`ServerConfig::provisioning`] for one that is about to be. After that nobody asks which it was except
//! through [`ServerConfig::mode`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use choria_host::settings::{self, Problem, SettingsError};
use choria_host::tls::{Pin, Trust};
use choria_host::{Secret, Settings};

use crate::audit::AuditConfig;
use crate::authorization::Provider;
use crate::broker_target::{self, TargetError, Targets};
use crate::identity;
use crate::node_token::ProvisioningToken;

/// Collective of nodes that are being provisioned.
pub const PROVISIONING: &str = "provisioning";
/// Longest `plugin.choria.network.connect_timeout`.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(
        "plugin.security.provider is '{0}', but this agent speaks protocol version 2 only: \
         set plugin.security.provider = choria"
    )]
    Provider(String),
    #[error("{key} is not set; a server with provider choria needs it")]
    Missing { key: &'static str },
    #[error("{key} cannot be used together with plugin.security.provider = choria; remove it")]
    Conflict { key: &'static str },
    #[error(
        "neither plugin.security.issuer.names nor plugin.security.choria.trusted_signers is set: \
         the server would not know whose requests to obey"
    )]
    NoSigner,
    #[error(
        "plugin.security.issuer.names and plugin.security.choria.trusted_signers exclude each other; keep one"
    )]
    BothSigners,
    #[error("'{0}' is not a valid identity: use letters, digits, '-', '_' and dots between labels")]
    Identity(String),
    #[error("'{0}' is not a valid collective name")]
    Collective(String),
    #[error("main_collective '{0}' is not one of the collectives")]
    MainCollective(String),
    #[error("plugin.choria.middleware_hosts: {0}")]
    Brokers(#[from] TargetError),
    #[error("plugin.choria.network.connect_timeout is longer than two minutes")]
    ConnectTimeout,
    #[error("{key}: {reason}")]
    Value { key: &'static str, reason: String },
    #[error(
        "the provisioning token {} is for protocol version 1; make it with 'choria jwt provisioning --protocol-v2'",
        path.display()
    )]
    TokenVersion { path: PathBuf },
}

/// What the node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A configured member of the fleet.
    Normal,
    /// Waiting for a provisioner.
    Provisioning,
}

/// Whose requests are obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signers {
    /// Organization to its public keys (64 hex digits each), the preferred one first.
    Issuers(BTreeMap<String, Vec<String>>),
    /// Public keys of the older mode.
    Trusted(Vec<String>),
    /// Nobody is checked: provisioning without a known issuer. The access token of the agent is all there is.
    Unchecked,
}

/// Where the status file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusConfig {
    pub path: PathBuf,
    pub interval: Duration,
}

/// Everything a server needs to know before it connects.
#[derive(Debug)]
pub struct ServerConfig {
    /// The configuration file, which need not exist.
    pub path: PathBuf,
    pub settings: Settings,
    pub mode: Mode,
    pub identity: String,
    pub collectives: Vec<String>,
    pub main_collective: String,
    /// Shown to the broker: the server token, or the provisioning token.
    pub token_file: PathBuf,
    /// Proves the token; none while provisioning.
    pub seed_file: Option<PathBuf>,
    pub signers: Signers,
    /// A delegated request must name the caller of its token (docs/spec/10 §15, N3).
    pub match_delegated_caller: bool,
    pub sign_replies: bool,
    pub trust: Trust,
    /// Certificate and key files of a TLS client certificate.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    pub targets: Targets,
    pub connect_timeout: Duration,
    pub nats_user: Option<String>,
    pub nats_password: Option<Secret>,
    /// Longest time-to-live of a request that is honoured, seconds.
    pub ttl_cap_seconds: u32,
    pub authorization: Provider,
    pub audit: Option<AuditConfig>,
    pub facts_files: Vec<PathBuf>,
    pub classes_file: PathBuf,
    pub status: Option<StatusConfig>,
    /// Where `/metrics` is served.
    pub stats_address: Option<SocketAddr>,
    pub log_level: String,
    pub log_file: String,
    pub soft_shutdown_timeout: Duration,
    pub legacy_lifecycle_format: bool,
    /// Access token of `choria_provision`; set whenever a provisioning token is at hand.
    pub provision_token: Option<Secret>,
    /// The provisioning token file, for action `jwt`.
    pub provisioning_jwt: Option<PathBuf>,
    /// `plugin.choria.server.provision.allow_update`.
    pub allow_update: bool,
}

impl ServerConfig {
    /// The configuration of a provisioned node. `host_identity` is used where `identity` is not set;
    /// `provisioning` is the token file at hand, if any.
    ///
    /// # Errors
    /// What is missing or contradictory; values of the wrong type only warn, see [`Settings::warnings`].
    pub fn from_settings(
        path: &Path,
        settings: Settings,
        host_identity: &str,
        provisioning: Option<&ProvisioningToken>,
    ) -> Result<ServerConfig, ConfigError> {
        check_provider(&settings)?;
        let identity = settings.get("identity").unwrap_or(host_identity).to_owned();
        if !identity::is_valid(&identity) {
            return Err(ConfigError::Identity(identity));
        }
        let (collectives, main_collective) = collectives(&settings)?;
        let file = |key: &'static str| settings.path(key).ok_or(ConfigError::Missing { key });
        let token_file = file("plugin.security.choria.token_file")?;
        let seed_file = file("plugin.security.choria.seed_file")?;
        let connect_timeout = connect_timeout(&settings)?;
        let domain = settings.get("plugin.choria.srv_domain").or(identity::domain_of(&identity));
        let targets = broker_target::of_network(
            settings.get("plugin.choria.middleware_hosts").unwrap_or_default(),
            settings.bool("plugin.choria.use_srv", true),
            domain,
        )?;
        let ttl = u32::try_from(settings.int_or("ttl", 60).clamp(1, 86_400)).unwrap_or(60);
        let user = settings.get("plugin.nats.user").map(str::to_owned);
        let password = settings.get("plugin.nats.pass").map(|text| Secret::new(text.to_owned()));
        Ok(ServerConfig {
            path: path.to_path_buf(),
            mode: Mode::Normal,
            token_file,
            seed_file: Some(seed_file),
            signers: signers(&settings)?,
            match_delegated_caller: settings.get("plugin.security.choria.delegated_caller") != Some("any"),
            sign_replies: settings.bool("plugin.security.choria.sign_replies", true),
            trust: trust(&settings)?,
            client_certificate: client_certificate(&settings),
            targets,
            connect_timeout,
            nats_user: user,
            nats_password: password,
            ttl_cap_seconds: ttl.saturating_mul(2).max(600),
            authorization: Provider::from_settings(&settings, &directory_of(path)),
            audit: AuditConfig::from_settings(&settings),
            facts_files: settings.path_list("plugin.yaml"),
            classes_file: classes_file(&settings),
            status: status(&settings),
            stats_address: stats_address(&settings)?,
            log_level: settings.get("loglevel").unwrap_or("info").to_owned(),
            log_file: settings.get("logfile").unwrap_or("stdout").to_owned(),
            soft_shutdown_timeout: soft_shutdown_timeout(&settings),
            legacy_lifecycle_format: settings.bool("plugin.choria.legacy_lifecycle_format", false),
            provision_token: provisioning.map(|token| Secret::new(token.claims.cht.clone())),
            provisioning_jwt: provisioning.map(|token| token.path.clone()),
            allow_update: settings.bool("plugin.choria.server.provision.allow_update", false),
            identity,
            collectives,
            main_collective,
            settings,
        })
    }

    /// The configuration of a node in provisioning mode (docs/spec/04 §5). `settings` are those of the file when
    /// it stays in force (a node told to reprovision), or empty.
    ///
    /// # Errors
    /// A token of protocol version 1, or one whose broker addresses or pins are not usable.
    pub fn provisioning(
        path: &Path,
        settings: Settings,
        host_identity: &str,
        token: &ProvisioningToken,
    ) -> Result<ServerConfig, ConfigError> {
        let claims = &token.claims;
        if !claims.v2 {
            return Err(ConfigError::TokenVersion { path: token.path.clone() });
        }
        let identity = settings.get("identity").unwrap_or(host_identity).to_owned();
        if !identity::is_valid(&identity) {
            return Err(ConfigError::Identity(identity));
        }
        let pins: Vec<String> = settings.list("plugin.security.choria.tls_pin");
        let pins = if pins.is_empty() { claims.tls_pins() } else { pins };
        let trust = match settings.path("plugin.security.choria.ca").filter(|ca| ca.exists()) {
            Some(ca) => Trust::CaFile(ca),
            None if pins.is_empty() => Trust::Unverified,
            None => Trust::Pins(parse_pins(&pins)?),
        };
        let issuers: Vec<String> = claims.issuers().iter().map(|key| key.to_ascii_lowercase()).collect();
        let signers = if issuers.is_empty() {
            Signers::Unchecked
        } else {
            let organization = if claims.ou.is_empty() { "choria" } else { &claims.ou };
            Signers::Issuers(BTreeMap::from([(organization.to_owned(), issuers)]))
        };
        let with_password = !claims.chusr.is_empty() && !claims.chpwd.is_empty();
        Ok(ServerConfig {
            path: path.to_path_buf(),
            mode: Mode::Provisioning,
            collectives: vec![PROVISIONING.to_owned()],
            main_collective: PROVISIONING.to_owned(),
            token_file: token.path.clone(),
            seed_file: None,
            signers,
            match_delegated_caller: true,
            sign_replies: false,
            trust,
            client_certificate: None,
            targets: broker_target::of_provisioning(&claims.chu, &claims.chsrv)?,
            connect_timeout: connect_timeout(&settings)?,
            nats_user: with_password.then(|| claims.chusr.clone()),
            nats_password: with_password.then(|| Secret::new(claims.chpwd.clone())),
            ttl_cap_seconds: 600,
            authorization: Provider::Off,
            audit: AuditConfig::from_settings(&settings),
            facts_files: (!claims.chf.is_empty()).then(|| PathBuf::from(&claims.chf)).into_iter().collect(),
            classes_file: classes_file(&settings),
            status: status(&settings),
            stats_address: None,
            log_level: settings.get("loglevel").unwrap_or("info").to_owned(),
            log_file: settings.get("logfile").unwrap_or("stdout").to_owned(),
            soft_shutdown_timeout: soft_shutdown_timeout(&settings),
            legacy_lifecycle_format: settings.bool("plugin.choria.legacy_lifecycle_format", false),
            provision_token: Some(Secret::new(claims.cht.clone())),
            provisioning_jwt: Some(token.path.clone()),
            allow_update: claims.update,
            identity,
            settings,
        })
    }

    /// Absolute directory of the configuration file: where `server.seed`, `server.jwt` and `policies/` live.
    pub fn directory(&self) -> PathBuf {
        directory_of(&self.path)
    }

    /// Component name in lifecycle events.
    pub fn component(&self) -> &'static str {
        match self.mode {
            Mode::Normal => "server",
            Mode::Provisioning => "provision_mode_server",
        }
    }
}

fn directory_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

fn check_provider(settings: &Settings) -> Result<(), ConfigError> {
    let provider = settings.get("plugin.security.provider").unwrap_or("puppet");
    if !provider.eq_ignore_ascii_case("choria") {
        return Err(ConfigError::Provider(provider.to_owned()));
    }
    for key in [
        "plugin.choria.security.server.token_file",
        "plugin.choria.security.server.seed_file",
        "plugin.choria.security.request_signer.seed_file",
        "plugin.choria.security.request_signer.token_file",
    ] {
        if settings.get(key).is_some() {
            return Err(ConfigError::Conflict { key });
        }
    }
    for key in ["plugin.security.server_anon_tls", "plugin.security.client_anon_tls"] {
        if settings.bool(key, false) {
            return Err(ConfigError::Conflict { key });
        }
    }
    Ok(())
}

fn collectives(settings: &Settings) -> Result<(Vec<String>, String), ConfigError> {
    let mut collectives = settings.list("collectives");
    if collectives.is_empty() {
        // The default of provider choria; "mcollective" belongs to the others.
        collectives.push("choria".to_owned());
    }
    collectives.dedup();
    if let Some(bad) = collectives.iter().find(|name| !valid_collective(name)) {
        return Err(ConfigError::Collective(bad.clone()));
    }
    let first = collectives.first().cloned().unwrap_or_default();
    let main = settings.get("main_collective").map_or(first, str::to_owned);
    if !collectives.contains(&main) {
        return Err(ConfigError::MainCollective(main));
    }
    Ok((collectives, main))
}

fn valid_collective(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn signers(settings: &Settings) -> Result<Signers, ConfigError> {
    let issuers = settings::issuer_keys(settings)?;
    let trusted = settings.list("plugin.security.choria.trusted_signers");
    match (issuers.is_empty(), trusted.is_empty()) {
        (true, true) => Err(ConfigError::NoSigner),
        (false, false) => Err(ConfigError::BothSigners),
        (false, true) => Ok(Signers::Issuers(issuers)),
        (true, false) => {
            let trusted: Vec<String> = trusted.iter().map(|key| key.to_ascii_lowercase()).collect();
            if trusted.iter().any(|key| key.len() != 64 || !key.bytes().all(|b| b.is_ascii_hexdigit())) {
                let key = "plugin.security.choria.trusted_signers";
                return Err(ConfigError::Value { key, reason: "each key must be 64 hex digits".to_owned() });
            }
            Ok(Signers::Trusted(trusted))
        }
    }
}

/// Decision D1: a CA verifies fully and without fallback, else pins, else nothing and the node says so.
fn trust(settings: &Settings) -> Result<Trust, ConfigError> {
    if let Some(ca) = settings.path("plugin.security.choria.ca") {
        return Ok(Trust::CaFile(ca));
    }
    let pins = settings.list("plugin.security.choria.tls_pin");
    if pins.is_empty() {
        return Ok(Trust::Unverified);
    }
    Ok(Trust::Pins(parse_pins(&pins)?))
}

fn parse_pins(pins: &[String]) -> Result<Vec<Pin>, ConfigError> {
    let key = "plugin.security.choria.tls_pin";
    pins.iter()
        .map(|pin| Pin::from_hex(pin).map_err(|error| ConfigError::Value { key, reason: error.to_string() }))
        .collect()
}

fn client_certificate(settings: &Settings) -> Option<(PathBuf, PathBuf)> {
    let certificate = settings.path("plugin.security.choria.certificate")?;
    let key = settings.path("plugin.security.choria.key")?;
    (certificate.exists() && key.exists()).then_some((certificate, key))
}

fn connect_timeout(settings: &Settings) -> Result<Duration, ConfigError> {
    let timeout = settings.duration_or("plugin.choria.network.connect_timeout", Duration::from_secs(2));
    if timeout > MAX_CONNECT_TIMEOUT {
        return Err(ConfigError::ConnectTimeout);
    }
    Ok(if timeout.is_zero() { Duration::from_secs(2) } else { timeout })
}

fn classes_file(settings: &Settings) -> PathBuf {
    settings
        .path("classesfile")
        .unwrap_or_else(|| PathBuf::from("/opt/puppetlabs/puppet/cache/state/classes.txt"))
}

fn status(settings: &Settings) -> Option<StatusConfig> {
    let path = settings.path("plugin.choria.status_file_path")?;
    let key = "plugin.choria.status_update_interval";
    let interval = settings.duration_or(key, Duration::from_secs(30));
    if interval.is_zero() {
        settings.warn_about(key, Problem::Other("is 0: no status file is written".to_owned()));
        return None;
    }
    Some(StatusConfig { path, interval })
}

fn stats_address(settings: &Settings) -> Result<Option<SocketAddr>, ConfigError> {
    let port = settings.int_or("plugin.choria.stats_port", 0);
    let port = u16::try_from(port).map_err(|_| ConfigError::Value {
        key: "plugin.choria.stats_port",
        reason: format!("{port} is not a port"),
    })?;
    if port == 0 {
        return Ok(None);
    }
    let address = settings.get("plugin.choria.stats_address").unwrap_or("127.0.0.1");
    let address: IpAddr = address.parse().map_err(|_| ConfigError::Value {
        key: "plugin.choria.stats_address",
        reason: format!("'{address}' is not an IP address"),
    })?;
    Ok(Some(SocketAddr::new(address, port)))
}

fn soft_shutdown_timeout(settings: &Settings) -> Duration {
    match settings.duration_or("soft_shutdown_timeout", Duration::from_secs(2)) {
        zero if zero.is_zero() => Duration::from_secs(10),
        timeout => timeout.min(Duration::from_secs(600)),
    }
}

#[cfg(test)]
mod tests;
