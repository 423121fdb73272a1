//! RSA keys of older deployments: signers of provisioning tokens, docs/spec/01 §6.1.

use std::fmt;

use jsonwebtoken::{DecodingKey, EncodingKey};
use ring::signature::RsaKeyPair;

use crate::key::KeyError;

/// Shorter keys are refused, docs/spec/10 K4.
const MIN_BITS: usize = 2048;

/// An RSA public key of 2048 bits or more.
#[derive(Clone)]
pub struct RsaPublicKey(DecodingKey);

impl RsaPublicKey {
    /// From `-----BEGIN CERTIFICATE` or `-----BEGIN PUBLIC KEY`.
    pub fn from_pem(text: &str) -> Result<RsaPublicKey, KeyError> {
        let text = text.trim_start();
        if !["-----BEGIN CERTIFICATE", "-----BEGIN PUBLIC KEY", "-----BEGIN RSA PUBLIC KEY"]
            .iter()
            .any(|head| text.starts_with(head))
        {
            return Err(KeyError::Pem("it is neither a certificate nor a public key".into()));
        }
        let key = DecodingKey::from_rsa_pem(text.as_bytes()).map_err(|e| KeyError::Pem(e.to_string()))?;
        let der = key.try_get_as_bytes().map_err(|e| KeyError::Pem(e.to_string()))?;
        let bits = modulus_bits(der).ok_or_else(|| KeyError::Pem("it is not an RSA key".into()))?;
        if bits < MIN_BITS {
            return Err(KeyError::RsaTooShort { bits });
        }
        Ok(RsaPublicKey(key))
    }

    pub(crate) fn decoding_key(&self) -> &DecodingKey {
        &self.0
    }
}

impl fmt::Debug for RsaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaPublicKey")
    }
}

/// An RSA private key of 2048 bits or more.
pub struct RsaPrivateKey(EncodingKey);

impl RsaPrivateKey {
    /// From `-----BEGIN RSA PRIVATE KEY` or `-----BEGIN PRIVATE KEY`, not encrypted.
    pub fn from_pem(text: &str) -> Result<RsaPrivateKey, KeyError> {
        if text.contains("ENCRYPTED") {
            return Err(KeyError::Pem("it is encrypted; decrypt it with 'openssl rsa' first".into()));
        }
        let key = EncodingKey::from_rsa_pem(text.trim_start().as_bytes())
            .map_err(|e| KeyError::Pem(e.to_string()))?;
        let pair = RsaKeyPair::from_der(key.as_bytes()).map_err(|e| KeyError::Pem(e.to_string()))?;
        let bits = pair.public().modulus_len().saturating_mul(8);
        if bits < MIN_BITS {
            return Err(KeyError::RsaTooShort { bits });
        }
        Ok(RsaPrivateKey(key))
    }

    pub(crate) fn encoding_key(&self) -> &EncodingKey {
        &self.0
    }
}

impl fmt::Debug for RsaPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaPrivateKey(*****)")
    }
}

/// Length of the modulus in a PKCS#1 public key: `SEQUENCE { INTEGER modulus, INTEGER exponent }`.
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let (body, rest) = element(der, 0x30)?;
    if !rest.is_empty() {
        return None;
    }
    let (modulus, rest) = element(body, 0x02)?;
    let (_exponent, rest) = element(rest, 0x02)?;
    if !rest.is_empty() {
        return None;
    }
    let modulus =
        modulus.iter().position(|b| *b != 0).and_then(|start| modulus.get(start..)).unwrap_or_default();
    let top = modulus.first().map_or(0, |b| b.leading_zeros() as usize);
    modulus.len().checked_mul(8)?.checked_sub(top)
}

/// One DER element of this tag at the start: its content, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = der.split_first_chunk::<2>()?;
    if head[0] != tag {
        return None;
    }
    let (length, rest) = match head[1] {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(a, rest)| (usize::from(*a), rest))?,
        0x82 => rest.split_first_chunk::<2>().map(|(a, rest)| (usize::from(u16::from_be_bytes(*a)), rest))?,
        _ => return None,
    };
    rest.split_at_checked(length)
}
