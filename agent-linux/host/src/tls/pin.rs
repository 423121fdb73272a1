//! Pins: SHA-256 over the SubjectPublicKeyInfo of a certificate. A pin outlives the renewal of the certificate
//! as long as its key stays.

use std::fmt;

use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// SHA-256 of a SubjectPublicKeyInfo in DER form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin([u8; 32]);

/// Why a text is not a pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a pin: write the 64 hex digits of the SHA-256 of the broker's public key")]
pub struct PinError(pub String);

impl Pin {
    /// Reads 64 hex digits in either case, with or without `:` between bytes and `sha256:` in front.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_hex(text: &str) -> Result<Pin, PinError> {
        let error = || PinError(text.chars().take(80).collect());
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.strip_prefix("sha256:").unwrap_or(&lower).replace(':', "");
        let bytes = hex::decode(digits).map_err(|_| error())?;
        Ok(Pin(bytes.try_into().map_err(|_| error())?))
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// The pin of a certificate in DER form; `None` when the bytes are not one certificate.
pub fn pin_of_certificate(der: &[u8]) -> Option<Pin> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    Some(Pin(Sha256::digest(certificate.public_key().raw).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_forms() {
        let hex = "0a".repeat(32);
        let pin = Pin::from_hex(&hex).unwrap();
        assert_eq!(pin.to_hex(), hex);
        let colons = vec!["0A"; 32].join(":");
        assert_eq!(Pin::from_hex(&format!("SHA256:{colons}")).unwrap(), pin);
        assert!(Pin::from_hex("0a").is_err());
        assert!(Pin::from_hex(&"zz".repeat(32)).is_err());
    }

    #[test]
    fn not_a_certificate() {
        assert_eq!(pin_of_certificate(b""), None);
        assert_eq!(pin_of_certificate(&[0x30, 0x82, 0xff, 0xff]), None);
    }
}
