//! The private part of a caller's or server's reply subjects, docs/spec/01 §5.

use md5::{Digest as _, Md5};
use sha2::Sha256;

/// 32 hexadecimal digits that stand for a caller id or identity inside reply subjects. MD5 here makes a name of fixed
/// length and alphabet; nothing is authenticated by it.
pub fn private_network_id(name: &str) -> String {
    hex::encode(Md5::digest(name.as_bytes()))
}

/// The same name as networks in FIPS mode form it: 64 hexadecimal digits of SHA-256.
pub fn private_network_id_sha256(name: &str) -> String {
    hex::encode(Sha256::digest(name.as_bytes()))
}
