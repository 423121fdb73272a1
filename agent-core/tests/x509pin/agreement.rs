//! The same verdict as rustls-webpki wherever the rules are the same. Ours know two more: keyUsage, and no name constraints.

use std::sync::OnceLock;
use std::time::Duration;

use agent_core::x509pin::{Refused, ServerName, verify};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, SanType, date_time_ymd};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::authority::{Authority, HOST, KINDS, Kind, NOW, dns, extension, server};

/// Authorities that all have the same name: two of each kind.
fn roots() -> &'static [Authority; 4] {
    static ROOTS: OnceLock<[Authority; 4]> = OnceLock::new();
    ROOTS.get_or_init(|| {
        [Kind::Ed25519, Kind::Ed25519, Kind::P256, Kind::P256].map(|kind| Authority::root(kind, "root"))
    })
}

fn by_webpki(leaf: &[u8], above: Option<&[u8]>, root: &Authority, name: ServerName<'_>) -> bool {
    let root = CertificateDer::from(root.der.as_slice());
    let anchors = [anchor_from_trusted_cert(&root).unwrap()];
    let above: Vec<CertificateDer<'_>> = above.map(CertificateDer::from).into_iter().collect();
    let leaf = CertificateDer::from(leaf);
    let Ok(leaf) = EndEntityCert::try_from(&leaf) else { return false };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.unsigned_abs()));
    let algorithms: [&dyn rustls_pki_types::SignatureVerificationAlgorithm; 2] =
        [webpki::ring::ED25519, webpki::ring::ECDSA_P256_SHA256];
    let name = match name {
        ServerName::Dns(name) => rustls_pki_types::ServerName::try_from(name).unwrap(),
        ServerName::Ip(octets) => rustls_pki_types::ServerName::from(std::net::IpAddr::from(octets)),
    };
    let usage = KeyUsage::server_auth();
    leaf.verify_for_usage(&algorithms, &anchors, &above, now, usage, None, None).is_ok()
        && leaf.verify_is_valid_for_subject_name(&name).is_ok()
}

/// What may be unusual about a certificate; most of the time nothing is.
fn unusual() -> impl Strategy<Value = Vec<fn(&mut CertificateParams)>> {
    let changes: Vec<fn(&mut CertificateParams)> = vec![
        |params| params.is_ca = IsCa::NoCa,
        |params| params.is_ca = IsCa::ExplicitNoCa,
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
        |params| params.extended_key_usages.clear(),
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
        |params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning),
        |params| params.not_after = date_time_ymd(2026, 6, 1),
        |params| params.not_before = date_time_ymd(2026, 8, 1),
        |params| params.not_after = date_time_ymd(4096, 2, 29),
        |params| params.not_after = date_time_ymd(2026, 7, 1),
        |params| params.custom_extensions.push(extension(&[1, 2, 3, 4], true, &[5, 0])),
        |params| params.custom_extensions.push(extension(&[2, 5, 29, 32], false, &[0x30, 0])),
        |params| params.custom_extensions.push(extension(&[2, 5, 29, 19], true, &[0x30, 3, 1, 1, 0xff])),
        |params| params.custom_extensions.push(extension(&[2, 5, 29, 19], true, &[0x30, 1, 0])),
        |params| params.subject_alt_names.clear(),
        |params| params.subject_alt_names = vec![dns("*.example.net"), dns("x")],
        |params| params.subject_alt_names = vec![dns("*.net"), dns("b*.example.net"), dns("*")],
        |params| params.subject_alt_names.insert(0, dns("BROKER.other.example.NET")),
        |params| params.subject_alt_names.push(SanType::IpAddress([192, 0, 2, 7].into())),
        |params| params.subject_alt_names.push(SanType::Rfc822Name("a@b".try_into().unwrap())),
        |params| params.subject_alt_names.push(dns("a.broker.example.net")),
    ];
    prop_oneof![2 => Just(Vec::new()), 3 => proptest::collection::vec(select(changes), 1..3)]
}

fn judge_both(
    leaf: &[u8],
    above: Option<&[u8]>,
    root: &Authority,
    name: ServerName<'_>,
) -> (Result<(), Refused>, bool) {
    let ours = verify(leaf, above, &[root.pin()], name, Some(NOW)).map(|_| ());
    (ours, by_webpki(leaf, above, root, name))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_verdict_of_webpki(
        (pinned, signer) in (any::<Index>(), prop_oneof![4 => Just(None), 1 => any::<Index>().prop_map(Some)]),
        (kind, between) in (select(&KINDS), proptest::option::of(select(&KINDS))),
        (changes, changes_above) in (unusual(), unusual()),
        (shown, swapped) in (prop::bool::weighted(0.9), prop::bool::weighted(0.1)),
        name in prop_oneof![
            6 => Just(ServerName::Dns(HOST)),
            1 => Just(ServerName::Dns("BROKER.other.example.net")),
            1 => Just(ServerName::Dns("x")),
            1 => Just(ServerName::Ip([192, 0, 2, 7])),
        ],
    ) {
        let pinned = pinned.get(roots());
        let signer = signer.map_or(pinned, |signer| signer.get(roots()));
        let change = |params: &mut CertificateParams, changes: &[fn(&mut CertificateParams)]| {
            changes.iter().for_each(|change| change(params));
        };
        let above = between.map(|between| signer.below(between, |params| change(params, &changes_above)));
        let leaf = above.as_ref().unwrap_or(signer).server(kind, |params| change(params, &changes));
        let other = swapped.then(|| signer.below(kind, |_| {}));
        let shown_above = other.as_ref().or(above.as_ref()).filter(|_| shown).map(|above| above.der.as_slice());
        let (ours, theirs) = judge_both(&leaf.der, shown_above, pinned, name);
        // keyUsage, which webpki does not read, is always as it should be here.
        prop_assert_eq!(ours.is_ok(), theirs, "{:?}", ours);
    }

    #[test]
    fn names_as_webpki_reads_them(
        wanted in "(a|b|_b-|0)(\\.c|)\\.(example\\.|xn--A\\.|)(net|1)",
        other in "(\\*|a|A|b|_b-|a\\*|\\*a|0|)(\\.c|\\.\\*|)\\.(example|EXAMPLE|xn--a)\\.(net|1)(\\.|)",
        how in 0..4,
    ) {
        prop_assume!(rustls_pki_types::DnsName::try_from(wanted.as_str()).is_ok());
        let (_, parent) = wanted.split_once('.').unwrap();
        let presented = match how {
            0 => wanted.to_ascii_uppercase(),
            1 => format!("*.{parent}"),
            2 => format!("{}{wanted}", &other[..1]),
            _ => other,
        };
        let root = &roots()[0];
        let mut params = server();
        params.subject_alt_names = vec![dns(&presented)];
        let leaf = root.sign(&params, &root.key);
        let (ours, theirs) = judge_both(&leaf, None, root, ServerName::Dns(&wanted));
        prop_assert_eq!(ours.is_ok(), theirs, "{} {} {:?}", presented, wanted, ours);
    }
}
