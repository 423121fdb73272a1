//! Certificates made to break a reader.

use std::thread;

use agent_core::x509pin::{Pin, Refused, ServerName, ca_pin, verify};

use crate::authority::{
    Authority, HOST, KINDS, Kind, NOW, dns, element, extension, judge, leaf_pin, server, signed_part,
};

#[test]
fn t_294_another_algorithm_and_unknown_critical_extensions() {
    // The certificate that kills embedded-tls' own verifier: an Ed25519 signature against a P-256 pin.
    let p256 = Authority::root(Kind::P256, "root");
    let key = Kind::Ed25519.key();
    let made = server().self_signed(&key).unwrap();
    assert_eq!(judge(made.der(), None, &[p256.pin()]), Err(Refused::NotPinned));
    let foreign = Authority::root(Kind::Ed25519, "root");
    for leaf in KINDS {
        assert_eq!(judge(&foreign.server(leaf, |_| {}).der, None, &[p256.pin()]), Err(Refused::NotPinned));
    }
    // Pins that are no points, and one of small order.
    for pin in
        [Pin::CaP256([4; 65]), Pin::CaP256([0; 65]), Pin::CaEd25519([0xff; 32]), Pin::CaEd25519([0; 32])]
    {
        for kind in KINDS {
            let server = Authority::root(kind, "root").server(kind, |_| {});
            assert!(judge(&server.der, None, &[pin]).is_err());
        }
    }
    for kind in KINDS {
        let authority = Authority::root(kind, "root");
        let unknown = |critical| extension(&[1, 3, 6, 1, 4, 1, 99_999, 1], critical, &[5, 0]);
        let server = authority.server(kind, |params| params.custom_extensions.push(unknown(true)));
        assert_eq!(judge(&server.der, None, &[authority.pin()]), Err(Refused::CriticalExtension));
        assert_eq!(judge(&server.der, None, &[leaf_pin(&server.key)]), Err(Refused::CriticalExtension));
        let below = authority.below(kind, |params| params.custom_extensions.push(unknown(true)));
        let server = below.server(kind, |_| {});
        assert_eq!(judge(&server.der, Some(&below), &[authority.pin()]), Err(Refused::CriticalExtension));
        // What an authority may not vouch for counts also where it is not critical.
        let limits = extension(&[2, 5, 29, 30], false, &[0x30, 0]);
        let below = authority.below(kind, |params| params.custom_extensions.push(limits));
        let server = below.server(kind, |_| {});
        assert_eq!(judge(&server.der, Some(&below), &[authority.pin()]), Err(Refused::CriticalExtension));
    }
    choria_rows::row(
        294,
        "the device's verifier: P-256 pin and Ed25519 certificates, self-made and of a CA; unknown critical extension in leaf and intermediate",
        "certificate_not_pinned, certificate_critical_extension; no panic",
    );
}

/// Whether it is refused, on a stack of 32 KiB in an unoptimised build.
fn refused_on_a_small_stack(leaf: Vec<u8>, above: Option<Vec<u8>>, pin: Pin) -> bool {
    let judged = thread::Builder::new().stack_size(32 * 1024).spawn(move || {
        let name = ServerName::Dns(HOST);
        verify(&leaf, above.as_deref(), &[pin], name, Some(NOW)).is_err() && ca_pin(&leaf).is_err()
    });
    judged.unwrap().join().unwrap()
}

#[test]
fn t_295_der_that_is_none() {
    let mut tried = 0;
    for kind in KINDS {
        let authority = Authority::root(kind, "root");
        let pin = authority.pin();
        let server = authority.server(kind, |_| {}).der;
        let mut hostile: Vec<Vec<u8>> = (0..server.len()).map(|len| server[..len].to_vec()).collect();
        hostile.push([&server[..], &[0]].concat());
        hostile.push([&[0x30, 0x80][..], &server[4..], &[0, 0]].concat());
        let len = server.len() - 4;
        let [.., high, low] = len.to_be_bytes();
        hostile.push([&[0x30, 0x83, 0, high, low][..], &server[4..]].concat());
        // Brackets in brackets, 16 KiB of them; at the front, and where the extensions are.
        let mut nested = Vec::new();
        while nested.len() < 16 * 1024 {
            nested = element(0x30, &nested);
        }
        hostile.push([0x30, 0x80].repeat(8 * 1024));
        hostile.push(nested.clone());
        let mut inside = signed_part(&server)[4..].to_vec();
        let extensions =
            inside.windows(4).position(|w| w[0] == 0xa3 && (w[2] == 0x30 || w[1..4] == [0x81, w[2], 0x30]));
        inside.truncate(extensions.unwrap());
        inside.extend(element(0xa3, &nested));
        hostile.push(authority.sign_bytes(&element(0x30, &inside)));
        // 16 KiB of names, none of them ours.
        let names = (0..900).map(|number| dns(&format!("h{number}.example.org"))).collect();
        hostile.push(authority.server(kind, |params| params.subject_alt_names = names).der);
        tried += hostile.len() * 2;
        for leaf in hostile {
            let elsewhere = authority.below(kind, |_| {}).server(kind, |_| {}).der;
            assert!(refused_on_a_small_stack(elsewhere, Some(leaf.clone()), pin));
            assert!(refused_on_a_small_stack(leaf.clone(), None, pin), "{}", hex::encode(leaf));
        }
    }
    choria_rows::row(
        295,
        format!(
            "the device's verifier on a stack of 32 KiB, unoptimised: {tried} truncated, indefinite, padded, nested and 16 KiB certificates"
        ),
        "all refused",
    );
}

#[test]
fn a_changed_bit_is_found() {
    for kind in KINDS {
        let authority = Authority::root(kind, "root");
        let below = authority.below(kind, |_| {});
        let server = below.server(kind, |_| {});
        let pins = [authority.pin()];
        let judge =
            |leaf: &[u8], above: &[u8]| verify(leaf, Some(above), &pins, ServerName::Dns(HOST), Some(NOW));
        assert!(judge(&server.der, &below.der).is_ok());
        // Every byte, one bit of it.
        for at in 0..server.der.len() {
            let mut changed = server.der.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(judge(&changed, &below.der).is_err(), "bit of byte {at}");
        }
        for at in 0..below.der.len() {
            let mut changed = below.der.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(judge(&server.der, &changed).is_err(), "bit of byte {at} above");
        }
    }
}

#[test]
fn signed_and_still_malformed() {
    for kind in KINDS {
        let authority = Authority::root(kind, "root");
        let pins = [authority.pin()];
        let server = authority.server(kind, |_| {}).der;
        let signed = signed_part(&server);
        assert!(judge(&authority.sign_bytes(signed), None, &pins).is_ok());
        let with = |from: &[u8], to: &[u8]| {
            assert_eq!(from.len(), to.len());
            let at = signed.windows(from.len()).position(|bytes| bytes == from).unwrap();
            let mut changed = signed.to_vec();
            changed[at..at + to.len()].copy_from_slice(to);
            judge(&authority.sign_bytes(&changed), None, &pins)
        };
        let malformed = Err(Refused::Malformed);
        // version 2; a month 13; a date that no calendar has; a name that is no kind of name
        assert_eq!(with(&[0xa0, 3, 2, 1, 2], &[0xa0, 3, 2, 1, 1]), malformed);
        assert_eq!(with(b"260101000000Z", b"261301000000Z"), malformed);
        assert_eq!(with(b"260101000000Z", b"260230000000Z"), malformed);
        assert_eq!(with(&[0x82, 18, b'b'], &[0x04, 18, b'b']), malformed);
        assert_eq!(with(&[0x82, 18, b'b'], &[0x9f, 18, b'b']), malformed);
        // critical = 1, which is no DER; keyUsage twice, once as extKeyUsage
        assert_eq!(with(&[0x55, 0x1d, 0x0f, 1, 1, 0xff], &[0x55, 0x1d, 0x0f, 1, 1, 1]), malformed);
        assert_eq!(with(&[0x55, 0x1d, 0x25], &[0x55, 0x1d, 0x0f]), malformed);
        assert_eq!(with(&[0x55, 0x1d, 0x25], &[0x55, 0x1d, 0x11]), malformed);
        // The signature's algorithm inside is another than outside.
        let (from, to): (&[u8], &[u8]) = match kind {
            Kind::Ed25519 => (&[0x30, 5, 6, 3, 0x2b, 0x65, 0x70], &[0x30, 5, 6, 3, 0x2b, 0x65, 0x71]),
            Kind::P256 => (&[0xce, 0x3d, 4, 3, 2], &[0xce, 0x3d, 4, 3, 3]),
        };
        assert_eq!(with(from, to), malformed);
    }
}
