//! The directory `policies/`, replaced as a whole.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use agent_core::json::Object;
use choria_host::{fault, private_file};

use super::{MAX_TEXT, StoreError};

/// A complete new directory under another name.
#[derive(Debug)]
pub(super) struct Staged {
    fresh: PathBuf,
    target: PathBuf,
}

impl Staged {
    /// Writes the new directory beside the old one. Without any policy the old directory stays, `None`. Entries
    /// with an empty text are skipped.
    pub(super) fn prepare(
        target: &Path,
        action: Option<&Object<'_>>,
        opa: Option<&Object<'_>>,
    ) -> Result<Option<Staged>, StoreError> {
        let (action, opa) = (files(action)?, files(opa)?);
        if action.is_empty() && opa.is_empty() {
            return Ok(None);
        }
        let fresh = target.with_file_name(".policies.new");
        remove_directory(&fresh)?;
        make_directory(&fresh)?;
        for (name, text) in &action {
            private_file::write_atomic(&fresh.join(name), text.as_bytes(), 0o400)?;
        }
        let rego = fresh.join("rego");
        if !opa.is_empty() {
            make_directory(&rego)?;
        }
        for (name, text) in &opa {
            private_file::write_atomic(&rego.join(name), text.as_bytes(), 0o400)?;
        }
        if action.is_empty() {
            // Only Rego policies came: the action policies of before stay.
            keep_files(target, &fresh)?;
        }
        Ok(Some(Staged { fresh, target: target.to_path_buf() }))
    }

    /// Replaces the old directory. Between the two renames there is none, which denies.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        remove_directory(&self.target)?;
        fault::step();
        std::fs::rename(&self.fresh, &self.target)
            .map_err(|source| StoreError::Directory { path: self.target, source })
    }
}

fn files(policies: Option<&Object<'_>>) -> Result<Vec<(String, String)>, StoreError> {
    let mut files = Vec::new();
    for (name, text) in policies.into_iter().flat_map(Object::entries) {
        // The machine has checked the names; what could still lead elsewhere is refused again.
        let name: String = name.chars().take(255).collect();
        let text: String =
            text.as_text().ok_or(StoreError::Request("policy"))?.chars().take(MAX_TEXT).collect();
        if name.contains('/') || name.contains("..") {
            return Err(StoreError::Request("policy name"));
        }
        if !name.is_empty() && !text.is_empty() {
            files.push((name, text));
        }
    }
    Ok(files)
}

fn make_directory(path: &Path) -> Result<(), StoreError> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|source| StoreError::Directory { path: path.to_path_buf(), source })
}

fn remove_directory(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Directory { path: path.to_path_buf(), source: error })
        }
        _ => Ok(()),
    }
}

fn keep_files(from: &Path, to: &Path) -> Result<(), StoreError> {
    let Ok(listing) = std::fs::read_dir(from) else { return Ok(()) };
    for entry in listing.flatten().filter(|entry| entry.path().is_file()) {
        let bytes = std::fs::read(entry.path())
            .map_err(|source| StoreError::Directory { path: entry.path(), source })?;
        private_file::write_atomic(&to.join(entry.file_name()), &bytes, 0o400)?;
    }
    Ok(())
}
