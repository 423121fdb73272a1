//! Log lines for people and for machines (docs/spec/07 §2.3, 03 §11.4).
//!
//! A terminal gets `LEVL[ssss] message` padded to 44 columns and sorted `key=value` pairs; a pipe gets
//! `time="…" level=info msg="…" key=value`; a file gets one JSON object per line. Whatever peers put into a
//! field is bounded and escaped, so no log line can be forged or move the cursor (docs/spec/10 §10).

mod fields;
mod line;
mod sink;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;

use line::LineLayer;
use sink::Sink;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("'{0}' is not a log level: use debug, info, warn, error or fatal")]
    Level(String),
    #[error("could not open the log file {}: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("logging was already set up in this process")]
    AlreadySet,
}

/// Changes logging while the process runs.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<LevelFilter, tracing_subscriber::Registry>,
    sink: Arc<Sink>,
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogHandle")
    }
}

impl LogHandle {
    /// Sets the least severe level that is written.
    ///
    /// # Errors
    /// A word that is no level.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = level_filter(level)?;
        self.filter.reload(filter).map_err(|_| LogError::AlreadySet)
    }

    /// Opens the log file again after rotation; nothing to do for the other destinations.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> Result<(), LogError> {
        self.sink.reopen()
    }
}

/// Starts logging for the whole process.
///
/// `level` is one of `debug info warn error fatal` (`fatal` writes errors that end the process only, which are
/// logged as errors: nothing but those is written); `destination` is `stderr`, `stdout`, `discard` or a path;
/// `ansi` colours the level when the destination is a terminal.
///
/// # Errors
/// An unknown level, a file that cannot be opened, or a second call.
pub fn init(level: &str, destination: &str, ansi: bool) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(level_filter(level)?);
    let sink = Arc::new(Sink::open(destination, ansi)?);
    let layer = LineLayer { sink: Arc::clone(&sink), started: Instant::now() };
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    Ok(LogHandle { filter: handle, sink })
}

fn level_filter(level: &str) -> Result<LevelFilter, LogError> {
    match level.to_ascii_lowercase().as_str() {
        // There is no level above error; "fatal" means that the command prints its own last words.
        "fatal" => Ok(LevelFilter::OFF),
        word @ ("debug" | "info" | "warn" | "error" | "trace") => {
            LevelFilter::from_str(word).map_err(|_| LogError::Level(level.to_owned()))
        }
        "warning" => Ok(LevelFilter::WARN),
        _ => Err(LogError::Level(level.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(level_filter("DEBUG").unwrap(), LevelFilter::DEBUG);
        assert_eq!(level_filter("fatal").unwrap(), LevelFilter::OFF);
        assert!(level_filter("loud").unwrap_err().to_string().contains("debug, info"));
    }

    #[test]
    fn a_process_logs_once_and_can_change_its_level() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let handle = init("warn", path.to_str().unwrap(), false).unwrap();
        assert!(matches!(init("info", "stderr", false), Err(LogError::AlreadySet)));
        tracing::info!("not written");
        tracing::warn!(reason = "sig_bad", name = "a\nb", "denied");
        handle.set_level("info").unwrap();
        std::fs::rename(&path, dir.path().join("agent.log.1")).unwrap();
        handle.reopen().unwrap();
        tracing::info_span!("connection", identity = "n1").in_scope(|| tracing::info!("hello"));
        let first = std::fs::read_to_string(dir.path().join("agent.log.1")).unwrap();
        let json: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
        assert_eq!(first.lines().count(), 1);
        assert_eq!((&json["level"], &json["msg"]), (&"warning".into(), &"denied".into()));
        assert_eq!((&json["reason"], &json["name"]), (&"sig_bad".into(), &"a\\nb".into()));
        let second = std::fs::read_to_string(&path).unwrap();
        let json: serde_json::Value = serde_json::from_str(second.lines().next().unwrap()).unwrap();
        assert_eq!(json["identity"], "n1", "fields of the span are in the line");
    }
}
