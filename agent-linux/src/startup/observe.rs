//! What the disk says about this node.

use std::path::{Path, PathBuf};

use choria_host::Settings;
use choria_host::settings::SettingsError;

use crate::node_token::{self, ProvisioningToken};
use crate::seed::NodeSeed;

/// What is wrong with a node's credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCredentials {
    #[error("the seed file {} is missing", .0.display())]
    SeedMissing(PathBuf),
    #[error("the token file {} is missing", .0.display())]
    TokenMissing(PathBuf),
    #[error("the seed cannot be used: {0}")]
    SeedUnreadable(String),
    #[error("the token cannot be used: {0}")]
    TokenUnreadable(String),
    #[error(
        "the token {} is for another key than the seed {}; {} is the older file",
        token.display(), seed.display(), older.display()
    )]
    Mismatch { seed: PathBuf, token: PathBuf, older: PathBuf },
    #[error("the token {} expired{}", token.display(), at.as_ref().map(|at| format!(" at {at}")).unwrap_or_else(|| ": it has no expiry time, which counts as expired".to_owned()))]
    Expired { token: PathBuf, at: Option<String> },
}

impl BadCredentials {
    /// One word for logs and tests.
    pub fn word(&self) -> &'static str {
        match self {
            BadCredentials::SeedMissing(_) => "seed_missing",
            BadCredentials::TokenMissing(_) => "token_missing",
            BadCredentials::SeedUnreadable(_) => "seed_unreadable",
            BadCredentials::TokenUnreadable(_) => "token_malformed",
            BadCredentials::Mismatch { .. } => "key_mismatch",
            BadCredentials::Expired { .. } => "token_expired",
        }
    }
}

/// The credentials that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    Good,
    Bad(BadCredentials),
    /// The security provider does not use tokens, or names no files.
    NotUsed,
}

/// The configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFile {
    Missing,
    /// There but not readable, or not text.
    Broken(String),
    Read,
}

/// The provisioning token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provisioning {
    Absent,
    Unusable(String),
    /// Holds its claim `chpd`.
    Usable {
        by_default: bool,
    },
}

/// Everything the decision rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub config_path: PathBuf,
    pub jwt_path: PathBuf,
    pub config: ConfigFile,
    /// `plugin.choria.server.provision` when the file sets it.
    pub provision_option: Option<bool>,
    pub credentials: Credentials,
    /// Identity in the server token, when there is a readable one.
    pub token_identity: Option<String>,
    /// Identity this node would run with.
    pub identity: String,
    pub provisioning: Provisioning,
}

/// Which rule named the provisioning token (decision D18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtPlace {
    Flag,
    Environment,
    BesideConfiguration,
    System,
}

impl JwtPlace {
    /// For the log.
    pub fn words(self) -> &'static str {
        match self {
            JwtPlace::Flag => "flag --provisioning-jwt",
            JwtPlace::Environment => "CHORIA_PROVISIONING_JWT",
            JwtPlace::BesideConfiguration => "beside the configuration",
            JwtPlace::System => "system default",
        }
    }
}

/// Where the provisioning token is looked for (decision D18): the flag, the environment, beside the
/// configuration when a file is there, else the system's place.
pub fn find_provisioning_jwt(config: &Path, flag: Option<&Path>) -> (PathBuf, JwtPlace) {
    if let Some(flag) = flag {
        return (flag.to_path_buf(), JwtPlace::Flag);
    }
    if let Some(path) = std::env::var_os("CHORIA_PROVISIONING_JWT").filter(|path| !path.is_empty()) {
        return (PathBuf::from(path), JwtPlace::Environment);
    }
    let beside = config.with_file_name("provisioning.jwt");
    if beside.exists() {
        return (beside, JwtPlace::BesideConfiguration);
    }
    (PathBuf::from("/etc/choria/provisioning.jwt"), JwtPlace::System)
}

/// Looks at the files. Returns what it saw, the settings when the file could be read and the provisioning
/// token when it is usable. `now` is Unix seconds.
pub fn observe(
    config: &Path,
    jwt: &Path,
    host_identity: &str,
    now: i64,
) -> (Observed, Option<Settings>, Option<ProvisioningToken>) {
    let (file, settings) = match Settings::load(config) {
        Ok(mut settings) => {
            settings.overlay_environment();
            (ConfigFile::Read, Some(settings))
        }
        Err(SettingsError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            (ConfigFile::Missing, None)
        }
        Err(error) => (ConfigFile::Broken(error.to_string()), None),
    };
    let (provisioning, token) = match node_token::read_provisioning(jwt) {
        Ok(token) => (Provisioning::Usable { by_default: token.claims.chpd }, Some(token)),
        Err(error) if error.is_missing() => (Provisioning::Absent, None),
        Err(error) => {
            tracing::warn!(%error, "the provisioning token is ignored");
            (Provisioning::Unusable(error.to_string()), None)
        }
    };
    let option = "plugin.choria.server.provision";
    let (credentials, token_identity) =
        settings.as_ref().map_or((Credentials::NotUsed, None), |settings| credentials(settings, now));
    let observed = Observed {
        config_path: config.to_path_buf(),
        jwt_path: jwt.to_path_buf(),
        config: file,
        provision_option: settings
            .as_ref()
            .filter(|settings| settings.get(option).is_some())
            .map(|settings| settings.bool(option, false)),
        credentials,
        token_identity,
        identity: settings
            .as_ref()
            .and_then(|settings| settings.get("identity"))
            .unwrap_or(host_identity)
            .to_owned(),
        provisioning,
    };
    (observed, settings, token)
}

/// The credential files that the configuration makes the node depend on.
fn files(settings: &Settings) -> Option<(PathBuf, PathBuf)> {
    let pair = |seed: &str, token: &str| Some((settings.path(seed)?, settings.path(token)?));
    let choria = settings.get("plugin.security.provider").is_some_and(|p| p.eq_ignore_ascii_case("choria"));
    if choria {
        return pair("plugin.security.choria.seed_file", "plugin.security.choria.token_file");
    }
    if settings.bool("plugin.security.server_anon_tls", false) {
        return pair("plugin.choria.security.server.seed_file", "plugin.choria.security.server.token_file");
    }
    None
}

fn credentials(settings: &Settings, now: i64) -> (Credentials, Option<String>) {
    let Some((seed_path, token_path)) = files(settings) else { return (Credentials::NotUsed, None) };
    let token = node_token::read_server(&token_path);
    let identity = token.as_ref().ok().map(|token| token.claims.identity.clone());
    let bad = |bad| (Credentials::Bad(bad), identity.clone());
    if !seed_path.exists() {
        return bad(BadCredentials::SeedMissing(seed_path));
    }
    let token = match token {
        Ok(token) => token,
        Err(error) if error.is_missing() => return bad(BadCredentials::TokenMissing(token_path)),
        Err(error) => return bad(BadCredentials::TokenUnreadable(error.to_string())),
    };
    let seed = match NodeSeed::load(&seed_path) {
        Ok(seed) => seed,
        Err(error) => return bad(BadCredentials::SeedUnreadable(error.to_string())),
    };
    if !seed.public_key().eq_ignore_ascii_case(&token.claims.public_key) {
        let older = older(&seed_path, &token_path);
        return bad(BadCredentials::Mismatch { seed: seed_path, token: token_path, older });
    }
    match token.claims.expires() {
        Some(at) if at > now => (Credentials::Good, identity),
        at => {
            let at = at.map(choria_host::clock::rfc3339_seconds);
            bad(BadCredentials::Expired { token: token_path, at })
        }
    }
}

fn older(a: &Path, b: &Path) -> PathBuf {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if changed(a) <= changed(b) { a.to_path_buf() } else { b.to_path_buf() }
}
