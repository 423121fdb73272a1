//! Ed25519 seeds and public keys, and the key a verifier is configured with.

use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::{Zeroize, Zeroizing};

use choria_host::private_file::{self, PrivateFileError, Secret};

use crate::published::is_published_test_key;
use crate::rsa::RsaPublicKey;

/// A key file is at most this long: a PEM certificate with a long chain of names still fits.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// Why a key could not be read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read.
    #[error("cannot read the key in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of a private key is not one: others can read or replace it, or it holds no text.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The file is far larger than any key.
    #[error("{} is larger than any key file; is this the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not 64 hexadecimal digits.
    #[error("an Ed25519 {what} is written as 64 hexadecimal digits, this one is not")]
    NotHex {
        /// `seed` or `public key`.
        what: &'static str,
    },
    /// The 32 bytes are no point of the curve, or one of small order, for which signatures can be made up.
    #[error("the Ed25519 public key {0} is not usable: it is not a point of the curve or has a small order")]
    WeakPublicKey(String),
    /// A PEM text that holds no key this program can use.
    #[error("the PEM text holds no usable RSA key: {0}")]
    Pem(String),
    /// An RSA key below 2048 bits.
    #[error("the RSA key has {bits} bits; at least 2048 are needed")]
    RsaTooShort {
        /// Length of the modulus.
        bits: usize,
    },
    /// A key that Choria's documentation or test data publishes.
    #[error(
        "the key with public key {0} is published as test data and protects nothing; make a new one with 'choria jwt keys'"
    )]
    PublishedTestKey(String),
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(String),
}

/// Refusal to sign what a broker sent as its nonce, docs/spec/10 §6: the text could be something else than a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker's nonce has not the form of a nonce and was not signed")]
pub struct NonceRefused;

/// Whether a nonce has the one form that is signed: 8 to 64 of `A-Z a-z 0-9 _ -`. Such text can be neither a token's
/// signing input, chain data, JSON nor a login text, so the answer to a hostile broker is worth nothing elsewhere.
pub fn nonce_is_signable(nonce: &str) -> bool {
    (8..=64).contains(&nonce.len())
        && nonce.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// An Ed25519 private key: 32 secret bytes, wiped from memory when dropped. On disk it is 64 hexadecimal digits.
pub struct Seed(SigningKey);

impl Seed {
    /// A new seed from the system's random source, which either works or is an error.
    pub fn generate() -> Result<Seed, KeyError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        getrandom::fill(bytes.as_mut()).map_err(|e| KeyError::Random(e.to_string()))?;
        Ok(Seed(SigningKey::from_bytes(&bytes)))
    }

    /// The seed with these 32 bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Seed {
        Seed(SigningKey::from_bytes(bytes))
    }

    /// From 64 hexadecimal digits; white space around them is ignored.
    pub fn from_hex(text: &str) -> Result<Seed, KeyError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        hex::decode_to_slice(text.trim(), bytes.as_mut()).map_err(|_| KeyError::NotHex { what: "seed" })?;
        Ok(Seed(SigningKey::from_bytes(&bytes)))
    }

    /// From a file as `choria jwt keys` writes it. A seed that is published as test data is refused here, because a
    /// file is where real keys come from.
    pub fn load(path: &Path) -> Result<Seed, KeyError> {
        let text = read_private(path, private_file::read_secret)?;
        let seed = Seed::from_hex(text.expose())?;
        let public = seed.public();
        if is_published_test_key(&public) {
            return Err(KeyError::PublishedTestKey(public.to_hex()));
        }
        Ok(seed)
    }

    /// The 64 hexadecimal digits that go into a seed file, without a newline: older readers fail on one.
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut bytes = self.0.to_bytes();
        let text = Zeroizing::new(hex::encode(bytes));
        bytes.zeroize();
        text
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// A signature over the bytes as they are. Whoever calls this decides what the key vouches for (docs/spec/10 §6):
    /// sign texts built here, never bytes that a peer chose. For a broker's nonce use [`Seed::sign_nonce`].
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// A signature over the nonce of a broker's INFO, if it looks like one.
    pub fn sign_nonce(&self, nonce: &str) -> Result<[u8; 64], NonceRefused> {
        if !nonce_is_signable(nonce) {
            return Err(NonceRefused);
        }
        Ok(self.sign(nonce.as_bytes()))
    }

    /// The raw seed, for the token signer only.
    pub(crate) fn secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seed(***** of {})", self.public().to_hex())
    }
}

/// An Ed25519 public key: a checked point of the curve that has no small order.
#[derive(Clone, Copy)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From the 32 bytes of its compressed form.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<PublicKey, KeyError> {
        let weak = || KeyError::WeakPublicKey(hex::encode(bytes));
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| weak())?;
        if key.is_weak() {
            return Err(weak());
        }
        Ok(PublicKey(key))
    }

    /// From 64 hexadecimal digits in either case; white space around them is ignored.
    pub fn from_hex(text: &str) -> Result<PublicKey, KeyError> {
        let mut bytes = [0_u8; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| KeyError::NotHex { what: "public key" })?;
        PublicKey::from_bytes(&bytes)
    }

    /// From a file of 64 hexadecimal digits, or the digits themselves: the forms that settings and command lines take.
    pub fn load(path_or_hex: &str) -> Result<PublicKey, KeyError> {
        if is_hex_key(path_or_hex) {
            return PublicKey::from_hex(path_or_hex);
        }
        PublicKey::from_hex(&read_key_file(Path::new(path_or_hex))?)
    }

    /// 64 lower case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0.as_bytes())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether the signature over the message is this key's. Strict: lengths are exact, non-canonical and small order
    /// values are refused.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        self.0.verify_strict(message, &signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_hex())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PublicKey {}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl std::hash::Hash for PublicKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// The key a verifier is configured with. Its family decides which algorithms a token may use.
#[derive(Debug, Clone)]
pub enum Key {
    /// An organization issuer.
    Ed25519(PublicKey),
    /// A signer of older deployments, 2048 bits or more.
    Rsa(RsaPublicKey),
}

impl Key {
    /// From a file (PEM public key or certificate: RSA; hexadecimal digits: Ed25519) or the digits themselves.
    pub fn load(path_or_hex: &str) -> Result<Key, KeyError> {
        if is_hex_key(path_or_hex) {
            return Ok(Key::Ed25519(PublicKey::from_hex(path_or_hex)?));
        }
        let text = read_key_file(Path::new(path_or_hex))?;
        if text.trim_start().starts_with("-----BEGIN") {
            return Ok(Key::Rsa(RsaPublicKey::from_pem(&text)?));
        }
        Ok(Key::Ed25519(PublicKey::from_hex(&text)?))
    }
}

impl From<PublicKey> for Key {
    fn from(key: PublicKey) -> Key {
        Key::Ed25519(key)
    }
}

fn is_hex_key(text: &str) -> bool {
    let text = text.trim();
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A key file's text. It may be secret, so it is wiped after use.
/// A private key's file, read in one of the ways of [`private_file`].
pub(crate) fn read_private(
    path: &Path,
    read: fn(&Path) -> Result<Secret, PrivateFileError>,
) -> Result<Secret, KeyError> {
    read(path).map_err(|error| match error {
        PrivateFileError::Read { path, source } => KeyError::Read { path, source },
        PrivateFileError::TooLarge { path } => KeyError::TooLarge { path },
        PrivateFileError::Empty { .. } | PrivateFileError::NotText { .. } => {
            KeyError::NotHex { what: "seed" }
        }
        other => KeyError::File(other),
    })
}

fn read_key_file(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    use std::io::Read as _;
    let fail = |source| KeyError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_KEY_FILE.saturating_add(1)).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_KEY_FILE {
        return Err(KeyError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_signs_and_its_public_key_verifies() {
        let seed = Seed::generate().unwrap();
        let signature = seed.sign(b"message");
        assert!(seed.public().verify(b"message", &signature));
        assert!(!seed.public().verify(b"massage", &signature));
        assert!(!seed.public().verify(b"message", &signature[..63]));
        let mut long = signature.to_vec();
        long.push(0);
        assert!(!seed.public().verify(b"message", &long));
        assert_eq!(Seed::from_hex(&format!(" {}\n", *seed.to_hex())).unwrap().public(), seed.public());
    }

    #[test]
    fn hex_of_any_other_length_or_alphabet_is_refused() {
        for text in ["", "00", &"0".repeat(62), &"0".repeat(66), &"0".repeat(63), &"g".repeat(64)] {
            assert!(Seed::from_hex(text).is_err(), "{text}");
            assert!(PublicKey::from_hex(text).is_err(), "{text}");
        }
    }

    #[test]
    fn t_017_points_of_small_order_are_no_keys() {
        // The identity, the point of order two, one of order eight, and a non-canonical identity.
        for text in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            assert!(PublicKey::from_hex(text).is_err(), "{text}");
        }
        choria_rows::row(17, "five points of small order, one not canonical, at the host", "no keys");
    }

    #[test]
    fn a_signature_with_a_non_canonical_scalar_is_refused() {
        let seed = Seed::from_bytes(&[7; 32]);
        let mut signature = seed.sign(b"m");
        // Adds the group order to S: the same scalar, written in a second way.
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0_u16;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
        assert!(!seed.public().verify(b"m", &signature));
    }

    #[test]
    fn only_nonces_are_signed_as_nonces() {
        let seed = Seed::from_bytes(&[9; 32]);
        for good in ["PXoWU7zWAMt75FY", "12345678", &"a".repeat(64)] {
            let signature = seed.sign_nonce(good).unwrap();
            assert!(seed.public().verify(good.as_bytes(), &signature));
        }
        for bad in [
            "",
            "1234567",
            &"a".repeat(65),
            "eyJhbGciOiJF.eyJ",
            "{\"a\":1}abc",
            "abcdefgh=",
            "abc defgh",
            "id.keykey",
        ] {
            assert_eq!(seed.sign_nonce(bad), Err(NonceRefused), "{bad}");
        }
    }

    #[test]
    fn debug_output_has_no_secret() {
        let seed = Seed::from_bytes(&[9; 32]);
        assert!(!format!("{seed:?}").contains(seed.to_hex().as_str()));
    }
}
