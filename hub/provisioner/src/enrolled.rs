//! Which key was enrolled under which name. One key belongs to one name, and the helper is told when a known name
//! comes back with another key (`docs/spec/10` V2, V5).

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

/// Most names remembered; beyond it the oldest knowledge is not replaced, new names are only not remembered.
const MAX_NAMES: usize = 1_000_000;

/// Longest line of the file that is believed.
const MAX_LINE: usize = 1024;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `enrolled_file` {path}: {source}")]
pub struct EnrolledError {
    path: PathBuf,
    source: std::io::Error,
}

#[derive(Deserialize, Serialize)]
struct Line {
    identity: String,
    key: String,
    at: i64,
}

#[derive(Default)]
struct Inner {
    key_of: HashMap<String, String>,
    name_of: HashMap<String, String>,
    file: Option<File>,
    /// The file ends in the middle of a line: what comes next must not be read as its rest.
    torn: bool,
}

/// The record, shared by all workers; in memory, and in an append-only file of JSON lines when configured.
#[derive(Default)]
pub struct Enrolled(Mutex<Inner>);

impl std::fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Enrolled")
    }
}

impl Enrolled {
    /// Reads what is there and appends from now on. A line cut off by a crash is skipped, with a warning.
    pub fn open(path: &Path) -> Result<Enrolled, EnrolledError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let failed = |source| EnrolledError { path: path.to_path_buf(), source };
        let mut inner = Inner::default();
        match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(file) => {
                let skipped = inner.read(BufReader::new(file)).map_err(failed)?;
                if skipped > 0 {
                    tracing::warn!(
                        path = %path.display(),
                        "{skipped} lines of the record of enrolled keys cannot be read and are passed over"
                    );
                }
            }
        }
        let file = File::options().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
        inner.file = Some(file);
        Ok(Enrolled(Mutex::new(inner)))
    }

    /// Whether the name was enrolled before, with another key than this.
    pub fn known(&self, identity: &str, key: &str) -> bool {
        self.inner().key_of.get(identity).is_some_and(|enrolled| enrolled != key)
    }

    /// The other name this key is enrolled under.
    pub fn other_name_of(&self, identity: &str, key: &str) -> Option<String> {
        self.inner().name_of.get(key).filter(|name| name.as_str() != identity).cloned()
    }

    /// The node was provisioned with this key. `now_unix` in seconds.
    pub fn record(&self, identity: &str, key: &str, now_unix: i64) -> Result<(), std::io::Error> {
        let mut inner = self.inner();
        inner.remember(identity.to_string(), key.to_string());
        let torn = inner.torn;
        let Some(file) = &mut inner.file else { return Ok(()) };
        let mut line = if torn { vec![b'\n'] } else { Vec::new() };
        let record = Line { identity: identity.to_string(), key: key.to_string(), at: now_unix };
        serde_json::to_writer(&mut line, &record)?;
        line.push(b'\n');
        let written = file.write_all(&line);
        // a full disk takes a part of it
        inner.torn = written.is_err();
        written
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        // a panic while holding the lock cannot leave the maps half changed in a way that matters here
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes over the lines of a file; how many of them are none.
    fn read(&mut self, mut file: impl BufRead) -> Result<usize, std::io::Error> {
        let mut skipped = 0;
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line)? > 0 {
            self.torn = line.last() != Some(&b'\n');
            match serde_json::from_slice::<Line>(&line) {
                Ok(known) if line.len() <= MAX_LINE => self.remember(known.identity, known.key),
                _ if line.trim_ascii().is_empty() => {}
                _ => skipped += 1,
            }
            line.clear();
        }
        Ok(skipped)
    }

    fn remember(&mut self, identity: String, key: String) {
        if self.key_of.len() >= MAX_NAMES && !self.key_of.contains_key(&identity) {
            return;
        }
        if let Some(old) = self.key_of.insert(identity.clone(), key.clone()) {
            self.name_of.remove(&old);
        }
        self.name_of.insert(key, identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_one_name_across_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("enrolled.json");
        let enrolled = Enrolled::open(&path).unwrap();
        assert!(!enrolled.known("n1", "aa"));
        enrolled.record("n1", "aa", 1).unwrap();
        std::fs::write(
            &path,
            [std::fs::read(&path).unwrap(), b"{\"identity\":\"n2\",\"ke".to_vec()].concat(),
        )
        .unwrap();

        let enrolled = Enrolled::open(&path).unwrap();
        assert!(!enrolled.known("n1", "aa") && enrolled.known("n1", "bb"));
        assert_eq!(enrolled.other_name_of("n2", "aa").as_deref(), Some("n1"));
        assert_eq!(enrolled.other_name_of("n1", "aa"), None);
        enrolled.record("n1", "bb", 2).unwrap();
        assert_eq!(enrolled.other_name_of("n2", "aa"), None, "a replaced key is free again");
        drop(enrolled);
        let enrolled = Enrolled::open(&path).unwrap();
        assert!(enrolled.known("n1", "aa"), "what was recorded behind a line that was cut off is not lost");
        assert_eq!(enrolled.other_name_of("n2", "bb").as_deref(), Some("n1"));
    }

    #[test]
    fn bytes_that_are_no_record_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("enrolled.json");
        let good = br#"{"identity":"n1","key":"aa","at":1}"#;
        let long = [b"{\"identity\":\"".as_slice(), &[b'x'; 2000], b"\",\"key\":\"bb\",\"at\":1}"].concat();
        std::fs::write(&path, [b"\xff\xfe\0\n", long.as_slice(), b"\n\n", good].concat()).unwrap();
        let enrolled = Enrolled::open(&path).unwrap();
        assert!(enrolled.known("n1", "bb"), "the last line is whole but for its end");
        assert_eq!(enrolled.other_name_of("n2", "bb"), None);
        enrolled.record("n2", "cc", 2).unwrap();
        let enrolled = Enrolled::open(&path).unwrap();
        assert!(enrolled.known("n1", "bb") && enrolled.known("n2", "bb"));
    }
}
