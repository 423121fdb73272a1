//! The parts of a certificate that decide (RFC 5280 §4.1).

use super::der::{self, Reader};
use super::{P256_KEY, PublicKey, Refused};

/// id-Ed25519, without parameters.
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// ecdsa-with-SHA256, without parameters.
const ECDSA_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// id-ecPublicKey on prime256v1.
const P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];

/// How a certificate is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Ed25519,
    EcdsaP256,
    /// None that we verify: good enough for a key that is itself pinned.
    Other,
}

/// A certificate taken apart. Nothing of it is believed yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Certificate<'d> {
    /// What is signed.
    pub(super) signed: &'d [u8],
    pub(super) algorithm: Algorithm,
    pub(super) signature: &'d [u8],
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    pub(super) issuer: &'d [u8],
    pub(super) subject: &'d [u8],
    /// All of the SubjectPublicKeyInfo.
    pub(super) key_info: &'d [u8],
    pub(super) key: PublicKey,
    /// The list of extensions; empty without any.
    pub(super) extensions: &'d [u8],
}

impl<'d> Certificate<'d> {
    pub(super) fn parse(bytes: &'d [u8]) -> Result<Certificate<'d>, Refused> {
        let mut outer = Reader::new(bytes);
        let mut parts = Reader::new(outer.expect(der::SEQUENCE)?);
        outer.end()?;
        let (tag, content, signed) = parts.any()?;
        if tag != der::SEQUENCE {
            return Err(Refused::Malformed);
        }
        let outer_algorithm = parts.expect(der::SEQUENCE)?;
        let signature = der::bits(parts.expect(der::BIT_STRING)?)?;
        parts.end()?;

        let mut fields = Reader::new(content);
        // version 3, the only one with extensions
        if fields.expect(0xa0)? != [der::INTEGER, 1, 2] {
            return Err(Refused::Malformed);
        }
        let _serial = fields.expect(der::INTEGER)?;
        let inner_algorithm = fields.expect(der::SEQUENCE)?;
        if inner_algorithm != outer_algorithm {
            return Err(Refused::Malformed);
        }
        let algorithm = match inner_algorithm {
            ED25519 => Algorithm::Ed25519,
            ECDSA_SHA256 => Algorithm::EcdsaP256,
            _ => Algorithm::Other,
        };
        let issuer = fields.expect(der::SEQUENCE)?;
        let mut validity = Reader::new(fields.expect(der::SEQUENCE)?);
        let (from, until) = (validity.any()?, validity.any()?);
        validity.end()?;
        let subject = fields.expect(der::SEQUENCE)?;
        let (tag, key_content, key_info) = fields.any()?;
        if tag != der::SEQUENCE {
            return Err(Refused::Malformed);
        }
        // Unique identifiers, which an authority must not write (RFC 5280 §4.1.2.8), would stand here.
        let extensions = match fields.optional(0xa3)? {
            None => &[][..],
            Some(explicit) => {
                let mut explicit = Reader::new(explicit);
                let list = explicit.expect(der::SEQUENCE)?;
                explicit.end()?;
                list
            }
        };
        fields.end()?;
        Ok(Certificate {
            signed,
            algorithm,
            signature,
            not_before: der::time(from.0, from.1)?,
            not_after: der::time(until.0, until.1)?,
            issuer,
            subject,
            key_info,
            key: key(key_content)?,
            extensions,
        })
    }
}

/// The key of a SubjectPublicKeyInfo.
fn key(content: &[u8]) -> Result<PublicKey, Refused> {
    let mut parts = Reader::new(content);
    let algorithm = parts.expect(der::SEQUENCE)?;
    let bits = der::bits(parts.expect(der::BIT_STRING)?)?;
    parts.end()?;
    match algorithm {
        ED25519 => bits.try_into().map(PublicKey::Ed25519).map_err(|_| Refused::Malformed),
        P256 => match <[u8; P256_KEY]>::try_from(bits) {
            Ok(point) if point.starts_with(&[0x04]) => Ok(PublicKey::P256(point)),
            _ => Err(Refused::Malformed),
        },
        _ => Err(Refused::Algorithm),
    }
}
