//! Authorities and the certificates that they make.

use agent_core::x509pin::{Leaf, Pin, Refused, ServerName, ca_pin, verify};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SigningKey as _, date_time_ymd,
};
use sha2::{Digest as _, Sha256};

/// The host that every test dials.
pub(crate) const HOST: &str = "broker.example.net";
/// 2026-07-01, when the certificates of this file are valid.
pub(crate) const NOW: i64 = 1_782_864_000;
pub(crate) const KINDS: [Kind; 2] = [Kind::Ed25519, Kind::P256];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ed25519,
    P256,
}

impl Kind {
    fn algorithm(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Kind::Ed25519 => &rcgen::PKCS_ED25519,
            Kind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }

    pub(crate) fn key(self) -> KeyPair {
        KeyPair::generate_for(self.algorithm()).unwrap()
    }

    /// The number of its signatures in TLS 1.3.
    pub(crate) fn scheme(self) -> u16 {
        match self {
            Kind::Ed25519 => 0x0807,
            Kind::P256 => 0x0403,
        }
    }
}

/// An authority with its certificate.
pub(crate) struct Authority {
    pub(crate) kind: Kind,
    params: CertificateParams,
    pub(crate) key: KeyPair,
    pub(crate) der: Vec<u8>,
}

/// A server's certificate with its key.
pub(crate) struct Server {
    pub(crate) key: KeyPair,
    pub(crate) der: Vec<u8>,
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What an ordinary server's certificate says.
pub(crate) fn server() -> CertificateParams {
    let mut params = named(HOST);
    params.subject_alt_names = vec![dns(HOST)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// An extension by its number; `content` is DER.
pub(crate) fn extension(oid: &[u64], critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

impl Authority {
    pub(crate) fn root(kind: Kind, name: &str) -> Authority {
        let (params, key) = (authority(name), kind.key());
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Authority { kind, params, key, der }
    }

    /// An authority that this one vouches for.
    pub(crate) fn below(&self, kind: Kind, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = authority("below");
        change(&mut params);
        let key = kind.key();
        let der = self.sign(&params, &key);
        Authority { kind, params, key, der }
    }

    pub(crate) fn server(&self, kind: Kind, change: impl FnOnce(&mut CertificateParams)) -> Server {
        let mut params = server();
        change(&mut params);
        let key = kind.key();
        Server { der: self.sign(&params, &key), key }
    }

    /// A certificate for this key.
    pub(crate) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(key, &issuer).unwrap().der().to_vec()
    }

    /// A certificate that says this, whatever it is.
    pub(crate) fn sign_bytes(&self, signed: &[u8]) -> Vec<u8> {
        let algorithm: &[u8] = match self.kind {
            Kind::Ed25519 => &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70],
            Kind::P256 => &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
        };
        let signature = [&[0][..], &self.key.sign(signed).unwrap()].concat();
        element(0x30, &[signed, algorithm, &element(3, &signature)].concat())
    }

    pub(crate) fn pin(&self) -> Pin {
        ca_pin(&self.der).unwrap()
    }
}

/// One element of DER.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let head = match content.len() {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content.to_vec()].concat()
}

/// What is signed of a certificate longer than 255 bytes, with its tag and length.
pub(crate) fn signed_part(der: &[u8]) -> &[u8] {
    let rest = &der[4..];
    assert_eq!(rest[..2], [0x30, 0x82], "a certificate of an unexpected size");
    &rest[..4 + usize::from(u16::from_be_bytes([rest[2], rest[3]]))]
}

/// The pin of a server's own key.
pub(crate) fn leaf_pin(key: &KeyPair) -> Pin {
    Pin::LeafSha256(Sha256::digest(key.subject_public_key_info()).into())
}

/// The verdict with a clock.
pub(crate) fn judge(leaf: &[u8], above: Option<&Authority>, pins: &[Pin]) -> Result<Leaf, Refused> {
    verify(leaf, above.map(|above| above.der.as_slice()), pins, ServerName::Dns(HOST), Some(NOW))
}
