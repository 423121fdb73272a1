//! Where the results of a request go: stdout, or what `--output-file` names (docs/spec/07 §2.9).

use std::fs::{File, Permissions};
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Doing, Failure};
use crate::output;
use crate::output::colour::{Colour, When};

/// Links to links that are followed, as many as the kernel does.
const LINKS: usize = 40;
/// Where the names of files lie that this process has open already.
const OPEN_FILES: [&str; 2] = ["/dev/fd", "/proc"];

/// Found out before nodes are asked: results that cannot be written would be lost after nodes have done what they were
/// asked to.
#[derive(Debug)]
pub(super) enum Destination {
    Stdout,
    /// A file that is replaced at once, so that nobody reads half of the results; and its mode.
    File(PathBuf, u32),
    /// A device, a pipe or a file that was opened for this process, which is written into.
    Open(File, PathBuf),
}

impl Destination {
    /// `only_checked`: nothing will be written.
    pub(super) fn of(path: Option<&Path>, only_checked: bool) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else { return Ok(Destination::Stdout) };
        let what = || failed(path);
        match std::fs::metadata(path) {
            Ok(there) if there.is_dir() => Err(Failure::new(what()).because("it is a directory")),
            Ok(there) if there.file_type().is_socket() => Err(Failure::new(what()).because("it is a socket")),
            Ok(there) if there.is_file() && !is_open_already(path) => {
                let target = std::fs::canonicalize(path).doing(what)?;
                replaceable(path, target, Some(there.permissions().mode() & 0o777))
            }
            Ok(_) if only_checked => Ok(Destination::Stdout),
            // A pipe is opened when somebody reads from it. Before there is a network, Ctrl-C still ends that wait.
            // `-o /dev/stdout >>FILE` is a file with contents.
            Ok(_) => {
                let file = File::options().append(true).open(path).doing(what)?;
                Ok(Destination::Open(file, path.to_path_buf()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => replaceable(path, end_of_links(path), None),
            Err(error) => Err(error).doing(what),
        }
    }

    /// The colours for what is written here.
    pub(super) fn colour(&self, when: When, configured: bool) -> Colour {
        match self {
            Destination::Stdout => Colour::stdout(when, configured),
            Destination::File(..) => Colour::stream(when, configured, false),
            Destination::Open(file, _) => Colour::stream(when, configured, file.is_terminal()),
        }
    }

    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Destination::Stdout)
    }

    /// Results that cannot be written here any more go to stdout: there is no second chance to have them.
    pub(super) fn write(self, results: &str) -> Result<(), Failure> {
        let written = match self {
            Destination::Stdout => {
                output::print(results);
                Ok(())
            }
            Destination::File(path, mode) => {
                choria_host::private_file::write_atomic(&path, results.as_bytes(), mode)
                    .doing(|| failed(&path))
            }
            Destination::Open(mut file, path) => {
                file.write_all(results.as_bytes()).and_then(|()| file.flush()).doing(|| failed(&path))
            }
        };
        written.map_err(|failure| {
            output::print(results);
            failure.hint("they are on stdout")
        })
    }
}

fn failed(path: &Path) -> String {
    format!("cannot write the results to {}", path.display())
}

/// A new file takes the name of the old one, so its folder has to take one. It has the old one's `mode`, or the mode that
/// any new file of this process has.
fn replaceable(given: &Path, target: PathBuf, mode: Option<u32>) -> Result<Destination, Failure> {
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Failure::new(failed(given)).because(format!("there is no folder {}", folder.display())));
    }
    let refused = |error: std::io::Error| {
        Failure::new(failed(given)).because(format!("{}: {}", folder.display(), error.kind()))
    };
    let trial = tempfile::Builder::new()
        .prefix(".choria-")
        .permissions(Permissions::from_mode(0o666)) // less the umask
        .tempfile_in(folder)
        .map_err(refused)?;
    let usual = trial.as_file().metadata().map_err(refused)?.permissions().mode() & 0o777;
    Ok(Destination::File(target, mode.unwrap_or(usual)))
}

/// Whether a file that is there is named as one that this process has open, by itself or through links.
fn is_open_already(path: &Path) -> bool {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        if OPEN_FILES.iter().any(|folder| path.starts_with(folder)) {
            return true;
        }
        let Ok(next) = std::fs::read_link(&path) else { return false };
        path = path.parent().unwrap_or(Path::new("")).join(next);
    }
    false
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
    use super::{Destination, When};
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
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
    fn a_file_keeps_who_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        written(&file, "new");
        // as files are that know nothing of us
        let other = folder.path().join("other");
        std::fs::write(&other, "").unwrap();
        assert_eq!(mode(), std::fs::metadata(&other).unwrap().permissions().mode() & 0o777);
        for kept in [0o600, 0o640, 0o664] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(kept)).unwrap();
            written(&file, "again");
            assert_eq!(mode(), kept);
        }
    }

    #[test]
    fn a_file_that_is_open_is_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        std::fs::write(&file, "before\n").unwrap();
        let open = std::fs::File::options().append(true).open(&file).unwrap();
        let name = format!("/dev/fd/{}", open.as_raw_fd());
        symlink(&name, &link).unwrap();
        written(Path::new(&name), "one\n");
        written(&link, "two\n");
        written(Path::new(&format!("/proc/self/fd/{}", open.as_raw_fd())), "three\n");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "before\none\ntwo\nthree\n");
        assert!(Destination::of(Some(Path::new("-")), false).unwrap().is_stdout());
    }

    #[test]
    fn only_a_terminal_is_coloured_on_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for path in [&path, Path::new("/dev/null")] {
            let destination = Destination::of(Some(path), false).unwrap();
            assert!(!destination.colour(When::Never, true).is_on());
            assert!(destination.colour(When::Always, true).is_on());
            // a developer's environment may ask for colour everywhere
            if std::env::var_os("CLICOLOR_FORCE").is_none() {
                assert!(!destination.colour(When::Auto, true).is_on());
            }
        }
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
