//! The broker's settings, docs/spec/02 §6, checked before anything listens. Keys are below `plugin.choria.` unless
//! written in full.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use choria_host::private_file::Secret;
use choria_host::settings::{self, Settings, SettingsError};
use choria_token::{Key, KeyError, PublicKey, Verifier, is_published_test_key};

use crate::admission::{Policy, ProvisioningPolicy, SystemPolicy, TokenTrust, VerifiedTokens};
use crate::allow_list::AllowList;
use crate::waiting_limits::WaitingLimits;

/// Longer waits for credentials only help those who hold sockets open.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Shared passwords shorter than this are warned about (docs/spec/10 G11).
const SHORT_PASSWORD: usize = 16;

/// Why the broker's settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting is missing or unreadable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A key named by a setting cannot be used.
    #[error("{key}: {source}")]
    Key {
        /// The setting.
        key: String,
        /// What is wrong with the key.
        source: KeyError,
    },
    /// Settings that exclude each other.
    #[error(
        "{0} and plugin.security.issuer.names cannot be set together: tokens come from issuers or from signers"
    )]
    Conflict(&'static str),
    /// A value outside of what is sensible.
    #[error("{key} = {value}: {problem}")]
    Value {
        /// The setting.
        key: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nothing to run.
    #[error("nothing to run: set plugin.choria.broker_network = true")]
    Nothing,
    /// The host has no name.
    #[error("this host has no name that can be an identity; set 'identity'")]
    Identity,
}

/// The files of a TLS listener.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Authority of client certificates, PEM; without it none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// When a session ends whose token expires, decision D7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionExpiry {
    /// With the token.
    Token,
    /// Never; the token only matters when connecting.
    None,
}

/// A broker's complete configuration.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `identity`: also the engine's name, unique among brokers.
    pub identity: String,
    /// Where the settings came from.
    pub file: Option<PathBuf>,
    /// Client port on `network.listen_address`.
    pub client_address: SocketAddr,
    /// Files for TLS; `None` when it is disabled.
    pub tls: Option<TlsFiles>,
    /// The listener for devices; `None` when it is off.
    pub constrained: Option<Constrained>,
    /// Organizations and their keys, the preferred one first.
    pub issuers: BTreeMap<String, Vec<PublicKey>>,
    /// Monitoring port; `None` when it is off.
    pub stats_address: Option<SocketAddr>,
    /// `network.tls_timeout`.
    pub tls_timeout: Duration,
    /// `network.auth_timeout`.
    pub auth_timeout: Duration,
    /// `network.write_deadline`.
    pub write_deadline: Duration,
    /// `network.max_connections`.
    pub max_connections: usize,
    /// `network.session_expiry`.
    pub session_expiry: SessionExpiry,
    /// `network.provisioning.lifecycle_import = full`: all lifecycle events of waiting nodes reach the fleet.
    pub wide_lifecycle_import: bool,
    /// `network.public_url`.
    pub public_url: Option<String>,
    /// What an operator should know about these settings.
    pub warnings: Vec<String>,
    settings: Settings,
}

/// A listener whose records fit a device's buffers (docs/spec/08 §4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constrained {
    pub address: SocketAddr,
    /// PEM.
    pub certificate: PathBuf,
    /// PEM; Ed25519 or P-256.
    pub key: PathBuf,
    /// Bytes of a record.
    pub max_fragment: usize,
}

impl BrokerConfig {
    /// Reads and checks the settings. Keys that cannot be had yet, as in a policy reload, are read again by
    /// [`BrokerConfig::policy`].
    pub fn from_settings(settings: &Settings) -> Result<BrokerConfig, ConfigError> {
        BrokerConfig::with_tls(settings, true)
    }

    /// As [`BrokerConfig::from_settings`], without TLS: a broker that serves nobody but itself.
    pub fn without_tls(settings: &Settings) -> Result<BrokerConfig, ConfigError> {
        BrokerConfig::with_tls(settings, false)
    }

    fn with_tls(settings: &Settings, tls: bool) -> Result<BrokerConfig, ConfigError> {
        let mut warnings = Vec::new();
        if !settings.bool("plugin.choria.broker_network", false) {
            return Err(ConfigError::Nothing);
        }
        for (key, what) in [
            ("plugin.choria.broker_federation", "federation brokers"),
            ("plugin.choria.adapters", "data adapters"),
            ("plugin.choria.network.stream.store", "streams"),
            ("plugin.choria.network.peers", "clusters of brokers"),
            ("plugin.choria.network.websocket_port", "websockets"),
            ("plugin.choria.network.leafnode_port", "leaf nodes"),
            ("plugin.choria.network.gateway_port", "gateways"),
        ] {
            if settings.get(key).is_some_and(|v| !matches!(v, "" | "0" | "false" | "no")) {
                warnings
                    .push(format!("{key} is set, but this version has no {what}; the setting has no effect"));
            }
        }
        let issuers = issuers(settings)?;
        for key in [
            "plugin.choria.network.client_signer_cert",
            "plugin.choria.network.server_signer_cert",
            "plugin.security.choria.trusted_signers",
        ] {
            if !issuers.is_empty() && !settings.list(key).is_empty() {
                return Err(ConfigError::Conflict(key));
            }
        }
        if issuers.len() > 1 {
            let names: Vec<&str> = issuers.keys().map(String::as_str).collect();
            warnings.push(format!(
                "organizations {} share account 'choria': members of each can reach the nodes of the others",
                names.join(", ")
            ));
        }
        let address: IpAddr = parse(settings, "plugin.choria.network.listen_address", "::")?;
        let client_port = port(settings, "plugin.choria.network.client_port", 4222)?;
        let stats_port = port(settings, "plugin.choria.stats_port", 0)?;
        let stats: IpAddr = parse(settings, "plugin.choria.stats_address", "127.0.0.1")?;
        for key in
            ["plugin.choria.network.provisioning.client_password", "plugin.choria.network.system.password"]
        {
            if let Some(password) = settings.get(key).filter(|p| !p.is_empty() && p.len() < SHORT_PASSWORD) {
                if settings.bool("plugin.choria.strict_secrets", false) {
                    return Err(ConfigError::Value {
                        key: key.to_owned(),
                        value: "*****".to_owned(),
                        problem: "shorter than 16 characters (strict_secrets)",
                    });
                }
                warnings
                    .push(format!("{key} has {} characters; 16 or more are harder to guess", password.len()));
            }
        }
        let config = BrokerConfig {
            identity: identity(settings)?,
            file: settings.path_loaded().map(std::path::Path::to_path_buf),
            client_address: SocketAddr::new(address, client_port),
            tls: if tls { Some(tls_files(settings)?) } else { None },
            constrained: if tls { constrained(settings, address)? } else { None },
            issuers,
            stats_address: (stats_port > 0).then(|| SocketAddr::new(stats, stats_port)),
            tls_timeout: wait(settings, "plugin.choria.network.tls_timeout")?,
            auth_timeout: wait(settings, "plugin.choria.network.auth_timeout")?,
            write_deadline: settings
                .duration("plugin.choria.network.write_deadline", Duration::from_secs(10))?,
            max_connections: usize::try_from(settings.int("plugin.choria.network.max_connections", 50_000)?)
                .unwrap_or(50_000),
            session_expiry: match settings.get("plugin.choria.network.session_expiry").unwrap_or("token") {
                "none" => SessionExpiry::None,
                _ => SessionExpiry::Token,
            },
            wide_lifecycle_import: settings.get("plugin.choria.network.provisioning.lifecycle_import")
                == Some("full"),
            public_url: settings.get("plugin.choria.network.public_url").map(str::to_owned),
            warnings,
            settings: settings.clone(),
        };
        // Everything that admission needs is checked now, and not when the first node connects.
        config.policy()?;
        Ok(config)
    }

    /// What they were made from.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The rules of admission that these settings make, with nothing remembered yet.
    pub fn policy(&self) -> Result<Policy, ConfigError> {
        let s = &self.settings;
        let trust = if self.issuers.is_empty() {
            TokenTrust::Signers {
                clients: signers(s, "plugin.choria.network.client_signer_cert")?,
                servers: signers(s, "plugin.choria.network.server_signer_cert")?,
            }
        } else {
            TokenTrust::Issuers(Verifier::rotating_issuers(self.issuers.clone()))
        };
        let secret = |key: &str| s.get(key).filter(|v| !v.is_empty()).map(|v| Secret::new(v.to_owned()));
        let prefix = "plugin.choria.network.provisioning";
        let provisioning = match secret("plugin.choria.network.provisioning.client_password") {
            Some(password) if self.tls.is_some() => Some(ProvisioningPolicy {
                password,
                previous_password: secret("plugin.choria.network.provisioning.client_password_previous"),
                signer: signers(s, &format!("{prefix}.signer_cert"))?,
                without_token: s.bool(&format!("{prefix}.provisioner_without_token"), false),
                require_signature: s.bool(&format!("{prefix}.require_signature"), true),
                own_node_subject: s.get(&format!("{prefix}.node_subject")) != Some("any"),
                token_scope: s.get(&format!("{prefix}.token_scope")) == Some("provisioning"),
                limits: WaitingLimits::from_settings(s, self.max_connections)?,
            }),
            _ => None,
        };
        let system = s.get("plugin.choria.network.system.user").filter(|user| !user.is_empty()).map(|user| {
            SystemPolicy { user: user.to_owned(), password: secret("plugin.choria.network.system.password") }
        });
        let hosts = s.list("plugin.choria.network.client_hosts");
        let allow_list =
            AllowList::parse(hosts.iter().map(String::as_str)).map_err(|value| ConfigError::Value {
                key: "plugin.choria.network.client_hosts".to_owned(),
                value,
                problem: "neither an address nor a range such as 192.0.2.0/24",
            })?;
        Ok(Policy {
            trust,
            tls: self.tls.is_some(),
            provisioning,
            system,
            allow_list,
            deny_servers: s.bool("plugin.choria.network.deny_server_connections", false),
            require_expiry: s.bool("plugin.choria.network.require_token_expiry", true),
            verified: VerifiedTokens::default(),
        })
    }
}

/// `plugin.choria.network.constrained.*` (decision D5).
fn constrained(settings: &Settings, address: IpAddr) -> Result<Option<Constrained>, ConfigError> {
    let key = |name: &str| format!("plugin.choria.network.constrained.{name}");
    let port = port(settings, &key("port"), 0)?;
    if port == 0 {
        return Ok(None);
    }
    let file = |name: &str| {
        settings.path(&key(name)).ok_or_else(|| SettingsError::Missing {
            key: key(name),
            why: "the listener for devices has a certificate and key of its own, Ed25519 or P-256",
        })
    };
    let max_fragment = settings.int(&key("max_fragment"), 4096)?;
    let in_bounds = usize::try_from(max_fragment).ok().filter(|size| (512..=16_384).contains(size));
    let max_fragment = in_bounds.ok_or_else(|| ConfigError::Value {
        key: key("max_fragment"),
        value: max_fragment.to_string(),
        problem: "a record holds 512 to 16384 bytes",
    })?;
    Ok(Some(Constrained {
        address: SocketAddr::new(address, port),
        certificate: file("certificate")?,
        key: file("key")?,
        max_fragment,
    }))
}

fn issuers(settings: &Settings) -> Result<BTreeMap<String, Vec<PublicKey>>, ConfigError> {
    let mut issuers = BTreeMap::new();
    for (org, keys) in settings::issuer_keys(settings)? {
        let setting = format!("plugin.security.issuer.{org}.public");
        let mut parsed = Vec::with_capacity(keys.len());
        for text in keys {
            let key = PublicKey::from_hex(&text)
                .and_then(|key| {
                    if is_published_test_key(&key) {
                        Err(KeyError::PublishedTestKey(key.to_hex()))
                    } else {
                        Ok(key)
                    }
                })
                .map_err(|source| ConfigError::Key { key: setting.clone(), source })?;
            parsed.push(key);
        }
        issuers.insert(org, parsed);
    }
    Ok(issuers)
}

/// Keys of a list of files and hexadecimal digits. A file that is not there is skipped, as older brokers do: it may
/// arrive later.
fn signers(settings: &Settings, setting: &str) -> Result<Option<Verifier>, ConfigError> {
    let mut keys = Vec::new();
    let listed = settings.list(setting);
    for entry in &listed {
        match Key::load(entry) {
            Ok(key) => keys.push(key),
            Err(KeyError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && listed.len() > 1 => {}
            Err(source) => return Err(ConfigError::Key { key: setting.to_owned(), source }),
        }
    }
    Ok((!keys.is_empty()).then(|| Verifier::trusted_signers(keys)))
}

fn tls_files(settings: &Settings) -> Result<TlsFiles, ConfigError> {
    let prefix = match settings.get("plugin.security.provider") {
        Some("file") => "plugin.security.file",
        _ => "plugin.security.choria",
    };
    let path = |name: &str| settings.path(&format!("{prefix}.{name}"));
    let needed = |name: &str| {
        path(name).ok_or_else(|| SettingsError::Missing {
            key: format!("{prefix}.{name}"),
            why: "the broker speaks TLS and needs a certificate and its key",
        })
    };
    Ok(TlsFiles { certificate: needed("certificate")?, key: needed("key")?, client_ca: path("ca") })
}

fn identity(settings: &Settings) -> Result<String, ConfigError> {
    if let Some(identity) = settings.get("identity").filter(|i| !i.is_empty()) {
        return Ok(identity.to_owned());
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if choria_token::names::valid_identity(name) { Ok(name.to_owned()) } else { Err(ConfigError::Identity) }
}

fn parse<T: std::str::FromStr>(settings: &Settings, key: &str, default: &str) -> Result<T, ConfigError> {
    let value = settings.get(key).unwrap_or(default);
    value.parse().map_err(|_| ConfigError::Value {
        key: key.to_owned(),
        value: value.to_owned(),
        problem: "not an IP address",
    })
}

fn port(settings: &Settings, key: &str, default: u16) -> Result<u16, ConfigError> {
    let value = settings.int(key, i64::from(default))?;
    u16::try_from(value).map_err(|_| ConfigError::Value {
        key: key.to_owned(),
        value: value.to_string(),
        problem: "not a port between 0 and 65535",
    })
}

fn wait(settings: &Settings, key: &str) -> Result<Duration, ConfigError> {
    let value = settings.duration(key, Duration::from_secs(2))?;
    if value.is_zero() || value > MAX_WAIT {
        return Err(ConfigError::Value {
            key: key.to_owned(),
            value: settings.get(key).unwrap_or_default().to_owned(),
            problem: "at most 60 seconds, and more than none",
        });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use choria_token::Seed;
    use std::path::Path;

    fn settings(more: &str) -> Settings {
        let key = Seed::generate().unwrap().public().to_hex();
        let text = format!(
            "identity = broker.example.net\nplugin.security.issuer.names = choria\n\
             plugin.security.issuer.choria.public = {key}\nplugin.choria.broker_network = true\n\
             plugin.choria.network.provisioning.client_password = s3cret\n\
             plugin.choria.network.system.user = system\nplugin.choria.network.system.password = sYst3m\n\
             plugin.security.provider = choria\nplugin.security.choria.certificate = /c\nplugin.security.choria.key = /k\n{more}\n"
        );
        Settings::parse(&text, Path::new("broker.conf")).unwrap()
    }

    #[test]
    fn the_users_guide() {
        let config = BrokerConfig::from_settings(&settings("plugin.choria.stats_port = 8222")).unwrap();
        assert_eq!(config.client_address, "[::]:4222".parse().unwrap());
        assert_eq!(config.stats_address, Some("127.0.0.1:8222".parse().unwrap()));
        assert_eq!(config.warnings.len(), 2, "two short passwords");
        let policy = config.policy().unwrap();
        assert!(policy.provisioning.is_some_and(|p| p.require_signature && p.own_node_subject));
        assert!(policy.require_expiry && policy.tls);
    }

    #[test]
    fn switches_to_older_behaviour() {
        let config = BrokerConfig::from_settings(&settings(
            "plugin.choria.network.provisioning.node_subject = any\n\
             plugin.choria.network.provisioning.require_signature = false\n\
             plugin.choria.network.provisioning.lifecycle_import = full\n\
             plugin.choria.network.require_token_expiry = false\nplugin.choria.network.session_expiry = none",
        ))
        .unwrap();
        assert!(config.wide_lifecycle_import && config.session_expiry == SessionExpiry::None);
        let policy = config.policy().unwrap();
        assert!(policy.provisioning.is_some_and(|p| !p.require_signature && !p.own_node_subject));
        assert!(!policy.require_expiry);
    }

    #[test]
    fn what_cannot_work_is_refused_at_the_start() {
        let published = "plugin.security.issuer.choria.public = \
             2948fe63b93079bfef6328d9349ac60b6a6f0c50cfa8b1c7a3bff9e82f8c87ff";
        for (more, text) in [
            (published, "published as test data"),
            ("plugin.choria.network.client_signer_cert = /x", "cannot be set together"),
            ("plugin.choria.network.auth_timeout = 61", "at most 60"),
            ("plugin.choria.network.client_port = 70000", "not a port"),
            ("plugin.choria.network.listen_address = everywhere", "not an IP address"),
            ("plugin.choria.network.client_hosts = 10.0.0.0/40", "neither an address"),
            ("plugin.choria.broker_network = false", "nothing to run"),
            ("plugin.choria.strict_secrets = true", "shorter than 16"),
        ] {
            let refused = BrokerConfig::from_settings(&settings(more)).unwrap_err().to_string();
            assert!(refused.contains(text), "{more}: {refused}");
        }
    }
}
