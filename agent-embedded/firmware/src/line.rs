//! One line of text for a serial line.

use core::fmt::{self, Write as _};

use embassy_time::Instant;

/// Bytes of a line, its end included.
const BYTES: usize = 160;

/// The milliseconds since the start and a text, without control characters; what is too long is cut off.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; BYTES],
    length: usize,
}

impl Line {
    /// Of this moment.
    pub fn new(text: fmt::Arguments<'_>) -> Line {
        Line::at(Instant::now().as_millis(), text)
    }

    fn at(milliseconds: u64, text: fmt::Arguments<'_>) -> Line {
        let mut line = Line { bytes: [0; BYTES], length: 0 };
        // A line that is cut off says enough.
        let _cut = write!(line, "{milliseconds} {text}").is_err();
        for byte in *b"\r\n" {
            line.push(byte);
        }
        line
    }

    /// With its end.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Without its end.
    pub(crate) fn text(&self) -> &[u8] {
        self.bytes().strip_suffix(b"\r\n").unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        if let Some(to) = self.bytes.get_mut(self.length) {
            *to = byte;
            self.length = self.length.saturating_add(1);
        }
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // room for the end
            if self.length.saturating_add(2) >= BYTES {
                return Err(fmt::Error);
            }
            self.push(if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_and_has_no_control_characters() {
        assert_eq!(Line::at(12, format_args!("a\x1b[2J{}", 7)).bytes(), b"12 a?[2J7\r\n");
        let long = Line::at(1, format_args!("{}", "x".repeat(500)));
        assert!(long.bytes().len() == BYTES && long.bytes().ends_with(b"x\r\n"));
    }
}
