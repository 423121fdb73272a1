//! What is wrong with a line or a value, and where it stands.

use std::fmt;
use std::path::{Path, PathBuf};

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    NoEquals,
    NoKey,
    ControlCharacter,
    NotBoolean,
    NotInteger,
    NotDuration(String),
    NotPublicKey,
    /// A value outside of its choices; holds the choices.
    NotOneOf(&'static str),
    /// Anything else a reader of settings finds, as the end of a sentence that begins with the key.
    Other(String),
}

/// A setting or line that is not what it should be. The value itself is not shown: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// File and line (from 1); `None` when the program or the environment set the value.
    pub place: Option<(PathBuf, usize)>,
    /// Empty when the line has no key.
    pub key: String,
    pub problem: Problem,
}

impl Warning {
    pub(super) fn at(file: &Path, line: usize, key: String, problem: Problem) -> Self {
        Warning { place: Some((file.to_path_buf(), line)), key, problem }
    }

    pub(super) fn unplaced(key: &str, problem: Problem) -> Self {
        Warning { place: None, key: key.to_owned(), problem }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, line)) = &self.place {
            write!(f, "{}:{line}: ", file.display())?;
        }
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        match &self.problem {
            Problem::NoEquals => f.write_str("the line is ignored: it has no '='"),
            Problem::NoKey => f.write_str("the line is ignored: nothing stands before '='"),
            Problem::ControlCharacter => f.write_str("the line is ignored: it holds a control character"),
            Problem::NotBoolean => {
                f.write_str("is read as false: write 1, yes, true, y, t or 0, no, false, n, f")
            }
            Problem::NotInteger => f.write_str("is not a whole number"),
            Problem::NotDuration(reason) => write!(f, "is not usable: {reason}"),
            Problem::NotPublicKey => f.write_str("is not a public key: 64 hex digits are needed"),
            Problem::NotOneOf(choices) => write!(f, "has an unknown value: use one of {choices}"),
            Problem::Other(text) => f.write_str(text),
        }
    }
}
