//! JSON that a terminal shows as it is: what would drive the terminal or mislead its reader stands as `\uXXXX`, which
//! is the same value to every program (docs/spec/07 §2.9).

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::harmless;

/// A value on one line, without a line feed.
pub(crate) fn compact<T: Serialize>(value: &T) -> String {
    written(value, CompactFormatter)
}

/// A value with two spaces of indent, without a line feed at its end.
pub(crate) fn pretty<T: Serialize>(value: &T) -> String {
    written(value, PrettyFormatter::new())
}

fn written<T: Serialize>(value: &T, inner: impl Formatter) -> String {
    let mut out = Vec::new();
    let done = value.serialize(&mut Serializer::with_formatter(&mut out, Harmless(inner)));
    match (done, String::from_utf8(out)) {
        (Ok(()), Ok(text)) => text,
        _ => String::from("null"),
    }
}

/// Another formatter with strings, keys too, in which nothing is left to obey.
struct Harmless<F>(F);

impl<F: Formatter> Formatter for Harmless<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        if harmless(fragment) == fragment {
            return out.write_all(fragment.as_bytes());
        }
        let mut buffer = [0_u8; 4];
        let mut units = [0_u16; 2];
        for c in fragment.chars() {
            let text = c.encode_utf8(&mut buffer);
            if harmless(text) == *text {
                out.write_all(text.as_bytes())?;
            } else {
                for unit in c.encode_utf16(&mut units) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    // what follows is the other formatter's own
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use super::{compact, harmless, pretty};
    use serde_json::{Value, json};

    #[test]
    fn json_is_the_same_value_and_cannot_drive_the_terminal() {
        let hostile =
            "\u{7f}\u{80}\u{9b}31m\u{9f}\u{1b}[2J \u{202e}txt\u{2066}\u{2028}\u{200f} \"ä漢😀\\\n\t";
        let value =
            json!({"text": hostile, hostile: [{hostile: 1.5}, [], {}], "plain": "ä漢😀", "n": [null, true]});
        for text in [compact(&value), pretty(&value)] {
            assert_eq!(harmless(&text), text);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value, "{text}");
            assert!(text.contains("\\u202etxt") && text.contains("\\u009b31m") && text.contains("ä漢😀"));
        }
        let plain = json!({"a": [1, {"b": "c"}], "d": {}});
        assert_eq!(compact(&plain), plain.to_string());
        assert_eq!(pretty(&plain), serde_json::to_string_pretty(&plain).unwrap());
    }
}
