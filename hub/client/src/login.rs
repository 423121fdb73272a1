//! Trading a password for a token (docs/spec/07 §4.7, 05 §6; decision D2).

use std::path::{Path, PathBuf};
use std::time::Duration;

use choria_host::tls::{self, Trust};
use choria_host::{Secret, clock, one_line, private_file, random};
use choria_token::{Purpose, Seed, peek_client, purpose_of};
use serde::{Deserialize, Serialize};

use crate::http::{self, ServerTrust};
use crate::{ClientConfig, ClientError, token_pair};

/// How long the service may take: it hashes the password, slowly on purpose.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Whom to send the password to.
#[derive(Debug, Clone, Default)]
pub enum LoginTrust {
    /// The CA of the settings or the platform's roots, else what was confirmed for this URL before.
    #[default]
    Verified,
    /// This CA file only.
    Ca(PathBuf),
    /// The certificate with this SHA-256 fingerprint, confirmed by a person or given with `--fingerprint`.
    Fingerprint(String),
    /// Anybody; `--insecure`.
    Insecure,
}

/// Where a login leaves its results.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    pub token_file: PathBuf,
    pub seed_file: PathBuf,
    pub caller: String,
    /// Unix seconds.
    pub expires: Option<i64>,
}

#[derive(Serialize)]
struct Body<'a> {
    username: &'a str,
    password: &'a str,
    timestamp: &'a str,
    public_key: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    error: String,
}

/// Logs in at one of the configured URLs, in random order, and writes token and seed once the service has agreed.
///
/// # Errors
/// [`ClientError::UntrustedServer`] holds what a person needs to decide; repeat with
/// [`LoginTrust::Fingerprint`] when they agree, and call [`remember`].
pub async fn login(
    config: &ClientConfig,
    username: &str,
    password: &Secret,
    trust: &LoginTrust,
) -> Result<LoggedIn, ClientError> {
    let (token_file, seed_file) = config.token_and_seed_files()?;
    let mut urls = config.login_urls.clone();
    if urls.is_empty() {
        return Err(ClientError::NoLoginUrl);
    }
    shuffle(&mut urls);
    let mut last = ClientError::NoLoginUrl;
    for url in urls {
        match exchange(config, &url, username, password, trust, &token_file).await {
            Ok((token, seed)) => return store(token_file, seed_file, &token, &seed),
            // another instance may be up; one that answered has decided
            Err(error @ ClientError::Http { .. }) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

async fn exchange(
    config: &ClientConfig,
    url: &str,
    username: &str,
    password: &Secret,
    trust: &LoginTrust,
    token_file: &Path,
) -> Result<(String, Seed), ClientError> {
    let seed = Seed::generate().map_err(|e| ClientError::LoginFailed(e.to_string()))?;
    let timestamp = clock::unix_seconds().to_string();
    let proof = proof(&seed, &timestamp, username, password);
    let body = Body {
        username,
        password: password.expose(),
        timestamp: &timestamp,
        public_key: &seed.public().to_hex(),
        signature: &proof,
    };
    let trust = match trust {
        LoginTrust::Ca(file) => ServerTrust::Chain(Trust::CaFile(file.clone())),
        LoginTrust::Fingerprint(fingerprint) => ServerTrust::Fingerprint(fingerprint.clone()),
        LoginTrust::Insecure => {
            tracing::warn!(url = http::shown(url), "the login service's certificate is not verified");
            ServerTrust::Chain(Trust::Unverified)
        }
        LoginTrust::Verified => match remembered(token_file, url) {
            Some(fingerprint) => ServerTrust::Fingerprint(fingerprint),
            None => ServerTrust::Chain(config.ca.clone().map_or(Trust::PlatformRoots, Trust::CaFile)),
        },
    };
    let (status, text) = http::post_json("login service", url, &body, trust, TIMEOUT).await?;
    let answer = serde_json::from_str::<Answer>(&text).ok();
    match answer {
        Some(answer) if !answer.error.is_empty() => Err(ClientError::LoginFailed(one_line(&answer.error))),
        _ if status != 200 => {
            Err(ClientError::LoginFailed(format!("invalid response code {status}: {}", one_line(&text))))
        }
        Some(answer) if !answer.token.trim().is_empty() => Ok((answer.token.trim().to_owned(), seed)),
        _ => Err(ClientError::LoginFailed("no token received".to_owned())),
    }
}

/// Signs `timestamp:username:password` with the fresh key: whoever relays the request cannot put another key in.
fn proof(seed: &Seed, timestamp: &str, username: &str, password: &Secret) -> String {
    let text = zeroize::Zeroizing::new(format!("{timestamp}:{username}:{}", password.expose()));
    hex::encode(seed.sign(text.as_bytes()))
}

/// Checks what the service sent, and replaces token and seed together.
fn store(token_file: PathBuf, seed_file: PathBuf, token: &str, seed: &Seed) -> Result<LoggedIn, ClientError> {
    if purpose_of(token) != Some(Purpose::Client) {
        return Err(ClientError::LoginFailed(
            "the service sent something that is no client token".to_owned(),
        ));
    }
    let claims = peek_client(token).map_err(|e| ClientError::LoginFailed(e.to_string()))?;
    let standard = &claims.claims().standard;
    if standard.public_key.as_deref().map(str::to_ascii_lowercase) != Some(seed.public().to_hex()) {
        return Err(ClientError::LoginFailed("the service sent a token for another key".to_owned()));
    }
    let logged_in = LoggedIn {
        caller: claims.claims().caller_id.clone(),
        expires: standard.effective_expiry(),
        token_file,
        seed_file,
    };
    let (token_file, seed_file) = (&logged_in.token_file, &logged_in.seed_file);
    for file in [token_file, seed_file] {
        create_directory(file)?;
    }
    token_pair::replace(token_file, seed_file, token, seed)?;
    Ok(logged_in)
}

fn create_directory(file: &Path) -> Result<(), ClientError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| ClientError::Write { path: directory.to_owned(), reason: e.to_string() })
}

/// Remembers that a person accepted this certificate for this login URL.
pub fn remember(config: &ClientConfig, url: &str, fingerprint: &str) -> Result<(), ClientError> {
    let (token_file, _) = config.token_and_seed_files()?;
    create_directory(&token_file)?;
    let store = known_logins(&token_file);
    let url = http::shown(url);
    let mut lines: Vec<String> = std::fs::read_to_string(&store)
        .unwrap_or_default()
        .lines()
        .filter(|line| line.split_whitespace().next() != Some(url.as_str()))
        .map(str::to_owned)
        .collect();
    lines.push(format!("{url} {fingerprint}"));
    lines.push(String::new());
    private_file::write_private(&store, lines.join("\n").as_bytes())
        .map_err(|e| ClientError::Write { path: store, reason: e.to_string() })
}

fn remembered(token_file: &Path, url: &str) -> Option<String> {
    let url = http::shown(url);
    let text = std::fs::read_to_string(known_logins(token_file)).ok()?;
    text.lines().find_map(|line| {
        let (known, fingerprint) = line.split_once(' ')?;
        (known == url && tls::same_fingerprint(fingerprint, fingerprint))
            .then(|| fingerprint.trim().to_owned())
    })
}

fn known_logins(token_file: &Path) -> PathBuf {
    token_file.parent().unwrap_or(Path::new(".")).join("known_logins")
}

fn shuffle(urls: &mut [String]) {
    for last in (1..urls.len()).rev() {
        let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
        urls.swap(last, usize::try_from(random::below(bound)).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn fixture(path: &str) -> serde_json::Value {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path);
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }

    fn alice() -> (Seed, String) {
        let chain = fixture("tokens/chain.json");
        let seed = Seed::from_hex(chain["keys"]["alice"]["seed_hex"].as_str().unwrap()).unwrap();
        let token = chain["tokens"]["alice"]["token"].as_str().or(chain["tokens"]["alice"]["jwt"].as_str());
        (seed, token.unwrap().to_owned())
    }

    #[test]
    fn the_proof_is_the_golden_one() {
        let vector = fixture("connect/login_request.json");
        let body = &vector["body"];
        let password = Secret::new(body["password"].as_str().unwrap().to_owned());
        let (seed, _) = alice();
        let proof =
            proof(&seed, body["timestamp"].as_str().unwrap(), body["username"].as_str().unwrap(), &password);
        assert_eq!(body["signature"], proof);
        assert_eq!(body["public_key"], seed.public().to_hex());
    }

    #[test]
    fn both_files_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("new");
        let (token_file, seed_file) = (inside.join("token"), inside.join("token.key"));
        let (seed, token) = alice();
        let done = store(token_file.clone(), seed_file.clone(), &token, &seed).unwrap();
        assert_eq!(done.caller, "up=alice");
        assert_eq!(std::fs::read_to_string(&token_file).unwrap(), token);
        assert_eq!(std::fs::read_to_string(&seed_file).unwrap(), *seed.to_hex());
        for file in [&token_file, &seed_file] {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);

        // a token for another key changes nothing
        let other = Seed::generate().unwrap();
        assert!(store(token_file.clone(), seed_file.clone(), &token, &other).is_err());
        assert_eq!(std::fs::read_to_string(&seed_file).unwrap(), *seed.to_hex());

        // the token cannot be replaced (a directory has its name): the seed comes back
        std::fs::remove_file(&token_file).unwrap();
        std::fs::create_dir_all(token_file.join("in the way")).unwrap();
        assert!(store(token_file.clone(), seed_file.clone(), &token, &seed).is_err());
        assert_eq!(std::fs::read_to_string(&seed_file).unwrap(), *seed.to_hex());
        let left_over = std::fs::read_dir(&inside).unwrap().filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "bak")
        });
        assert_eq!(left_over.count(), 0);
    }

    #[test]
    fn confirmed_fingerprints_are_remembered_per_url() {
        let directory = tempfile::tempdir().unwrap();
        let text =
            format!("plugin.security.choria.token_file = {}", directory.path().join("token").display());
        let settings = choria_host::Settings::parse(&text, Path::new("client.conf")).unwrap();
        let config = ClientConfig::from_settings(settings).unwrap();
        let (token_file, _) = config.token_and_seed_files().unwrap();
        assert_eq!(remembered(&token_file, "https://a/login"), None);
        let fingerprint = tls::fingerprint_sha256(b"one");
        remember(&config, "https://a/login", &tls::fingerprint_sha256(b"zero")).unwrap();
        remember(&config, "https://a/login", &fingerprint).unwrap();
        remember(&config, "https://b/login", &tls::fingerprint_sha256(b"two")).unwrap();
        assert_eq!(remembered(&token_file, "https://a/login"), Some(fingerprint));
    }
}
