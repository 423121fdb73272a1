//! Which certificates a pin vouches for, and which it does not.

use agent_core::x509pin::{Pin, Refused, ServerName, ca_pin, verify};
use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::authority::{Authority, HOST, KINDS, Kind, NOW, dns, extension, judge, leaf_pin, server};

#[test]
fn every_chain_of_the_two_algorithms_is_accepted() {
    for root in KINDS {
        let authority = Authority::root(root, "root");
        for leaf in KINDS {
            assert!(judge(&authority.server(leaf, |_| {}).der, None, &[authority.pin()]).is_ok());
            for between in KINDS {
                let above = authority.below(between, |_| {});
                let server = above.server(leaf, |_| {});
                assert!(judge(&server.der, Some(&above), &[authority.pin()]).is_ok());
                assert!(judge(&server.der, None, &[authority.pin()]).is_err());
            }
        }
    }
}

#[test]
fn what_a_certificate_need_not_say() {
    let authority = Authority::root(Kind::Ed25519, "root");
    let server = authority.server(Kind::Ed25519, |params| {
        params.key_usages.clear();
        params.extended_key_usages.clear();
        params.is_ca = IsCa::ExplicitNoCa;
        params.custom_extensions.push(extension(&[1, 3, 6, 1, 4, 1, 99_999, 1], false, &[5, 0]));
    });
    // An authority that comes along and is not needed may be anything.
    for above in [None, Some(&b"garbage"[..]), Some(&authority.der)] {
        assert!(verify(&server.der, above, &[authority.pin()], ServerName::Dns(HOST), Some(NOW)).is_ok());
    }
    let below = authority.below(Kind::P256, |params| {
        params.key_usages.clear();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    assert!(judge(&below.server(Kind::P256, |_| {}).der, Some(&below), &[authority.pin()]).is_ok());
}

#[test]
fn several_pins_any_of_them() {
    let (old, new) = (Authority::root(Kind::P256, "old"), Authority::root(Kind::Ed25519, "new"));
    let server = new.server(Kind::P256, |_| {});
    assert!(judge(&server.der, None, &[old.pin(), new.pin()]).is_ok());
    assert!(judge(&server.der, None, &[old.pin(), leaf_pin(&server.key)]).is_ok());
    assert_eq!(judge(&server.der, None, &[]), Err(Refused::NotPinned));
    // The pin of the right kind says why, in either order.
    let foreign = Authority::root(Kind::Ed25519, "new");
    for pins in [[old.pin(), foreign.pin()], [foreign.pin(), old.pin()]] {
        assert_eq!(judge(&server.der, None, &pins), Err(Refused::Signature));
    }
}

#[test]
fn a_pinned_key_needs_no_authority() {
    // P-384, which we cannot verify, vouches for it: nobody asks.
    let foreign = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    for kind in KINDS {
        let key = kind.key();
        let own = server().self_signed(&key).unwrap().der().to_vec();
        let params = server();
        let other = params.signed_by(&key, &rcgen::Issuer::from_params(&server(), &foreign)).unwrap();
        for der in [own.as_slice(), other.der()] {
            assert!(judge(der, None, &[leaf_pin(&key)]).is_ok());
            assert_eq!(judge(der, None, &[leaf_pin(&kind.key())]), judge(der, None, &[]));
            // All else is still looked at.
            let elsewhere = ServerName::Dns("other.example.net");
            assert_eq!(verify(der, None, &[leaf_pin(&key)], elsewhere, Some(NOW)), Err(Refused::Name));
        }
        let authority = Authority::root(kind, "root");
        assert_eq!(judge(other.der(), None, &[authority.pin()]), Err(Refused::Algorithm));
        // The hash of an authority's key pins a server, not what the authority signs.
        let below = authority.below(kind, |_| {});
        let server = below.server(kind, |_| {});
        assert_eq!(judge(&server.der, Some(&below), &[leaf_pin(&below.key)]), Err(Refused::NotPinned));
    }
}

#[test]
fn a_foreign_authority_vouches_for_nothing() {
    for pinned in KINDS {
        let authority = Authority::root(pinned, "root");
        for foreign in KINDS {
            // Of the same name: a name is no proof.
            let foreign = Authority::root(foreign, "root");
            let expected = if foreign.kind == pinned { Refused::Signature } else { Refused::NotPinned };
            for leaf in KINDS {
                let server = foreign.server(leaf, |_| {});
                assert_eq!(judge(&server.der, None, &[authority.pin()]), Err(expected));
                let below = foreign.below(leaf, |_| {});
                let server = below.server(leaf, |_| {});
                assert_eq!(judge(&server.der, Some(&below), &[authority.pin()]), Err(expected));
                // Ours as the one between: it did not sign it.
                let ours = authority.below(foreign.kind, |_| {});
                let refused = judge(&server.der, Some(&ours), &[authority.pin()]).err().unwrap();
                assert!(matches!(refused, Refused::Signature | Refused::NotPinned), "{refused:?}");
            }
        }
    }
}

#[test]
fn names() {
    let authority = Authority::root(Kind::Ed25519, "root");
    let judge = |names: Vec<SanType>, wanted: ServerName<'_>| {
        let server = authority.server(Kind::Ed25519, |params| params.subject_alt_names = names);
        verify(&server.der, None, &[authority.pin()], wanted, Some(NOW)).map(|_| ())
    };
    let host = ServerName::Dns(HOST);
    let address = ServerName::Ip([192, 0, 2, 7]);
    let ip = SanType::IpAddress([192, 0, 2, 7].into());
    assert_eq!(judge(vec![dns("x.example.org"), dns("Broker.Example.NET")], host), Ok(()));
    assert_eq!(judge(vec![dns("*.example.net")], host), Ok(()));
    assert_eq!(judge(vec![dns("other"), ip.clone()], address), Ok(()));
    // The common name is the host's, and does not count.
    for names in [
        vec![],
        vec![dns("example.net"), dns("*.net"), dns("*.broker.example.net"), dns("b*.example.net")],
        vec![SanType::Rfc822Name(HOST.try_into().unwrap()), SanType::URI(HOST.try_into().unwrap())],
        vec![ip],
    ] {
        assert_eq!(judge(names, host), Err(Refused::Name));
    }
    for names in [
        vec![dns("192.0.2.7")],
        vec![SanType::IpAddress([192, 0, 2, 8].into())],
        vec![SanType::IpAddress("::ffff:192.0.2.7".parse().unwrap())],
    ] {
        assert_eq!(judge(names.clone(), address), Err(Refused::Name));
        assert_eq!(judge(names, ServerName::Dns("192.0.2.7")), Err(Refused::Name));
    }
}

#[test]
fn t_292_another_host_and_a_certificate_out_of_its_time() {
    for kind in KINDS {
        let authority = Authority::root(kind, "root");
        let pins = [authority.pin()];
        let server = authority.server(kind, |_| {});
        let at = |name: &str, now| verify(&server.der, None, &pins, ServerName::Dns(name), now);
        assert!(at(HOST, Some(NOW)).is_ok_and(|leaf| !leaf.time_unverified));
        assert_eq!(at("other.example.net", Some(NOW)), Err(Refused::Name));
        assert_eq!(at("other.example.net", None), Err(Refused::Name));
        // To the second: from 2026-01-01 to 2027-01-01.
        let (from, until) = (1_767_225_600, 1_798_761_600);
        assert_eq!(at(HOST, Some(from - 1)), Err(Refused::NotYetValid));
        assert!(at(HOST, Some(from)).is_ok() && at(HOST, Some(until)).is_ok());
        assert_eq!(at(HOST, Some(until + 1)), Err(Refused::Expired));
        assert_eq!(at(HOST, Some(i64::MAX)), Err(Refused::Expired));
        assert_eq!(at(HOST, Some(i64::MIN)), Err(Refused::NotYetValid));
        assert!(at(HOST, None).is_ok_and(|leaf| leaf.time_unverified));
        let expired = authority.server(kind, |params| params.not_after = date_time_ymd(2026, 2, 1));
        assert_eq!(judge(&expired.der, None, &pins), Err(Refused::Expired));
        assert_eq!(judge(&expired.der, None, &[leaf_pin(&expired.key)]), Err(Refused::Expired));
        let below = authority.below(kind, |params| params.not_after = date_time_ymd(2026, 2, 1));
        assert_eq!(judge(&below.server(kind, |_| {}).der, Some(&below), &pins), Err(Refused::Expired));
    }
    choria_rows::row(
        292,
        "the device's verifier, by a CA pin and by a leaf pin, Ed25519 and P-256: another host; leaf or intermediate expired",
        "certificate_name, certificate_expired, certificate_early; without a clock accepted and time_unverified",
    );
}

#[test]
fn t_293_only_an_authority_vouches() {
    for kind in KINDS {
        let authority = Authority::root(kind, "root");
        let pins = [authority.pin()];
        // A server's certificate, which says so or says nothing, signs another.
        for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
            let liar = authority.below(kind, |params| params.is_ca = is_ca);
            assert_eq!(judge(&liar.server(kind, |_| {}).der, Some(&liar), &pins), Err(Refused::Constraints));
            assert_eq!(ca_pin(&liar.der), Err(Refused::Constraints));
        }
        let liar =
            authority.below(kind, |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
        assert_eq!(judge(&liar.server(kind, |_| {}).der, Some(&liar), &pins), Err(Refused::Constraints));
        let clients = authority
            .below(kind, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        assert_eq!(judge(&clients.server(kind, |_| {}).der, Some(&clients), &pins), Err(Refused::Purpose));
        // An authority is no server, pinned or not.
        let both = authority.server(kind, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(judge(&both.der, None, &pins), Err(Refused::Constraints));
        assert_eq!(judge(&both.der, None, &[leaf_pin(&both.key)]), Err(Refused::Constraints));
        // Two authorities are one too many.
        let first = authority.below(kind, |_| {});
        let second = first.below(kind, |_| {});
        let refused = judge(&second.server(kind, |_| {}).der, Some(&second), &pins);
        assert_eq!(refused, Err(Refused::Signature));
        // The right key under another name.
        let above = authority.below(kind, |_| {});
        let server = above.server(kind, |_| {});
        let renamed = authority.sign(&named_authority("renamed"), &above.key);
        let judged = verify(&server.der, Some(&renamed), &pins, ServerName::Dns(HOST), Some(NOW));
        assert_eq!(judged, Err(Refused::NotPinned));
    }
    choria_rows::row(
        293,
        "the device's verifier: leaf of the CA (no basicConstraints; CA=false; no keyCertSign; clientAuth only) signs another leaf; CA=true leaf; two intermediates",
        "certificate_constraints, certificate_purpose, certificate_signature",
    );
}

fn named_authority(name: &str) -> rcgen::CertificateParams {
    let mut params = server();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

#[test]
fn purposes() {
    let authority = Authority::root(Kind::P256, "root");
    let pins = [authority.pin()];
    let with = |purposes: Vec<ExtendedKeyUsagePurpose>| {
        let server = authority.server(Kind::P256, |params| params.extended_key_usages = purposes);
        judge(&server.der, None, &pins).map(|_| ())
    };
    assert_eq!(with(vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]), Ok(()));
    assert_eq!(with(vec![ExtendedKeyUsagePurpose::ClientAuth]), Err(Refused::Purpose));
    assert_eq!(with(vec![ExtendedKeyUsagePurpose::Any]), Err(Refused::Purpose));
    let agree =
        authority.server(Kind::P256, |params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
    assert_eq!(judge(&agree.der, None, &pins), Err(Refused::Purpose));
}

#[test]
fn pins_of_authorities() {
    let (ed25519, p256) = (Authority::root(Kind::Ed25519, "a"), Authority::root(Kind::P256, "b"));
    assert!(matches!(ed25519.pin(), Pin::CaEd25519(key) if key == ed25519.key.public_key_raw()));
    assert!(matches!(p256.pin(), Pin::CaP256(key) if key == p256.key.public_key_raw()));
    assert_eq!(ca_pin(&ed25519.server(Kind::Ed25519, |_| {}).der), Err(Refused::Constraints));
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let other = named_authority("P-384").self_signed(&key).unwrap();
    assert_eq!(ca_pin(other.der()), Err(Refused::Algorithm));
    assert_eq!(ca_pin(b""), Err(Refused::Malformed));
    // A pin is a key alone: what limits an authority's names would be lost.
    let limited = ed25519.below(Kind::Ed25519, |params| {
        params.custom_extensions.push(extension(&[2, 5, 29, 30], false, &[0x30, 0]));
    });
    assert_eq!(ca_pin(&limited.der), Err(Refused::CriticalExtension));
}

#[test]
fn reasons_are_words_and_distinct() {
    let all = [
        Refused::Malformed,
        Refused::Algorithm,
        Refused::NotPinned,
        Refused::Signature,
        Refused::Name,
        Refused::Purpose,
        Refused::Constraints,
        Refused::CriticalExtension,
        Refused::NotYetValid,
        Refused::Expired,
    ];
    let mut words: Vec<&str> = all.iter().map(|refused| refused.reason()).collect();
    assert!(words.iter().all(|word| word.starts_with("certificate_")));
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), all.len());
}
