//! Refuses JSON that two readers could understand differently (docs/spec/10 §0 fact 10, S2).
//!
//! Some peers match keys without regard to case and let the last duplicate win; others do not. A policy could
//! then be checked on one reading of a request and the request executed on another.

use std::{collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};

use crate::ProtocolError;

/// Marks our own refusal inside a `serde_json::Error`, which can only carry text.
const MARK: &str = "ambiguous key ";

/// Checks that no object of the document names a key twice, and that no key is a case variant of one of
/// `known_keys`. Also fails when the text is not JSON or nests deeper than 128 levels.
pub fn check_unambiguous(
    layer: &'static str,
    known_keys: &[&str],
    bytes: &[u8],
) -> Result<(), ProtocolError> {
    walk(layer, Walk { known_keys, everywhere: true }, bytes)
}

/// The same, but case variants matter only for the keys of the outermost object.
pub(crate) fn check_top_level(
    layer: &'static str,
    known_keys: &[&str],
    bytes: &[u8],
) -> Result<(), ProtocolError> {
    walk(layer, Walk { known_keys, everywhere: false }, bytes)
}

fn walk(layer: &'static str, walk: Walk<'_>, bytes: &[u8]) -> Result<(), ProtocolError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let walked = deserializer.deserialize_any(walk).and_then(|()| deserializer.end());
    walked.map_err(|source| {
        let text = source.to_string();
        match text.split_once(MARK) {
            // serde_json appends " at line 1 column 9"
            Some((_, key)) => ProtocolError::Ambiguous {
                layer,
                key: key.split_once(" at line").map_or(key, |(key, _)| key).to_owned(),
            },
            None => ProtocolError::Json { layer, source },
        }
    })
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    known_keys: &'a [&'a str],
    everywhere: bool,
}

impl Walk<'_> {
    fn inside(self) -> Self {
        if self.everywhere { self } else { Self { known_keys: &[], ..self } }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.inside())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let variant =
                self.known_keys.iter().any(|known| *known != key && known.eq_ignore_ascii_case(&key));
            if variant || seen.contains(&key) {
                let shown: String = key.chars().take(64).flat_map(char::escape_default).collect();
                return Err(A::Error::custom(format_args!("{MARK}{shown}")));
            }
            map.next_value_seed(self.inside())?;
            seen.insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> Option<&'static str> {
        check_unambiguous("request", &["agent", "action", "data"], text.as_bytes()).err().map(|e| e.reason())
    }

    #[test]
    fn duplicates_and_case_variants_are_refused_at_any_depth() {
        assert_eq!(reason(r#"{"agent":"a","data":{"x":1,"y":[{"z":1}]}}"#), None);
        assert_eq!(reason(r#"{"agent":"a","agent":"b"}"#), Some("json_ambiguous"));
        assert_eq!(reason(r#"{"agent":"a","Agent":"b"}"#), Some("json_ambiguous"));
        assert_eq!(reason(r#"{"data":{"x":1,"x":2}}"#), Some("json_ambiguous"));
        assert_eq!(reason(r#"{"data":[{"x":1,"\u0078":2}]}"#), Some("json_ambiguous"));
        assert_eq!(reason(r#"{"data":1} x"#), Some("secure_bad"));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_an_overflow() {
        assert_eq!(reason(&"[".repeat(100_000)), Some("secure_bad"));
    }
}
