//! The holder's signature over the handshake.

use agent_core::x509pin::Refused;
use rcgen::SigningKey as _;

use crate::authority::{Authority, KINDS, Kind, judge};

fn content(spaces: usize, context: &str, hash: &[u8]) -> Vec<u8> {
    [&vec![0x20; spaces], context.as_bytes(), &[0], hash].concat()
}

const SERVER: &str = "TLS 1.3, server CertificateVerify";

#[test]
fn the_holder_of_the_key_proves_it() {
    for kind in KINDS {
        let authority = Authority::root(kind, "root");
        let server = authority.server(kind, |_| {});
        let leaf = judge(&server.der, None, &[authority.pin()]).unwrap();
        let hash = [7; 32];
        let sign = |content: &[u8]| server.key.sign(content).unwrap();
        let check = |signature: &[u8]| leaf.verify_certificate_verify(kind.scheme(), signature, &hash);
        let good = sign(&content(64, SERVER, &hash));
        assert_eq!(check(&good), Ok(()));
        for other in [
            content(64, "TLS 1.3, client CertificateVerify", &hash),
            content(64, SERVER, &[8; 32]),
            content(63, SERVER, &hash),
            content(0, "", &hash),
            hash.to_vec(),
        ] {
            assert_eq!(check(&sign(&other)), Err(Refused::Signature));
        }
        assert_eq!(check(&[]), Err(Refused::Signature));
        assert_eq!(check(&good[..good.len() - 1]), Err(Refused::Signature));
        assert_eq!(check(&[&good[..], &[0]].concat()), Err(Refused::Signature));
        let foreign = kind.key().sign(&content(64, SERVER, &hash)).unwrap();
        assert_eq!(check(&foreign), Err(Refused::Signature));
        // Any other scheme, also one that this key could sign with.
        let other = if kind == Kind::P256 { Kind::Ed25519 } else { Kind::P256 };
        for scheme in [0, 0x0203, 0x0401, 0x0503, 0x0804, 0x0808, 0xffff, other.scheme()] {
            assert_eq!(leaf.verify_certificate_verify(scheme, &good, &hash), Err(Refused::Algorithm));
        }
    }
}
