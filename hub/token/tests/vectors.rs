//! The golden vectors of `tests/fixtures/tokens`, and upstream's own where they are at hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]
#![allow(clippy::print_stdout)] // a skipped test says so

use std::path::{Path, PathBuf};

use choria_token::{Key, PublicKey, Reject, Seed, Verifier, private_network_id, private_network_id_sha256};

/// 2027-01-01T00:00:00Z, the clock the vectors are made for.
const NOW: i64 = 1_798_761_600;

fn fixture(name: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokens").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn upstream() -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join("shared/vectors/tokens/upstream"))
        .find(|dir| dir.is_dir());
    if found.is_none() {
        println!("skipped: upstream's vectors are not at hand");
    }
    found
}

fn verify(verifier: &Verifier, kind: &str, token: &str, now: i64) -> Result<(), Reject> {
    match kind {
        "client" => verifier.verify_client(token, now).map(drop),
        "server" => verifier.verify_server(token, now).map(drop),
        "provisioning" => verifier.verify_provisioning(token, now).map(drop),
        other => panic!("unknown kind {other}"),
    }
}

#[test]
fn all_39_verdicts() {
    let verdicts = fixture("verdicts.json");
    let cases = verdicts["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 39);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let key = PublicKey::from_hex(case["verify_with_hex"].as_str().unwrap()).unwrap();
        let verifier = Verifier::single(Key::Ed25519(key));
        let result = verify(&verifier, case["kind"].as_str().unwrap(), case["token"].as_str().unwrap(), NOW);
        assert_eq!(result.is_ok(), case["expect"] == "ok", "{name}: {result:?}");
        if let Some(reason) = expected_reason(name) {
            assert_eq!(result.unwrap_err().reason(), reason, "{name}");
        }
    }
}

/// The word a log shows for the refused vectors.
fn expected_reason(name: &str) -> Option<&'static str> {
    Some(match name {
        "wrong_issuer_bob" | "wrong_issuer_provisioning" | "payload_swapped" => "sig_bad",
        "wrong_issuer_alice" | "wrong_issuer_server_chained" => "chain_forged",
        "forged_chain_issuer" | "tcs_of_other_user" | "jti_not_from_iat" | "jti_hex_uuid_chained" => {
            "chain_forged"
        }
        "issuer_expired" => "issuer_expired",
        "no_issexp" | "no_public_key_chained" | "three_part_issuer" => "chain_incomplete",
        "expired" => "token_expired",
        "direct_nbf_future" => "token_early",
        "direct_wrong_purpose" => "kind_mismatch",
        "alg_none" | "alg_hs256" => "alg_refused",
        _ => return None,
    })
}

#[test]
fn private_network_ids() {
    let chain = fixture("chain.json");
    for token in chain["tokens"].as_object().unwrap().values() {
        let Some(id) = token.get("unique_id") else { continue };
        assert_eq!(private_network_id(id["input"].as_str().unwrap()), id["md5"].as_str().unwrap());
        assert_eq!(private_network_id_sha256(id["input"].as_str().unwrap()), id["sha256"].as_str().unwrap());
    }
}

#[test]
fn upstream_ed25519() {
    let Some(dir) = upstream() else { return };
    let dir = dir.join("ed25519");
    let token = std::fs::read_to_string(dir.join("good-provisioning.jwt")).unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let good = Verifier::single(Key::load(&path("signer.public")).unwrap());
    assert!(good.verify_provisioning(&token, NOW).is_ok());
    let other = Verifier::single(Key::load(&path("other.public")).unwrap());
    assert_eq!(other.verify_provisioning(&token, NOW).unwrap_err().reason(), "sig_bad");
    // A file is where real keys come from, and this one is published.
    assert!(Seed::load(&dir.join("signer.seed")).is_err());
    assert!(Seed::from_hex(&std::fs::read_to_string(dir.join("signer.seed")).unwrap()).is_ok());
}

#[test]
fn upstream_rsa() {
    let Some(dir) = upstream() else { return };
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let verifier = |name: &str| Verifier::single(Key::load(dir.join(name).to_str().unwrap()).unwrap());
    let token = read("rsa/good-provisioning.jwt");
    assert!(verifier("rsa/signer-public.pem").verify_provisioning(&token, NOW).is_ok());
    assert_eq!(
        verifier("rsa/other-public.pem").verify_provisioning(&token, NOW).unwrap_err().reason(),
        "sig_bad"
    );

    let signer = verifier("broker-provisioning/signer-cert.pem");
    for name in ["secure", "insecure"] {
        let token = read(&format!("broker-provisioning/{name}.jwt"));
        signer.verify_provisioning(&token, NOW).unwrap();
    }
    assert!(signer.verify_provisioning(&read("broker-provisioning/invalid.jwt"), NOW).is_err());

    let signer = verifier("integration-provisioning/provisioning-signer.pem");
    signer.verify_provisioning(&read("integration-provisioning/provisioning.jwt"), NOW).unwrap();
    assert!(
        signer.verify_provisioning(&read("integration-provisioning/invalid-provisioning.jwt"), NOW).is_err()
    );

    let hs256 = read("agent/provision-hs256.jwt");
    assert_eq!(signer.verify_provisioning(&hs256, NOW).unwrap_err().reason(), "alg_refused");
}

#[test]
fn upstream_documentation_of_2022_is_refused_today() {
    let Some(dir) = upstream() else { return };
    let token = std::fs::read_to_string(dir.join("docs-2022/server-chained.jwt")).unwrap();
    assert!(choria_token::peek_server(&token).is_ok());
    let any = Verifier::single(Key::Ed25519(Seed::generate().unwrap().public()));
    assert_eq!(any.verify_server(&token, NOW).unwrap_err().reason(), "chain_forged");
}
