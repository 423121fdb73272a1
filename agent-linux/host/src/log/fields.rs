//! Fields of an event: bounded, escaped, sorted.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};

use crate::terminal::misleads;

/// Longest value of one field, in characters (docs/spec/10 §10, row `peer-controlled text`).
const MAX_FIELD: usize = 256;
/// Longest message or error text, in characters.
const MAX_MESSAGE: usize = 4096;

#[derive(Debug, Default, Clone)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) values: BTreeMap<&'static str, String>,
}

/// Escapes control and direction characters as they are read, and stops at a limit.
struct Escaping<'a> {
    text: &'a mut String,
    left: usize,
}

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                return Ok(());
            }
            self.left -= 1;
            if self.left == 0 {
                self.text.push('…');
            } else if c.is_control() || misleads(c) {
                self.text.extend(c.escape_default());
            } else {
                self.text.push(c);
            }
        }
        Ok(())
    }
}

pub(super) fn escaped(value: fmt::Arguments<'_>, limit: usize) -> String {
    let mut text = String::new();
    // Writing to a String does not fail; a Display that does leaves what it wrote.
    let _complete = Escaping { text: &mut text, left: limit }.write_fmt(value);
    text
}

impl Fields {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        match field.name() {
            "message" => self.message = escaped(value, MAX_MESSAGE),
            name @ "error" => {
                self.values.insert(name, escaped(value, MAX_MESSAGE));
            }
            name => {
                self.values.insert(name, escaped(value, MAX_FIELD));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_367_control_characters_cannot_forge_a_line() {
        let text = escaped(format_args!("a\nlevel=info\u{1b}[2J\u{202e}\u{61c}"), 256);
        assert!(!text.contains(['\n', '\u{1b}', '\u{202e}', '\u{61c}']), "{text}");
        assert_eq!(escaped(format_args!("{}", "x".repeat(1000)), 256).chars().count(), 256);
        choria_rows::row(
            367,
            "a field with a line end, ESC and a bidi override; 1,000 characters",
            "one escaped line of at most 256 characters",
        );
    }
}
