//! Base64url without padding, the form of tokens and nonce signatures. Strict: no padding, no white space, unused
//! bits zero, so that a token has one text only (`docs/spec/10 §5.1` K8).

use super::EncodingError;
use super::sextet::{Alphabet, Collector};

const URL: Alphabet = Alphabet { symbol62: b'-', symbol63: b'_' };

/// The length of the text for `length` bytes.
pub fn encoded_len(length: usize) -> usize {
    let rest = match length % 3 {
        0 => 0,
        1 => 2,
        _ => 3,
    };
    (length / 3).saturating_mul(4).saturating_add(rest)
}

/// Writes `input` into the front of `output`.
pub fn encode_to_slice<'o>(input: &[u8], output: &'o mut [u8]) -> Result<&'o str, EncodingError> {
    let output = output.get_mut(..encoded_len(input.len())).ok_or(EncodingError::NoSpace)?;
    for (bytes, place) in input.chunks(3).zip(output.chunks_mut(4)) {
        let (symbols, used) = URL.group(bytes);
        for (symbol, to) in symbols.iter().take(used).zip(place) {
            *to = *symbol;
        }
    }
    core::str::from_utf8(output).map_err(|_| EncodingError::Malformed)
}

/// Decodes `text` into the front of `output`; answers the number of bytes.
pub fn decode_to_slice(text: &[u8], output: &mut [u8]) -> Result<usize, EncodingError> {
    let mut length = 0_usize;
    for byte in bytes(text) {
        *output.get_mut(length).ok_or(EncodingError::NoSpace)? = byte?;
        length = length.saturating_add(1);
    }
    Ok(length)
}

/// Decodes a text that must hold exactly `N` bytes, such as a signature.
pub fn decode_array<const N: usize>(text: &[u8]) -> Result<[u8; N], EncodingError> {
    let mut bytes = [0; N];
    if text.len() != encoded_len(N) {
        return Err(EncodingError::Malformed);
    }
    decode_to_slice(text, &mut bytes)?;
    Ok(bytes)
}

/// The decoded bytes one by one, for documents larger than any buffer at hand. The last item is an error when the
/// text cannot end where it does.
pub fn bytes(text: &[u8]) -> Bytes<'_> {
    Bytes { text, collector: Collector::default(), ended: false }
}

/// See [`bytes`].
pub struct Bytes<'t> {
    text: &'t [u8],
    collector: Collector,
    ended: bool,
}

impl Iterator for Bytes<'_> {
    type Item = Result<u8, EncodingError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((symbol, rest)) = self.text.split_first() {
            self.text = rest;
            let Some(value) = URL.value(*symbol) else {
                self.text = &[];
                self.ended = true;
                return Some(Err(EncodingError::Malformed));
            };
            if let Some(byte) = self.collector.push(value) {
                return Some(Ok(byte));
            }
        }
        if self.ended {
            return None;
        }
        self.ended = true;
        self.collector.finish().err().map(Err)
    }
}

impl core::fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Bytes").field("symbols_left", &self.text.len()).finish()
    }
}
