//! Header blocks: `NATS/1.0[ status[ description]]` CRLF, `Key: Value` CRLF lines, CRLF (`docs/spec/09 §A1`).

use crate::error::EngineError;

/// Headers to publish. Keys and values are checked once, so that no header can forge another line.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    status: String,
    lines: Vec<(String, String)>,
}

impl Headers {
    pub fn new() -> Headers {
        Headers::default()
    }

    /// A status line, such as 404 with "No Messages".
    ///
    /// # Errors
    /// A control character in the description.
    pub fn with_status(code: u16, description: &str) -> Result<Headers, EngineError> {
        if description.chars().any(char::is_control) {
            return Err(EngineError::Header(description.to_owned()));
        }
        let status = if description.is_empty() { code.to_string() } else { format!("{code} {description}") };
        Ok(Headers { status, lines: Vec::new() })
    }

    /// Adds a header.
    ///
    /// # Errors
    /// A control character, or a colon or space in the key.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), EngineError> {
        let bad_key = key.is_empty() || key.chars().any(|c| c.is_control() || c == ':' || c == ' ');
        if bad_key || value.chars().any(char::is_control) {
            return Err(EngineError::Header(key.to_owned()));
        }
        self.lines.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The block as it goes over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = String::from("NATS/1.0");
        if !self.status.is_empty() {
            text.push(' ');
            text.push_str(&self.status);
        }
        text.push_str("\r\n");
        for (key, value) in &self.lines {
            text.push_str(key);
            text.push_str(": ");
            text.push_str(value);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Whether a block is what the protocol says, down to its last line: readers close their connection over one that is
/// not, and the client library that this project uses panics at a CR inside a value.
pub(crate) fn is_well_formed(block: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(block) else { return false };
    let Some(text) = text.strip_suffix("\r\n\r\n").or_else(|| text.strip_suffix("\r\n")) else {
        return false;
    };
    let mut lines = text.split("\r\n");
    lines.next().is_some_and(is_first_line) && lines.all(is_header_line)
}

/// `NATS/1.0`, and perhaps a status of three digits with a description.
fn is_first_line(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("NATS/1.0") else { return false };
    if rest.trim().is_empty() {
        return rest.chars().all(|c| c == ' ');
    }
    let Some(rest) = rest.strip_prefix(' ') else { return false };
    let status = rest.trim_start_matches(' ').split(' ').next().unwrap_or_default();
    status.len() == 3
        && status.bytes().all(|b| b.is_ascii_digit())
        && !status.starts_with('0')
        && !rest.chars().any(char::is_control)
}

/// `Key: Value`, never the continuation of another line: that could lengthen a header that the engine wrote.
fn is_header_line(line: &str) -> bool {
    line.split_once(':').is_some_and(|(key, value)| {
        !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_graphic())
            && !value.chars().any(|c| c.is_control() && c != '\t')
    })
}

/// Lines after the status line.
fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    block.split(|b| *b == b'\n').skip(1).map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The value of the first header whose key is exactly `name`.
pub(crate) fn first_value<'a>(block: &'a [u8], name: &str) -> Option<&'a str> {
    lines(block).find_map(|line| {
        let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        std::str::from_utf8(value.trim_ascii_start()).ok()
    })
}

/// The status code of the first line.
pub(crate) fn status(block: &[u8]) -> Option<u16> {
    let line = block.split(|b| *b == b'\n').next()?.strip_prefix(b"NATS/1.0")?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_block_reads_back(code in prop::option::of(100_u16..1000), lines in prop::collection::btree_map("[A-Za-z0-9_-]{1,12}", "[!-~äπ][ -~äπ]{0,20}", 0..5)) {
            let mut headers = code.map_or_else(Headers::new, |code| Headers::with_status(code, "x").unwrap());
            for (key, value) in &lines {
                headers.set(key, value).unwrap();
            }
            let block = headers.to_bytes();
            prop_assert_eq!(status(&block), code);
            prop_assert!(is_well_formed(&block));
            for (key, value) in &lines {
                prop_assert_eq!(first_value(&block, key), Some(value.as_str()));
            }
            prop_assert_eq!(first_value(&block, "not-there"), None);
        }

        #[test]
        fn any_bytes_are_a_block_or_not(block in prop::collection::vec(any::<u8>(), 0..120), name in "\\PC{0,8}") {
            status(&block);
            first_value(&block, &name);
            is_well_formed(&block);
        }

        #[test]
        fn no_text_makes_a_second_line(key in "\\PC{0,8}|[a:\r\n ]{0,4}", value in "\\PC{0,8}|[a\r\n]{0,6}") {
            let mut headers = Headers::new();
            if headers.set(&key, &value).is_ok() {
                prop_assert_eq!(headers.to_bytes().split(|b| *b == b'\n').count(), 4);
            }
        }
    }

    #[test]
    fn a_block_reads_back() {
        let mut headers = Headers::with_status(404, "No Messages").unwrap();
        headers.set("Nats-Msg-Id", "7").unwrap();
        headers.set("Nats-Msg-Id", "8").unwrap();
        let block = headers.to_bytes();
        assert_eq!(status(&block), Some(404));
        assert_eq!(first_value(&block, "Nats-Msg-Id"), Some("7"));
        assert_eq!(first_value(&block, "nats-msg-id"), None);
        assert_eq!(first_value(&block, "Nats"), None);
    }

    #[test]
    fn only_whole_blocks_are_well_formed() {
        for block in [
            "NATS/1.0\r\n\r\n",
            "NATS/1.0\r\n",
            "NATS/1.0 503\r\n\r\n",
            "NATS/1.0 404 No Messages\r\nA: b\r\n\r\n",
            "NATS/1.0\r\nA:b\r\nA: c\td:\u{e4}\r\nEmpty:\r\n\r\n",
        ] {
            assert!(is_well_formed(block.as_bytes()), "{block:?}");
        }
        for block in [
            "",
            "\r\n",
            "NATS/1.0",
            "NATS/1.1\r\n\r\n",
            "GARBAGE\r\n\r\n",
            "NATS/1.0503\r\n\r\n",
            "NATS/1.0 OK\r\n\r\n",
            "NATS/1.0 50\r\n\r\n",
            "NATS/1.0 099\r\n\r\n",
            "NATS/1.0\r\nA: b\rc\r\n\r\n",
            "NATS/1.0\r\nA: b\nc: d\r\n\r\n",
            "NATS/1.0\nA: b\n\n",
            "NATS/1.0\r\nA: b\u{1b}[2J\r\n\r\n",
            "NATS/1.0\r\nno colon\r\n\r\n",
            "NATS/1.0\r\n: no key\r\n\r\n",
            "NATS/1.0\r\nA b: c\r\n\r\n",
            "NATS/1.0\r\nA: b\r\n continued: c\r\n\r\n",
            "NATS/1.0\r\n\r\nA: b\r\n\r\n",
            "NATS/1.0\r\nA: b\r\n\r\ntrailing",
        ] {
            assert!(!is_well_formed(block.as_bytes()), "{block:?}");
        }
        assert!(!is_well_formed(b"NATS/1.0\r\nA: \xff\r\n\r\n"));
    }

    #[test]
    fn no_line_can_be_forged() {
        let mut headers = Headers::new();
        assert!(headers.set("a", "x\r\nb: y").is_err());
        assert!(headers.set("a\r\nb", "x").is_err());
        assert!(headers.set("a:b", "x").is_err());
        assert!(Headers::with_status(200, "ok\r\nx: y").is_err());
    }
}
