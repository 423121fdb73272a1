//! How results reach a person or a script: colours, tables, progress, prompts, times.

pub(crate) mod colour;
pub(crate) mod csv;
pub(crate) mod form;
pub(crate) mod format;
pub(crate) mod progress;
pub(crate) mod prompt;
pub(crate) mod table;

use std::io::Write;

pub(crate) use choria_host::terminal::harmless;

use crate::failure::{Doing, Failure};

/// Writes results to stdout. A reader that went away (`| head`) ends the process quietly, as it does other tools.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a line that is not a result (what is going on, a question) to stderr.
pub(crate) fn note(text: &str) {
    let mut err = std::io::stderr().lock();
    drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
}

/// A value as JSON with two spaces of indent and a line feed.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).map_or_else(|_| String::from("null\n"), |text| text + "\n")
}

/// A value as JSON on one line.
pub(crate) fn json_line<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).map_or_else(|_| String::from("null\n"), |text| text + "\n")
}

/// A value as a YAML document.
pub(crate) fn yaml<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value).doing(|| String::from("cannot write the results as YAML"))?;
    let end = if text.ends_with('\n') { "" } else { "\n" };
    Ok(harmless(&text) + end)
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn values_come_back_from_yaml_and_cannot_drive_the_terminal() {
        let value = serde_json::json!({
            "sender": "n1", "flag": "yes", "number": "1.0", "data": {"text": "a: b\nc # d", "list": [1, null, true, 2.5]},
            "empty": {}, "nothing": [], "hostile": "\u{1b}[2J",
        });
        let text = super::yaml(&value).unwrap();
        assert!(!text.contains('\u{1b}') && text.ends_with('\n'), "{text:?}");
        let back: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let without = |mut value: serde_json::Value| {
            value.as_object_mut().unwrap().remove("hostile");
            value
        };
        assert_eq!(without(back), without(value), "{text}");
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
