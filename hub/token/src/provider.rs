//! What `jsonwebtoken` signs and verifies with: EdDSA by dalek (strict), RS256, RS384 and RS512 by ring, nothing else.
//! The library's built-in backends are not compiled in; one of them panics on short keys, and a key comes from a token.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair, UnparsedPublicKey,
};

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory, verifier_factory, key_utils: KeyUtils::new_unimplemented() };

/// Makes the provider the process's own. Must precede every call into `jsonwebtoken`, which panics without one.
fn ready() {
    // The second call of a process fails and changes nothing.
    let _already = PROVIDER.install_default().is_err();
}

/// Signs; the result is the third part of a token.
pub(crate) fn sign(signing_input: &str, key: &EncodingKey, algorithm: Algorithm) -> Result<String, Error> {
    ready();
    jsonwebtoken::crypto::sign(signing_input.as_bytes(), key, algorithm)
}

/// Whether `signature`, the third part of a token, is this key's over the other two. False for any unusable key.
pub(crate) fn verify(signing_input: &str, signature: &str, key: &DecodingKey, algorithm: Algorithm) -> bool {
    ready();
    jsonwebtoken::crypto::verify(signature, signing_input.as_bytes(), key, algorithm).unwrap_or(false)
}

fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    // Without this check an RSA key of 32 bytes would pass as an Ed25519 seed.
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    if key.family() == AlgorithmFamily::Ed {
        let seed: &[u8; 32] = key.as_bytes().try_into().map_err(|_| ErrorKind::InvalidKeyFormat)?;
        return Ok(Box::new(EdSigner(SigningKey::from_bytes(seed))));
    }
    let encoding: &'static dyn RsaEncoding = match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_SHA512,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    let pair = RsaKeyPair::from_der(key.as_bytes()).map_err(|_| ErrorKind::InvalidKeyFormat)?;
    Ok(Box::new(RsaSigner { pair, encoding, algorithm: *algorithm }))
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let bytes = key.try_get_as_bytes()?;
    if key.family() == AlgorithmFamily::Ed {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| ErrorKind::InvalidKeyFormat)?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| ErrorKind::InvalidKeyFormat)?;
        return Ok(Box::new(EdVerifier(key)));
    }
    let parameters = match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(RsaVerifier {
        key: UnparsedPublicKey::new(parameters, bytes.to_vec()),
        algorithm: *algorithm,
    }))
}

struct EdSigner(SigningKey);

impl Signer<Vec<u8>> for EdSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

impl JwtSigner for EdSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct EdVerifier(VerifyingKey);

impl Verifier<Vec<u8>> for EdVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let signature = Signature::from_slice(signature).map_err(|_| SignatureError::new())?;
        self.0.verify_strict(message, &signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for EdVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct RsaSigner {
    pair: RsaKeyPair,
    encoding: &'static dyn RsaEncoding,
    algorithm: Algorithm,
}

impl Signer<Vec<u8>> for RsaSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(self.encoding, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| SignatureError::new())?;
        Ok(signature)
    }
}

impl JwtSigner for RsaSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

struct RsaVerifier {
    key: UnparsedPublicKey<Vec<u8>>,
    algorithm: Algorithm,
}

impl Verifier<Vec<u8>> for RsaVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        self.key.verify(message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RsaVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_wrong_length_or_family_are_refused_without_a_panic() {
        for length in [0, 1, 31, 33, 64, 65] {
            let key = DecodingKey::from_ed_der(&vec![1; length]);
            assert!(!verify("a.b", "AAAA", &key, Algorithm::EdDSA));
            assert!(sign("a.b", &EncodingKey::from_ed_der(&vec![1; length]), Algorithm::EdDSA).is_err());
        }
        let pair = SigningKey::from_bytes(&[3; 32]);
        let public = pair.verifying_key();
        let signature = sign("a.b", &EncodingKey::from_ed_der(&[3; 32]), Algorithm::EdDSA).unwrap();
        assert!(verify("a.b", &signature, &DecodingKey::from_ed_der(public.as_bytes()), Algorithm::EdDSA));
        assert!(!verify("a.b", &signature, &DecodingKey::from_rsa_der(public.as_bytes()), Algorithm::EdDSA));
        assert!(!verify("a.b", &signature, &DecodingKey::from_ed_der(public.as_bytes()), Algorithm::RS256));
        assert!(!verify("a.b", &signature, &DecodingKey::from_secret(public.as_bytes()), Algorithm::HS256));
    }
}
