//! What an image is given after it was built: 4 KiB of flash (`docs/spec/08 §10`).
//!
//! ```text
//! "CHOR"  version u16  length u16  SHA-256 of the body  body: (tag u8, length u16, value)*
//! ```
//! All numbers are little endian. Unknown tags are passed over. A section of 0xFF alone is a generic image.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod read;
mod write;

pub use read::Baked;
pub use write::{Record, write};

use crate::x509pin::{P256_KEY, Pin};

/// Bytes of the section.
pub const SECTION: usize = 4096;
/// Longest body.
pub const MAX_BODY: usize = 4056;
const MAGIC: &[u8] = b"CHOR";
const VERSION: u16 = 1;
const HEAD: usize = 40;

/// Issuers, pins and URLs of one image, each at most this many.
pub const MAX_OF_A_KIND: usize = 4;

const JWT: u8 = 1;
const ISSUER: u8 = 2;
const PIN: u8 = 3;
const SERVER_NAME: u8 = 4;
const URL: u8 = 5;
const IDENTITY: u8 = 6;
const BUILT: u8 = 7;
const SEED: u8 = 8;
const FLAGS: u8 = 9;
const TIME_SERVER: u8 = 10;

/// Choices of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    pub tls_required: bool,
    pub require_clock: bool,
    /// Tokens with a policy are obeyed when the organization's delegated signer has signed.
    pub trust_signer_for_policies: bool,
    pub half_duplex: bool,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            tls_required: true,
            require_clock: true,
            trust_signer_for_policies: false,
            half_duplex: false,
        }
    }
}

impl Flags {
    fn bits(self) -> u32 {
        let bit = |set: bool, at: u32| if set { 1 << at } else { 0 };
        bit(self.tls_required, 0)
            | bit(self.require_clock, 1)
            | bit(self.trust_signer_for_policies, 2)
            | bit(self.half_duplex, 3)
    }

    fn of(bits: u32) -> Flags {
        Flags {
            tls_required: bits & 1 != 0,
            require_clock: bits & 2 != 0,
            trust_signer_for_policies: bits & 4 != 0,
            half_duplex: bits & 8 != 0,
        }
    }
}

/// Why a section cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BakedError {
    /// All 0xFF: the image was never personalised.
    Blank,
    /// Not 4 KiB, no magic, or a length beyond its end.
    Damaged,
    /// A later version of the format.
    Version(u16),
    /// The digest is not that of the body.
    Digest,
    /// The value of this tag has the wrong length or is no text.
    Value(u8),
    /// More values of this tag than an image may have, or no provisioning token.
    Count(u8),
    /// The records do not fit.
    TooLarge,
}

impl BakedError {
    /// One sentence for whoever looks at the console.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            BakedError::Blank => "this image is not personalised: run `cargo xtask image`",
            BakedError::Damaged => "the personalised part of this image is damaged",
            BakedError::Version(_) => "this image was personalised by a later version",
            BakedError::Digest => "the personalised part of this image does not match its digest",
            BakedError::Value(_) => "a value in the personalised part of this image cannot be read",
            BakedError::Count(_) => {
                "the personalised part of this image has too many values of a kind, or no token"
            }
            BakedError::TooLarge => "the values do not fit the personalised part of an image",
        }
    }
}

fn pin_kind(pin: &Pin) -> (u8, &[u8]) {
    match pin {
        Pin::CaEd25519(key) => (1, key),
        Pin::CaP256(key) => (2, key),
        Pin::LeafSha256(hash) => (3, hash),
    }
}

fn pin_of(value: &[u8]) -> Option<Pin> {
    let (kind, bytes) = value.split_first()?;
    match kind {
        1 => bytes.try_into().ok().map(Pin::CaEd25519),
        2 => <[u8; P256_KEY]>::try_from(bytes).ok().map(Pin::CaP256),
        3 => bytes.try_into().ok().map(Pin::LeafSha256),
        _ => None,
    }
}
