//! Certificates on the device: whom it takes for its broker.

use anyhow::{Context as _, Result};
use choria_conformance::{Kind, NEVER};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _,
    SigningKey as _, date_time_ymd,
};
use sha2::{Digest as _, Sha256};

use crate::bench::{Case, Cases};

const HOST: &str = "broker.example.net";
/// 2026-07-01, when the certificates of this file are valid.
const NOW: i64 = 1_782_864_000;

/// What is unusual about a certificate.
type Change = fn(&mut CertificateParams);

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params
}

fn server() -> Result<CertificateParams> {
    let mut params = named(HOST);
    params.subject_alt_names = vec![rcgen::SanType::DnsName(HOST.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

impl Authority {
    fn root(algorithm: &'static rcgen::SignatureAlgorithm) -> Result<Authority> {
        let mut params = named("root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate_for(algorithm)?;
        let der = params.self_signed(&key)?.der().to_vec();
        Ok(Authority { params, key, der })
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Result<Vec<u8>> {
        Ok(params.signed_by(key, &Issuer::from_params(&self.params, &self.key))?.der().to_vec())
    }

    fn below(&self, algorithm: &'static rcgen::SignatureAlgorithm) -> Result<Authority> {
        let mut params = named("below");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate_for(algorithm)?;
        let der = self.sign(&params, &key)?;
        Ok(Authority { params, key, der })
    }

    /// Kind and key of its pin.
    fn pin(&self) -> Result<(&'static str, Vec<u8>)> {
        use agent_core::x509pin::{Pin, ca_pin};
        match ca_pin(&self.der) {
            Ok(Pin::CaEd25519(key)) => Ok(("ed25519", key.to_vec())),
            Ok(Pin::CaP256(key)) => Ok(("p256", key.to_vec())),
            other => anyhow::bail!("no pin: {other:?}"),
        }
    }
}

fn shown(kind: Kind, leaf: &[u8], above: &[u8], pins: &[(&str, Vec<u8>)], host: &str, now: i64) -> Case {
    let case = Case::new(kind).bytes(leaf).bytes(above).number(i64::try_from(pins.len()).unwrap());
    let case = pins.iter().fold(case, |case, (kind, key)| case.bytes(kind).bytes(key));
    case.bytes("dns").bytes(host).number(now)
}

#[test]
fn who_a_device_takes_for_its_broker() -> Result<()> {
    let mut cases = Cases::default();
    for root in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256] {
        let (authority, foreign) = (Authority::root(root)?, Authority::root(root)?);
        let pins = [authority.pin()?];
        for leaf in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256] {
            let key = KeyPair::generate_for(leaf)?;
            let mut add = |name: &str, der: &[u8], above: &[u8], now: i64, line: &str| {
                cases.begins(name, shown(Kind::Certificate, der, above, &pins, HOST, now), line);
            };
            let der = authority.sign(&server()?, &key)?;
            add("ours", &der, &[], NOW, "ok time_unverified=false");
            add("without a clock", &der, &[], NEVER, "ok time_unverified=true");
            add("early", &der, &[], 1_767_000_000, "refused certificate_early");
            add("late", &der, &[], 1_830_000_000, "refused certificate_expired");
            add("a foreign one", &foreign.sign(&server()?, &key)?, &[], NOW, "refused certificate_signature");
            let below = authority.below(leaf)?;
            let through = below.sign(&server()?, &key)?;
            add("through one below", &through, &below.der, NOW, "ok ");
            let through_foreign = foreign.below(leaf)?;
            let der_foreign = through_foreign.sign(&server()?, &key)?;
            add("through a foreign one", &der_foreign, &through_foreign.der, NOW, "refused certificate_");
            let changes: [(&str, Change); 4] = [
                ("certificate_purpose", |p| {
                    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]
                }),
                ("certificate_constraints", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
                ("certificate_name", |p| p.subject_alt_names.clear()),
                ("certificate_critical_extension", |p| {
                    let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
                    unknown.set_criticality(true);
                    p.custom_extensions.push(unknown);
                }),
            ];
            for (reason, change) in changes {
                let mut params = server()?;
                change(&mut params);
                add(reason, &authority.sign(&params, &key)?, &[], NOW, &format!("refused {reason}"));
            }
            for cut in [0, 1, der.len() / 2, der.len() - 1] {
                add("cut", der.get(..cut).context("short")?, &[], NOW, "refused certificate_malformed");
            }
            let own = Sha256::digest(key.subject_public_key_info());
            let pinned = [("leaf", own.to_vec())];
            cases.begins("its own key", shown(Kind::Certificate, &der, &[], &pinned, HOST, NOW), "ok ");
            let other = shown(Kind::Certificate, &der, &[], &pinned, "other.example.net", NOW);
            cases.begins("elsewhere", other, "refused certificate_name");

            let scheme = if *leaf == PKCS_ED25519 { 0x0807 } else { 0x0403 };
            let content = |context: &[u8]| [&[0x20; 64], context, &[7; 32][..]].concat();
            let good = key.sign(&content(b"TLS 1.3, server CertificateVerify\0"))?;
            let client = key.sign(&content(b"TLS 1.3, client CertificateVerify\0"))?;
            let mut prove = |name: &str, scheme: i64, signature: &[u8], line: &str| {
                let case = shown(Kind::Proof, &der, &[], &pins, HOST, NOW);
                cases.begins(name, case.number(scheme).bytes(signature).bytes([7; 32]), line);
            };
            prove("its handshake", scheme, &good, "ok");
            prove("a client's", scheme, &client, "refused certificate_signature");
            prove("another scheme", 0x0401, &good, "refused certificate_algorithm");
            prove("none", scheme, &[], "refused certificate_signature");
        }
    }
    cases.hold().map(drop)
}
