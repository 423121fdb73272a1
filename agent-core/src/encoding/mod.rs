//! The four text encodings of the wire, one type of function per encoding so that they cannot be mixed up
//! (`docs/spec/01 §10`): hex for keys, chain signatures and proofs; padded standard base64 for message fields; raw
//! base64url for tokens and nonce signatures; base62 inside request ids.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod base62;
pub mod base64;
pub mod base64url;
pub mod hex;
mod sextet;

/// Why a text could not be encoded or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodingError {
    /// The output does not fit the buffer lent by the caller.
    NoSpace,
    /// The text is not a legal encoding: a foreign character, a wrong length or non-zero unused bits.
    Malformed,
}

impl core::fmt::Display for EncodingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            EncodingError::NoSpace => "the decoded text does not fit its buffer",
            EncodingError::Malformed => "the text is not a legal encoding",
        })
    }
}

impl core::error::Error for EncodingError {}
