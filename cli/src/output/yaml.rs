//! YAML that a terminal shows as it is and that every program reads as the same value (docs/spec/07 §2.9).

use serde::Serialize;
use serde_json::Value;

use super::{harmless, json};
use crate::failure::{Doing, Failure};

/// A value as a YAML document.
pub(crate) fn document<T: Serialize>(value: &T) -> Result<String, Failure> {
    let what = || String::from("cannot write the results as YAML");
    let text = serde_saphyr::to_string(value).doing(what)?;
    let text = if harmless(&text) == text {
        text
    } else {
        // The library writes marks that turn the direction of a text as they are. YAML has escapes for them in quoted
        // texts alone, and the quoted texts of JSON are YAML's, too.
        let mut out = String::new();
        block(&serde_json::to_value(value).doing(what)?, 0, &mut out);
        out
    };
    let end = if text.ends_with('\n') { "" } else { "\n" };
    Ok(text + end)
}

/// A value in block style, from the start of a line to its end.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                out.push_str(&format!("{:indent$}{}:", "", text(name)));
                below(member, indent, out);
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for element in elements {
                out.push_str(&format!("{:indent$}-", ""));
                below(element, indent, out);
            }
        }
        Value::String(string) => out.push_str(&format!("{:indent$}{}\n", "", text(string))),
        other => out.push_str(&format!("{:indent$}{}\n", "", json::compact(other))),
    }
}

/// What a name or a dash announces: beside it when it is short, else below.
fn below(value: &Value, indent: usize, out: &mut String) {
    let nested = match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        block(value, indent + 2, out);
    } else {
        out.push(' ');
        block(value, 0, out);
    }
}

/// A text as it is where that is beyond doubt, else in quotes.
fn text(text: &str) -> String {
    let simple = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && serde_saphyr::to_string(&text).is_ok_and(|written| written.trim_end_matches('\n') == text);
    if simple { text.to_owned() } else { json::compact(&text) }
}

#[cfg(test)]
mod tests {
    use super::{document, harmless};
    use serde_json::{Value, json};

    #[test]
    fn yaml_is_the_same_value_and_cannot_drive_the_terminal() {
        let texts = [
            "plain",
            "a: b\nc # d",
            "yes",
            "1.0",
            "null",
            "~",
            "-",
            "---",
            "",
            " x ",
            "it's \"x\"",
            "\\u202e",
            "tab\tend\r\n",
            "\u{1b}[2J",
            "a\u{202e}txt",
            "\u{9b}31m",
            "\u{7f}",
            "\u{2028}\u{2066}\u{61c}",
            "ä漢😀",
            "b\u{200f}\nc",
            "2026-12-01T03:33:01Z",
            "*a",
            "&a",
            "!a",
            "{",
            "[1",
            "? x",
            "a #b",
            "%x",
            "@x",
            "`x",
        ];
        for hostile in ["\u{202e}", "\u{9b}", "\u{7f}", "\u{1b}[2J", "x\u{200f}\ny", "none at all"] {
            let members: serde_json::Map<String, Value> =
                texts.iter().map(|text| (format!("{text}{hostile}"), Value::from(*text))).collect();
            let value = json!({
                "texts": texts, "members": members, "deep": [[[1, [hostile]], {"a": {hostile: {}}}], [], null, true, 2.5],
                hostile: hostile, "none": {},
            });
            let text = document(&value).unwrap();
            assert_eq!(harmless(&text), text);
            assert!(text.ends_with('\n'));
            assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
        }
        for value in [json!("\u{202e}"), json!(["\u{202e}"]), json!({"\u{202e}": 1}), json!([])] {
            let text = document(&value).unwrap();
            assert_eq!(harmless(&text), text);
            assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
        }
        let text = document(&json!({"sender": "n1", "b": {"c": ["\u{202e}x", {"d": 1}]}})).unwrap();
        assert_eq!(text, "b:\n  c:\n    - \"\\u202ex\"\n    -\n      d: 1\nsender: n1\n");
    }
}
