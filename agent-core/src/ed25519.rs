//! The only door to the signature primitive.
//!
//! Verification is strict about its input: non-canonical scalars and small-order keys or nonces are refused (by
//! `ed25519-compact`, held to it by our hostile vectors). Unlike the hosts' it multiplies by the cofactor, so that a holder
//! can make signatures of its own that only one of the two accepts; nobody else can. Signing takes what the protocol signs, never bytes of a peer's
//! choice (`docs/spec/10 §6`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use ed25519_compact::{KeyPair, PublicKey, Signature};

/// Bytes of a public key.
pub const KEY: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE: usize = 64;

/// Whether `signature` is by `key` over the concatenation of `parts`.
pub fn verify(key: &[u8; KEY], parts: &[&[u8]], signature: &[u8]) -> bool {
    let Ok(signature) = <[u8; SIGNATURE]>::try_from(signature) else { return false };
    let key = PublicKey::new(*key);
    if key.validate().is_err() {
        return false;
    }
    let Ok(mut state) = key.verify_incremental(&Signature::new(signature)) else { return false };
    for part in parts {
        state.absorb(part);
    }
    state.verify().is_ok()
}

/// A private key, made from its seed. Wiped when dropped; never shown.
pub struct SigningKey(KeyPair);

impl SigningKey {
    /// From a seed of 32 random bytes; all zeros is no seed.
    pub fn from_seed(seed: &[u8; 32]) -> Option<SigningKey> {
        KeyPair::try_from_seed(ed25519_compact::Seed::new(*seed)).ok().map(SigningKey)
    }

    pub fn public(&self) -> [u8; KEY] {
        *self.0.pk
    }

    /// Signs the nonce of a broker, if it has the shape of one: nothing else that this key signs, or that anyone
    /// verifies with it, can look like it.
    pub fn sign_nonce(&self, nonce: &str) -> Option<[u8; SIGNATURE]> {
        let shape = (8..=64).contains(&nonce.len())
            && nonce.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        shape.then(|| self.sign(nonce.as_bytes()))
    }

    /// Signs a request or reply document, which always begins with a brace.
    pub fn sign_document(&self, document: &[u8]) -> Option<[u8; SIGNATURE]> {
        document.starts_with(b"{").then(|| self.sign(document))
    }

    fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE] {
        *self.0.sk.sign(bytes, None)
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SigningKey(*****)")
    }
}
