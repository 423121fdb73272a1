//! Counters of the node, and the status file that monitoring reads (docs/spec/03 §11.1).

use std::path::Path;

use choria_host::clock::rfc3339_seconds;
use choria_host::private_file::{self, PrivateFileError};
use serde::{Deserialize, Serialize};

/// The time that means "does not apply".
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// What happened to requests since the process started (docs/spec/03 §2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub total: u64,
    pub valid: u64,
    pub invalid: u64,
    pub passed: u64,
    pub filtered: u64,
    pub replies: u64,
    pub ttlexpired: u64,
    pub events: u64,
}

/// The status file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub identity: String,
    /// Seconds.
    pub uptime: u64,
    /// `""` when disconnected, `unknown` before the first connection.
    pub connected_server: String,
    /// Unix seconds; 0: none yet.
    pub last_message: i64,
    pub provisioning_mode: bool,
    pub stats: Counters,
    pub certificate_expires: String,
    pub token_expires: String,
    /// Ours (decision D1): the broker's identity is not checked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls_unverified: bool,
}

impl Status {
    /// The text of a time in the file: `None` does not apply.
    pub fn time(at: Option<i64>) -> String {
        at.map_or_else(|| NO_TIME.to_owned(), rfc3339_seconds)
    }

    /// Replaces the file in one step, mode 0644.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn write(&self, path: &Path) -> Result<(), PrivateFileError> {
        // Texts and numbers always serialize.
        let text = serde_json::to_vec(self).unwrap_or_default();
        private_file::write_atomic(path, &text, 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_file_is_what_checks_expect() {
        let status = Status {
            identity: "n1.example.net".into(),
            uptime: 2250,
            connected_server: "nats://broker.example.net:4222".into(),
            last_message: 1_670_928_037,
            provisioning_mode: false,
            stats: Counters {
                total: 12,
                valid: 12,
                passed: 12,
                replies: 12,
                events: 3,
                ..Counters::default()
            },
            certificate_expires: Status::time(None),
            token_expires: Status::time(Some(1_765_620_834)),
            tls_unverified: false,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        status.write(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"identity\":\"n1.example.net\",\"uptime\":2250,\"connected_server\":\"nats://broker.example.net:4222\",\"last_message\":1670928037,\
             \"provisioning_mode\":false,\"stats\":{\"total\":12,\"valid\":12,\"invalid\":0,\"passed\":12,\"filtered\":0,\"replies\":12,\
             \"ttlexpired\":0,\"events\":3},\"certificate_expires\":\"0001-01-01T00:00:00Z\",\"token_expires\":\"2025-12-13T10:13:54Z\"}"
        );
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        let unverified = Status { tls_unverified: true, ..status };
        unverified.write(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"tls_unverified\":true"));
    }
}
