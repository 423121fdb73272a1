//! Signatures and keys made to confuse a verifier: the device's implementation must refuse what the hosts' strict one
//! refuses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "a test may fail")]

use agent_core::ed25519::{SigningKey, verify};
use ed25519_dalek::{Signature, VerifyingKey};
use proptest::prelude::*;

/// The eight points of small order in their canonical encodings, and non-canonical spellings of some.
const SMALL_ORDER: [&str; 12] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

/// The order of the base point, little endian.
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

fn bytes32(text: &str) -> [u8; 32] {
    hex::decode(text).unwrap().try_into().unwrap()
}

#[test]
fn t_017_small_order_keys_and_nonces_are_refused() {
    let honest = SigningKey::from_seed(&[3; 32]).unwrap();
    for point in SMALL_ORDER.map(bytes32) {
        // With a key of small order and S = 0 such signatures hold for any message under a lax verifier.
        for nonce in SMALL_ORDER.map(bytes32) {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&nonce);
            for message in [&b"a"[..], b"b", b"{}"] {
                assert!(!verify(&point, &[message], &signature), "{}", hex::encode(point));
            }
        }
        let mut signature = honest.sign_document(b"{}").unwrap();
        signature[..32].copy_from_slice(&point);
        assert!(!verify(&honest.public(), &[b"{}"], &signature));
    }
    choria_rows::row(
        17,
        "the device's verifier: 12 keys of small order, each with 12 universal signatures",
        "all refused",
    );
}

#[test]
fn a_scalar_above_the_order_is_refused() {
    let honest = SigningKey::from_seed(&[3; 32]).unwrap();
    let mut signature = honest.sign_document(b"{}").unwrap();
    assert!(verify(&honest.public(), &[b"{", b"}"], &signature));
    let mut carry = 0_u16;
    for (byte, add) in signature[32..].iter_mut().zip(bytes32(ORDER)) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    assert!(!verify(&honest.public(), &[b"{}"], &signature));
}

#[test]
fn signatures_of_another_length_are_refused() {
    let honest = SigningKey::from_seed(&[3; 32]).unwrap();
    let signature = honest.sign_document(b"{}").unwrap();
    for length in [0, 8, 32, 63] {
        assert!(!verify(&honest.public(), &[b"{}"], &signature[..length]));
    }
    assert!(!verify(&honest.public(), &[b"{}"], &[&signature[..], &[0]].concat()));
    assert!(!verify(&honest.public(), &[b"{}"], b"insecure"));
}

#[test]
fn only_what_the_protocol_signs_is_signed() {
    let honest = SigningKey::from_seed(&[3; 32]).unwrap();
    assert!(honest.sign_nonce("Z4T9x1kQmB2aVwE").is_some());
    for bad in
        ["short", "has.dot.inside", "{\"json\":1}", "1798761600:alice:pw", "with space 12", &"a".repeat(65)]
    {
        assert!(honest.sign_nonce(bad).is_none(), "{bad}");
    }
    assert!(honest.sign_document(b"eyJ.eyJ").is_none());
    assert!(SigningKey::from_seed(&[0; 32]).is_none());
    assert_eq!(format!("{honest:?}"), "SigningKey(*****)");
}

#[test]
fn nonces_are_signed_as_upstream_signs_them() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/fixtures/connect/nats_connect.json")).unwrap();
    let chain: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/fixtures/tokens/chain.json")).unwrap();
    let seed = bytes32(chain["keys"]["alice"]["seed_hex"].as_str().unwrap());
    let key = SigningKey::from_seed(&seed).unwrap();
    let client = &vectors["client"];
    let signature = key.sign_nonce(client["info_nonce"].as_str().unwrap()).unwrap();
    let mut text = [0; 86];
    let text = agent_core::encoding::base64url::encode_to_slice(&signature, &mut text).unwrap();
    assert_eq!(text, client["sig"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_hosts_verifier_agrees(seed in any::<[u8; 32]>(), body in prop::collection::vec(any::<u8>(), 0..80), flip in prop::option::of((0_usize..64, 0_u8..8))) {
        prop_assume!(seed != [0; 32]);
        let message = [b"{", &body[..]].concat();
        let key = SigningKey::from_seed(&seed).unwrap();
        let mut signature = key.sign_document(&message).unwrap();
        if let Some((at, bit)) = flip { signature[at] ^= 1 << bit; }
        let host = VerifyingKey::from_bytes(&key.public()).unwrap();
        let theirs = host.verify_strict(&message, &Signature::from_bytes(&signature)).is_ok();
        prop_assert_eq!(theirs, flip.is_none());
        prop_assert_eq!(verify(&key.public(), &[&message], &signature), theirs);
    }
}
