//! Hexadecimal: written in lower case, read in either case.

use super::EncodingError;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn digit(value: u8) -> u8 {
    DIGITS.get(usize::from(value & 0x0f)).copied().unwrap_or(b'0')
}

fn nibble(symbol: u8) -> Option<u8> {
    match symbol {
        b'0'..=b'9' => Some(symbol.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(symbol.wrapping_sub(b'a').wrapping_add(10)),
        b'A'..=b'F' => Some(symbol.wrapping_sub(b'A').wrapping_add(10)),
        _ => None,
    }
}

/// Writes `input` as lower-case hex into the front of `output`.
pub fn encode_to_slice<'o>(input: &[u8], output: &'o mut [u8]) -> Result<&'o str, EncodingError> {
    let length = input.len().checked_mul(2).ok_or(EncodingError::NoSpace)?;
    let output = output.get_mut(..length).ok_or(EncodingError::NoSpace)?;
    for (byte, pair) in input.iter().zip(output.chunks_exact_mut(2)) {
        if let [high, low] = pair {
            *high = digit(byte >> 4);
            *low = digit(*byte);
        }
    }
    core::str::from_utf8(output).map_err(|_| EncodingError::Malformed)
}

/// Decodes `text` into the front of `output`; answers the number of bytes.
pub fn decode_to_slice(text: &[u8], output: &mut [u8]) -> Result<usize, EncodingError> {
    if !text.len().is_multiple_of(2) {
        return Err(EncodingError::Malformed);
    }
    let length = text.len() / 2;
    let output = output.get_mut(..length).ok_or(EncodingError::NoSpace)?;
    for (pair, byte) in text.chunks_exact(2).zip(output) {
        let [high, low] = pair else { return Err(EncodingError::Malformed) };
        let (Some(high), Some(low)) = (nibble(*high), nibble(*low)) else {
            return Err(EncodingError::Malformed);
        };
        *byte = (high << 4) | low;
    }
    Ok(length)
}

/// Decodes a text that must hold exactly `N` bytes, such as a public key.
pub fn decode_array<const N: usize>(text: &[u8]) -> Result<[u8; N], EncodingError> {
    let mut bytes = [0; N];
    if text.len() != N.saturating_mul(2) {
        return Err(EncodingError::Malformed);
    }
    decode_to_slice(text, &mut bytes)?;
    Ok(bytes)
}
