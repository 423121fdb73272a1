//! What a command that failed tells the person who typed it, and the exit code it ends with (docs/spec/07 §2.4, §2.5).

use std::io::Write;

/// Exit codes that scripts may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Any failure that has no code of its own.
    Failed = 1,
    /// The command line was wrong.
    Usage = 2,
    /// Nothing was discovered, or nobody answered.
    NoReplies = 3,
    /// Some nodes failed and `--fail-on` asked to know.
    Partial = 4,
    /// No token, an expired one, or a refusal by the signer or the broker.
    Denied = 5,
    /// A question had to be asked and there was nobody to answer.
    NeedsAnswer = 6,
    /// Ctrl-C: 128 and the number of SIGINT, as shells count.
    Interrupted = 130,
}

/// A failure: what did not work, because of what, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), causes: Vec::new(), hint: None, code: Code::Failed as u8 }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::new(message).code(Code::Usage)
    }

    /// Somebody pressed Ctrl-C; that is no error to explain.
    pub(crate) fn interrupted() -> Self {
        Failure::new("Interrupted").code(Code::Interrupted)
    }

    #[must_use]
    pub(crate) fn code(self, code: Code) -> Self {
        self.exit(code as u8)
    }

    /// An exit code that a library chose by the same table.
    #[must_use]
    pub(crate) fn exit(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// One more line of what led to it.
    #[must_use]
    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.code
    }

    /// Writes the failure to stderr. With `CHORIA_CLASSIC_ERRORS=1` the first line keeps upstream's shape.
    pub(crate) fn print(&self) {
        let mut text = String::new();
        if self.code == Code::Interrupted as u8 {
            // after the `^C` that the terminal shows
            text.push_str(&format!("\n{}\n", self.message));
        } else if std::env::var_os("CHORIA_CLASSIC_ERRORS").is_some_and(|value| value == "1") {
            text.push_str(&format!("FATA[0000] Could not run Choria: {}\n", self.message));
        } else {
            text.push_str(&format!("choria: error: {}\n", self.message));
        }
        for cause in &self.causes {
            text.push_str(&format!("  {cause}\n"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("  hint: {hint}\n"));
        }
        // Nothing is left to tell when even stderr is closed.
        drop(std::io::stderr().write_all(text.as_bytes()));
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::new(error.to_string())
    }
}

/// Gives an error a sentence that names what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: std::error::Error> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| {
            let mut failure = Failure::new(what());
            failure.causes.push(error.to_string());
            let mut source = error.source();
            while let Some(inner) = source {
                let text = inner.to_string();
                // many errors end with the text of their source
                if !failure.causes.last().is_some_and(|told| told.contains(&text)) {
                    failure.causes.push(text);
                }
                source = inner.source();
            }
            failure
        })
    }
}
