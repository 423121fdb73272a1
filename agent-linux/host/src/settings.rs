//! Settings files: `key = value` lines (docs/spec/02 §6, 07 §3.2, 03 §14.1).
//!
//! Lines are trimmed, blank ones and those that begin with `#` are skipped, the first `=` splits, the value
//! may hold further `=`. No quoting, no sections, no inline comments, no continuation. Later lines win and
//! unknown keys are kept, because agents and issuers are configured by keys whose names are data.
//!
//! Upstream ignores a value of the wrong type in silence. Here every such value and every line that is not a
//! setting becomes a [`Warning`] with file and line: it is logged when found, and [`Settings::warnings`]
//! returns all of them.

mod parse;
mod reread;
mod warning;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

pub use warning::{Problem, Warning};

use crate::private_file;

/// Largest settings file read, in bytes.
pub const MAX_FILE: u64 = 1024 * 1024;
/// Most settings of one set of files.
pub const MAX_ENTRIES: usize = 16_384;

/// Why settings could not be read, or a value of them used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("could not read the settings file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the settings file {} is larger than {MAX_FILE} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("the settings file {} is not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    #[error("more than {MAX_ENTRIES} settings, the last ones from {}", path.display())]
    TooMany { path: PathBuf },
    #[error("{warning}")]
    Value { warning: Warning },
    #[error("the setting '{key}' is needed and not set: {why}")]
    Missing { key: String, why: &'static str },
}

#[derive(Debug, Clone)]
struct Entry {
    key: String,
    value: String,
    /// Index into `files`, and the line counted from 1. `None`: set by the program or the environment.
    origin: Option<(usize, usize)>,
}

/// An ordered set of settings that remembers where each one came from.
#[derive(Debug, Default)]
pub struct Settings {
    entries: Vec<Entry>,
    files: Vec<PathBuf>,
    main: Option<PathBuf>,
    warnings: Mutex<Vec<Warning>>,
}

impl Clone for Settings {
    fn clone(&self) -> Self {
        Settings {
            entries: self.entries.clone(),
            files: self.files.clone(),
            main: self.main.clone(),
            warnings: Mutex::new(self.warnings()),
        }
    }
}

impl Settings {
    /// No settings at all: every lookup gives its default.
    pub fn empty() -> Self {
        Settings::default()
    }

    /// Reads a main file, then `plugin.d/*.cfg` and `*.conf` beside it (in the order of their names, each key
    /// prefixed with `plugin.<name>.`) unless the main file lies under the user's home directory.
    ///
    /// # Errors
    /// A file that cannot be read, is not UTF-8 or is larger than [`MAX_FILE`].
    pub fn load(path: &Path) -> Result<Settings, SettingsError> {
        let mut settings = Settings::empty();
        settings.merge_file(path)?;
        settings.main = Some(path.to_path_buf());
        if !under_home(path) {
            settings.merge_plugin_files(path)?;
        }
        if settings.bool("plugin.choria.strict_file_modes", false) {
            private_file::refuse_exposed_files();
        }
        Ok(settings)
    }

    /// Reads settings from a text; `origin` is the name that warnings and errors show.
    ///
    /// # Errors
    /// More than [`MAX_ENTRIES`] settings.
    pub fn parse(text: &str, origin: &Path) -> Result<Settings, SettingsError> {
        let mut settings = Settings::empty();
        settings.merge_text(text, origin, "")?;
        settings.main = Some(origin.to_path_buf());
        Ok(settings)
    }

    /// Adds the settings of one more file; they win over those already here.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn merge_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let text = parse::read_text(path)?;
        self.merge_text(&text, path, "")
    }

    fn merge_plugin_files(&mut self, main: &Path) -> Result<(), SettingsError> {
        let directory = main.parent().unwrap_or(Path::new(".")).join("plugin.d");
        let Ok(listing) = std::fs::read_dir(&directory) else { return Ok(()) };
        let mut files: Vec<PathBuf> = listing
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "cfg" || e == "conf"))
            .collect();
        files.sort();
        for file in files {
            let Some(name) = file.file_stem().and_then(|n| n.to_str()) else { continue };
            let prefix = format!("plugin.{name}.");
            let text = parse::read_text(&file)?;
            self.merge_text(&text, &file, &prefix)?;
        }
        Ok(())
    }

    fn merge_text(&mut self, text: &str, origin: &Path, prefix: &str) -> Result<(), SettingsError> {
        let file = self.files.len();
        self.files.push(origin.to_path_buf());
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            match parse::line(line) {
                parse::Line::Nothing => {}
                parse::Line::Setting(key, value) => {
                    if self.entries.len() >= MAX_ENTRIES {
                        return Err(SettingsError::TooMany { path: origin.to_path_buf() });
                    }
                    self.entries.push(Entry {
                        key: format!("{prefix}{key}"),
                        value: value.to_owned(),
                        origin: Some((file, number)),
                    });
                }
                parse::Line::Malformed(problem) => {
                    self.warn(Warning::at(origin, number, String::new(), problem));
                }
            }
        }
        Ok(())
    }

    /// Applies the environment variables that override settings (docs/spec/03 §14.1): `CHORIA_SRV_DOMAIN`,
    /// `CHORIA_FED_COLLECTIVE`, `CHORIA_REGISTRY` and the `MCOLLECTIVE_NATS_*` three.
    pub fn overlay_environment(&mut self) {
        for (variable, key) in [
            ("CHORIA_SRV_DOMAIN", "plugin.choria.srv_domain"),
            ("CHORIA_FED_COLLECTIVE", "plugin.choria.federation.collectives"),
            ("CHORIA_REGISTRY", "plugin.choria.services.registry.cache"),
            ("MCOLLECTIVE_NATS_USERNAME", "plugin.nats.user"),
            ("MCOLLECTIVE_NATS_PASSWORD", "plugin.nats.pass"),
            ("MCOLLECTIVE_NATS_CREDENTIALS", "plugin.nats.credentials"),
        ] {
            if let Ok(value) = std::env::var(variable)
                && !value.is_empty()
            {
                self.set(key, &value);
            }
        }
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }

    /// The last value given to a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entry(key).map(|entry| entry.value.as_str())
    }

    /// `1 yes true y t` is true, `0 no false n f` is false, in any case. Anything else reads as false, as
    /// upstream does, and warns.
    pub fn bool(&self, key: &str, default: bool) -> bool {
        let Some(entry) = self.entry(key) else { return default };
        parse::boolean(&entry.value).unwrap_or_else(|| {
            self.warn(self.about(entry, Problem::NotBoolean));
            false
        })
    }

    /// Comma separated, trimmed, empty items dropped. An unset key gives an empty list.
    pub fn list(&self, key: &str) -> Vec<String> {
        let items = self.get(key).unwrap_or_default().split(',');
        items.map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    /// Paths separated by `:`, appended over repeated lines (docs/spec/03 §14.1), `~` expanded.
    pub fn path_list(&self, key: &str) -> Vec<PathBuf> {
        let lines = self.entries.iter().filter(|entry| entry.key == key);
        lines
            .flat_map(|entry| entry.value.split(':'))
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(expand_home)
            .collect()
    }

    /// A whole number.
    ///
    /// # Errors
    /// A value that is not one; the error names file and line.
    pub fn int(&self, key: &str, default: i64) -> Result<i64, SettingsError> {
        let Some(entry) = self.entry(key) else { return Ok(default) };
        entry
            .value
            .parse()
            .map_err(|_| SettingsError::Value { warning: self.about(entry, Problem::NotInteger) })
    }

    /// A whole number; a wrong one warns and reads as the default, as upstream does.
    pub fn int_or(&self, key: &str, default: i64) -> i64 {
        self.int(key, default).unwrap_or_else(|error| self.forgive(error, default))
    }

    /// A duration, see [`crate::duration`].
    ///
    /// # Errors
    /// A value that is not one; the error names file and line.
    pub fn duration(&self, key: &str, default: Duration) -> Result<Duration, SettingsError> {
        let Some(entry) = self.entry(key) else { return Ok(default) };
        crate::duration::parse(&entry.value).map_err(|error| SettingsError::Value {
            warning: self.about(entry, Problem::NotDuration(error.to_string())),
        })
    }

    /// A duration; a wrong one warns and reads as the default.
    pub fn duration_or(&self, key: &str, default: Duration) -> Duration {
        self.duration(key, default).unwrap_or_else(|error| self.forgive(error, default))
    }

    fn forgive<T>(&self, error: SettingsError, default: T) -> T {
        if let SettingsError::Value { warning } = error {
            self.warn(warning);
        }
        default
    }

    /// A path with a leading `~` expanded to the home directory.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.get(key).map(expand_home)
    }

    /// Sets a key from the program; every earlier value of it is forgotten.
    pub fn set(&mut self, key: &str, value: &str) {
        self.remove(key);
        self.entries.push(Entry { key: key.to_owned(), value: value.to_owned(), origin: None });
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &str) {
        self.entries.retain(|entry| entry.key != key);
    }

    /// Every key once, in the order of first appearance.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let mut seen = std::collections::BTreeSet::new();
        self.entries.iter().map(|entry| entry.key.as_str()).filter(move |key| seen.insert(*key))
    }

    /// Every key that begins with `prefix`, without it, and its value in force.
    pub fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.keys().filter_map(move |key| Some((key.strip_prefix(prefix)?, self.get(key)?)))
    }

    /// File and line (from 1) of the value in force; `None` when the program or the environment set it.
    pub fn origin(&self, key: &str) -> Option<(PathBuf, usize)> {
        let (file, line) = self.entry(key)?.origin?;
        Some((self.files.get(file)?.clone(), line))
    }

    /// The main file these settings were read from.
    pub fn path_loaded(&self) -> Option<&Path> {
        self.main.as_deref()
    }

    /// Everything found wrong so far, oldest first; typed getters add to it when called.
    pub fn warnings(&self) -> Vec<Warning> {
        self.warnings.lock().map(|list| list.clone()).unwrap_or_default()
    }

    /// Records that a value in force is wrong in a way only the caller can know (an unknown choice, say).
    pub fn warn_about(&self, key: &str, problem: Problem) {
        match self.entry(key) {
            Some(entry) => self.warn(self.about(entry, problem)),
            None => self.warn(Warning::unplaced(key, problem)),
        }
    }

    fn about(&self, entry: &Entry, problem: Problem) -> Warning {
        match entry.origin.and_then(|(file, line)| Some((self.files.get(file)?, line))) {
            Some((file, line)) => Warning::at(file, line, entry.key.clone(), problem),
            None => Warning::unplaced(&entry.key, problem),
        }
    }

    fn warn(&self, warning: Warning) {
        let Ok(mut list) = self.warnings.lock() else { return };
        if !list.contains(&warning) {
            tracing::warn!("{warning}");
            list.push(warning);
        }
    }
}

/// `~` or `~/x` with the home directory of `HOME`; anything else as it stands.
pub fn expand_home(text: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    match text.strip_prefix('~') {
        Some("") => home().unwrap_or_else(|| PathBuf::from(text)),
        Some(rest) if rest.starts_with('/') => match home() {
            Some(home) => home.join(rest.trim_start_matches('/')),
            None => PathBuf::from(text),
        },
        _ => PathBuf::from(text),
    }
}

fn under_home(path: &Path) -> bool {
    let Some(home) = std::env::var_os("HOME").filter(|home| !home.is_empty() && home != "/") else {
        return false;
    };
    std::path::absolute(path).is_ok_and(|path| path.starts_with(home))
}

/// The issuers of `plugin.security.issuer.names`: organization to the lower-case 64 hex digits of its Ed25519
/// public key. Where `plugin.security.issuer.<name>.public` lists several keys (docs/spec/10 §7.1) this is the
/// preferred one; [`issuer_keys`] gives all.
///
/// # Errors
/// An issuer that is named without a key, or whose key is not 64 hex digits.
pub fn issuers(settings: &Settings) -> Result<BTreeMap<String, String>, SettingsError> {
    let keys = issuer_keys(settings)?.into_iter();
    Ok(keys.filter_map(|(name, keys)| Some((name, keys.into_iter().next()?))).collect())
}

/// As [`issuers`], with every key of each organization, the preferred one first.
///
/// # Errors
/// As [`issuers`].
pub fn issuer_keys(settings: &Settings) -> Result<BTreeMap<String, Vec<String>>, SettingsError> {
    let mut issuers = BTreeMap::new();
    for name in settings.list("plugin.security.issuer.names") {
        let setting = format!("plugin.security.issuer.{name}.public");
        let keys: Vec<String> =
            settings.list(&setting).into_iter().map(|key| key.to_ascii_lowercase()).collect();
        let Some(entry) = settings.entry(&setting).filter(|_| !keys.is_empty()) else {
            return Err(SettingsError::Missing {
                key: setting,
                why: "plugin.security.issuer.names lists this organization, so its public key must be given",
            });
        };
        if keys.iter().any(|key| key.len() != 64 || !key.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(SettingsError::Value { warning: settings.about(entry, Problem::NotPublicKey) });
        }
        issuers.insert(name, keys);
    }
    Ok(issuers)
}

#[cfg(test)]
mod tests;
