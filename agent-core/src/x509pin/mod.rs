//! Who the broker is: certificates held to a few pinned keys (`docs/spec/08 §4.2`).
//!
//! A device has no list of authorities. Its image names the key that may vouch for its broker, or the broker's own key, and
//! nothing else is believed. Ed25519 always; P-256 with the feature of that name.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod certificate;
mod der;
mod extensions;
mod name;
mod verify;

pub use name::ServerName;
pub use verify::{Leaf, ca_pin, verify};

/// Bytes of an uncompressed P-256 key.
pub const P256_KEY: usize = 65;

/// One key that is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// An authority: it may vouch for leaves and for one authority below it.
    CaEd25519([u8; 32]),
    /// The same on curve P-256; the point is uncompressed.
    CaP256([u8; P256_KEY]),
    /// The broker itself: SHA-256 of its SubjectPublicKeyInfo.
    LeafSha256([u8; 32]),
}

/// A public key of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicKey {
    Ed25519([u8; 32]),
    P256([u8; P256_KEY]),
}

/// Why a certificate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No strict DER, or not the shape of a certificate.
    Malformed,
    /// A signature or key of another kind than Ed25519 and P-256.
    Algorithm,
    /// No pin vouches for it.
    NotPinned,
    /// The signature does not verify.
    Signature,
    /// The name is not among its names.
    Name,
    /// A certificate for something else than servers.
    Purpose,
    /// An authority where a server should be, or a server where an authority should be.
    Constraints,
    /// A critical extension that we do not know, or name constraints, which we do not evaluate.
    CriticalExtension,
    NotYetValid,
    Expired,
}

impl Refused {
    /// One word for the log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Refused::Malformed => "certificate_malformed",
            Refused::Algorithm => "certificate_algorithm",
            Refused::NotPinned => "certificate_not_pinned",
            Refused::Signature => "certificate_signature",
            Refused::Name => "certificate_name",
            Refused::Purpose => "certificate_purpose",
            Refused::Constraints => "certificate_constraints",
            Refused::CriticalExtension => "certificate_critical_extension",
            Refused::NotYetValid => "certificate_early",
            Refused::Expired => "certificate_expired",
        }
    }
}
