//! Login, `docs/spec/05 §3`: a name, a password and the proof of a fresh key become a token.
//!
//! Whoever guesses learns nothing from the answer: each refusal has the same text, an unknown user costs a hash as a
//! known one does, and what is refused early (form, clock, signature, limits) does not depend on the user existing.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use choria_host::clock;
use choria_token::PublicKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::config::{LoginLimits, UserlistConfig};
use crate::error::AaaError;
use crate::issuing::{self, IssuingError};
use crate::metrics::Metrics;
use crate::refusal_log::RefusalLog;
use crate::throttle::Throttle;
use crate::userlist::Userlist;

/// Seconds a request may be old, and ahead of our clock.
const MAX_AGE: i64 = 60;
const MAX_AHEAD: i64 = 30;
/// Longest name and password, bytes.
const MAX_USERNAME: usize = 256;
const MAX_PASSWORD: usize = 1024;
/// Logins waiting for a core.
const MAX_WAITING: usize = 64;
/// Proofs remembered to tell a replay from a first use.
const REMEMBERED: usize = 4096;

/// The body of a login.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoginRequest {
    pub username: String,
    #[serde(deserialize_with = "password")]
    pub password: Zeroizing<String>,
    /// Ed25519, 64 hexadecimal digits.
    pub public_key: String,
    /// Seconds since 1970, as text.
    pub timestamp: String,
    /// Ed25519 over `<timestamp>:<username>:<password>`, hexadecimal.
    pub signature: String,
}

fn password<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

impl std::fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginRequest { .. }")
    }
}

/// The answer: one of both.
#[derive(Debug, Default, Serialize)]
pub(crate) struct LoginResponse {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub error: &'static str,
}

impl LoginResponse {
    pub(crate) fn error(error: &'static str) -> LoginResponse {
        LoginResponse { error, ..LoginResponse::default() }
    }
}

/// Why a login was refused. Only the log sees it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request is incomplete or malformed: {0}")]
    Malformed(&'static str),
    #[error("the timestamp is {0} seconds away from our clock")]
    Clock(i64),
    #[error("the signature does not fit key, name and password")]
    Signature,
    #[error("too many attempts")]
    Throttled,
    #[error("too many logins are waiting")]
    Busy,
    #[error("unknown user or wrong password")]
    Password,
    #[error("{0}")]
    Policy(String),
    #[error("{0}")]
    Issuing(String),
}

impl Refusal {
    /// The stable word for logs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Refusal::Malformed(_) => "malformed",
            Refusal::Clock(_) => "clock",
            Refusal::Signature => "sig_bad",
            Refusal::Throttled => "limit",
            Refusal::Busy => "busy",
            Refusal::Password => "password_bad",
            Refusal::Policy(_) => "policy",
            Refusal::Issuing(_) => "issuing",
        }
    }

    /// What the peer is told.
    pub(crate) fn text(&self) -> &'static str {
        match self {
            Refusal::Issuing(_) => "Could not sign JWT token",
            _ => "Login failed",
        }
    }
}

/// What outlives a reload: counters and the queue for cores.
#[derive(Debug)]
pub(crate) struct LoginState {
    throttle: Throttle,
    cores: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    seen: Mutex<Seen>,
    /// Names typed wrong are logged as a hash with this key: people type passwords into the name field.
    log_key: [u8; 32],
    refusals: RefusalLog,
}

impl Default for LoginState {
    fn default() -> LoginState {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        LoginState {
            throttle: Throttle::default(),
            cores: Arc::new(Semaphore::new(cores)),
            waiting: Arc::new(Semaphore::new(cores.saturating_add(MAX_WAITING))),
            seen: Mutex::default(),
            log_key: choria_host::random::array(),
            refusals: RefusalLog::default(),
        }
    }
}

/// The userlist authenticator.
#[derive(Debug)]
pub(crate) struct Login {
    config: UserlistConfig,
    limits: LoginLimits,
    users: Userlist,
    state: Arc<LoginState>,
    metrics: Arc<Metrics>,
}

impl Login {
    /// Loads users and checks the signing key.
    ///
    /// # Errors
    /// A user list, key or token that cannot be used.
    pub(crate) fn new(
        config: UserlistConfig,
        limits: LoginLimits,
        state: Arc<LoginState>,
        metrics: Arc<Metrics>,
    ) -> Result<Login, AaaError> {
        issuing::check(&config)?;
        let users = Userlist::load(config.clone())?;
        Ok(Login { config, limits, users, state, metrics })
    }

    /// Answers one login from `address`. Never fails: a refusal is an answer.
    pub(crate) async fn login(&self, request: LoginRequest, address: IpAddr) -> LoginResponse {
        let started = Instant::now();
        let outcome = self.attempt(&request, address).await;
        self.metrics.authenticator_time.observe(started.elapsed().as_secs_f64());
        match outcome {
            Ok(token) => {
                tracing::info!(user = request.username, %address, "login");
                LoginResponse { token, error: "" }
            }
            Err(refusal) => {
                self.metrics.authenticator_errors.inc();
                let reason = refusal.reason();
                if let Some(left_out) = self.state.refusals.may_log(reason, &address.to_string()) {
                    let user = self.masked(&request.username);
                    tracing::warn!(reason, user, %address, left_out, "login refused: {refusal}");
                }
                LoginResponse::error(refusal.text())
            }
        }
    }

    fn masked(&self, username: &str) -> String {
        let mut digest = Sha256::new();
        digest.update(self.state.log_key);
        digest.update(username.as_bytes());
        let mut text = hex::encode(digest.finalize());
        text.truncate(12);
        format!("#{text}")
    }

    async fn attempt(&self, request: &LoginRequest, address: IpAddr) -> Result<String, Refusal> {
        if request.username.is_empty() || request.username.len() > MAX_USERNAME {
            return Err(Refusal::Malformed("username"));
        }
        if request.password.is_empty() || request.password.len() > MAX_PASSWORD {
            return Err(Refusal::Malformed("password"));
        }
        let now = Instant::now();
        self.state
            .throttle
            .admit(&self.limits, address, &request.username, now)
            .map_err(|_| Refusal::Throttled)?;
        let outcome = self.check(request, address).await;
        match &outcome {
            Ok(_) => self.state.throttle.succeeded(address, &request.username),
            Err(Refusal::Password) => {
                self.state.throttle.failed(&self.limits, address, &request.username, now)
            }
            Err(_) => {}
        }
        outcome
    }

    async fn check(&self, request: &LoginRequest, address: IpAddr) -> Result<String, Refusal> {
        let key = check_proof(request, clock::unix_seconds())?;
        let _place = self.state.waiting.try_acquire().map_err(|_| Refusal::Busy)?;
        let users = self.users.users();
        let user = users.get(&request.username).cloned();
        let hash = user.as_ref().map_or_else(|| users.dummy_hash().to_owned(), |user| user.password.clone());
        let matches = {
            let core = Arc::clone(&self.state.cores).acquire_owned().await.map_err(|_| Refusal::Busy)?;
            let password = request.password.clone();
            let work = tokio::task::spawn_blocking(move || {
                let _core = core;
                bcrypt::verify(password.as_bytes(), &hash).unwrap_or(false)
            });
            work.await.map_err(|_| Refusal::Busy)?
        };
        let Some(user) = user.filter(|_| matches) else { return Err(Refusal::Password) };
        if !self.state.first_use(&request.signature) {
            // Harmless: the token is bound to the key that was presented first. But somebody recorded it.
            if let Some(left_out) = self.state.refusals.may_log("replayed", &address.to_string()) {
                let user = &request.username;
                tracing::warn!(reason = "replayed", user, %address, left_out, "login request seen before");
            }
        }
        issuing::issue(&self.config, &user, &key, clock::unix_seconds()).map_err(|error| match error {
            IssuingError::Policy(_) | IssuingError::PolicyUnusable => Refusal::Policy(error.to_string()),
            IssuingError::Key(_) | IssuingError::Issue(_) => Refusal::Issuing(error.to_string()),
        })
    }
}

/// Form, clock and proof; the key that the token will be bound to.
fn check_proof(request: &LoginRequest, now: i64) -> Result<PublicKey, Refusal> {
    if request.public_key.len() != 64 {
        return Err(Refusal::Malformed("public_key"));
    }
    let key = PublicKey::from_hex(&request.public_key).map_err(|_| Refusal::Malformed("public_key"))?;
    let timestamp: i64 = request.timestamp.parse().map_err(|_| Refusal::Malformed("timestamp"))?;
    let age = now.checked_sub(timestamp).ok_or(Refusal::Malformed("timestamp"))?;
    if !(-MAX_AHEAD..=MAX_AGE).contains(&age) {
        return Err(Refusal::Clock(age));
    }
    let mut signature = [0u8; 64];
    hex::decode_to_slice(&request.signature, &mut signature).map_err(|_| Refusal::Malformed("signature"))?;
    let signed = Zeroizing::new(format!("{}:{}:{}", request.timestamp, request.username, *request.password));
    if key.verify(signed.as_bytes(), &signature) { Ok(key) } else { Err(Refusal::Signature) }
}

impl LoginState {
    fn first_use(&self, signature: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(signature.as_bytes()).into();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.known.insert(hash, ()).is_some() {
            return false;
        }
        seen.order.push_back(hash);
        if seen.order.len() > REMEMBERED
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.known.remove(&oldest);
        }
        true
    }
}

#[derive(Debug, Default)]
struct Seen {
    known: HashMap<[u8; 32], ()>,
    order: VecDeque<[u8; 32]>,
}

#[cfg(test)]
mod tests {
    use choria_token::Seed;

    use super::*;

    fn request(seed: &Seed, timestamp: &str, username: &str, password: &str) -> LoginRequest {
        LoginRequest {
            username: username.to_owned(),
            password: Zeroizing::new(password.to_owned()),
            public_key: seed.public().to_hex(),
            timestamp: timestamp.to_owned(),
            signature: hex::encode(seed.sign(format!("{timestamp}:{username}:{password}").as_bytes())),
        }
    }

    #[test]
    fn the_golden_login_proof_holds() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/connect/login_request.json");
        let vector: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).expect("fixture")).expect("json");
        let request: LoginRequest = serde_json::from_value(vector["body"].clone()).expect("a request");
        let at: i64 = request.timestamp.parse().expect("a number");
        let key = check_proof(&request, at).expect("accepted");
        assert_eq!(key.to_hex(), request.public_key);
        // docs/spec/05 §16
        let seed = Seed::from_bytes(&std::array::from_fn(|i| i as u8));
        let request = self::request(&seed, "1700000000", "bob", "s3cret");
        assert!(
            request.signature.starts_with("7551e601a193e4d2")
                && request.signature.ends_with("f976ead29aacba0a")
        );
    }

    #[test]
    fn t_169_clock_window() {
        let seed = Seed::generate().expect("a seed");
        let now = 1_700_000_000i64;
        for (offset, fine) in
            [(0, true), (30, true), (31, false), (-60, true), (-61, false), (3600, false), (-120, false)]
        {
            let request = request(&seed, &(now + offset).to_string(), "bob", "pw");
            assert_eq!(check_proof(&request, now).is_ok(), fine, "{offset}");
        }
        for text in [
            "",
            "now",
            "9223372036854775808",
            "-9223372036854775808",
            "1.7e9",
            " 1700000000",
            "99999999999999999999",
        ] {
            assert!(check_proof(&request(&seed, text, "bob", "pw"), now).is_err(), "{text}");
        }
    }

    #[test]
    fn t_170_lengths_of_key_and_signature() {
        let seed = Seed::generate().expect("a seed");
        let now = 1_700_000_000i64;
        let good = || request(&seed, "1700000000", "bob", "pw");
        for key in ["", "zz", &"a".repeat(62), &"a".repeat(66), &"z".repeat(64), &"é".repeat(32)] {
            let mut request = good();
            request.public_key = key.to_owned();
            assert!(check_proof(&request, now).is_err(), "{key}");
        }
        for signature in ["", "zz", &"a".repeat(126), &"a".repeat(130), &"z".repeat(128), &"é".repeat(64)] {
            let mut request = good();
            request.signature = signature.to_owned();
            assert!(check_proof(&request, now).is_err(), "{signature}");
        }
    }

    #[test]
    fn t_171_signature_over_something_else() {
        let seed = Seed::generate().expect("a seed");
        let now = 1_700_000_000i64;
        let mut short = request(&seed, "1700000000", "bob", "pw");
        short.signature = hex::encode(seed.sign(b"bob:pw"));
        assert!(matches!(check_proof(&short, now), Err(Refusal::Signature)));
        let mut other = request(&seed, "1700000000", "alice", "pw");
        other.username = "bob".to_owned();
        assert!(matches!(check_proof(&other, now), Err(Refusal::Signature)));
        assert!(check_proof(&request(&seed, "1700000000", "bob", "p:w:"), now).is_ok());
    }

    #[test]
    fn nothing_secret_is_shown() {
        let request =
            LoginRequest { password: Zeroizing::new("hunter2".to_owned()), ..LoginRequest::default() };
        assert!(!format!("{request:?}").contains("hunter2"));
    }
}
