//! Where log lines go.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::LogError;

#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Terminal { ansi: bool },
    Plain,
    Json,
    Nothing,
}

#[derive(Debug)]
pub(super) enum Sink {
    Stderr(Shape),
    Stdout(Shape),
    File { path: PathBuf, file: Mutex<File> },
    Discard,
}

impl Sink {
    pub(super) fn open(destination: &str, ansi: bool) -> Result<Sink, LogError> {
        let shape = |terminal: bool| if terminal { Shape::Terminal { ansi } } else { Shape::Plain };
        Ok(match destination {
            "stderr" | "" => Sink::Stderr(shape(std::io::stderr().is_terminal())),
            "stdout" => Sink::Stdout(shape(std::io::stdout().is_terminal())),
            "discard" => Sink::Discard,
            path => {
                let path = crate::settings::expand_home(path);
                Sink::File { file: Mutex::new(append(&path)?), path }
            }
        })
    }

    pub(super) fn shape(&self) -> Shape {
        match self {
            Sink::Stderr(shape) | Sink::Stdout(shape) => *shape,
            Sink::File { .. } => Shape::Json,
            Sink::Discard => Shape::Nothing,
        }
    }

    /// One write per line, so that lines of several threads or processes do not mix. A full disk or a closed
    /// pipe loses log lines and nothing else.
    pub(super) fn write(&self, line: &str) {
        let _lost = match self {
            Sink::Stderr(_) => std::io::stderr().lock().write_all(line.as_bytes()),
            Sink::Stdout(_) => std::io::stdout().lock().write_all(line.as_bytes()),
            Sink::File { file, .. } => match file.lock() {
                Ok(mut file) => file.write_all(line.as_bytes()),
                Err(_) => Ok(()),
            },
            Sink::Discard => Ok(()),
        };
    }

    pub(super) fn reopen(&self) -> Result<(), LogError> {
        if let Sink::File { path, file } = self {
            let fresh = append(path)?;
            if let Ok(mut file) = file.lock() {
                *file = fresh;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> Result<File, LogError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .map_err(|source| LogError::Open { path: path.to_path_buf(), source })
}
