//! From what a server presents to a key that may sign its handshake.

use sha2::{Digest, Sha256};

use super::certificate::{Algorithm, Certificate};
use super::extensions::Extensions;
use super::{Pin, PublicKey, Refused, ServerName};
use crate::ed25519;

/// What is signed in a server's CertificateVerify, before the transcript's hash (RFC 8446 §4.4.3).
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
const ED25519_SCHEME: u16 = 0x0807;
const ECDSA_P256_SCHEME: u16 = 0x0403;

/// A certificate that a pin vouches for. Its holder has proved nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    key: PublicKey,
    /// The device did not know the time, so the validity was not looked at.
    pub time_unverified: bool,
}

/// Holds a server's certificate, and the intermediate that came with it, to the pins. `now` is Unix seconds.
pub fn verify(
    leaf: &[u8],
    intermediate: Option<&[u8]>,
    pins: &[Pin],
    name: ServerName<'_>,
    now: Option<i64>,
) -> Result<Leaf, Refused> {
    let certificate = Certificate::parse(leaf)?;
    Extensions::read(certificate.extensions, Some(name))?.check_leaf()?;
    check_times(&certificate, now)?;
    let own: [u8; 32] = Sha256::digest(certificate.key_info).into();
    let pinned = pins.iter().any(|pin| matches!(pin, Pin::LeafSha256(hash) if *hash == own));
    if !pinned && let Err(refused) = vouched_for(&certificate, pins) {
        through(&certificate, intermediate.ok_or(refused)?, pins, now)?;
    }
    Ok(Leaf { key: certificate.key, time_unverified: now.is_none() })
}

/// One authority between a pin and the leaf.
fn through(leaf: &Certificate<'_>, above: &[u8], pins: &[Pin], now: Option<i64>) -> Result<(), Refused> {
    let above = Certificate::parse(above)?;
    Extensions::read(above.extensions, None)?.check_authority()?;
    check_times(&above, now)?;
    vouched_for(&above, pins)?;
    if leaf.issuer != above.subject {
        return Err(Refused::NotPinned);
    }
    check_signature(leaf, &above.key)
}

/// Whether the key of a pin has signed it.
fn vouched_for(certificate: &Certificate<'_>, pins: &[Pin]) -> Result<(), Refused> {
    let mut refused = Refused::NotPinned;
    for pin in pins {
        let key = match pin {
            Pin::CaEd25519(key) => PublicKey::Ed25519(*key),
            Pin::CaP256(key) => PublicKey::P256(*key),
            Pin::LeafSha256(_) => continue,
        };
        match check_signature(certificate, &key) {
            Ok(()) => return Ok(()),
            // Of several pins, the one of the right kind says why.
            Err(Refused::NotPinned) => {}
            Err(why) => refused = why,
        }
    }
    Err(refused)
}

fn check_times(certificate: &Certificate<'_>, now: Option<i64>) -> Result<(), Refused> {
    match now {
        Some(now) if now < certificate.not_before => Err(Refused::NotYetValid),
        Some(now) if now > certificate.not_after => Err(Refused::Expired),
        _ => Ok(()),
    }
}

fn check_signature(certificate: &Certificate<'_>, key: &PublicKey) -> Result<(), Refused> {
    match (certificate.algorithm, key) {
        (Algorithm::Ed25519, PublicKey::Ed25519(key)) => {
            signed_by_ed25519(key, &[certificate.signed], certificate.signature)
        }
        (Algorithm::EcdsaP256, PublicKey::P256(key)) => {
            signed_by_p256(key, &[certificate.signed], certificate.signature)
        }
        (Algorithm::Other, _) => Err(Refused::Algorithm),
        // A pin of one kind never meets a signature of another.
        _ => Err(Refused::NotPinned),
    }
}

fn signed_by_ed25519(key: &[u8; 32], parts: &[&[u8]], signature: &[u8]) -> Result<(), Refused> {
    if ed25519::verify(key, parts, signature) { Ok(()) } else { Err(Refused::Signature) }
}

#[cfg(feature = "p256")]
fn signed_by_p256(key: &[u8; 65], parts: &[&[u8]], signature: &[u8]) -> Result<(), Refused> {
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
    use p256::ecdsa::{DerSignature, VerifyingKey};

    let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| Refused::Malformed)?;
    let signature = DerSignature::from_bytes(signature).map_err(|_| Refused::Signature)?;
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    key.verify_prehash(&hash.finalize(), &signature).map_err(|_| Refused::Signature)
}

#[cfg(not(feature = "p256"))]
fn signed_by_p256(_: &[u8; 65], _: &[&[u8]], _: &[u8]) -> Result<(), Refused> {
    Err(Refused::Algorithm)
}

impl Leaf {
    /// The holder's proof: its signature over the handshake. `scheme` is the number of RFC 8446 §4.2.3, `transcript_hash`
    /// the SHA-256 of everything up to and including its Certificate message.
    pub fn verify_certificate_verify(
        &self,
        scheme: u16,
        signature: &[u8],
        transcript_hash: &[u8],
    ) -> Result<(), Refused> {
        let parts: &[&[u8]] = &[&[0x20; 64], CONTEXT, transcript_hash];
        match (&self.key, scheme) {
            (PublicKey::Ed25519(key), ED25519_SCHEME) => signed_by_ed25519(key, parts, signature),
            (PublicKey::P256(key), ECDSA_P256_SCHEME) => signed_by_p256(key, parts, signature),
            _ => Err(Refused::Algorithm),
        }
    }
}

/// The pin of an authority's certificate, for tools that make images.
pub fn ca_pin(certificate: &[u8]) -> Result<Pin, Refused> {
    let certificate = Certificate::parse(certificate)?;
    Extensions::read(certificate.extensions, None)?.check_authority()?;
    Ok(match certificate.key {
        PublicKey::Ed25519(key) => Pin::CaEd25519(key),
        PublicKey::P256(key) => Pin::CaP256(key),
    })
}
