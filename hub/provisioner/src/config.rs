//! `choria-provisioner.yaml`: what it may say, its defaults, and the sentence for everything that is wrong
//! with it (`docs/spec/04 §10.2`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use choria_host::Secret;
use regex::Regex;
use serde::Deserialize;

use crate::builtin::{Builtin, BuiltinError, BuiltinFile};
use crate::claims::{ClaimLimits, ClaimLimitsFile, LimitsError};
use crate::command_line;

/// A configuration file larger than this is not one.
const MAX_FILE: u64 = 1 << 20;

/// Discovery more often than this only disturbs nodes.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// A day, in the unit of [`Duration::from_secs`].
const DAY: u64 = 86_400;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the provisioner configuration {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the provisioner configuration {path} is larger than 1 MiB")]
    TooLarge { path: PathBuf },
    #[error("the provisioner configuration {path} is not valid: {detail}{hint}")]
    Yaml { path: PathBuf, detail: String, hint: &'static str },
    #[error("`{key}` in {path}: {detail}")]
    Value { path: PathBuf, key: &'static str, detail: String },
    #[error("`builtin` in {path}: {source}")]
    Builtin { path: PathBuf, source: BuiltinError },
    #[error("`server_claims_limits` in {path}: {source}")]
    Limits { path: PathBuf, source: LimitsError },
}

/// Which steps the provisioner performs for each node.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Features {
    /// Fetch the node's provisioning token and verify it.
    pub jwt: bool,
    /// Issue server tokens; implies `jwt`.
    pub ed25519: bool,
    /// Certificate signing requests, for x509 networks.
    pub pki: bool,
    /// In-place upgrades asked for by the helper.
    pub upgrades: bool,
}

/// What decides about a node.
#[derive(Debug)]
pub enum Decider {
    /// A program of the site: arguments after POSIX shell unquoting, run without a shell.
    Command(Vec<String>),
    /// The rules in this configuration [ours, decision D10].
    Builtin(Builtin),
}

/// A checked configuration.
#[derive(Debug)]
pub struct ProvisionerConfig {
    /// The file this came from; messages name it.
    pub path: PathBuf,
    /// Helper programs running at once.
    pub workers: usize,
    /// Nodes being worked on at once [ours]; they wait for the network, not for a processor.
    pub in_flight: usize,
    pub interval: Duration,
    pub logfile: String,
    pub loglevel: String,
    pub decider: Decider,
    /// Longest run of one helper program.
    pub helper_timeout: Duration,
    /// Names of environment variables a helper program sees besides `PATH` and `LANG`.
    pub helper_environment: Vec<String>,
    /// The token of the provisioning agent, claim `cht`. `None` when the file gives none.
    pub token: Option<Arc<Secret>>,
    /// The `cht` of provisioning tokens from before a change [ours].
    pub previous_token: Option<Arc<Secret>>,
    pub lifecycle_component: String,
    pub insecure: bool,
    pub site: String,
    /// Where `/metrics` is served; `None` is off.
    pub monitor: Option<std::net::SocketAddr>,
    pub broker_password: Option<Arc<Secret>>,
    /// Key files, or 64 hex digits each: any of them verifies provisioning tokens. More than one while one replaces
    /// the other.
    pub jwt_verify: Vec<String>,
    pub jwt_signing_key: Option<PathBuf>,
    pub jwt_signing_token: Option<PathBuf>,
    pub server_jwt_validity: Duration,
    pub leader_election: bool,
    pub upgrades_repository: String,
    pub upgrades_optional: bool,
    pub features: Features,
    /// What a server token may contain at most, whatever the helper asks for [ours].
    pub limits: ClaimLimits,
    /// Remembers which key was enrolled under which name across restarts [ours].
    pub enrolled_file: Option<PathBuf>,
    /// What a known but offline name with a new key meets [ours].
    pub known_names: KnownNames,
    /// Keys of the file that mean nothing here, for one warning at start.
    pub unknown_keys: Vec<String>,
}

/// Policy for a name that was enrolled before and comes back with a new key (`docs/spec/10` V2).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum KnownNames {
    Allow,
    /// The helper is told `known: true` and decides.
    #[default]
    Helper,
    Refuse,
}

#[derive(Deserialize)]
#[serde(default)]
struct File {
    workers: Option<usize>,
    in_flight: usize,
    interval: String,
    logfile: Option<String>,
    loglevel: Option<String>,
    helper: String,
    helper_timeout: String,
    helper_environment: Vec<String>,
    builtin: Option<BuiltinFile>,
    token: String,
    token_previous: String,
    lifecycle_component: String,
    choria_insecure: bool,
    site: String,
    monitor_port: u16,
    monitor_address: String,
    broker_provisioning_password: String,
    jwt_verify_cert: String,
    jwt_signing_key: String,
    jwt_signing_token: String,
    server_jwt_validity: String,
    leader_election: bool,
    upgrades_repository: String,
    upgrades_optional: bool,
    features: Features,
    server_claims_limits: ClaimLimitsFile,
    enrolled_file: String,
    known_names: KnownNames,
}

impl Default for File {
    fn default() -> Self {
        File {
            workers: None,
            in_flight: 256,
            interval: "1m".into(),
            logfile: None,
            loglevel: None,
            helper: String::new(),
            helper_timeout: "10s".into(),
            helper_environment: Vec::new(),
            builtin: None,
            token: String::new(),
            token_previous: String::new(),
            lifecycle_component: "provision_mode_server".into(),
            choria_insecure: false,
            site: String::new(),
            monitor_port: 0,
            monitor_address: "127.0.0.1".into(),
            broker_provisioning_password: String::new(),
            jwt_verify_cert: String::new(),
            jwt_signing_key: String::new(),
            jwt_signing_token: String::new(),
            server_jwt_validity: "1y".into(),
            leader_election: false,
            upgrades_repository: String::new(),
            upgrades_optional: false,
            features: Features::default(),
            server_claims_limits: ClaimLimitsFile::default(),
            enrolled_file: String::new(),
            known_names: KnownNames::default(),
        }
    }
}

/// Every key of the file, and three that upstream still parses and never uses.
const KNOWN_KEYS: &[&str] = &[
    "workers",
    "in_flight",
    "interval",
    "logfile",
    "loglevel",
    "helper",
    "helper_timeout",
    "helper_environment",
    "builtin",
    "token",
    "token_previous",
    "lifecycle_component",
    "choria_insecure",
    "site",
    "monitor_port",
    "monitor_address",
    "broker_provisioning_password",
    "jwt_verify_cert",
    "jwt_signing_key",
    "jwt_signing_token",
    "server_jwt_validity",
    "leader_election",
    "upgrades_repository",
    "upgrades_optional",
    "features",
    "server_claims_limits",
    "enrolled_file",
    "known_names",
    "broker_port",
    "rego_policy",
    "cert_deny_list",
];

impl ProvisionerConfig {
    /// Reads and checks a file. Relative paths in it are taken from the working directory and, when nothing is
    /// there, from the directory of the file (the users' guide has `jwt_signing_key: private.key`).
    pub fn load(path: &Path) -> Result<ProvisionerConfig, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_path_buf(), source };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > MAX_FILE {
            return Err(ConfigError::TooLarge { path: path.to_path_buf() });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        ProvisionerConfig::parse(&text, path)
    }

    /// The keys that differ in `fresh` and that a running provisioner does not take over.
    pub(crate) fn needs_restart(&self, fresh: &ProvisionerConfig) -> Vec<&'static str> {
        let secret = |secret: &Option<Arc<Secret>>| secret.as_ref().map(|secret| secret.expose().to_owned());
        [
            ("broker_provisioning_password", secret(&self.broker_password) != secret(&fresh.broker_password)),
            ("lifecycle_component", self.lifecycle_component != fresh.lifecycle_component),
            ("monitor_port, monitor_address", self.monitor != fresh.monitor),
            ("site", self.site != fresh.site),
            ("in_flight", self.in_flight != fresh.in_flight),
            ("enrolled_file", self.enrolled_file != fresh.enrolled_file),
            ("leader_election", self.leader_election != fresh.leader_election),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// As [`ProvisionerConfig::load`], from text; `origin` names the file and anchors relative paths.
    pub fn parse(text: &str, origin: &Path) -> Result<ProvisionerConfig, ConfigError> {
        let yaml = |error: serde_saphyr::Error| ConfigError::Yaml {
            path: origin.to_path_buf(),
            // Not the lines around the place, which may hold a password.
            detail: error.without_snippet().to_string(),
            hint: hint_for_missing_features(text),
        };
        let file: File = serde_saphyr::from_str(text).map_err(yaml)?;
        let all: BTreeMap<String, serde_json::Value> = serde_saphyr::from_str(text).map_err(yaml)?;
        let unknown_keys =
            all.into_keys().filter(|key| !KNOWN_KEYS.contains(&key.as_str())).collect::<Vec<_>>();
        file.check(origin, unknown_keys)
    }
}

impl File {
    fn check(self, origin: &Path, unknown_keys: Vec<String>) -> Result<ProvisionerConfig, ConfigError> {
        let wrong = |key: &'static str, detail: String| ConfigError::Value {
            path: origin.to_path_buf(),
            key,
            detail,
        };
        let duration = |key: &'static str, text: &str| {
            choria_host::duration::parse(text).map_err(|error| wrong(key, error.to_string()))
        };

        let mut features = self.features;
        if features.ed25519 && features.pki {
            return Err(wrong("features", "`ed25519` and `pki` exclude each other; keep one".into()));
        }
        if features.pki {
            return Err(wrong(
                "features",
                "`pki` is for x509 networks, which this provisioner does not serve; use `ed25519`".into(),
            ));
        }
        features.jwt |= features.ed25519;

        let interval = duration("interval", &self.interval)?;
        if interval < MIN_INTERVAL {
            return Err(wrong("interval", format!("`{}` is below the minimum of 1m", self.interval)));
        }
        let helper_timeout = duration("helper_timeout", &self.helper_timeout)?;
        if helper_timeout.is_zero() || helper_timeout > Duration::from_secs(600) {
            return Err(wrong("helper_timeout", "give a time between 1s and 10m".into()));
        }
        let workers = match self.workers {
            None => std::thread::available_parallelism().map_or(1, usize::from),
            Some(count @ 1..=1024) => count,
            Some(_) => return Err(wrong("workers", "give a number from 1 to 1024".into())),
        };
        if !(1..=10_000).contains(&self.in_flight) {
            return Err(wrong("in_flight", "give a number from 1 to 10000".into()));
        }
        let component = self.lifecycle_component;
        if component.is_empty() || component.contains(['.', '>', '*', ' ', '\r', '\n', '\t']) {
            return Err(wrong("lifecycle_component", "must be one subject token without wildcards".into()));
        }

        let decider = decider(&self.helper, self.builtin, origin)?;
        if features.jwt && self.jwt_verify_cert.is_empty() {
            return Err(wrong(
                "jwt_verify_cert",
                "is needed to verify provisioning tokens: the issuer's public key, or a file that holds it"
                    .into(),
            ));
        }
        if features.ed25519 && self.jwt_signing_key.is_empty() {
            return Err(wrong("jwt_signing_key", "is needed to issue server tokens: a seed file".into()));
        }
        if features.upgrades && self.upgrades_repository.is_empty() {
            return Err(wrong("upgrades_repository", "is needed by the feature `upgrades`".into()));
        }

        let monitor = match self.monitor_port {
            0 => None,
            port => {
                let address = self.monitor_address.parse::<std::net::IpAddr>().map_err(|_| {
                    wrong("monitor_address", format!("`{}` is not an IP address", self.monitor_address))
                })?;
                Some(std::net::SocketAddr::new(address, port))
            }
        };
        let server_jwt_validity = duration("server_jwt_validity", &self.server_jwt_validity)?;
        if server_jwt_validity <= Duration::from_secs(3600) {
            return Err(wrong("server_jwt_validity", "must be more than 1h".into()));
        }
        let limits = ClaimLimits::build(
            self.server_claims_limits,
            server_jwt_validity.max(Duration::from_secs(365 * DAY)),
        )
        .map_err(|source| ConfigError::Limits { path: origin.to_path_buf(), source })?;

        Ok(ProvisionerConfig {
            path: origin.to_path_buf(),
            workers,
            in_flight: self.in_flight,
            interval,
            logfile: self.logfile.unwrap_or_else(|| "stderr".into()),
            loglevel: self.loglevel.unwrap_or_else(|| "info".into()),
            decider,
            helper_timeout,
            helper_environment: self.helper_environment,
            token: secret(self.token),
            previous_token: secret(self.token_previous),
            lifecycle_component: component,
            insecure: self.choria_insecure,
            site: self.site,
            monitor,
            broker_password: secret(self.broker_provisioning_password),
            jwt_verify: (self.jwt_verify_cert.split(',').map(str::trim).filter(|text| !text.is_empty()))
                .map(|text| match resolve(text, origin) {
                    path if path.is_file() => path.to_string_lossy().into_owned(),
                    _ => text.to_owned(),
                })
                .collect(),
            jwt_signing_key: non_empty(self.jwt_signing_key).map(|text| resolve(&text, origin)),
            jwt_signing_token: non_empty(self.jwt_signing_token).map(|text| resolve(&text, origin)),
            server_jwt_validity,
            leader_election: self.leader_election,
            upgrades_repository: self.upgrades_repository,
            upgrades_optional: self.upgrades_optional,
            features,
            limits,
            enrolled_file: non_empty(self.enrolled_file).map(|text| resolve(&text, origin)),
            known_names: self.known_names,
            unknown_keys,
        })
    }
}

fn decider(helper: &str, builtin: Option<BuiltinFile>, origin: &Path) -> Result<Decider, ConfigError> {
    let wrong = |detail: String| ConfigError::Value { path: origin.to_path_buf(), key: "helper", detail };
    match (helper.trim(), builtin) {
        ("", Some(_)) => {
            Err(wrong("is not set although there is a `builtin` section: set `helper: builtin`".into()))
        }
        ("", None) => {
            Err(wrong("is not set: name a program, or `builtin` with a section of that name".into()))
        }
        ("builtin", None) => Err(wrong("is `builtin`, but there is no `builtin` section".into())),
        ("builtin", Some(rules)) => Builtin::build(rules)
            .map(Decider::Builtin)
            .map_err(|source| ConfigError::Builtin { path: origin.to_path_buf(), source }),
        (line, _) => {
            let mut words = command_line::split(line).map_err(|error| wrong(error.to_string()))?;
            if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
                *program = resolve(program, origin).to_string_lossy().into_owned();
            }
            Ok(Decider::Command(words))
        }
    }
}

/// The users' guide lost the line `features:` when its page was saved; what remains is not YAML.
fn hint_for_missing_features(text: &str) -> &'static str {
    let indented = text.lines().any(|line| {
        line.starts_with([' ', '\t'])
            && ["jwt:", "ed25519:"].iter().any(|key| line.trim_start().starts_with(key))
    });
    let section = text.lines().any(|line| line.trim_end().starts_with("features:"));
    if indented && !section { " (is the line `features:` missing above `jwt:` and `ed25519:`?)" } else { "" }
}

fn resolve(text: &str, origin: &Path) -> PathBuf {
    let given = choria_host::settings::expand_home(text);
    if given.is_absolute() || given.exists() {
        return given;
    }
    match origin.parent() {
        Some(directory) => directory.join(given),
        None => given,
    }
}

fn non_empty(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

fn secret(text: String) -> Option<Arc<Secret>> {
    non_empty(text).map(|text| Arc::new(Secret::new(text)))
}

/// A pattern of the configuration: `/…/` is a regular expression, anything else a glob over the whole text with
/// `*` and `?`.
pub(crate) fn pattern(text: &str) -> Result<Regex, regex::Error> {
    let source = match text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
        Some(expression) if text.len() > 1 => expression.to_string(),
        _ => {
            let mut source = String::from("^(?s:");
            for character in text.chars() {
                match character {
                    '*' => source.push_str(".*"),
                    '?' => source.push('.'),
                    other => source.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
                }
            }
            source.push_str(")$");
            source
        }
    };
    regex::RegexBuilder::new(&source).size_limit(1 << 20).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUIDE: &str = "
# The issuer public key
jwt_verify_cert: b3989a299278750427b00213693c2ca02146476a361667682446230842836da8
interval: 1m
logfile: /dev/stdout
loglevel: info
helper: /etc/choria-provisioner/helper.rb --verbose 'two words'
token: s3cret
choria_insecure: false
broker_provisioning_password: s3cret
jwt_signing_key: private.key
jwt_signing_token: token.jwt
features:
  jwt: true
  ed25519: true
";

    fn parse(text: &str) -> Result<ProvisionerConfig, ConfigError> {
        ProvisionerConfig::parse(text, Path::new("/etc/choria-provisioner/choria-provisioner.yaml"))
    }

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_users_guide_loads() {
        let config = parse(GUIDE).unwrap();
        assert!(config.features.ed25519 && config.features.jwt && !config.features.pki);
        assert_eq!(config.interval, Duration::from_secs(60));
        assert_eq!(config.jwt_signing_key.unwrap(), Path::new("/etc/choria-provisioner/private.key"));
        assert_eq!(config.token.unwrap().expose(), "s3cret");
        let Decider::Command(words) = config.decider else { panic!("a command") };
        assert_eq!(words, ["/etc/choria-provisioner/helper.rb", "--verbose", "two words"]);
        assert_eq!(config.lifecycle_component, "provision_mode_server");
        assert!(config.unknown_keys.is_empty());
    }

    #[test]
    fn ed25519_implies_jwt_and_unknown_keys_are_named() {
        let config =
            parse(&GUIDE.replace("  jwt: true\n", "").replace("token: s3cret\n", "token: s3cret\nfoo: 1\n"));
        let config = config.unwrap();
        assert!(config.features.jwt);
        assert_eq!(config.unknown_keys, ["foo"]);
    }

    #[test]
    fn the_lost_features_line_is_pointed_at() {
        assert!(refusal(&GUIDE.replace("features:\n", "\n")).contains("is the line `features:` missing"));
    }

    #[test]
    fn wrong_values_name_key_and_file() {
        for (from, to, key) in [
            ("interval: 1m", "interval: 5s", "interval"),
            ("interval: 1m", "interval: soon", "interval"),
            ("interval: 1m", "lifecycle_component: a.b", "lifecycle_component"),
            ("interval: 1m", "workers: 0", "workers"),
            ("interval: 1m", "server_jwt_validity: 30m", "server_jwt_validity"),
            ("  ed25519: true", "  ed25519: true\n  pki: true", "features"),
            ("jwt_signing_key: private.key\n", "", "jwt_signing_key"),
            ("helper: /etc", "helper: \"'/etc\" #", "helper"),
            ("helper: /etc/choria-provisioner/helper.rb --verbose 'two words'", "helper: builtin", "helper"),
        ] {
            let text = refusal(&GUIDE.replace(from, to));
            assert!(text.contains(key) && text.contains("choria-provisioner.yaml"), "{to}: {text}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        assert!(!format!("{:?}", parse(GUIDE).unwrap()).contains("s3cret"));
        // A mistake beside a secret: the message names the place, not the lines around it.
        for broken in
            ["not a key\ntoken: s3cret\n", "token: s3cret\nworkers: [1\n", "token: s3cret\nworkers: many\n"]
        {
            let said = refusal(broken);
            assert!(said.contains("line ") && !said.contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn globs_match_whole_names_and_slashes_mean_a_regular_expression() {
        assert!(pattern("web*.example.net").unwrap().is_match("web12.example.net"));
        assert!(!pattern("web*.example.net").unwrap().is_match("xweb12.example.net"));
        assert!(!pattern("web?.example.net").unwrap().is_match("web12xexample.net"));
        assert!(pattern("/^web[0-9]+/").unwrap().is_match("web12.example.net"));
        assert!(pattern("/(/").is_err());
    }
}
