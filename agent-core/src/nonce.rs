//! Proving a key to the broker without becoming a signing oracle (`docs/spec/10 §6`).

use crate::ed25519::SigningKey;

/// The broker asked for a signature over something that is not a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceRefused;

impl NonceRefused {
    pub const REASON: &'static str = "nonce_bad";
}

/// `^[A-Za-z0-9_-]{8,64}$`: text of this shape is no JSON, no token, no chain data and no login text.
#[must_use]
pub fn is_nonce(text: &str) -> bool {
    (8..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Signs the ASCII bytes of a nonce, as they stand in INFO or in a `gen25519` request.
pub fn sign_nonce(seed: &[u8; 32], nonce: &str) -> Result<[u8; 64], NonceRefused> {
    SigningKey::from_seed(seed).and_then(|key| key.sign_nonce(nonce)).ok_or(NonceRefused)
}

/// The public key of a seed.
pub fn public_key(seed: &[u8; 32]) -> Option<[u8; 32]> {
    SigningKey::from_seed(seed).map(|key| key.public())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_nonces_only() {
        let mut seed = [0u8; 32];
        for (at, byte) in (0u8..).zip(seed.iter_mut()) {
            *byte = at;
        }
        let signature = sign_nonce(&seed, "0f8fad5bd9cb469fa16570867728950e").unwrap();
        assert_eq!(
            hex::encode(signature),
            "b4722817a5e77e2978cd13b005a8cd951c418e6a6f6f5ae1f12f48855f2d23075c2d66effa647f95bc00335fa7af736053d94189a7bd8a8eeeb15ed29c8b0f09"
        );
        assert_eq!(
            hex::encode(public_key(&seed).unwrap()),
            "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
        );
        for text in [
            "",
            "short",
            "{\"protocol\":1}",
            "eyJh.eyJh",
            "aaaaaaa=",
            "1798761600:alice:pw",
            "with space",
            "ünïcodeee",
        ] {
            assert_eq!(sign_nonce(&seed, text), Err(NonceRefused), "{text}");
        }
        assert_eq!(sign_nonce(&seed, &"a".repeat(65)), Err(NonceRefused));
    }
}
