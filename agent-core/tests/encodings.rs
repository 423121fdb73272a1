//! The encodings against the crates hosts use.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "a test may fail")]

use ::base64::Engine as _;
use ::base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use agent_core::encoding::{EncodingError, base62, base64, base64url, hex};
use agent_core::ids;
use proptest::prelude::*;

proptest! {
    #[test]
    fn base64_agrees_with_the_host(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut text = vec![0; 300];
        let text = base64::encode_to_slice(&bytes, &mut text).unwrap();
        prop_assert_eq!(text, STANDARD.encode(&bytes));
        let mut place = text.as_bytes().to_vec();
        let length = base64::decode_in_place(&mut place).unwrap();
        prop_assert_eq!(&place[..length], &bytes[..]);

        let mut text = vec![0; 300];
        let text = base64url::encode_to_slice(&bytes, &mut text).unwrap();
        prop_assert_eq!(text, URL_SAFE_NO_PAD.encode(&bytes));
        let mut place = vec![0; 200];
        let length = base64url::decode_to_slice(text.as_bytes(), &mut place).unwrap();
        prop_assert_eq!(&place[..length], &bytes[..]);
    }

    #[test]
    fn any_text_decodes_as_on_the_host_or_is_refused(text in "[A-Za-z0-9+/=_-]{0,24}") {
        let mut place = vec![0; 64];
        let ours = base64::decode_to_slice(text.as_bytes(), &mut place).map(|n| place[..n].to_vec());
        prop_assert_eq!(ours.ok(), STANDARD.decode(&text).ok());
        let mut place = vec![0; 64];
        let ours = base64url::decode_to_slice(text.as_bytes(), &mut place).map(|n| place[..n].to_vec());
        prop_assert_eq!(ours.ok(), URL_SAFE_NO_PAD.decode(&text).ok());
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut small = [0; 8];
        hex::decode_to_slice(&bytes, &mut small).ok();
        base64::decode_to_slice(&bytes, &mut small).ok();
        base64url::decode_to_slice(&bytes, &mut small).ok();
        base62::decode(&bytes).ok();
        base64::decode_in_place(&mut bytes).ok();
    }

    #[test]
    fn hex_agrees_with_the_host(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut text = [0; 128];
        let text = hex::encode_to_slice(&bytes, &mut text).unwrap();
        prop_assert_eq!(text, ::hex::encode(&bytes));
        let mut back = [0; 64];
        let length = hex::decode_to_slice(text.to_uppercase().as_bytes(), &mut back).unwrap();
        prop_assert_eq!(&back[..length], &bytes[..]);
    }

    #[test]
    fn base62_keeps_every_number(bytes in any::<[u8; 20]>()) {
        prop_assert_eq!(base62::decode(&base62::encode(&bytes)).unwrap(), bytes);
    }
}

#[test]
fn line_breaks_are_skipped_in_standard_base64_only() {
    let mut place = [0; 8];
    assert_eq!(base64::decode_to_slice(b"cGlu\r\nZw==\n", &mut place), Ok(4));
    assert_eq!(&place[..4], b"ping");
    assert_eq!(base64url::decode_to_slice(b"cGlu\nZw", &mut place), Err(EncodingError::Malformed));
}

#[test]
fn ids_follow_the_golden_vectors() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/fixtures/connect/reply_subjects.json")).unwrap();
    for case in vectors["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        assert_eq!(ids::private_network_id(id).as_str(), case["md5"]);
        assert_eq!(ids::private_network_id_sha256(id).as_str(), case["sha256"]);
    }
    let chain: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/fixtures/tokens/chain.json")).unwrap();
    assert_eq!(ids::ksuid_time("37dGandrFPj6jtODl4UcMwk9Bvs"), chain["clock"]["iat"].as_i64());
    let made = ids::Ksuid::new(1_767_225_600, &[0xff; 16]);
    assert_eq!(ids::ksuid_time(made.as_str()), Some(1_767_225_600));
    assert_eq!(ids::ksuid_time("not a ksuid"), None);
}
