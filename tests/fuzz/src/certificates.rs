//! Certificates held to pins, against rustls-webpki. What is signed comes from the input and is signed here, so that the
//! search gets behind the signature.

use std::net::IpAddr;
use std::time::Duration;

use agent_core::x509pin::{Leaf, Pin, Refused, ServerName, ca_pin, verify};
use ed25519_dalek::Signer as _;
use p256::ecdsa::DerSignature;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::{EndEntityCert, KeyUsage};

use crate::Target;
use crate::pieces::Script;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "x509_pin",
    oracle: "accepted = accepted by webpki too, with and without a clock, and never with a changed bit",
    run,
    seeds,
    words: &[
        "U\u{1d}\u{f}",
        "U\u{1d}\u{11}",
        "U\u{1d}\u{13}",
        "U\u{1d}\u{1e}",
        "U\u{1d}%",
        "0\u{3}\u{2}\u{1}\u{1}",
        "*.example.net",
        HOST,
        "20260630235959Z",
        "260701000000Z",
    ],
    longest: 2048,
}];

const HOST: &str = "broker.example.net";
const ADDRESS: [u8; 4] = [192, 0, 2, 7];
/// 2026-07-01
const NOW: i64 = 1_782_864_000;

// The first byte of an input.
const ROOT_IS_P256: u8 = 1;
const HAS_ABOVE: u8 = 2;
const ABOVE_IS_P256: u8 = 4;
const BY_ADDRESS: u8 = 8;
/// Certificates as they are, not only what is signed of them.
const RAW: u8 = 16;

/// A key that is the same in every run.
struct Signer {
    key: Key,
    public: Vec<u8>,
}

enum Key {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl Signer {
    fn new(p256: bool, seed: u8) -> Signer {
        if p256 {
            let key = p256::ecdsa::SigningKey::from_bytes(&[seed; 32].into()).expect("a scalar of the curve");
            let public = key.verifying_key().to_encoded_point(false).as_bytes().to_vec();
            Signer { key: Key::P256(key), public }
        } else {
            let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
            let public = key.verifying_key().as_bytes().to_vec();
            Signer { key: Key::Ed25519(key), public }
        }
    }

    fn pin(&self) -> Pin {
        match self.key {
            Key::Ed25519(_) => Pin::CaEd25519(self.public.as_slice().try_into().expect("32 bytes")),
            Key::P256(_) => Pin::CaP256(self.public.as_slice().try_into().expect("65 bytes")),
        }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        match &self.key {
            Key::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Key::P256(key) => {
                let signature: DerSignature = p256::ecdsa::signature::Signer::sign(key, message);
                signature.as_bytes().to_vec()
            }
        }
    }

    /// A certificate that says this, whatever it is.
    fn certify(&self, signed: &[u8]) -> Vec<u8> {
        let algorithm: &[u8] = match self.key {
            Key::Ed25519(_) => &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70],
            Key::P256(_) => &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
        };
        let signature = [&[0][..], &self.signature(signed)].concat();
        element(0x30, &[signed, algorithm, &element(3, &signature)].concat())
    }
}

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.key {
            Key::Ed25519(_) => &rcgen::PKCS_ED25519,
            Key::P256(_) => &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.signature(message))
    }
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let head = match content.len() {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content.to_vec()].concat()
}

fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let flags = script.byte();
    let is = |flag: u8| flags & flag != 0;
    let len = usize::from(u16::from_be_bytes([script.byte(), script.byte()]));
    let rest = script.rest();
    let (first, second) = rest.split_at(len.min(rest.len()));
    let root = Signer::new(is(ROOT_IS_P256), 1);
    let between = Signer::new(is(ABOVE_IS_P256), 2);
    let certify = |by: &Signer, part: &[u8]| if is(RAW) { part.to_vec() } else { by.certify(part) };
    let leaf = certify(if is(HAS_ABOVE) { &between } else { &root }, first);
    let above = is(HAS_ABOVE).then(|| certify(&root, second));
    let name = if is(BY_ADDRESS) { ServerName::Ip(ADDRESS) } else { ServerName::Dns(HOST) };
    let judge = |leaf: &[u8], above: Option<&[u8]>, pin: Pin, now| verify(leaf, above, &[pin], name, now);

    let accepted = judge(&leaf, above.as_deref(), root.pin(), Some(NOW));
    match (accepted, judge(&leaf, above.as_deref(), root.pin(), None)) {
        (Ok(timed), Ok(untimed)) => assert!(!timed.time_unverified && untimed.time_unverified),
        (Ok(_), Err(refused)) => panic!("refused only without a clock: {refused:?}"),
        (Err(Refused::NotYetValid | Refused::Expired), Ok(_)) => {}
        (Err(refused), Ok(_)) => panic!("accepted only without a clock: {refused:?}"),
        (Err(_), Err(_)) => {}
    }
    for foreign in [Signer::new(false, 3), Signer::new(true, 3)] {
        let judged = judge(&leaf, above.as_deref(), foreign.pin(), None);
        assert!(judged.is_err(), "a foreign authority vouches");
    }
    if ca_pin(&leaf).is_ok() {
        assert!(accepted.is_err(), "an authority is a server");
    }
    // The authority that it needs.
    let above = above.filter(|_| accepted.is_err() || judge(&leaf, None, root.pin(), Some(NOW)).is_err());
    if let (Some(above), Ok(_)) = (&above, accepted) {
        assert!(judge(above, None, root.pin(), None).is_err(), "a server vouches");
    }
    pinned_itself(&leaf, name, accepted.is_ok());
    let Ok(accepted) = accepted else { return };
    by_webpki(&leaf, above.as_deref(), &root, name);
    holder(&accepted, &leaf);
    // No byte of them may be another.
    let at = input.iter().fold(usize::from(flags), |sum, byte| sum.wrapping_mul(31) ^ usize::from(*byte));
    let mut changed = leaf.clone();
    changed[at % leaf.len()] ^= 1 << (at / leaf.len() % 8);
    assert!(judge(&changed, above.as_deref(), root.pin(), Some(NOW)).is_err(), "a changed leaf");
    assert!(judge(&[&leaf[..], &[0]].concat(), above.as_deref(), root.pin(), Some(NOW)).is_err(), "a tail");
    if let Some(above) = above {
        let mut changed = above.clone();
        changed[at % above.len()] ^= 1 << (at / above.len() % 8);
        assert!(judge(&leaf, Some(&changed), root.pin(), Some(NOW)).is_err(), "a changed authority");
    }
}

fn server_name(name: ServerName<'_>) -> rustls_pki_types::ServerName<'_> {
    match name {
        ServerName::Dns(name) => name.try_into().expect("a host name"),
        ServerName::Ip(octets) => IpAddr::from(octets).into(),
    }
}

/// Extensions that webpki reads and nobody here uses: where one of them is broken, only webpki refuses.
fn beside_the_point(certificate: &[u8]) -> bool {
    let revocation_lists: &[u8] = &[0x55, 0x1d, 0x1f];
    let timestamps: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];
    [revocation_lists, timestamps].iter().any(|id| certificate.windows(id.len()).any(|found| found == *id))
}

/// A pin on the key that the certificate has vouches for no less than an authority does, and for the name.
fn pinned_itself(leaf: &[u8], name: ServerName<'_>, by_authority: bool) {
    if beside_the_point(leaf) {
        return;
    }
    let der = CertificateDer::from(leaf);
    let Ok(read) = EndEntityCert::try_from(&der) else {
        return assert!(verify(leaf, None, &[], name, None).is_err());
    };
    let hash = |bytes: &[u8]| Pin::LeafSha256(Sha256::digest(bytes).into());
    let info = read.subject_public_key_info();
    let pinned = verify(leaf, None, &[hash(&info)], name, Some(NOW));
    assert!(pinned.is_ok() || !by_authority, "an authority allows what the pin of the key does not");
    if pinned.is_ok() {
        assert!(read.verify_is_valid_for_subject_name(&server_name(name)).is_ok(), "a name");
    }
    let other = [&info[..], &[0]].concat();
    assert_eq!(
        verify(leaf, None, &[hash(&other)], name, Some(NOW)),
        verify(leaf, None, &[], name, Some(NOW))
    );
}

/// webpki accepts it too, with an authority of the right key and whatever name the certificate wants it to have.
fn by_webpki(leaf: &[u8], above: Option<&[u8]>, root: &Signer, name: ServerName<'_>) {
    if beside_the_point(leaf) || above.is_some_and(beside_the_point) {
        return;
    }
    let der = CertificateDer::from(leaf);
    let read = EndEntityCert::try_from(&der).expect("webpki reads it");
    let vouched = |above: &[CertificateDer<'_>], subject: &[u8]| {
        // Without its tag and length, which are two bytes for these keys.
        let info = root.subject_public_key_info();
        let anchors = [TrustAnchor {
            subject: subject.into(),
            subject_public_key_info: info[2..].into(),
            name_constraints: None,
        }];
        let algorithms: [&dyn SignatureVerificationAlgorithm; 2] =
            [webpki::ring::ED25519, webpki::ring::ECDSA_P256_SHA256];
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.unsigned_abs()));
        read.verify_for_usage(&algorithms, &anchors, above, now, KeyUsage::server_auth(), None, None)
            .map(|_| ())
    };
    let mut judged = vouched(&[], read.issuer());
    if let (Err(_), Some(above)) = (&judged, above) {
        let above = CertificateDer::from(above);
        let issuer = EndEntityCert::try_from(&above).expect("webpki reads it");
        if issuer.subject_public_key_info() == read.subject_public_key_info() {
            // It takes a server with its authority's key for a loop.
            return;
        }
        judged = vouched(std::slice::from_ref(&above), issuer.issuer());
    }
    assert_eq!(judged, Ok(()));
    assert!(read.verify_is_valid_for_subject_name(&server_name(name)).is_ok(), "a name");
}

/// Only the key of the certificate proves that a server holds it.
fn holder(leaf: &Leaf, der: &[u8]) {
    let hash = Sha256::digest(der);
    let message = [&[0x20; 64][..], b"TLS 1.3, server CertificateVerify\0", &hash].concat();
    for (p256, seed) in [(false, 4), (true, 4), (false, 2), (true, 2)] {
        let signer = Signer::new(p256, seed);
        let its = der.windows(signer.public.len()).any(|found| found == signer.public);
        let signature = signer.signature(&message);
        let schemes = [0x0807, 0x0403];
        let proved = schemes.map(|scheme| leaf.verify_certificate_verify(scheme, &signature, &hash).is_ok());
        assert!(its || proved == [false, false], "a foreign key proves");
        assert!(!proved[usize::from(!p256)], "by the scheme of another kind");
    }
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
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn seeds() -> Vec<Vec<u8>> {
    let changes: [fn(&mut CertificateParams); 7] = [
        |_| {},
        |params| params.not_after = date_time_ymd(2050, 2, 28),
        |params| params.not_after = date_time_ymd(2026, 2, 1),
        |params| params.is_ca = IsCa::ExplicitNoCa,
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        |params| {
            params.subject_alt_names = vec![SanType::DnsName("*.example.net".try_into().expect("a name"))]
        },
        |params| {
            let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            unknown.set_criticality(true);
            params.custom_extensions.push(unknown);
        },
    ];
    let mut seeds = Vec::new();
    for (number, change) in (0_u8..).zip(changes.iter().cycle().take(32)) {
        let flags = number & (ROOT_IS_P256 | HAS_ABOVE | ABOVE_IS_P256 | BY_ADDRESS | RAW);
        let (root, between) =
            (Signer::new(flags & ROOT_IS_P256 != 0, 1), Signer::new(flags & ABOVE_IS_P256 != 0, 2));
        let key = Signer::new(number.is_multiple_of(3), 4);
        let (root_params, between_params) = (authority("root"), authority("between"));
        let root = Issuer::from_params(&root_params, &root);
        let mut params = named(HOST);
        params.subject_alt_names = vec![
            SanType::DnsName(HOST.try_into().expect("a name")),
            SanType::IpAddress(IpAddr::from(ADDRESS)),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let mut parts = Vec::new();
        if flags & HAS_ABOVE == 0 {
            parts.push(params.signed_by(&key, &root).expect("a certificate"));
        } else {
            parts.push(
                params
                    .signed_by(&key, &Issuer::from_params(&between_params, &between))
                    .expect("a certificate"),
            );
            parts.push(between_params.signed_by(&between, &root).expect("a certificate"));
        }
        let parts: Vec<&[u8]> = parts
            .iter()
            .map(|part| if flags & RAW == 0 { signed_part(part.der()) } else { part.der() })
            .collect();
        let len = u16::try_from(parts[0].len()).expect("a short certificate").to_be_bytes();
        seeds.push([&[flags][..], &len, &parts.concat()].concat());
    }
    seeds
}

/// What is signed of a certificate.
fn signed_part(der: &[u8]) -> &[u8] {
    let (_, content) = split(der);
    &content[..split(content).0]
}

/// The length of the first element, and its content.
fn split(der: &[u8]) -> (usize, &[u8]) {
    let (head, len) = match der[1] {
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        short => (2, usize::from(short)),
    };
    (head + len, &der[head..head + len])
}
