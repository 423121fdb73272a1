//! Bit packing shared by the two base64 alphabets: four symbols of six bits hold three bytes.

use super::EncodingError;

/// A base64 alphabet: the last two symbols differ, the rest does not.
#[derive(Clone, Copy)]
pub(super) struct Alphabet {
    pub(super) symbol62: u8,
    pub(super) symbol63: u8,
}

impl Alphabet {
    pub(super) fn symbol(self, value: u8) -> u8 {
        match value & 0x3f {
            v @ 0..=25 => v.wrapping_add(b'A'),
            v @ 26..=51 => v.wrapping_add(b'a' - 26),
            v @ 52..=61 => v.wrapping_sub(52).wrapping_add(b'0'),
            62 => self.symbol62,
            _ => self.symbol63,
        }
    }

    pub(super) fn value(self, symbol: u8) -> Option<u8> {
        match symbol {
            b'A'..=b'Z' => Some(symbol.wrapping_sub(b'A')),
            b'a'..=b'z' => Some(symbol.wrapping_sub(b'a' - 26)),
            b'0'..=b'9' => Some(symbol.wrapping_sub(b'0').wrapping_add(52)),
            _ if symbol == self.symbol62 => Some(62),
            _ if symbol == self.symbol63 => Some(63),
            _ => None,
        }
    }

    /// The symbols of one to three bytes, and how many of the four count.
    pub(super) fn group(self, bytes: &[u8]) -> ([u8; 4], usize) {
        let (a, b, c) = match *bytes {
            [a, b, c, ..] => (a, b, c),
            [a, b] => (a, b, 0),
            [a] => (a, 0, 0),
            [] => return ([b'='; 4], 0),
        };
        let symbols = [
            self.symbol(a >> 2),
            self.symbol(((a & 0x03) << 4) | (b >> 4)),
            self.symbol(((b & 0x0f) << 2) | (c >> 6)),
            self.symbol(c),
        ];
        (symbols, bytes.len().min(3).saturating_add(1))
    }
}

/// Collects symbol values and yields whole bytes; refuses unused bits that are not zero, so that one value has
/// exactly one text.
#[derive(Default)]
pub(super) struct Collector {
    bits: u32,
    count: u8,
}

impl Collector {
    pub(super) fn push(&mut self, value: u8) -> Option<u8> {
        self.bits = (self.bits << 6) | u32::from(value);
        self.count = self.count.saturating_add(6);
        if self.count < 8 {
            return None;
        }
        self.count = self.count.saturating_sub(8);
        let byte = (self.bits >> self.count) & 0xff;
        self.bits &= (1_u32 << self.count).saturating_sub(1);
        u8::try_from(byte).ok()
    }

    /// The number of padding symbols the text needs; an error when it cannot end here.
    pub(super) fn finish(&self) -> Result<u8, EncodingError> {
        match (self.count, self.bits) {
            (0, 0) => Ok(0),
            (2, 0) => Ok(1),
            (4, 0) => Ok(2),
            _ => Err(EncodingError::Malformed),
        }
    }
}
