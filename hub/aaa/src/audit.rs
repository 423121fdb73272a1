//! The record of each decision, `docs/spec/05 §10`.
//!
//! Inputs that are secrets are replaced before anything is written; the SHA-256 of the request as sent stays as
//! evidence (docs/spec/10 S18). A sink that fails is counted; whether it also stops the request is a setting.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use choria_host::clock;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::config::AuditorConfig;
use crate::error::AaaError;
use crate::metrics::Metrics;

/// Records waiting for the broker.
pub(crate) const QUEUE: usize = 1000;
const REDACTED: &str = "[redacted]";

/// One decision.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    pub allowed: bool,
    /// As in the request that is signed; before the token is verified, as the client says.
    pub caller: &'a str,
    /// The `callerid` claim as it is in the token, when it was verified.
    pub caller_id: Option<&'a str>,
    /// The request as sent.
    pub request: &'a [u8],
    /// Why not.
    pub reason: Option<&'a str>,
    /// Where the question came from: an address, or `broker`.
    pub from: &'a str,
}

/// All configured auditors.
#[derive(Debug)]
pub struct Audit {
    sinks: Vec<Sink>,
    fail_closed: bool,
    site: String,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
enum Sink {
    Stdout,
    LogFile { path: PathBuf, file: Mutex<File> },
    JetStream { queue: mpsc::Sender<Vec<u8>> },
}

impl Sink {
    fn name(&self) -> &'static str {
        match self {
            Sink::Stdout | Sink::LogFile { .. } => "logfile",
            Sink::JetStream { .. } => "jetstream",
        }
    }
}

impl Audit {
    /// Opens the sinks. `publisher` is where records for the stream go; its other end publishes.
    ///
    /// # Errors
    /// A log file that cannot be opened for appending.
    pub fn new(
        configs: &[AuditorConfig],
        fail_closed: bool,
        site: &str,
        publisher: Option<&mpsc::Sender<Vec<u8>>>,
        metrics: Arc<Metrics>,
    ) -> Result<Audit, AaaError> {
        let mut sinks = Vec::new();
        for config in configs {
            match config {
                AuditorConfig::LogFile { path: None } => sinks.push(Sink::Stdout),
                AuditorConfig::LogFile { path: Some(path) } => {
                    let file = OpenOptions::new()
                        .append(true)
                        .create(true)
                        .mode(0o600)
                        .open(path)
                        .map_err(|source| AaaError::Audit { path: path.clone(), source })?;
                    sinks.push(Sink::LogFile { path: path.clone(), file: Mutex::new(file) });
                }
                AuditorConfig::JetStream { .. } => {
                    sinks.extend(publisher.map(|queue| Sink::JetStream { queue: queue.clone() }));
                }
            }
        }
        Ok(Audit { sinks, fail_closed, site: site.to_owned(), metrics })
    }

    /// Writes a record to every sink. `false` means: it was lost somewhere, and the site wants no unrecorded decision.
    pub fn record(&self, record: &Record<'_>) -> bool {
        if self.sinks.is_empty() {
            return true;
        }
        let evidence = Evidence::of(record.request);
        let mut complete = true;
        for sink in &self.sinks {
            if let Err(error) = self.write(sink, record, &evidence) {
                complete = false;
                self.metrics.auditor_errors.with_label_values(&[sink.name()]).inc();
                tracing::error!(auditor = sink.name(), "audit record lost: {error}");
            }
        }
        complete || !self.fail_closed
    }

    fn write(&self, sink: &Sink, record: &Record<'_>, evidence: &Evidence) -> std::io::Result<()> {
        let action = if record.allowed { "allow" } else { "deny" };
        match sink {
            Sink::Stdout => {
                let line = format!(
                    "{} site={} action={action} caller={} reason={} from={} request={}\n",
                    clock::now(),
                    self.site,
                    record.caller.escape_default(),
                    record.reason.unwrap_or("-"),
                    record.from,
                    evidence.text.escape_default(),
                );
                std::io::stdout().lock().write_all(line.as_bytes())
            }
            Sink::LogFile { file, .. } => {
                let line = LogLine {
                    action,
                    auditor: "logfile",
                    caller: record.caller,
                    caller_id: record.caller_id,
                    from: record.from,
                    level: "info",
                    msg: &evidence.text,
                    reason: record.reason,
                    request_sha256: &evidence.sha256,
                    site: &self.site,
                    time: &jiff::Zoned::new(clock::now(), jiff::tz::TimeZone::system())
                        .strftime("%Y-%m-%dT%H:%M:%S%:z")
                        .to_string(),
                };
                let mut bytes = serde_json::to_vec(&line)?;
                bytes.push(b'\n');
                // One write per line: lines of several processes do not mix.
                file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
            }
            Sink::JetStream { queue } => {
                let mut body = json!({
                    "protocol": "io.choria.signer.v1.signature_audit",
                    "callerid": record.caller,
                    "action": action,
                    "site": self.site,
                    "time": clock::unix_seconds(),
                    "request": evidence.value,
                    "request_sha256": evidence.sha256,
                });
                if let (Some(reason), Some(fields)) = (record.reason, body.as_object_mut()) {
                    fields.insert("reason".to_owned(), Value::from(reason));
                }
                queue
                    .try_send(serde_json::to_vec(&body)?)
                    .map_err(|_| std::io::Error::other("the queue to the broker is full"))
            }
        }
    }

    /// The log files in use, for messages.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.sinks.iter().filter_map(|sink| match sink {
            Sink::LogFile { path, .. } => Some(path),
            _ => None,
        })
    }
}

#[derive(Serialize)]
struct LogLine<'a> {
    action: &'a str,
    auditor: &'a str,
    caller: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller_id: Option<&'a str>,
    from: &'a str,
    level: &'a str,
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    request_sha256: &'a str,
    site: &'a str,
    time: &'a str,
}

/// A request in the form it may be written down.
struct Evidence {
    text: String,
    value: Value,
    sha256: String,
}

impl Evidence {
    fn of(request: &[u8]) -> Evidence {
        let sha256 = hex::encode(Sha256::digest(request));
        let text = String::from_utf8_lossy(request).into_owned();
        let Ok(mut value) = serde_json::from_slice::<Value>(request) else {
            // Nobody knows what is in there: only its hash is kept.
            return Evidence { text: REDACTED.to_owned(), value: Value::Null, sha256 };
        };
        let Some(fields) = value.as_object_mut() else {
            return Evidence { text: REDACTED.to_owned(), value: Value::Null, sha256 };
        };
        match redacted_message(fields) {
            Redaction::Nothing => Evidence { text, value, sha256 },
            Redaction::Message(message) => {
                fields.insert("message".to_owned(), Value::from(message));
                let text = serde_json::to_string(&value).unwrap_or_else(|_| REDACTED.to_owned());
                Evidence { text, value, sha256 }
            }
        }
    }
}

enum Redaction {
    Nothing,
    Message(String),
}

fn redacted_message(request: &Map<String, Value>) -> Redaction {
    let agent = request.get("agent").and_then(Value::as_str).unwrap_or_default();
    let Some(message) = request.get("message").and_then(Value::as_str) else { return Redaction::Nothing };
    let Ok(bytes) = STANDARD.decode(message) else { return Redaction::Message(REDACTED.to_owned()) };
    let Ok(mut body) = serde_json::from_slice::<Value>(&bytes) else {
        // Discovery bodies are no JSON objects of inputs; anything else that cannot be read is kept out.
        return if agent == "discovery" {
            Redaction::Nothing
        } else {
            Redaction::Message(REDACTED.to_owned())
        };
    };
    let inner = body.get("agent").and_then(Value::as_str).unwrap_or(agent).to_owned();
    let mut changed = false;
    redact(&mut body, &inner, "", 0, &mut changed);
    if !changed {
        return Redaction::Nothing;
    }
    Redaction::Message(STANDARD.encode(serde_json::to_vec(&body).unwrap_or_default()))
}

fn redact(value: &mut Value, agent: &str, parent: &str, depth: usize, changed: &mut bool) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if depth > 0 && secret_name(agent, parent, name) {
                    *value = Value::from(REDACTED);
                    *changed = true;
                } else {
                    redact(value, agent, name, depth.saturating_add(1), changed);
                }
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| redact(item, agent, parent, depth.saturating_add(1), changed));
        }
        _ => {}
    }
}

/// The names of docs/spec/10 §10.
fn secret_name(agent: &str, parent: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if agent == "choria_provision" && matches!(name.as_str(), "token" | "key" | "config" | "server_jwt") {
        return true;
    }
    if parent.eq_ignore_ascii_case("headers") && name == "authorization" {
        return true;
    }
    ["pass", "secret", "seed", "credential"].iter().any(|part| name.contains(part))
        || name.ends_with("token")
        || (name.ends_with("key") && !name.ends_with("_public"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &Value) -> Vec<u8> {
        let message = STANDARD.encode(body.to_string());
        json!({"protocol": "io.choria.protocol.v2.request", "agent": body["agent"], "message": message})
            .to_string()
            .into_bytes()
    }

    fn written(body: &Value) -> String {
        let evidence = Evidence::of(&request(body));
        let outer: Value = serde_json::from_str(&evidence.text).expect("json");
        String::from_utf8(STANDARD.decode(outer["message"].as_str().expect("text")).expect("base64"))
            .expect("text")
    }

    #[test]
    fn t_366_secret_inputs_are_not_written_down() {
        let provision = json!({"agent": "choria_provision", "action": "configure", "data": {"token": "canary1", "config": "canary2", "key": "canary3"}});
        assert!(!written(&provision).contains("canary"));
        let requests = json!({"agent": "requests", "action": "download", "data": {"password": "canary", "headers": {"Authorization": "canary"}, "url": "u"}});
        let text = written(&requests);
        assert!(!text.contains("canary") && text.contains("\"url\":\"u\""));
        let other = json!({"agent": "x", "action": "y", "data": {"list": [{"api_key": "canary", "API_TOKEN": "canary"}], "name": "kept"}});
        let text = written(&other);
        assert!(!text.contains("canary") && text.contains("kept"));
        choria_rows::row(
            366,
            "RPC inputs named token and password, at the signer",
            "[redacted] with the hash of the request",
        );
    }

    #[test]
    fn ordinary_requests_are_kept_to_the_byte() {
        let bytes = request(&json!({"agent": "rpcutil", "action": "ping", "data": {}}));
        let evidence = Evidence::of(&bytes);
        assert_eq!(evidence.text.as_bytes(), bytes);
        assert_eq!(evidence.sha256, hex::encode(Sha256::digest(&bytes)));
        assert_eq!(Evidence::of(b"\xff not json").text, REDACTED);
    }
}
