//! Base62 (`0-9A-Za-z`) of a 160-bit number in 27 symbols, the text form of a KSUID (`docs/spec/01 §2.7`).

use super::EncodingError;

/// Symbols in the text of twenty bytes.
pub const SYMBOLS: usize = 27;

const BASE: u32 = 62;

fn symbol(value: u32) -> u8 {
    let value = u8::try_from(value).unwrap_or(0);
    match value {
        0..=9 => value.wrapping_add(b'0'),
        10..=35 => value.wrapping_sub(10).wrapping_add(b'A'),
        _ => value.wrapping_sub(36).wrapping_add(b'a'),
    }
}

fn value(symbol: u8) -> Option<u32> {
    match symbol {
        b'0'..=b'9' => Some(u32::from(symbol.wrapping_sub(b'0'))),
        b'A'..=b'Z' => Some(u32::from(symbol.wrapping_sub(b'A').wrapping_add(10))),
        b'a'..=b'z' => Some(u32::from(symbol.wrapping_sub(b'a').wrapping_add(36))),
        _ => None,
    }
}

/// The text of a big-endian number of twenty bytes, padded on the left with `0`.
pub fn encode(bytes: &[u8; 20]) -> [u8; SYMBOLS] {
    let mut number = *bytes;
    let mut text = [b'0'; SYMBOLS];
    for place in text.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let dividend = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(dividend / BASE).unwrap_or(u8::MAX);
            remainder = dividend % BASE;
        }
        *place = symbol(remainder);
    }
    text
}

/// The number behind a text of 27 symbols; a text above 2^160 is refused.
pub fn decode(text: &[u8]) -> Result<[u8; 20], EncodingError> {
    if text.len() != SYMBOLS {
        return Err(EncodingError::Malformed);
    }
    let mut number = [0_u8; 20];
    for symbol in text {
        let mut carry = value(*symbol).ok_or(EncodingError::Malformed)?;
        for byte in number.iter_mut().rev() {
            let sum = u32::from(*byte).saturating_mul(BASE).saturating_add(carry);
            *byte = u8::try_from(sum & 0xff).unwrap_or(0);
            carry = sum >> 8;
        }
        if carry != 0 {
            return Err(EncodingError::Malformed);
        }
    }
    Ok(number)
}
