//! Whether a secret of a network stands in something that people and machines read: logs, audit files, status files.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// What everybody may read.
const READABLE: [&str; 3] = ["log", "audit", "status"];
/// What only its owner may read.
const SECRET: [&str; 4] = ["seed", "jwt", "key", "password"];

/// No secret file's content, and none of `more`, stands in any readable file below `folder`, nor in `texts`.
pub fn none_written_down(folder: &Path, more: &[&str], texts: &[String]) -> Result<usize> {
    let mut files = Vec::new();
    below(folder, &mut files)?;
    let mut secrets: Vec<(String, String)> = Vec::new();
    for secret in more {
        let forms = [(*secret).to_owned()].into_iter().chain(in_base64(secret));
        secrets.extend(forms.map(|form| (format!("the test's secret {secret}"), form)));
    }
    // the head of every token there is
    secrets.push(("a token".to_owned(), "eyJhbGciOi".to_owned()));
    for path in files.iter().filter(|path| has_kind(path, &SECRET)) {
        let text = std::fs::read_to_string(path)?;
        secrets.extend(parts(&text).into_iter().map(|part| (path.display().to_string(), part)));
    }
    let mut read: Vec<(String, String)> =
        texts.iter().map(|text| ("an output".to_owned(), text.clone())).collect();
    for path in files.iter().filter(|path| has_kind(path, &READABLE)) {
        read.push((path.display().to_string(), String::from_utf8_lossy(&std::fs::read(path)?).into_owned()));
    }
    for (of, secret) in &secrets {
        for (place, text) in &read {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            ensure!(line.is_none(), "{place} holds what is in {of}: {}", line.unwrap_or_default());
        }
    }
    Ok(secrets.len())
}

/// How the inside of a secret reads in base64, at each of its three places in a group.
fn in_base64(secret: &str) -> impl Iterator<Item = String> {
    (0..3).map(move |shift| {
        let encoded = STANDARD_NO_PAD.encode(format!("{}{secret}", "x".repeat(shift)));
        encoded.chars().skip(4).take(encoded.len().saturating_sub(8)).collect()
    })
}

/// The parts of a secret file that give it away: a seed, the pieces of a token, the lines of a key.
fn parts(text: &str) -> Vec<String> {
    let pieces = text.lines().filter(|line| !line.starts_with("-----")).flat_map(|line| line.split('.'));
    pieces.map(str::trim).filter(|piece| piece.len() >= 16).map(str::to_owned).collect()
}

fn has_kind(path: &Path, kinds: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    kinds.iter().any(|kind| {
        name.ends_with(&format!(".{kind}")) || name == *kind || name.contains(&format!("-{kind}"))
    })
}

fn below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            below(&path, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
