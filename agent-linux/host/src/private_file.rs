//! Files that hold secrets, and files that must be whole or absent after a crash (docs/spec/10 §7).
//!
//! Writing always goes: a new file of the final mode in the same directory (opened exclusively, so no link is
//! followed), content, fsync, rename, fsync of the directory. A reader sees the old file or the new one.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use crate::fault;

/// Largest secret file read: a client token may carry a policy of 64 KiB.
pub const MAX_SECRET: u64 = 256 * 1024;

/// A text that must not be shown. Wiped when dropped; `Debug` and `Display` print `*****`.
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: String) -> Self {
        Secret(Zeroizing::new(text))
    }

    /// The text itself. Never log it, never put it into an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("*****")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("*****")
    }
}

/// Why a private file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    #[error("could not read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is larger than {MAX_SECRET} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    #[error("{} is empty", path.display())]
    Empty { path: PathBuf },
    #[error(
        "refusing to use {}: everyone can replace files in {}; run 'chmod o-w {}'",
        path.display(), directory.display(), directory.display()
    )]
    OpenDirectory { path: PathBuf, directory: PathBuf },
    #[error("refusing to use {}: others can read it (mode {mode:04o}); run 'chmod 600 {}'", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("could not write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("could not remove {}: {source}", path.display())]
    Remove { path: PathBuf, source: std::io::Error },
}

impl PrivateFileError {
    /// Whether the file simply is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, PrivateFileError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// Set once by a configuration with `plugin.choria.strict_file_modes = true`; holds for the whole process.
static STRICT: AtomicBool = AtomicBool::new(false);

/// From now on this process refuses every secret file that group or others can read.
pub fn refuse_exposed_files() {
    STRICT.store(true, Ordering::Relaxed);
}

/// Reads a secret: at most [`MAX_SECRET`] bytes, surrounding white space removed, never empty. Links are
/// followed (mounted secrets are links). A file that others can read is used with a warning, or refused after
/// [`refuse_exposed_files`]; a directory in which everyone can replace files is refused.
///
/// # Errors
/// See [`PrivateFileError`].
pub fn read_secret(path: &Path) -> Result<Secret, PrivateFileError> {
    read(path, STRICT.load(Ordering::Relaxed))
}

/// As [`read_secret`], for keys that vouch for a whole organization: a file that others can read is always refused.
///
/// # Errors
/// See [`PrivateFileError`].
pub fn read_owner_only(path: &Path) -> Result<Secret, PrivateFileError> {
    read(path, true)
}

fn read(path: &Path, owner_only: bool) -> Result<Secret, PrivateFileError> {
    let read_error = |source| PrivateFileError::Read { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(read_error)?;
    check_place(path, &file, owner_only)?;
    // Room for everything beforehand: a buffer that grows leaves unwiped copies behind.
    let length = file.metadata().map_err(read_error)?.len().min(MAX_SECRET + 1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length + 64).unwrap_or(4096)));
    file.take(MAX_SECRET + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(PrivateFileError::TooLarge { path: path.to_path_buf() });
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| PrivateFileError::NotText { path: path.to_path_buf() })?
        .trim();
    if text.is_empty() {
        return Err(PrivateFileError::Empty { path: path.to_path_buf() });
    }
    Ok(Secret::new(text.to_owned()))
}

/// Warns about a file that group or others can read, or refuses it; refuses a directory that everyone can write
/// to without the sticky bit.
fn check_place(path: &Path, file: &File, owner_only: bool) -> Result<(), PrivateFileError> {
    let directory = directory_of(path);
    if let Ok(meta) = std::fs::metadata(&directory) {
        let mode = meta.mode();
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(PrivateFileError::OpenDirectory { path: path.to_path_buf(), directory });
        }
    }
    let mode = file.metadata().map_or(0, |meta| meta.mode() & 0o777);
    if mode & 0o077 != 0 {
        if owner_only {
            return Err(PrivateFileError::Exposed { path: path.to_path_buf(), mode });
        }
        tracing::warn!(
            path = %path.display(),
            mode = %format_args!("{mode:04o}"),
            "a secret file can be read by others; run 'chmod 600' on it"
        );
    }
    Ok(())
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A complete, synced file that does not have its name yet. Dropped without [`Staged::commit`] it vanishes.
///
/// Pairs of files (seed and token, certificate and key) are staged both before the first is committed.
#[derive(Debug)]
pub struct Staged {
    file: tempfile::NamedTempFile,
    target: PathBuf,
}

/// Writes `bytes` beside `path` with `mode`, ready to take its name.
///
/// # Errors
/// The directory cannot be written to, or the disk is full.
pub fn stage(path: &Path, bytes: &[u8], mode: u32) -> Result<Staged, PrivateFileError> {
    let write_error = |source| PrivateFileError::Write { path: path.to_path_buf(), source };
    let mut file = tempfile::Builder::new()
        .prefix(".choria-")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(directory_of(path))
        .map_err(write_error)?;
    fault::step();
    file.write_all(bytes).map_err(write_error)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(write_error)?;
    file.as_file().sync_all().map_err(write_error)?;
    fault::step();
    Ok(Staged { file, target: path.to_path_buf() })
}

impl Staged {
    /// Gives the file its name, replacing what had it, and syncs the directory.
    ///
    /// # Errors
    /// The rename failed; the old file is untouched.
    pub fn commit(self) -> Result<(), PrivateFileError> {
        let target = self.target;
        self.file
            .persist(&target)
            .map_err(|error| PrivateFileError::Write { path: target.clone(), source: error.error })?;
        fault::step();
        sync_directory(&target).map_err(|source| PrivateFileError::Write { path: target, source })
    }
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Replaces `path` with `bytes` in one step, mode 0600.
///
/// # Errors
/// See [`write_atomic`].
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    write_atomic(path, bytes, 0o600)
}

/// Replaces `path` with `bytes` in one step. A link of that name is replaced, not followed.
///
/// # Errors
/// The directory cannot be written to, or the disk is full; the old file is untouched.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PrivateFileError> {
    stage(path, bytes, mode)?.commit()
}

/// Removes a file for good (directory synced). A file that is not there is no error.
///
/// # Errors
/// The file is there and cannot be removed.
pub fn remove(path: &Path) -> Result<(), PrivateFileError> {
    let remove_error = |source| PrivateFileError::Remove { path: path.to_path_buf(), source };
    match std::fs::remove_file(path) {
        Ok(()) => {
            fault::step();
            sync_directory(path).map_err(remove_error)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(remove_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2".into());
        assert_eq!(format!("{secret} {secret:?}"), "***** *****");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn writes_are_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.seed");
        write_private(&path, b"ab\n").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_secret(&path).unwrap().expose(), "ab");
        write_atomic(&path, b"cd", 0o644).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn t_029_a_link_is_replaced_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, "keep").unwrap();
        let link = dir.path().join("server.seed");
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        write_private(&link, b"new").unwrap();
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "keep");
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "new");
        choria_rows::row(
            29,
            "a secret file that is a link to another file is written",
            "the link is replaced, the other file is unchanged",
        );
    }

    #[test]
    fn an_uncommitted_stage_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        drop(stage(&path, b"x", 0o600).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn refuses_what_is_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(read_secret(&path).unwrap_err().is_missing());
        std::fs::write(&path, " \n").unwrap();
        assert!(matches!(read_secret(&path), Err(PrivateFileError::Empty { .. })));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(read_secret(&path), Err(PrivateFileError::NotText { .. })));
        std::fs::write(&path, vec![b'a'; 256 * 1024 + 1]).unwrap();
        assert!(matches!(read_secret(&path), Err(PrivateFileError::TooLarge { .. })));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(read_secret(&path), Err(PrivateFileError::OpenDirectory { .. })));
    }

    #[test]
    fn removing_twice_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "x").unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
