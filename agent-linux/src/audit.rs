//! The audit log: one JSON object per line and request (docs/spec/03 §9).
//!
//! Inputs that are secrets are redacted ([`crate::redaction`]); a request that was denied is recorded too, with
//! `"outcome":"denied"`, when `plugin.rpcaudit.log_denied` is on. A record that cannot be written is logged and
//! does not stop the request (docs/spec/10 §15, S17).

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use agent_core::rpc::Call;
use choria_host::Settings;
use choria_host::settings::Problem;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::redaction;

/// Where and how audit records are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    pub path: PathBuf,
    pub mode: u32,
    /// Name or number of the group that owns the file.
    pub group: Option<String>,
    pub log_denied: bool,
}

impl AuditConfig {
    /// `None` unless `rpcaudit` is on and `plugin.rpcaudit.logfile` names a file.
    pub fn from_settings(settings: &Settings) -> Option<Self> {
        if !settings.bool("rpcaudit", false) {
            return None;
        }
        let Some(path) = settings.path("plugin.rpcaudit.logfile") else {
            settings.warn_about(
                "rpcaudit",
                Problem::Other(
                    "is on but plugin.rpcaudit.logfile is not set: nothing is recorded".to_owned(),
                ),
            );
            return None;
        };
        // The documented names have `logfile.` in the middle, the tables of keys do not: both are read.
        let either = |name: &'static str| {
            let long = format!("plugin.rpcaudit.logfile.{name}");
            settings.get(&long).or(settings.get(&format!("plugin.rpcaudit.{name}"))).map(str::to_owned)
        };
        let mode = either("mode").and_then(|text| {
            let digits = text.trim_start_matches("0o");
            let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777);
            if mode.is_none() {
                settings.warn_about(
                    "plugin.rpcaudit.logfile.mode",
                    Problem::Other("is not a file mode such as 0600; 0600 is used".to_owned()),
                );
            }
            mode
        });
        Some(AuditConfig {
            path,
            mode: mode.unwrap_or(0o600),
            group: either("group"),
            log_denied: settings.bool("plugin.rpcaudit.log_denied", false),
        })
    }
}

#[derive(Serialize)]
struct Record<'a> {
    timestamp: String,
    request_id: &'a str,
    request_time: i64,
    caller: &'a str,
    sender: &'a str,
    agent: &'a str,
    action: &'a str,
    data: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// Of the inputs as received: proves what the redacted values were to whoever knows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_sha256: Option<String>,
}

/// Writes audit records.
#[derive(Debug)]
pub struct Audit {
    config: AuditConfig,
}

impl Audit {
    pub fn new(config: AuditConfig) -> Self {
        Audit { config }
    }

    /// Records a request that is about to run, or was denied.
    pub fn record(&self, call: &Call<'_>, denied: bool) {
        if denied && !self.config.log_denied {
            return;
        }
        let line = line(call, denied, choria_host::clock::now());
        if let Err(error) = self.append(&line) {
            tracing::error!(path = %self.config.path.display(), %error, "could not write the audit record");
        }
    }

    /// One append per record: records of several processes do not mix, and a rotated file is left behind.
    fn append(&self, line: &str) -> std::io::Result<()> {
        let path = &self.config.path;
        let fresh = !path.exists();
        let mut file = OpenOptions::new().append(true).create(true).mode(self.config.mode).open(path)?;
        if fresh {
            // The mode given to open() is narrowed by the process's umask.
            file.set_permissions(std::fs::Permissions::from_mode(self.config.mode))?;
            if let Some(group) = &self.config.group {
                match group_id(group) {
                    Some(id) => std::os::unix::fs::fchown(&file, None, Some(id))?,
                    None => tracing::warn!(%group, "the group of the audit log is not known"),
                }
            }
        }
        file.write_all(line.as_bytes())
    }
}

fn group_id(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn line(call: &Call<'_>, denied: bool, now: jiff::Timestamp) -> String {
    let data: Value = serde_json::from_slice(call.data).unwrap_or(Value::Null);
    let redacted = redaction::inputs(call.agent, &data);
    let micros = now.subsec_microsecond();
    let second = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    let record = Record {
        timestamp: format!("{}.{micros:06}+0000", second.trim_end_matches('Z')),
        request_id: call.request_id,
        request_time: call.time_nanos.div_euclid(1_000_000_000),
        caller: call.caller,
        sender: call.sender,
        agent: call.agent,
        action: call.action,
        outcome: denied.then_some("denied"),
        data_sha256: (redacted != data).then(|| hex::encode(Sha256::digest(call.data))),
        data: redacted,
    };
    // A record of texts and JSON values always serializes.
    let mut line = serde_json::to_string(&record).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    fn call(data: &'static [u8]) -> Call<'static> {
        Call {
            agent: "choria_provision",
            action: "restart",
            data,
            caller: "up=ann\n{\"forged\":1}",
            request_id: "2Jd0",
            sender: "cli.example.net",
            collective: "choria",
            ttl_seconds: 60,
            time_nanos: 1_714_557_600_900_000_000,
            caller_token: "",
            signer_token: "",
        }
    }

    #[test]
    fn records_are_exact_lines_without_secrets() {
        let now = "2024-05-01T10:00:00.123456789Z".parse().unwrap();
        let text = line(&call(br#"{"splay":1}"#), false, now);
        assert_eq!(
            text,
            "{\"timestamp\":\"2024-05-01T10:00:00.123456+0000\",\"request_id\":\"2Jd0\",\"request_time\":1714557600,\"caller\":\"up=ann\\n{\\\"forged\\\":1}\",\"sender\":\"cli.example.net\",\"agent\":\"choria_provision\",\"action\":\"restart\",\"data\":{\"splay\":1}}\n"
        );
        let text = line(&call(br#"{"token":"canary"}"#), true, now);
        assert!(
            !text.contains("canary")
                && text.contains("[redacted]")
                && text.contains("\"outcome\":\"denied\"")
        );
        assert!(text.contains("data_sha256"));
    }

    #[test]
    fn the_file_has_its_mode_and_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let settings = Settings::parse(
            &format!(
                "rpcaudit = 1\nplugin.rpcaudit.logfile = {}\nplugin.rpcaudit.logfile.mode = 0640\n",
                path.display()
            ),
            Path::new("x"),
        )
        .unwrap();
        let audit = Audit::new(AuditConfig::from_settings(&settings).unwrap());
        audit.record(&call(b"{}"), false);
        audit.record(&call(b"{}"), true);
        audit.record(&call(b"{}"), false);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2, "denials are off by default");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn off_without_a_file() {
        let settings = Settings::parse("rpcaudit = 1", Path::new("x")).unwrap();
        assert_eq!(AuditConfig::from_settings(&settings), None);
        assert!(settings.warnings()[0].to_string().contains("plugin.rpcaudit.logfile is not set"));
    }
}
