//! Where the results of a request go: stdout, or what `--output-file` names (docs/spec/07 §2.9).

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::failure::{Doing, Failure};
use crate::output;

/// Links to links that are followed, as many as the kernel does.
const LINKS: usize = 40;

/// Found out before nodes are asked: results that cannot be written would be lost after nodes have done what they were
/// asked to.
#[derive(Debug)]
pub(super) enum Destination {
    Stdout,
    /// A file that is replaced at once, so that nobody reads half of the results.
    File(PathBuf),
    /// A device or a pipe, which is written into.
    Open(File, PathBuf),
}

impl Destination {
    /// `only_checked`: nothing will be written.
    pub(super) fn of(path: Option<&Path>, only_checked: bool) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Destination::Stdout) };
        let what = || failed(path);
        match std::fs::metadata(path) {
            Ok(there) if there.is_dir() => Err(Failure::new(what()).because("it is a directory")),
            Ok(there) if there.file_type().is_socket() => Err(Failure::new(what()).because("it is a socket")),
            Ok(there) if there.is_file() => replaceable(path, std::fs::canonicalize(path).doing(what)?),
            Ok(_) if only_checked => Ok(Destination::Stdout),
            // A pipe is opened when somebody reads from it. Before there is a network, Ctrl-C still ends that wait.
            Ok(_) => {
                let file = File::options().write(true).open(path).doing(what)?;
                Ok(Destination::Open(file, path.to_path_buf()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => replaceable(path, end_of_links(path)),
            Err(error) => Err(error).doing(what),
        }
    }

    pub(super) fn write(self, results: &str) -> Result<(), Failure> {
        match self {
            Destination::Stdout => {
                output::print(results);
                Ok(())
            }
            Destination::File(path) => {
                choria_host::private_file::write_atomic(&path, results.as_bytes(), 0o644)
                    .doing(|| failed(&path))
            }
            Destination::Open(mut file, path) => {
                file.write_all(results.as_bytes()).and_then(|()| file.flush()).doing(|| failed(&path))
            }
        }
    }
}

fn failed(path: &Path) -> String {
    format!("cannot write the results to {}", path.display())
}

/// A new file takes the name of the old one, so its folder has to take one.
fn replaceable(given: &Path, target: PathBuf) -> Result<Destination, Failure> {
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Failure::new(failed(given)).because(format!("there is no folder {}", folder.display())));
    }
    match tempfile::Builder::new().prefix(".choria-").tempfile_in(folder) {
        Ok(_gone) => Ok(Destination::File(target)),
        Err(error) => {
            Err(Failure::new(failed(given)).because(format!("{}: {}", folder.display(), error.kind())))
        }
    }
}

/// What a link whose file is not there yet leads to.
fn end_of_links(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        let Ok(next) = std::fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(next);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::Destination;
    use std::io::Read;
    use std::os::unix::fs::{FileTypeExt, symlink};
    use std::path::Path;

    fn written(path: &Path, text: &str) {
        Destination::of(Some(path), false).unwrap().write(text).unwrap();
    }

    #[test]
    fn links_are_followed_to_the_file_that_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, further, loops] =
            ["file", "link", "further", "loops"].map(|name| folder.path().join(name));
        symlink("file", &link).unwrap();
        symlink(&link, &further).unwrap();
        // at first there is no file
        for text in ["one", "two"] {
            written(&further, text);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
            assert!(link.is_symlink() && further.is_symlink() && !file.is_symlink());
        }
        symlink("loops", &loops).unwrap();
        assert!(Destination::of(Some(&loops), false).is_err());
        assert!(Destination::of(Some(folder.path()), false).is_err());
        assert!(Destination::of(Some(&folder.path().join("no/file")), false).is_err());
    }

    #[test]
    fn devices_and_pipes_are_written_into() {
        let null = Path::new("/dev/null");
        written(null, "text");
        assert!(std::fs::metadata(null).unwrap().file_type().is_char_device());
        let full = Destination::of(Some(Path::new("/dev/full")), false).unwrap();
        assert_eq!(full.write("text").unwrap_err().exit_code(), 1);

        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        // nobody reads it, and nothing is to be written
        assert!(Destination::of(Some(&pipe), true).is_ok());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                std::fs::File::open(pipe).unwrap().read_to_string(&mut text).map(|_| text)
            }
        });
        written(&pipe, "through a pipe");
        assert_eq!(reader.join().unwrap().unwrap(), "through a pipe");
        assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }
}
