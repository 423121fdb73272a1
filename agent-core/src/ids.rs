//! Names made from numbers: request ids (KSUID) and private network ids (`docs/spec/01 §2.7, §5`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::encoding::{base62, hex};
use md5::{Digest as _, Md5};
use sha2::Sha256;

/// Seconds between the Unix epoch and the KSUID epoch.
const KSUID_EPOCH: i64 = 1_400_000_000;

/// A KSUID as text: 27 symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ksuid([u8; base62::SYMBOLS]);

impl Ksuid {
    /// An id whose time is `unix_seconds` and whose rest is `entropy`, sixteen random bytes.
    pub fn new(unix_seconds: i64, entropy: &[u8; 16]) -> Ksuid {
        let since = unix_seconds.saturating_sub(KSUID_EPOCH).clamp(0, i64::from(u32::MAX));
        let since = u32::try_from(since).unwrap_or(0);
        let mut bytes = [0; 20];
        let (time, rest) = bytes.split_at_mut(4);
        time.copy_from_slice(&since.to_be_bytes());
        rest.copy_from_slice(entropy);
        Ksuid(base62::encode(&bytes))
    }

    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The Unix time in seconds inside the text of a KSUID, if it is one.
pub fn ksuid_time(text: &str) -> Option<i64> {
    let bytes = base62::decode(text.as_bytes()).ok()?;
    let time = bytes.first_chunk::<4>()?;
    Some(i64::from(u32::from_be_bytes(*time)).saturating_add(KSUID_EPOCH))
}

/// The private network id of a caller or identity: lower-case hex of its MD5.
pub fn private_network_id(name: &str) -> PrivateId<32> {
    let mut text = [b'0'; 32];
    let digest: [u8; 16] = Md5::digest(name.as_bytes()).into();
    PrivateId::write(&digest, &mut text);
    PrivateId(text)
}

/// The SHA-256 form of the private network id, used where MD5 is not allowed.
pub fn private_network_id_sha256(name: &str) -> PrivateId<64> {
    let mut text = [b'0'; 64];
    PrivateId::write(&sha256(name.as_bytes()), &mut text);
    PrivateId(text)
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A private network id as hex text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrivateId<const N: usize>([u8; N]);

impl<const N: usize> PrivateId<N> {
    fn write(digest: &[u8], text: &mut [u8; N]) {
        // The two callers fix both lengths, so the text always fits.
        hex::encode_to_slice(digest, text).ok();
    }

    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}
