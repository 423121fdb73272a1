//! What the client is told by its settings (docs/spec/07 §3.4).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use choria_host::settings::Problem;
use choria_host::{Secret, Settings};
use choria_token::{Key, PublicKey, Verifier};

use crate::brokers::BrokerSource;
use crate::credentials::CredentialSource;
use crate::{ClientError, config_files};

/// Longest `plugin.choria.network.connect_timeout` (docs/spec/01 §8.4).
const LONGEST_DIAL: Duration = Duration::from_secs(120);

const LOGIN_URL: &str = "plugin.login.aaasvc.login.url";
/// Spellings found in users' texts.
const LOGIN_URL_ALIASES: [&str; 2] =
    ["plugin.choria.login.aasvc.login.url", "plugin.choria.login.aaasvc.login.url"];
const ANON_TLS: &str = "plugin.security.client_anon_tls";
const ANON_TLS_ALIAS: &str = "plugin.choria.secutiry.client_anon_tls";

/// How the connection to the broker is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsMode {
    /// `plugin.security.choria.ca`: nothing else is trusted.
    Ca(PathBuf),
    /// No CA: the platform's roots, else the key seen first, kept in this file (decision D1).
    RootsOrFirstUse(PathBuf),
    /// Whoever answers; asked for by name.
    Unverified,
    /// Plain TCP; for tests and `INSECURE_DISABLE_TLS`.
    Off,
}

/// Who signs requests (docs/spec/01 §9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignerMode {
    OwnSeed,
    /// Agent `aaa_signer` on the network.
    Service,
    /// Any of these URLs.
    Http(Vec<String>),
}

/// Which targets `--limit` keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LimitMethod {
    #[default]
    First,
    Random,
}

/// Everything a client needs to know. All fields may be changed before connecting.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub identity: String,
    pub collectives: Vec<String>,
    pub main_collective: String,
    /// Seconds that requests are good for.
    pub ttl: i64,
    pub discovery_timeout: Duration,
    pub discovery_method: String,
    pub discovery_options: Vec<String>,
    pub windowed_discovery: bool,
    pub limit_method: LimitMethod,
    pub require_client_filter: bool,
    pub brokers: BrokerSource,
    /// For one broker; the whole attempt is bounded by `ConnectOptions::timeout`.
    pub dial_timeout: Duration,
    pub tls: TlsMode,
    /// Certificate and key for brokers that ask for one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    pub credentials: Option<CredentialSource>,
    pub nats_user: Option<(String, Arc<Secret>)>,
    /// What `choria broker …` uses in place of `nats_user`.
    pub system_user: Option<(String, Arc<Secret>)>,
    pub signer: SignerMode,
    /// CA for the HTTP signer and the login service, where it is not the platform's.
    pub ca: Option<PathBuf>,
    /// Who may issue the tokens of nodes; empty: replies cannot be verified.
    pub issuers: BTreeMap<String, Vec<PublicKey>>,
    pub trusted_signers: Vec<PublicKey>,
    pub login_urls: Vec<String>,
    /// Directories searched for DDLs, in order.
    pub libdirs: Vec<PathBuf>,
    pub registry_cache: Option<PathBuf>,
    /// The settings all this came from.
    pub settings: Settings,
}

impl ClientConfig {
    /// The settings of the usual places; see [`config_files::discover`].
    pub fn discover_file(cli: Option<&Path>) -> Result<Settings, ClientError> {
        config_files::discover(cli)
    }

    /// Understands settings. Values of the wrong kind are errors where guessing would be unsafe, warnings elsewhere.
    pub fn from_settings(settings: Settings) -> Result<Self, ClientError> {
        let s = &settings;
        let provider = s.get("plugin.security.provider").unwrap_or("puppet").to_ascii_lowercase();
        let mut collectives = s.list("collectives");
        if collectives.is_empty() {
            collectives = vec![if provider == "choria" { "choria" } else { "mcollective" }.to_owned()];
        }
        if let Some(bad) = collectives.iter().find(|name| !choria_token::names::valid_collective(name)) {
            return Err(ClientError::Setting {
                key: "collectives",
                reason: format!("'{bad}' is no collective name"),
            });
        }
        let main_collective = s
            .get("main_collective")
            .map(str::to_owned)
            .or_else(|| collectives.first().cloned())
            .unwrap_or_default();
        if !collectives.contains(&main_collective) {
            return Err(ClientError::UnknownCollective(main_collective));
        }

        let token_file = s
            .path("plugin.security.choria.token_file")
            .or_else(|| s.path("plugin.choria.security.request_signer.token_file"));
        let seed_file = s
            .path("plugin.security.choria.seed_file")
            .or_else(|| s.path("plugin.choria.security.request_signer.seed_file"))
            .or_else(|| token_file.as_ref().map(|token| token.with_extension("key")));
        let credentials = token_file.clone().map(|token| CredentialSource::Files { token, seed: seed_file });

        let signer = if s.bool("plugin.choria.security.request_signer.service", false) {
            SignerMode::Service
        } else {
            match s.list("plugin.choria.security.request_signer.url") {
                urls if urls.is_empty() => SignerMode::OwnSeed,
                urls => SignerMode::Http(urls),
            }
        };

        let limit_method = match s.get("rpclimitmethod").unwrap_or("first") {
            "random" => LimitMethod::Random,
            "first" => LimitMethod::First,
            _ => {
                s.warn_about("rpclimitmethod", Problem::NotOneOf("first, random"));
                LimitMethod::First
            }
        };
        let dial_timeout = s.duration("plugin.choria.network.connect_timeout", Duration::from_secs(2))?;
        if dial_timeout > LONGEST_DIAL || dial_timeout.is_zero() {
            return Err(ClientError::Setting {
                key: "plugin.choria.network.connect_timeout",
                reason: "give between 1ms and 120s".to_owned(),
            });
        }
        let seconds = |key: &str, default: i64| s.int_or(key, default).max(1);

        Ok(Self {
            identity: s.get("identity").map(str::to_owned).unwrap_or_else(host_name),
            main_collective,
            collectives,
            ttl: seconds("ttl", 60),
            discovery_timeout: s.duration_or("discovery_timeout", Duration::from_secs(2)),
            discovery_method: s.get("default_discovery_method").unwrap_or("mc").to_owned(),
            discovery_options: s.list("default_discovery_options"),
            windowed_discovery: s.bool("plugin.choria.discovery.broadcast.windowed_timeout", false),
            limit_method,
            require_client_filter: s.bool("plugin.choria.require_client_filter", false),
            brokers: BrokerSource::from_settings(s),
            dial_timeout,
            tls: tls_mode(s, &provider, &signer, token_file.as_deref())?,
            client_certificate: client_certificate(s),
            credentials,
            nats_user: user(s, "plugin.nats.user", "plugin.nats.pass"),
            system_user: user(
                s,
                "plugin.choria.network.system.user",
                "plugin.choria.network.system.password",
            ),
            signer,
            ca: s.path("plugin.security.choria.ca"),
            issuers: issuers(s)?,
            trusted_signers: keys("plugin.security.choria.trusted_signers", s)?,
            login_urls: login_urls(s),
            libdirs: {
                let mut directories = s.path_list("libdir");
                directories.extend(s.path_list("plugin.choria.agent_provider.mcorpc.libdir"));
                directories
            },
            registry_cache: s.path("plugin.choria.services.registry.cache"),
            settings,
        })
    }

    /// What replies are verified with; `None` when no issuer is configured.
    pub fn reply_verifier(&self) -> Option<Verifier> {
        if !self.issuers.is_empty() {
            Some(Verifier::rotating_issuers(self.issuers.clone()))
        } else if !self.trusted_signers.is_empty() {
            Some(Verifier::trusted_signers(
                self.trusted_signers.iter().map(|key| Key::Ed25519(*key)).collect(),
            ))
        } else {
            None
        }
    }

    /// The file the login token is written to.
    ///
    /// # Errors
    /// [`ClientError::NoTokenFile`]
    pub fn token_and_seed_files(&self) -> Result<(PathBuf, PathBuf), ClientError> {
        match &self.credentials {
            Some(CredentialSource::Files { token, seed }) => {
                Ok((token.clone(), seed.clone().unwrap_or_else(|| token.with_extension("key"))))
            }
            _ => Err(ClientError::NoTokenFile),
        }
    }
}

fn tls_mode(
    s: &Settings,
    provider: &str,
    signer: &SignerMode,
    token_file: Option<&Path>,
) -> Result<TlsMode, ClientError> {
    let asked = |variable: &str| std::env::var(variable).is_ok_and(|value| value == "true");
    if asked("INSECURE_DISABLE_TLS") || asked("INSECURE_YES_REALLY") {
        tracing::warn!("TLS to the broker is off: the environment asks for it");
        return Ok(TlsMode::Off);
    }
    let anonymous = s.bool(ANON_TLS, false) || s.bool(ANON_TLS_ALIAS, false);
    if s.get(ANON_TLS_ALIAS).is_some() {
        s.warn_about(ANON_TLS_ALIAS, Problem::Other(format!("is misspelt; write {ANON_TLS}")));
    }
    if anonymous && *signer == SignerMode::OwnSeed {
        return Err(ClientError::Setting {
            key: ANON_TLS,
            reason: "it needs a remote signer; set plugin.choria.security.request_signer.service or .url"
                .to_owned(),
        });
    }
    if anonymous && provider == "choria" {
        return Err(ClientError::Setting {
            key: ANON_TLS,
            reason: "provider 'choria' does not need it; remove it".to_owned(),
        });
    }
    if asked("INSECURE_ANON_TLS") {
        tracing::warn!("the broker's certificate is not verified: INSECURE_ANON_TLS asks for it");
        return Ok(TlsMode::Unverified);
    }
    if let Some(ca) = s.path("plugin.security.choria.ca") {
        return Ok(TlsMode::Ca(ca));
    }
    if s.get("plugin.security.choria.tls_verify") == Some("none") {
        tracing::warn!("the broker's certificate is not verified: plugin.security.choria.tls_verify = none");
        return Ok(TlsMode::Unverified);
    }
    let store = token_file
        .and_then(Path::parent)
        .map_or_else(|| choria_host::settings::expand_home("~/.choria"), Path::to_owned)
        .join("known_brokers");
    Ok(TlsMode::RootsOrFirstUse(store))
}

fn client_certificate(s: &Settings) -> Option<(PathBuf, PathBuf)> {
    let certificate = s.path("plugin.security.choria.certificate")?;
    let key = s.path("plugin.security.choria.key")?;
    (certificate.exists() && key.exists()).then_some((certificate, key))
}

fn user(s: &Settings, user: &str, password: &str) -> Option<(String, Arc<Secret>)> {
    Some((s.get(user)?.to_owned(), Arc::new(Secret::new(s.get(password)?.to_owned()))))
}

fn keys(key: &'static str, s: &Settings) -> Result<Vec<PublicKey>, ClientError> {
    s.list(key)
        .iter()
        .map(|hex| PublicKey::from_hex(hex).map_err(|e| ClientError::Setting { key, reason: e.to_string() }))
        .collect()
}

fn issuers(s: &Settings) -> Result<BTreeMap<String, Vec<PublicKey>>, ClientError> {
    let mut issuers = BTreeMap::new();
    for (org, keys) in choria_host::settings::issuer_keys(s)? {
        let keys = keys
            .iter()
            .map(|hex| {
                PublicKey::from_hex(hex).map_err(|e| ClientError::Setting {
                    key: "plugin.security.issuer",
                    reason: format!("{org}: {e}"),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        issuers.insert(org, keys);
    }
    Ok(issuers)
}

fn login_urls(s: &Settings) -> Vec<String> {
    let urls = s.list(LOGIN_URL);
    if !urls.is_empty() {
        return urls;
    }
    for alias in LOGIN_URL_ALIASES {
        let urls = s.list(alias);
        if !urls.is_empty() {
            s.warn_about(alias, Problem::Other(format!("is an old spelling; write {LOGIN_URL}")));
            return urls;
        }
    }
    Vec::new()
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<ClientConfig, ClientError> {
        ClientConfig::from_settings(Settings::parse(text, Path::new("client.conf")).unwrap())
    }

    #[test]
    fn the_users_guide_configuration() {
        let config = config(
            "plugin.security.provider = choria\nplugin.security.choria.token_file = /x/token\nplugin.choria.middleware_hosts = broker.example.net:4222\nplugin.choria.security.request_signer.service = true\nplugin.choria.login.aasvc.login.url = https://a/login\n",
        )
        .unwrap();
        assert_eq!(config.main_collective, "choria");
        assert_eq!(config.signer, SignerMode::Service);
        assert_eq!(config.tls, TlsMode::RootsOrFirstUse("/x/known_brokers".into()));
        assert_eq!(config.login_urls, ["https://a/login"]);
        assert_eq!(config.token_and_seed_files().unwrap().1, Path::new("/x/token.key"));
        assert!(config.reply_verifier().is_none());
        assert_eq!((config.ttl, config.discovery_timeout), (60, Duration::from_secs(2)));
    }

    #[test]
    fn contradictions_are_refused() {
        for bad in [
            "plugin.security.client_anon_tls = true",
            "collectives = a.b",
            "main_collective = other",
            "plugin.choria.network.connect_timeout = 10m",
            "plugin.security.choria.trusted_signers = nothex",
        ] {
            assert!(config(bad).is_err(), "{bad}");
        }
    }
}
