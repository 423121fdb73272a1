//! Sending a node the private key its certificate authority made: X25519 and the encrypted PEM that OpenSSL of old
//! wrote (`docs/spec/04 §8`). Nothing authenticates the exchange; prefer keys that are born on the node.

use aes::cipher::{BlockModeEncrypt as _, KeyIvInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use x25519_dalek::{PublicKey, StaticSecret};

/// A private key, readable only by the node whose public key it was sealed for.
#[derive(Debug, PartialEq, Eq)]
pub struct SealedKey {
    /// PEM text, type `RSA PRIVATE KEY`, legacy encryption headers.
    pub pem: String,
    /// Our half of the exchange, 64 hex digits.
    pub ecdh_public: String,
}

/// Why a key could not be sealed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error(
        "the helper returned a private key, but the node offered no key to encrypt it for (feature `jwt` is off?)"
    )]
    NoNodeKey,
    #[error("the node's `ecdh_public` is not 64 hex digits")]
    BadNodeKey,
    #[error("the node's `ecdh_public` is a point that makes the secret predictable")]
    WeakNodeKey,
    #[error("`key` of the helper is not one unencrypted PEM block")]
    NotPem,
}

/// Encrypts the PEM text `key` for the node. `secret` and `iv` are fresh random bytes.
pub fn seal(
    key: &str,
    node_public_hex: &str,
    secret: [u8; 32],
    iv: [u8; 16],
) -> Result<SealedKey, SealError> {
    if node_public_hex.is_empty() {
        return Err(SealError::NoNodeKey);
    }
    let mut node = [0u8; 32];
    hex::decode_to_slice(node_public_hex, &mut node).map_err(|_| SealError::BadNodeKey)?;
    let der = der_of(key).ok_or(SealError::NotPem)?;
    let ours = StaticSecret::from(secret);
    let shared = ours.diffie_hellman(&PublicKey::from(node));
    if !shared.was_contributory() {
        return Err(SealError::WeakNodeKey);
    }
    let body = encrypt(shared.as_bytes(), iv, &der);
    let mut pem = String::from("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n");
    pem.push_str(&format!("DEK-Info: AES-256-CBC,{}\n\n", hex::encode(iv)));
    let text = STANDARD.encode(body);
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END RSA PRIVATE KEY-----\n");
    Ok(SealedKey { pem, ecdh_public: hex::encode(PublicKey::from(&ours).as_bytes()) })
}

fn encrypt(password: &[u8], iv: [u8; 16], plain: &[u8]) -> Vec<u8> {
    let key = derive(password, iv);
    let mut cipher = cbc::Encryptor::<aes::Aes256>::new(&key.into(), &iv.into());
    // PKCS#7: as many bytes as are missing, each saying how many; a whole block when none is missing
    let missing = 16 - plain.len() % 16;
    let mut padded = plain.to_vec();
    padded.resize(plain.len() + missing, missing as u8);
    let mut sealed = Vec::with_capacity(padded.len());
    for chunk in padded.as_chunks::<16>().0 {
        let mut block = (*chunk).into();
        cipher.encrypt_block(&mut block);
        sealed.extend_from_slice(&block);
    }
    sealed
}

/// OpenSSL's EVP_BytesToKey with MD5, one round, salted with the first half of the IV. The peer's format asks for it;
/// the password is 32 random bytes, so its speed is no weakness here.
fn derive(password: &[u8], iv: [u8; 16]) -> [u8; 32] {
    let mut key = [0u8; 32];
    let (first, second) = key.split_at_mut(16);
    let salt = iv.first_chunk::<8>().map_or(&[][..], |salt| &salt[..]);
    first.copy_from_slice(&Md5::new().chain_update(password).chain_update(salt).finalize());
    let round = Md5::new().chain_update(&*first).chain_update(password).chain_update(salt).finalize();
    second.copy_from_slice(&round);
    key
}

/// The bytes of the first PEM block.
fn der_of(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (_, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    if body.contains(':') {
        return None;
    }
    let text: String = body.split_whitespace().collect();
    let der = STANDARD.decode(text).ok()?;
    if der.is_empty() { None } else { Some(der) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // the vectors of docs/spec/04 §15
    const SECRET: &str = "26c2c17fdb82161cb21ad16e721315355b64d1763119b10bfc962530dc7cc163";
    const NODE_PUBLIC: &str = "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466";
    const OUR_PUBLIC: &str = "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c";

    fn counting<const N: usize>(from: u8) -> [u8; N] {
        std::array::from_fn(|i| from + i as u8)
    }

    #[test]
    fn key_derivation_and_cipher_match_the_vectors() {
        let secret = hex::decode(SECRET).unwrap();
        let iv = counting::<16>(0xa0);
        assert_eq!(
            hex::encode(derive(&secret, iv)),
            "17aa53f414629cfe9878d0159138f8b09485cf65ed34402b1248a2e6d73a83a8"
        );
        assert_eq!(
            STANDARD.encode(encrypt(&secret, iv, b"vector plaintext standing in for PKCS#1 DER")),
            "Nd4irbOxpx71wc9azADohCx5pjatpwlNbOOfWWfnOt5iaVN5b3bhX1CdpPia/i7V"
        );
    }

    #[test]
    fn a_sealed_key_is_the_vector() {
        let der = STANDARD.encode(b"vector plaintext standing in for PKCS#1 DER");
        let pem = format!("-----BEGIN RSA PRIVATE KEY-----\n{der}\n-----END RSA PRIVATE KEY-----\n");
        let sealed = seal(&pem, NODE_PUBLIC, counting(1), counting(0xa0)).unwrap();
        assert_eq!(sealed.ecdh_public, OUR_PUBLIC);
        assert!(
            sealed.pem.contains(
                "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,a0a1a2a3a4a5a6a7a8a9aaabacadaeaf\n\n"
            )
        );
        assert!(sealed.pem.contains("Nd4irbOxpx71wc9azADohCx5pjatpwlNbOOfWWfnOt5iaVN5b3bhX1CdpPia/i7V\n"));
    }

    #[test]
    fn t_159_what_cannot_be_sealed() {
        let pem = "-----BEGIN X-----\nAAAA\n-----END X-----\n";
        let seal = |key: &str, node: &str| seal(key, node, counting(1), counting(1));
        assert_eq!(seal(pem, ""), Err(SealError::NoNodeKey));
        assert_eq!(seal(pem, "zz"), Err(SealError::BadNodeKey));
        assert_eq!(seal(pem, &"00".repeat(32)), Err(SealError::WeakNodeKey));
        assert_eq!(seal("nothing", NODE_PUBLIC), Err(SealError::NotPem));
        assert_eq!(
            seal("-----BEGIN X-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END X-----\n", NODE_PUBLIC),
            Err(SealError::NotPem)
        );
        choria_rows::row(159, "ecdh_public of zeros, no hex, none", "refused, weak key");
    }
}
