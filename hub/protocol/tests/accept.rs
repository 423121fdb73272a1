//! The verdicts that every node and service has to reach.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::{collections::BTreeMap, path::PathBuf};

use choria_protocol::SecureRequest;
use choria_protocol::accept::{RequestVerifier, accept_for_signer};
use choria_token::PublicKey;
use serde_json::Value;

/// 2026-11: inside the clock range that the vectors name.
const NOW: i64 = 1_798_761_600;

fn fixture(path: &str) -> Value {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path);
    serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap()
}

fn keys(case: &Value) -> BTreeMap<String, Vec<PublicKey>> {
    let issuers = case["issuers"].as_object().unwrap();
    issuers
        .iter()
        .map(|(org, key)| (org.clone(), vec![PublicKey::from_hex(key.as_str().unwrap()).unwrap()]))
        .collect()
}

#[test]
fn verdicts() {
    let reasons: BTreeMap<&str, &str> = BTreeMap::from([
        ("from_signer_untouched", "permission_missing"),
        ("signed_fleet_caller_signs_itself", "delegation_missing"),
        ("no_fleet_access", "permission_missing"),
        ("caller_name_mismatch", "caller_mismatch"),
        ("bad_signature", "sig_bad"),
        ("signer_without_delegation", "delegator_refused"),
        ("server_as_caller", "kind_mismatch"),
        ("server_caller_delegated", "kind_mismatch"),
        ("unknown_org", "ou_unknown"),
        ("insecure_signature", "sig_bad"),
    ]);
    let vectors = fixture("protocol/v2_secure_request_verdicts.json");
    for case in vectors["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let secure = SecureRequest::parse(case["secure_request_json"].as_str().unwrap().as_bytes()).unwrap();
        let verdict = RequestVerifier::issuers(keys(case)).accept(&secure, NOW);
        match (case["expect"].as_str().unwrap(), &verdict) {
            ("allow", Ok(accepted)) => assert!(accepted.caller().is_some()),
            ("deny", Err(denied)) => {
                if let Some(reason) = reasons.get(name) {
                    assert_eq!(denied.reason(), *reason, "{name}");
                }
            }
            (expected, _) => panic!("{name}: expected {expected}, got {verdict:?}"),
        }
        // the same with the keys as trusted signers
        let signers = keys(case).into_values().flatten().collect();
        let verdict = RequestVerifier::trusted_signers(signers).accept(&secure, NOW);
        if !matches!(name, "unknown_org") {
            assert_eq!(
                verdict.is_ok(),
                case["expect"] == "allow",
                "{name} with trusted signers: {verdict:?}"
            );
        }
    }
}

#[test]
fn any_key_of_a_rotation_will_do_but_expired_tokens_will_not() {
    let vectors = fixture("protocol/v2_secure_request_verdicts.json");
    let case = &vectors["cases"][0];
    let secure = SecureRequest::parse(case["secure_request_json"].as_str().unwrap().as_bytes()).unwrap();
    let mut issuers = keys(case);
    let other =
        fixture("tokens/chain.json")["keys"]["other_issuer"]["public_hex"].as_str().unwrap().to_owned();
    issuers.get_mut("choria").unwrap().insert(0, PublicKey::from_hex(&other).unwrap());
    assert!(RequestVerifier::issuers(issuers.clone()).accept(&secure, NOW).is_ok());
    let denied = RequestVerifier::issuers(issuers).accept(&secure, 4_000_000_000).unwrap_err();
    assert_eq!(denied.reason(), "token_expired");
}

#[test]
fn skipping_verification_is_for_the_signer_only() {
    let messages = fixture("protocol/v2_messages.json")["messages"].clone();
    let parse = |name: &str| {
        SecureRequest::parse(messages[name]["secure_request_json"].as_str().unwrap().as_bytes()).unwrap()
    };
    assert!(accept_for_signer(&parse("request_to_signer_service")).is_ok());
    assert_eq!(accept_for_signer(&parse("request_direct")).unwrap_err().reason(), "sig_bad");
}
