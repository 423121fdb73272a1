//! JSON as the peers write it: compact, and with the characters that a browser could misread escaped.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize as _, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::{MAX_MESSAGE, ProtocolError, ambiguity::check_unambiguous};

/// Writes `<`, `>`, `&`, U+2028 and U+2029 inside strings as `\uXXXX` (docs/spec/01 §1.1). Only needed to be
/// byte identical with peers; every reader accepts both forms.
struct EscapingFormatter;

impl serde_json::ser::Formatter for EscapingFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((before, found, after)) = split_at_escaped(rest) {
            writer.write_all(before.as_bytes())?;
            write!(writer, "\\u{:04x}", u32::from(found))?;
            rest = after;
        }
        writer.write_all(rest.as_bytes())
    }
}

fn split_at_escaped(text: &str) -> Option<(&str, char, &str)> {
    let (at, found) =
        text.char_indices().find(|(_, c)| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'))?;
    let (before, from) = text.split_at_checked(at)?;
    let (_, after) = from.split_at_checked(found.len_utf8())?;
    Some((before, found, after))
}

/// Serializes `value` the way every Choria peer does.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(512);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, EscapingFormatter))?;
    Ok(out)
}

/// Parses one layer: size, ambiguity and shape.
pub(crate) fn parse_layer<T: DeserializeOwned>(
    layer: &'static str,
    known_keys: &[&str],
    bytes: &[u8],
) -> Result<T, ProtocolError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(ProtocolError::Oversize { layer, size: bytes.len(), limit: MAX_MESSAGE });
    }
    check_unambiguous(layer, known_keys, bytes)?;
    serde_json::from_slice(bytes).map_err(|source| ProtocolError::Json { layer, source })
}

pub(crate) fn emit_layer<T: Serialize>(layer: &'static str, value: &T) -> Result<Vec<u8>, ProtocolError> {
    to_json(value).map_err(|source| ProtocolError::Json { layer, source })
}

pub(crate) fn check_protocol(
    layer: &'static str,
    expected: &'static str,
    found: &str,
) -> Result<(), ProtocolError> {
    if found == expected {
        return Ok(());
    }
    let found: String = found.chars().take(64).flat_map(char::escape_default).collect();
    Err(ProtocolError::WrongProtocol { layer, expected, found })
}

pub(crate) fn require(layer: &'static str, field: &'static str, present: bool) -> Result<(), ProtocolError> {
    if present { Ok(()) } else { Err(ProtocolError::MissingValue { layer, field }) }
}

/// `#[serde(with = "encode::bytes")]`: bytes as padded standard base64. CR and LF inside are skipped, as peers do.
pub(crate) mod bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        decode(&text).map_err(serde::de::Error::custom)
    }

    pub(crate) fn decode(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
        if text.contains(['\r', '\n']) {
            STANDARD.decode(text.replace(['\r', '\n'], ""))
        } else {
            STANDARD.decode(text)
        }
    }
}

/// The same for a field that is left out when it has no value.
pub(crate) mod optional_bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => bytes::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => bytes::decode(text).map(Some).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_peers_escape() {
        let out = to_json("a<b>&c\u{2028}\u{2029}\"\\é\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\u003cb\\u003e\\u0026c\\u2028\\u2029\\\"\\\\é\\n\"");
    }

    #[test]
    fn base64_accepts_line_breaks_and_refuses_missing_padding() {
        assert_eq!(bytes::decode("cGlu\r\nZw==").unwrap(), b"ping");
        assert!(bytes::decode("cGluZw").is_err());
    }
}
