//! One line of a settings file, and the file itself.

use std::io::Read;
use std::path::Path;

use super::{MAX_FILE, Problem, SettingsError};

pub(super) enum Line<'a> {
    Nothing,
    Setting(&'a str, &'a str),
    Malformed(Problem),
}

pub(super) fn line(text: &str) -> Line<'_> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Line::Nothing;
    }
    let Some((key, value)) = text.split_once('=') else { return Line::Malformed(Problem::NoEquals) };
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() {
        return Line::Malformed(Problem::NoKey);
    }
    // "key =" is how a person comments a value out; upstream ignores it without a word and so do we.
    if value.is_empty() {
        return Line::Nothing;
    }
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Line::Malformed(Problem::ControlCharacter);
    }
    Line::Setting(key, value)
}

pub(super) fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "true" | "y" | "t" => Some(true),
        "0" | "no" | "false" | "n" | "f" => Some(false),
        _ => None,
    }
}

pub(super) fn read_text(path: &Path) -> Result<String, SettingsError> {
    let read_error = |source| SettingsError::Read { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(read_error)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(SettingsError::TooLarge { path: path.to_path_buf() });
    }
    String::from_utf8(bytes).map_err(|_| SettingsError::NotText { path: path.to_path_buf() })
}
