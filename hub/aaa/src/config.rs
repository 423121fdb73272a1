//! The configuration file, `docs/spec/05 §2`: one JSON object, unknown keys ignored.
//!
//! Keys that do not exist upstream are marked *ours*. Durations accept both grammars of `docs/spec/02 §6`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::error::AaaError;
use crate::user::UserRecord;

/// Largest configuration or user file, bytes.
pub(crate) const MAX_FILE: u64 = 16 * 1024 * 1024;
/// K14: even a service's token ends.
const SERVICE_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct AaaConfig {
    /// Where it came from; read again on SIGHUP.
    pub path: PathBuf,
    pub choria_config: Option<PathBuf>,
    pub logfile: Option<String>,
    pub loglevel: String,
    /// Label of metrics, audit records and policy input.
    pub site: String,
    /// The HTTPS listener; `None` without `port`.
    pub listen: Option<SocketAddr>,
    /// Plain HTTP with `/metrics`, `/healthz` and `/readyz`; `None` without `monitor_port`.
    pub monitor: Option<SocketAddr>,
    pub tls: Option<TlsFiles>,
    /// Set by [`AaaConfig::without_tls`]; otherwise a listener without certificate does not start.
    pub plain_http: bool,
    pub userlist: Option<UserlistConfig>,
    pub signer: Option<SignerConfig>,
    pub authorizer: Option<AuthorizerKind>,
    pub auditors: Vec<AuditorConfig>,
    /// *ours* `audit`: `fail_open` (default) or `fail_closed`.
    pub audit_fail_closed: bool,
    pub limits: LoginLimits,
}

/// Certificate and key of the listener.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// When set, every client must show a certificate of this CA.
    pub client_ca: Option<PathBuf>,
}

/// `docs/spec/05 §4`.
#[derive(Debug, Clone)]
pub struct UserlistConfig {
    pub users: Vec<UserRecord>,
    pub users_file: Option<PathBuf>,
    pub validity: Duration,
    pub signing_key: PathBuf,
    pub signing_token: Option<PathBuf>,
}

/// `docs/spec/05 §7.1`.
#[derive(Debug, Clone)]
pub struct SignerConfig {
    /// Key file or 64 hex digits; several with commas between them while one replaces the other (*ours*).
    pub signing_certificate: String,
    /// *ours*: the organization's key; with a chain issuer's key as `signing_certificate` both then have to agree.
    pub issuer: Option<String>,
    pub signing_token: PathBuf,
    pub signing_seed: PathBuf,
    pub max_validity: Duration,
    /// *ours*: the bound for tokens with permission `service`, one year by default (`docs/spec/10 K14`).
    pub service_max_validity: Duration,
    pub choria_service: bool,
    pub allow_bearer_tokens: bool,
    /// *ours*: signatures per second and caller, 50 by default, 0 for no limit; four seconds' worth may come at once.
    pub rate: u32,
    /// *ours*: organization to the collectives its callers may address. Without it: the collectives of `choria_config`.
    pub collectives: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizerKind {
    ActionList,
    Opa,
}

#[derive(Debug, Clone)]
pub enum AuditorConfig {
    /// JSON lines into the file, plain text on standard output without one.
    LogFile { path: Option<PathBuf> },
    /// Published to `topic`.
    JetStream { servers: Vec<String>, topic: String },
}

/// How logins are slowed down, `docs/spec/10 §9`. All *ours*.
#[derive(Debug, Clone)]
pub struct LoginLimits {
    /// Failures in a minute, of one user from one address, before waiting is asked for.
    pub user_failures: u32,
    /// Attempts in a minute from one address.
    pub address_attempts: u32,
    /// Whether loopback addresses are free of both.
    pub exempt_loopback: bool,
}

impl Default for LoginLimits {
    fn default() -> LoginLimits {
        LoginLimits { user_failures: 5, address_attempts: 60, exempt_loopback: false }
    }
}

impl AaaConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`AaaError::Setting`] names the key; upstream finds several of these only at the first request.
    pub fn load(path: &Path) -> Result<AaaConfig, AaaError> {
        let text = read_bounded(path)?;
        let file: File = serde_json::from_slice(&text)
            .map_err(|source| AaaError::Json { path: path.to_path_buf(), source })?;
        file.check(path)
    }

    /// Serves plain HTTP, for use behind a proxy that ends TLS. `choria aaa run --disable-tls`.
    #[must_use]
    pub fn without_tls(mut self) -> AaaConfig {
        self.tls = None;
        self.plain_http = true;
        self
    }
}

pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, AaaError> {
    use std::io::Read as _;
    let failed = |source| AaaError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(AaaError::TooLarge { path: path.to_path_buf(), limit: MAX_FILE });
    }
    Ok(bytes)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    choria_config: Option<PathBuf>,
    logfile: Option<String>,
    loglevel: String,
    site: String,
    #[serde(deserialize_with = "port")]
    port: u16,
    #[serde(deserialize_with = "port")]
    monitor_port: u16,
    listen_address: Option<IpAddr>,
    monitor_address: Option<IpAddr>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    authenticator: String,
    signer: String,
    authorizer: String,
    auditors: Vec<String>,
    audit: String,
    userlist_authenticator: Option<Userlist>,
    basicjwt_signer: Option<BasicJwt>,
    logfile_auditor: Option<LogFileAuditor>,
    jetstream_auditor: Option<JetStreamAuditor>,
    login_limits: Limits,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Userlist {
    users: Vec<UserRecord>,
    users_file: Option<PathBuf>,
    validity: String,
    signing_key: Option<PathBuf>,
    signing_token: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct BasicJwt {
    signing_certificate: String,
    issuer: Option<String>,
    signing_token: Option<PathBuf>,
    signing_seed: Option<PathBuf>,
    max_validity: String,
    service_max_validity: String,
    choria_service: bool,
    allow_bearer_tokens: bool,
    rate: Option<u32>,
    collectives: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LogFileAuditor {
    logfile: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JetStreamAuditor {
    servers: String,
    topic: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Limits {
    user_failures: Option<u32>,
    address_attempts: Option<u32>,
    exempt_loopback: bool,
}

/// A port as number or as text: upstream's documents show `"443"`, which its own code refuses.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Port {
        Number(u16),
        Text(String),
    }
    match Port::deserialize(deserializer)? {
        Port::Number(port) => Ok(port),
        Port::Text(text) => text.trim().parse().map_err(serde::de::Error::custom),
    }
}

fn setting(key: &'static str, reason: impl Into<String>) -> AaaError {
    AaaError::Setting { key, reason: reason.into() }
}

fn duration(key: &'static str, text: &str) -> Result<Duration, AaaError> {
    let duration = choria_host::duration::parse(text).map_err(|error| setting(key, error.to_string()))?;
    if duration.is_zero() {
        return Err(setting(key, "must be longer than nothing, for example \"1h\""));
    }
    Ok(duration)
}

impl File {
    fn check(self, path: &Path) -> Result<AaaConfig, AaaError> {
        let anywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let address = |port: u16, ip: IpAddr| (port != 0).then(|| SocketAddr::new(ip, port));
        let userlist = match self.authenticator.as_str() {
            "" => None,
            "userlist" => {
                let section = self.userlist_authenticator.ok_or_else(|| {
                    setting("userlist_authenticator", "is required by authenticator 'userlist'")
                })?;
                Some(section.check()?)
            }
            "okta" => return Err(setting("authenticator", "'okta' was removed; use 'userlist'")),
            other => return Err(setting("authenticator", format!("'{other}' is not known; use 'userlist'"))),
        };
        let signer = match self.signer.as_str() {
            "" => None,
            "basicjwt" => {
                let section = self
                    .basicjwt_signer
                    .ok_or_else(|| setting("basicjwt_signer", "is required by signer 'basicjwt'"))?;
                Some(section.check()?)
            }
            other => return Err(setting("signer", format!("'{other}' is not known; use 'basicjwt'"))),
        };
        let authorizer = match self.authorizer.as_str() {
            "" => None,
            "actionlist" => Some(AuthorizerKind::ActionList),
            "opa" => Some(AuthorizerKind::Opa),
            other => {
                return Err(setting(
                    "authorizer",
                    format!("'{other}' is not known; use 'actionlist' or 'opa'"),
                ));
            }
        };
        if signer.is_some() && authorizer.is_none() {
            return Err(setting("authorizer", "a signer needs one: 'actionlist' or 'opa'"));
        }
        let logfile = self.logfile_auditor.and_then(|section| section.logfile);
        let jetstream = self.jetstream_auditor.unwrap_or_default();
        let mut auditors = Vec::new();
        for name in &self.auditors {
            auditors.push(match name.as_str() {
                "logfile" => AuditorConfig::LogFile {
                    path: logfile.clone().filter(|path| !path.as_os_str().is_empty()),
                },
                "jetstream" => {
                    let servers: Vec<String> = jetstream
                        .servers
                        .split(',')
                        .map(|s| s.trim().to_owned())
                        .filter(|s| !s.is_empty())
                        .collect();
                    if jetstream.topic.is_empty() {
                        return Err(setting("jetstream_auditor", "needs a 'topic'"));
                    }
                    if !choria_token::names::valid_subject(&jetstream.topic)
                        || jetstream.topic.contains(['*', '>'])
                    {
                        return Err(setting(
                            "jetstream_auditor",
                            "'topic' must be a subject without wildcards",
                        ));
                    }
                    AuditorConfig::JetStream { servers, topic: jetstream.topic.clone() }
                }
                "natsstream" => return Err(setting("auditors", "'natsstream' was removed; use 'jetstream'")),
                other => {
                    return Err(setting(
                        "auditors",
                        format!("'{other}' is not known; use 'logfile' or 'jetstream'"),
                    ));
                }
            });
        }
        let audit_fail_closed = match self.audit.as_str() {
            "" | "fail_open" => false,
            "fail_closed" => true,
            other => {
                return Err(setting(
                    "audit",
                    format!("'{other}' is not known; use 'fail_open' or 'fail_closed'"),
                ));
            }
        };
        let needs_broker = signer.as_ref().is_some_and(|signer| signer.choria_service)
            || auditors.iter().any(|auditor| matches!(auditor, AuditorConfig::JetStream { .. }));
        if needs_broker && self.choria_config.is_none() {
            return Err(setting("choria_config", "is required to reach the broker"));
        }
        let tls = match (self.tls_certificate, self.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate,
                key,
                client_ca: self.tls_ca.filter(|path| !path.as_os_str().is_empty()),
            }),
            (None, None) => None,
            (None, Some(_)) => return Err(setting("tls_certificate", "is missing beside tls_key")),
            (Some(_), None) => return Err(setting("tls_key", "is missing beside tls_certificate")),
        };
        let limits = LoginLimits {
            user_failures: self.login_limits.user_failures.unwrap_or(5).max(1),
            address_attempts: self.login_limits.address_attempts.unwrap_or(60).max(1),
            exempt_loopback: self.login_limits.exempt_loopback,
        };
        Ok(AaaConfig {
            path: path.to_path_buf(),
            choria_config: self.choria_config,
            logfile: self.logfile.filter(|text| !text.is_empty()),
            loglevel: Some(self.loglevel)
                .filter(|text| !text.is_empty())
                .unwrap_or_else(|| "info".to_owned()),
            site: Some(self.site).filter(|text| !text.is_empty()).unwrap_or_else(|| "default".to_owned()),
            listen: address(self.port, self.listen_address.unwrap_or(anywhere)),
            monitor: address(
                self.monitor_port,
                self.monitor_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ),
            tls,
            plain_http: false,
            userlist,
            signer,
            authorizer,
            auditors,
            audit_fail_closed,
            limits,
        })
    }
}

impl Userlist {
    fn check(self) -> Result<UserlistConfig, AaaError> {
        Ok(UserlistConfig {
            users: self.users,
            users_file: self.users_file.filter(|path| !path.as_os_str().is_empty()),
            validity: duration("userlist_authenticator.validity", &self.validity)?,
            signing_key: self.signing_key.ok_or_else(|| {
                setting("userlist_authenticator.signing_key", "names no key to sign tokens with")
            })?,
            signing_token: self.signing_token.filter(|path| !path.as_os_str().is_empty()),
        })
    }
}

impl BasicJwt {
    fn check(self) -> Result<SignerConfig, AaaError> {
        if self.signing_certificate.is_empty() {
            return Err(setting(
                "basicjwt_signer.signing_certificate",
                "names no key to verify user tokens with",
            ));
        }
        if self.allow_bearer_tokens && self.choria_service {
            return Err(setting(
                "basicjwt_signer.allow_bearer_tokens",
                "cannot be combined with choria_service: every token is visible to every node, so anybody could have \
                 requests signed in another's name",
            ));
        }
        let service_max_validity = match self.service_max_validity.as_str() {
            "" => SERVICE_VALIDITY,
            text => duration("basicjwt_signer.service_max_validity", text)?,
        };
        Ok(SignerConfig {
            signing_certificate: self.signing_certificate,
            issuer: self.issuer.filter(|text| !text.is_empty()),
            signing_token: self.signing_token.ok_or_else(|| {
                setting(
                    "basicjwt_signer.signing_token",
                    "names no delegation token; protocol 1 signing is not offered",
                )
            })?,
            signing_seed: self.signing_seed.ok_or_else(|| {
                setting("basicjwt_signer.signing_seed", "names no seed of the delegation token")
            })?,
            max_validity: duration("basicjwt_signer.max_validity", &self.max_validity)?,
            service_max_validity,
            choria_service: self.choria_service,
            allow_bearer_tokens: self.allow_bearer_tokens,
            rate: self.rate.unwrap_or(50),
            collectives: self.collectives,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AaaConfig, AaaError> {
        let file: File =
            serde_json::from_str(text).map_err(|source| AaaError::Json { path: "t".into(), source })?;
        file.check(Path::new("t"))
    }

    /// The example of docs/spec/05 §12.
    const EXAMPLE: &str = r#"{"choria_config":"/etc/aaasvc/choria.conf","logfile":"/dev/stdout","loglevel":"info","site":"london",
 "port":8080,"monitor_port":8081,"tls_certificate":"/etc/aaasvc/https.crt","tls_key":"/etc/aaasvc/https.key",
 "authenticator":"userlist","authorizer":"opa","auditors":["logfile"],"signer":"basicjwt",
 "logfile_auditor":{"logfile":"/var/log/aaasvc/audit.json"},
 "basicjwt_signer":{"signing_certificate":"/etc/aaasvc/issuer.public","signing_token":"/etc/aaasvc/request-signer.jwt",
   "signing_seed":"/etc/aaasvc/request-signer.seed","max_validity":"2h","choria_service":true},
 "userlist_authenticator":{"signing_key":"/etc/aaasvc/chain.seed","signing_token":"/etc/aaasvc/chain.jwt","validity":"1h",
   "users":[{"username":"bob","password":"$2a$10$abcdefghijklmnopqrstuv","opa_policy_file":"/etc/aaasvc/ops.rego",
             "broker_permissions":{"signed_fleet_management":true}}]},"something_new":1}"#;

    #[test]
    fn the_documented_example_is_understood() {
        let config = parse(EXAMPLE).expect("a configuration");
        assert_eq!(config.listen.map(|a| a.port()), Some(8080));
        assert_eq!(config.userlist.as_ref().map(|u| u.validity), Some(Duration::from_secs(3600)));
        assert_eq!(config.signer.as_ref().map(|s| s.max_validity), Some(Duration::from_secs(7200)));
        assert_eq!(config.site, "london");
        assert!(!config.audit_fail_closed);
    }

    #[test]
    fn ports_may_be_text_as_the_documents_show() {
        assert_eq!(parse(r#"{"port":"443"}"#).expect("config").listen.map(|a| a.port()), Some(443));
        assert!(parse(r#"{"port":"https"}"#).is_err());
    }

    #[test]
    fn t_178_bearer_tokens_with_the_service_form_do_not_start() {
        let text = EXAMPLE
            .replace("\"choria_service\":true", "\"choria_service\":true,\"allow_bearer_tokens\":true");
        let error = parse(&text).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("allow_bearer_tokens"), "{error}");
        choria_rows::row(178, "allow_bearer_tokens with the service form", "start error");
    }

    #[test]
    fn t_201_a_signer_without_authorizer_does_not_start() {
        let text = EXAMPLE.replace("\"authorizer\":\"opa\",", "");
        assert!(matches!(parse(&text), Err(AaaError::Setting { key: "authorizer", .. })));
        choria_rows::row(201, "a signer without authorizer", "start error");
    }

    #[test]
    fn mistakes_are_found_at_start() {
        for (from, to, key) in [
            ("\"auditors\":[\"logfile\"]", "\"auditors\":[\"syslog\"]", "auditors"),
            ("\"auditors\":[\"logfile\"]", "\"auditors\":[\"natsstream\"]", "auditors"),
            ("\"authenticator\":\"userlist\"", "\"authenticator\":\"okta\"", "authenticator"),
            ("\"max_validity\":\"2h\",", "", "basicjwt_signer.max_validity"),
            ("\"validity\":\"1h\"", "\"validity\":\"0s\"", "userlist_authenticator.validity"),
            ("\"choria_config\":\"/etc/aaasvc/choria.conf\",", "", "choria_config"),
        ] {
            let error = parse(&EXAMPLE.replace(from, to)).err();
            assert!(
                matches!(&error, Some(AaaError::Setting { key: found, .. }) if *found == key),
                "{to}: {error:?}"
            );
        }
    }
}
