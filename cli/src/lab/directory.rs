//! The lab's directory: what lies where, and the promise to touch no directory that is not a lab's.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::failure::{Doing as _, Failure};
use crate::lab::Place;

/// The file that makes a directory a lab's. Its text is for whoever finds it.
const MARKER: &str = "THIS-IS-A-LAB";

const MARKER_TEXT: &str = "This directory belongs to `choria lab`. Its keys, passwords and certificates were made for a network that\n\
    listens on this machine only and are good for 30 days. Never use them for anything else.\n\
    `choria lab down` ends the processes and removes the keys.\n";

/// Directories within it. All but the logs hold secrets and go with `lab down`.
const PARTS: [&str; 6] = ["issuer", "tls", "hub", "nodes", "client", "logs"];

/// Paths of one lab.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    root: PathBuf,
}

impl Directory {
    /// The lab's directory, absolute; it may not exist yet.
    pub(crate) fn find(place: &Place) -> Result<Directory, Failure> {
        let path = match &place.dir {
            Some(path) => path.clone(),
            None => default_directory()?,
        };
        let root =
            std::path::absolute(&path).doing(|| format!("cannot use the directory {}", path.display()))?;
        Ok(Directory { root })
    }

    /// The directory of a lab that was started before.
    pub(crate) fn existing(place: &Place) -> Result<Directory, Failure> {
        let directory = Directory::find(place)?;
        if !directory.root.join(MARKER).is_file() {
            return Err(Failure::new(format!("there is no lab in {}", directory.root.display()))
                .hint("start one with `choria lab up`, or name its directory with --dir"));
        }
        Ok(directory)
    }

    /// Makes the directory and its parts, 0700, empty. Refuses one that holds anything but a lab of this user.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        let root = &self.root;
        match fs::symlink_metadata(root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(root)
                    .doing(|| format!("cannot create {}", root.display()))?;
            }
            Err(error) => Err(error).doing(|| format!("cannot use {}", root.display()))?,
            Ok(metadata) if !metadata.is_dir() => {
                return Err(Failure::new(format!("{} is not a directory", root.display())));
            }
            Ok(metadata) => {
                if metadata.uid() != rustix::process::geteuid().as_raw() {
                    return Err(Failure::new(format!("{} belongs to another user", root.display())));
                }
                let empty =
                    fs::read_dir(root).doing(|| format!("cannot read {}", root.display()))?.next().is_none();
                if !empty && !root.join(MARKER).is_file() {
                    return Err(Failure::new(format!("{} holds files that are not a lab's", root.display()))
                        .hint("name an empty or new directory with --dir"));
                }
            }
        }
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))
            .doing(|| format!("cannot protect {}", root.display()))?;
        write(&root.join(MARKER), MARKER_TEXT.as_bytes(), 0o600)?;
        self.clear(&PARTS)?;
        for part in PARTS {
            make(&root.join(part))?;
        }
        Ok(())
    }

    /// Removes every secret; logs stay, for whoever wants to know what happened.
    pub(crate) fn remove_secrets(&self) -> Result<(), Failure> {
        self.clear(&["issuer", "tls", "hub", "nodes", "client"])?;
        for file in ["client.conf", "lab.json"] {
            remove(&self.root.join(file), |path| fs::remove_file(path))?;
        }
        Ok(())
    }

    fn clear(&self, parts: &[&str]) -> Result<(), Failure> {
        for part in parts {
            remove(&self.root.join(part), |path| fs::remove_dir_all(path))?;
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn issuer(&self, file: &str) -> PathBuf {
        self.root.join("issuer").join(file)
    }

    pub(crate) fn tls(&self, file: &str) -> PathBuf {
        self.root.join("tls").join(file)
    }

    pub(crate) fn hub(&self, file: &str) -> PathBuf {
        self.root.join("hub").join(file)
    }

    pub(crate) fn client(&self, file: &str) -> PathBuf {
        self.root.join("client").join(file)
    }

    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(name)
    }

    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.root.join("logs").join(format!("{process}.log"))
    }

    pub(crate) fn client_conf(&self) -> PathBuf {
        self.root.join("client.conf")
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.root.join("lab.json")
    }
}

/// A directory only its owner can enter.
pub(crate) fn make(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().mode(0o700).create(path).doing(|| format!("cannot create {}", path.display()))
}

/// A whole file or none.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    choria_host::private_file::write_atomic(path, bytes, mode)
        .doing(|| format!("cannot write {}", path.display()))
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), Failure> {
    match how(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn default_directory() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("choria/lab"))
        .ok_or_else(|| Failure::new("HOME is not set").hint("name a directory with --dir"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_directory(path: &Path) -> Directory {
        Directory::find(&Place { dir: Some(path.to_path_buf()) }).unwrap()
    }

    #[test]
    fn a_lab_is_made_and_emptied() {
        let parent = tempfile::tempdir().unwrap();
        let lab = in_directory(&parent.path().join("new/lab"));
        lab.prepare().unwrap();
        assert_eq!(fs::metadata(lab.root()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(lab.node("")).unwrap().mode() & 0o777, 0o700);
        fs::write(lab.issuer("issuer.seed"), "x").unwrap();
        fs::write(lab.log("broker"), "x").unwrap();
        lab.remove_secrets().unwrap();
        assert!(!lab.issuer("issuer.seed").exists());
        assert!(lab.log("broker").exists());
        Directory::existing(&Place { dir: Some(lab.root().to_path_buf()) }).unwrap();
        lab.prepare().unwrap();
    }

    #[test]
    fn foreign_directories_are_refused_and_untouched() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("server.seed"), "precious").unwrap();
        let lab = in_directory(parent.path());
        assert!(lab.prepare().is_err());
        assert!(!parent.path().join(MARKER).exists());
        assert!(Directory::existing(&Place { dir: Some(parent.path().to_path_buf()) }).is_err());
        assert!(in_directory(&parent.path().join("server.seed")).prepare().is_err());
    }
}
