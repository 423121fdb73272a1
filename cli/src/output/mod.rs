//! How results reach a person or a script: colours, tables, progress, prompts, times.

pub(crate) mod colour;
pub(crate) mod csv;
pub(crate) mod form;
pub(crate) mod format;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod prompt;
pub(crate) mod table;
mod yaml;

use std::io::{ErrorKind, Write};

pub(crate) use choria_host::terminal::harmless;
pub(crate) use yaml::document as yaml;

use crate::failure::Code;

/// Writes results to stdout. A reader that went away (`| head`) ends the process quietly, as it does other tools;
/// results that could not be written for another reason are a failure.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        std::process::exit(unwritten(&error).into());
    }
}

/// The code to end with when results could not be written, after it was told why.
pub(crate) fn unwritten(error: &std::io::Error) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe {
        return 0;
    }
    note(&format!("choria: error: cannot write results: {error}\n"));
    Code::Failed as u8
}

/// Writes a line that is not a result (what is going on, a question) to stderr.
pub(crate) fn note(text: &str) {
    let mut err = std::io::stderr().lock();
    drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
}

/// A value as JSON with two spaces of indent and a line feed.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    json::pretty(value) + "\n"
}

/// A value as JSON on one line.
pub(crate) fn json_line<T: serde::Serialize>(value: &T) -> String {
    json::compact(value) + "\n"
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn only_a_reader_that_went_away_is_no_failure() {
        let of = |kind: std::io::ErrorKind| super::unwritten(&kind.into());
        assert_eq!(of(std::io::ErrorKind::BrokenPipe), 0);
        assert_eq!(of(std::io::ErrorKind::StorageFull), 1);
        assert_eq!(of(std::io::ErrorKind::Other), 1);
    }

    #[test]
    fn t_281_a_reply_cannot_drive_the_terminal() {
        let shown = harmless("ok\u{1b}[2Jgone\r\u{7}\u{202e}txt\nnext\tcolumn");
        assert_eq!(shown, "ok\\u{1b}[2Jgone\\u{d}\\u{7}\\u{202e}txt\nnext\tcolumn");
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        for hostile in [
            "\u{1b}]52;c;cm0gLXJm\u{7}",
            "\u{9b}31m",
            "\u{90}x\u{9c}",
            "a\u{2028}b",
            "\u{200e}x\u{2066}y\u{2069}",
        ] {
            let shown = harmless(hostile);
            assert!(shown.is_ascii(), "{hostile:?} is shown as {shown:?}");
            assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'));
        }
        choria_rows::row(
            281,
            "a reply with ESC, CR, BEL, a bidi override",
            "written as escapes, only line ends and tabs are left",
        );
    }
}
