//! Standard base64 with padding, the form of every byte field in a message (`docs/spec/01 §1.1`). CR and LF inside
//! the text are skipped, as upstream's decoder does; everything else foreign is refused.

use super::EncodingError;
use super::sextet::{Alphabet, Collector};

const STANDARD: Alphabet = Alphabet { symbol62: b'+', symbol63: b'/' };

/// The length of the text for `length` bytes.
pub fn encoded_len(length: usize) -> usize {
    length.div_ceil(3).saturating_mul(4)
}

/// Writes `input` into the front of `output`.
pub fn encode_to_slice<'o>(input: &[u8], output: &'o mut [u8]) -> Result<&'o str, EncodingError> {
    let output = output.get_mut(..encoded_len(input.len())).ok_or(EncodingError::NoSpace)?;
    for (bytes, place) in input.chunks(3).zip(output.chunks_exact_mut(4)) {
        place.copy_from_slice(&group(bytes));
    }
    core::str::from_utf8(output).map_err(|_| EncodingError::Malformed)
}

/// The four symbols, padded, of one to three bytes: the unit of a streaming encoder.
pub fn group(bytes: &[u8]) -> [u8; 4] {
    let (mut symbols, used) = STANDARD.group(bytes);
    for symbol in symbols.iter_mut().skip(used) {
        *symbol = b'=';
    }
    symbols
}

/// Decodes `text` into the front of `output`; answers the number of bytes.
pub fn decode_to_slice(text: &[u8], output: &mut [u8]) -> Result<usize, EncodingError> {
    let mut decoder = Decoder::default();
    let mut length = 0_usize;
    for symbol in text {
        if let Some(byte) = decoder.push(*symbol)? {
            *output.get_mut(length).ok_or(EncodingError::NoSpace)? = byte;
            length = length.saturating_add(1);
        }
    }
    decoder.finish()?;
    Ok(length)
}

/// Decodes over its own text, which shrinks by a quarter; answers the number of bytes at the front of `text`.
/// After an error the contents are undefined.
pub fn decode_in_place(text: &mut [u8]) -> Result<usize, EncodingError> {
    let mut decoder = Decoder::default();
    let cells = core::cell::Cell::from_mut(text).as_slice_of_cells();
    let mut free = cells.iter();
    let mut length = 0_usize;
    for symbol in cells {
        if let Some(byte) = decoder.push(symbol.get())? {
            // The writer cannot overtake the reader: a byte needs more than one symbol.
            free.next().ok_or(EncodingError::NoSpace)?.set(byte);
            length = length.saturating_add(1);
        }
    }
    decoder.finish()?;
    Ok(length)
}

#[derive(Default)]
struct Decoder {
    collector: Collector,
    padding: u8,
}

impl Decoder {
    fn push(&mut self, symbol: u8) -> Result<Option<u8>, EncodingError> {
        match symbol {
            b'\r' | b'\n' => Ok(None),
            b'=' => {
                self.padding = self.padding.saturating_add(1);
                Ok(None)
            }
            _ if self.padding > 0 => Err(EncodingError::Malformed),
            _ => {
                let value = STANDARD.value(symbol).ok_or(EncodingError::Malformed)?;
                Ok(self.collector.push(value))
            }
        }
    }

    fn finish(&self) -> Result<(), EncodingError> {
        if self.collector.finish()? == self.padding { Ok(()) } else { Err(EncodingError::Malformed) }
    }
}
