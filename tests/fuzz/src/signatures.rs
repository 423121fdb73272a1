//! The core's Ed25519 against the hosts': the same verdict on every key, message and signature.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::Target;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "ed25519_edge",
    oracle: "dalek's strict verification = compact with our checks = the hosts' key type",
    run: edge,
    seeds: || {
        let key = SigningKey::from_bytes(&[7; 32]);
        let signature = key.sign(b"{}").to_bytes();
        let valid = [key.verifying_key().as_bytes().as_slice(), &signature, b"{}"].concat();
        let mut seeds = vec![valid.clone()];
        for point in SMALL_ORDER {
            let point = hex::decode(point).unwrap_or_default();
            let mut as_key = valid.clone();
            as_key[..32].copy_from_slice(&point);
            let mut as_nonce = valid.clone();
            as_nonce[32..64].copy_from_slice(&point);
            let mut both = as_key.clone();
            both[32..64].copy_from_slice(&point);
            both[64..96].fill(0);
            seeds.extend([as_key, as_nonce, both]);
        }
        let mut high = valid;
        high[64..96].copy_from_slice(&hex::decode(ORDER).unwrap_or_default());
        seeds.push(high);
        seeds
    },
    words: &["\u{1}\0\0\0", "\u{7f}"],
    longest: 160,
}];

/// Points of small order, and non-canonical spellings of some.
const SMALL_ORDER: [&str; 8] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

/// The order of the base point, little endian.
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

fn edge(input: &[u8]) {
    let Some((key, rest)) = input.split_first_chunk::<32>() else { return };
    let Some((signature, message)) = rest.split_first_chunk::<64>() else { return };
    let strict = VerifyingKey::from_bytes(key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok());
    let ours = agent_core::ed25519::verify(key, &[message], signature);
    assert_eq!(ours, strict, "key {}, signature {}", hex::encode(key), hex::encode(signature));
    let (head, tail) = message.split_at(message.len() / 2);
    assert_eq!(agent_core::ed25519::verify(key, &[head, tail], signature), ours, "in two parts");
    let host = choria_token::PublicKey::from_bytes(key).is_ok_and(|key| key.verify(message, signature));
    assert_eq!(host, strict, "the hosts' key type");
    // The key as a seed: what we sign verifies everywhere, and with one bit changed nowhere.
    let Some(signer) = agent_core::ed25519::SigningKey::from_seed(key) else {
        return assert_eq!(key, &[0; 32], "a seed was refused");
    };
    let document = [b"{", message].concat();
    let mut made = signer.sign_document(&document).expect("it begins with a brace");
    assert!(agent_core::ed25519::verify(&signer.public(), &[&document], &made));
    assert_eq!(made, SigningKey::from_bytes(key).sign(&document).to_bytes());
    made[usize::from(signature[0]) % 64] ^= 1 << (signature[1] % 8);
    assert!(
        !agent_core::ed25519::verify(&signer.public(), &[&document], &made),
        "a changed signature verifies"
    );
}
