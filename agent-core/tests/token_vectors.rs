//! Token verification against the golden vectors, and against tokens an attacker would make.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "a test may fail")]

mod forge;

use agent_core::token::{
    Issuer, Permissions, Proven, Reject, Trust, Verifier, decode_claims, peek_client, peek_provisioning,
    peek_server,
};
use forge::{NOW, client, key, public, sign_token, token};
use proptest::prelude::*;
use serde_json::{Value, json};

fn key_of(hex_text: &str) -> [u8; 32] {
    hex::decode(hex_text).unwrap().try_into().unwrap()
}

fn verify(verifier: &Verifier<'_>, kind: &str, token: &str, now: i64) -> Result<(), Reject> {
    // What a device lends: the claims without policy have to fit.
    let mut scratch = [0; 2048];
    match kind {
        "client" => verifier.verify_client(token, now, &mut scratch).map(|_| ()),
        "server" => verifier.verify_server(token, now, &mut scratch).map(|_| ()),
        "provisioning" => verifier.verify_provisioning(token, now, &mut scratch).map(|_| ()),
        _ => Err(Reject::KindMismatch),
    }
}

#[test]
fn every_verdict_is_upstreams() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../tests/fixtures/tokens/verdicts.json")).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 39);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let keys = [key_of(case["verify_with_hex"].as_str().unwrap())];
        let verifier = Verifier::new(Trust::Signers(&keys));
        let verdict = verify(&verifier, case["kind"].as_str().unwrap(), case["token"].as_str().unwrap(), NOW);
        assert_eq!(verdict.is_ok(), case["expect"] == "ok", "{name}: {verdict:?}");
        let word = verdict.map_err(|reject| reject.reason());
        match name {
            "forged_chain_issuer" | "forged_with_real_issuer_name" | "tcs_of_other_user" => {
                assert_eq!(word, Err("chain_forged"), "{name}");
            }
            "issuer_expired" => assert_eq!(word, Err("issuer_expired")),
            "expired" => assert_eq!(word, Err("token_expired")),
            "direct_nbf_future" => assert_eq!(word, Err("token_early")),
            "direct_wrong_purpose" => assert_eq!(word, Err("kind_mismatch")),
            "wrong_issuer_bob" => assert_eq!(word, Err("sig_bad")),
            "no_issexp" | "no_public_key_chained" => assert_eq!(word, Err("chain_incomplete"), "{name}"),
            _ => {}
        }
    }
}

/// What is remembered is that a signature held, nothing else: claims and times are read anew, and other bytes, other keys and
/// forgotten tokens are looked at from the start.
#[test]
fn a_token_that_was_proven_is_still_judged() {
    let (org, other) = (key(1), key(3));
    let keys = [org.verifying_key().to_bytes()];
    let verifier = Verifier::new(Trust::Signers(&keys));
    let proven = Proven::default();
    let verify = |verifier: &Verifier<'_>, token: &str, now: i64| {
        let mut scratch = [0; 2048];
        verifier.verify_client_again(token, now, &mut scratch, Some(&proven)).map(|found| found.expires())
    };
    let mine = client("up=alice", &json!({"fleet_management": true}), &key(2), &org);
    let plain = verifier.verify_client(&mine, NOW, &mut [0; 2048]).map(|found| found.expires());
    for _ in 0..3 {
        assert_eq!(verify(&verifier, &mine, NOW), plain);
    }
    assert_eq!(verify(&verifier, &mine, NOW + 60), Err(Reject::Expired));
    let at = mine.rfind('.').unwrap() + 5;
    let changed =
        format!("{}{}{}", &mine[..at], if &mine[at..=at] == "A" { "B" } else { "A" }, &mine[at + 1..]);
    assert_eq!(verify(&verifier, &changed, NOW), Err(Reject::SignatureBad));
    let strangers = [other.verifying_key().to_bytes()];
    assert_eq!(verify(&Verifier::new(Trust::Signers(&strangers)), &mine, NOW), Err(Reject::SignatureBad));
    for n in 10..20 {
        let theirs = client("up=bob", &json!({"fleet_management": true}), &key(n), &org);
        assert!(verify(&verifier, &theirs, NOW).is_ok());
        assert_eq!(verify(&verifier, &changed, NOW), Err(Reject::SignatureBad));
    }
    assert_eq!(verify(&verifier, &mine, NOW), plain);
}

/// As the hosts' verifier: a token that is one kind by its purpose and another by its subject is neither.
#[test]
fn a_token_of_two_kinds_is_of_none() {
    let (org, holder) = (key(1), public(&key(2)));
    let keys = [org.verifying_key().to_bytes()];
    let verifier = Verifier::new(Trust::Signers(&keys));
    let claims = |purpose: &str, sub: &str| {
        let claims = json!({"callerid":"up=a","identity":"n1","purpose":purpose,"sub":sub,"public_key":holder,
            "exp":NOW + 60,"cht":"t","chu":"u"});
        token(&claims, &org)
    };
    for (kind, purpose) in [("client", "choria_client_id"), ("server", "choria_server")] {
        let two = claims(purpose, "choria_provisioning");
        assert_eq!(verify(&verifier, kind, &two, NOW), Err(Reject::KindMismatch), "{kind}");
        assert_eq!(verify(&verifier, "provisioning", &two, NOW), Err(Reject::KindMismatch), "{kind}");
        assert_eq!(verify(&verifier, kind, &claims(purpose, "somebody"), NOW), Ok(()), "{kind}");
    }
}

#[test]
fn claims_of_the_chain_vectors_are_read() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../tests/fixtures/tokens/chain.json")).unwrap();
    let org = [key_of(vectors["keys"]["org_issuer"]["public_hex"].as_str().unwrap())];
    let issuers = [Issuer { organization: "choria", key: org[0] }];
    let verifier = Verifier::new(Trust::Issuers(&issuers));
    let mut seen = 0;
    for (name, entry) in vectors["tokens"].as_object().unwrap() {
        let text = entry["token"].as_str().unwrap();
        let claims: Value = match &entry["claims_json"] {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            _ => serde_json::from_slice(decode_claims(text, &mut [0; 8192]).unwrap()).unwrap(),
        };
        let mut scratch = [0; 2048];
        match claims["purpose"].as_str().unwrap() {
            "choria_client_id" => {
                let verified = verifier.verify_client(text, NOW, &mut scratch).unwrap();
                assert_eq!(verified.claims().caller_id, claims["callerid"], "{name}");
                let fleet = claims["permissions"]["fleet_management"] == true;
                assert_eq!(verified.claims().permissions.has(Permissions::FLEET_MANAGEMENT), fleet, "{name}");
                assert_eq!(verified.claims().policy_bytes > 0, claims["opa_policy"].is_string(), "{name}");
                assert_eq!(
                    verified.chain_issuer().is_some(),
                    claims["iss"].as_str().unwrap().starts_with("C-")
                );
                assert_eq!(
                    verified.public_key().map(hex::encode).as_deref(),
                    claims["public_key"].as_str(),
                    "{name}"
                );
            }
            "choria_server" => {
                let verified = verifier.verify_server(text, NOW, &mut scratch).unwrap();
                assert_eq!(verified.claims().identity, claims["identity"], "{name}");
                assert_eq!(peek_server(text, &mut [0; 2048]).unwrap().claims().identity, claims["identity"]);
            }
            _ => {
                let peeked = peek_provisioning(text, &mut scratch).unwrap();
                assert_eq!(peeked.claims().token, claims["cht"], "{name}");
                assert_eq!(peeked.claims().secure, claims["chs"] == true);
                assert_eq!(peeked.claims().urls, claims["chu"].as_str().unwrap_or_default());
                assert!(!format!("{peeked:?}").contains(peeked.claims().token));
            }
        }
        seen += 1;
    }
    assert!(seen >= 10);
}

/// A file of upstream's own test data, which is not part of this repository.
fn upstream(path: &str) -> Option<String> {
    let file = format!("{}/../../shared/vectors/tokens/upstream/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).ok();
    if text.is_none() {
        eprintln!("skipped: {file} is absent");
    }
    text
}

#[test]
fn upstreams_own_tokens() {
    if let (Some(text), Some(good), Some(other)) = (
        upstream("ed25519/good-provisioning.jwt"),
        upstream("ed25519/signer.public"),
        upstream("ed25519/other.public"),
    ) {
        let verdict = |key: &str| {
            let keys = [key_of(key.trim())];
            let verifier = Verifier::new(Trust::Signers(&keys));
            ["client", "server", "provisioning"].map(|kind| verify(&verifier, kind, &text, NOW))
        };
        assert_eq!(
            verdict(&good).iter().filter(|verdict| verdict.is_ok()).count(),
            1,
            "{:?}",
            verdict(&good)
        );
        assert!(verdict(&other).contains(&Err(Reject::SignatureBad)));
    }
    for file in ["broker-provisioning/secure.jwt", "broker-provisioning/insecure.jwt"] {
        let Some(text) = upstream(file) else { continue };
        let mut scratch = [0; 2048];
        let peeked = peek_provisioning(text.trim_end(), &mut scratch).unwrap();
        assert_eq!(peeked.claims().secure, file.contains("/secure"));
        let keys = [[7; 32]];
        let verdict = verify(&Verifier::new(Trust::Signers(&keys)), "provisioning", text.trim_end(), NOW);
        assert_eq!(verdict, Err(Reject::AlgorithmRefused));
    }
}

#[test]
fn the_organization_chooses_the_issuer() {
    let (org, holder) = (key(1), key(2));
    let text = client("up=a", &json!({}), &holder, &org);
    let issuer = |organization, key: &ed25519_dalek::SigningKey| Issuer {
        organization,
        key: key.verifying_key().to_bytes(),
    };
    let reason = |issuers: &[Issuer<'_>]| {
        verify(&Verifier::new(Trust::Issuers(issuers)), "client", &text, NOW).map_err(|r| r.reason())
    };
    assert_eq!(reason(&[issuer("choria", &org)]), Ok(()));
    assert_eq!(reason(&[issuer("choria", &key(9)), issuer("choria", &org)]), Ok(()));
    assert_eq!(reason(&[issuer("choria", &key(9))]), Err("sig_bad"));
    assert_eq!(reason(&[issuer("other", &org)]), Err("ou_unknown"));
    for ou in [json!(null), json!(7), json!("")] {
        let text = token(&json!({"callerid":"a","purpose":"choria_client_id","ou":ou}), &org);
        let issuers = [issuer("choria", &org)];
        let verdict = verify(&Verifier::new(Trust::Issuers(&issuers)), "client", &text, NOW);
        assert_eq!(verdict, Err(Reject::OrganizationMissing));
    }
}

#[test]
fn t_009_t_010_t_012_t_015_t_016_t_018_t_020_t_021_t_022_tokens_made_to_be_misread() {
    let org = key(1);
    let keys = [org.verifying_key().to_bytes()];
    let verifier = Verifier::new(Trust::Signers(&keys));
    let reason = |text: &str| verify(&verifier, "client", text, NOW).map_err(|r| r.reason());
    let header = r#"{"alg":"EdDSA","typ":"JWT"}"#;
    let with = |claims: &str| {
        let claims = format!(r#"{{"callerid":"up=a","purpose":"choria_client_id",{claims}}}"#);
        reason(&sign_token(header, claims.as_bytes(), &org))
    };
    assert_eq!(with(r#""ou":"a""#), Ok(()));
    assert_eq!(with(r#""ou":"a","ou":"b""#), Err("token_malformed"));
    assert_eq!(with(r#""permissions":{},"Permissions":{}"#), Err("token_malformed"));
    assert_eq!(with(r#""Ou":"a""#), Err("token_malformed"));
    assert_eq!(with(r#""permi\u017fsions":{}"#), Err("token_malformed"));
    assert_eq!(
        with(r#""permissions":{"fleet_management":true,"fleet_management":false}"#),
        Err("token_malformed")
    );
    assert_eq!(with(r#""x":1,"X":2"#), Ok(()));
    for (exp, verdict) in [
        (format!("{NOW}"), Err("token_expired")),
        (format!("{}", NOW - 1), Err("token_expired")),
        (format!("{}.9", NOW), Err("token_expired")),
        (format!("{}", NOW + 1), Ok(())),
        ("1.798761601e9".into(), Ok(())),
        ("-1".into(), Err("token_expired")),
        ("1e300".into(), Err("token_malformed")),
        ("\"x\"".into(), Err("token_malformed")),
    ] {
        assert_eq!(with(&format!("\"exp\":{exp}")), verdict, "{exp}");
    }
    assert_eq!(with(&format!("\"nbf\":{}", NOW + 1)), Err("token_early"));
    assert_eq!(with(&format!("\"nbf\":{NOW}")), Ok(()));
    let heard = |ahead: i64| {
        let claims = format!(
            r#"{{"callerid":"up=a","purpose":"choria_client_id","nbf":{},"exp":{}}}"#,
            NOW + ahead,
            NOW + ahead + 60
        );
        let text = sign_token(header, claims.as_bytes(), &org);
        verify(&verifier.with_heard_time(), "client", &text, NOW).map_err(|r| r.reason())
    };
    assert_eq!((heard(5), heard(6)), (Ok(()), Err("token_early")), "a clock that is set now and then");
    assert_eq!(heard(-60), Err("token_expired"), "and no later than it says");
    for bad in ["", "00", "zz", &"0".repeat(62), &"0".repeat(66), &"0".repeat(63), &"0".repeat(128)] {
        let expected = if bad.is_empty() { Ok(()) } else { Err("claim_invalid") };
        assert_eq!(with(&format!("\"public_key\":\"{bad}\"")), expected, "{bad}");
    }

    let claims = br#"{"callerid":"up=a","purpose":"choria_client_id"}"#;
    for (header, word) in [
        (r#"{"alg":"none"}"#, "alg_refused"),
        (r#"{"alg":"HS256"}"#, "alg_refused"),
        (r#"{"alg":"RS256"}"#, "alg_refused"),
        (r#"{"alg":"eddsa"}"#, "alg_refused"),
        (r#"{"alg":"EdDSA","crit":["x"]}"#, "token_malformed"),
        (r#"{"alg":"EdDSA","Alg":"none"}"#, "token_malformed"),
        (r#"{"typ":"JWT"}"#, "token_malformed"),
        ("[]", "token_malformed"),
    ] {
        assert_eq!(reason(&sign_token(header, claims, &org)), Err(word), "{header}");
    }
    assert_eq!(reason(&sign_token(r#"{"alg":"EdDSA","kid":"x","jku":"y"}"#, claims, &org)), Ok(()));

    let good = sign_token(header, claims, &org);
    assert_eq!(reason(&format!("{good}\n")), Ok(()));
    assert_eq!(reason(&format!("{good}\r\n")), Ok(()));
    for bad in [
        format!(" {good}"),
        format!("{good} "),
        format!("{good}="),
        good.replacen('.', ".\n", 1),
        format!("{good}\n\n"),
    ] {
        assert_eq!(reason(&bad), Err("token_malformed"), "{bad:?}");
    }
    // The last symbol of a 64 byte signature has four unused bits: only one of its sixteen spellings is the token.
    let (head, last) = good.split_at(good.len() - 1);
    let spellings = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars();
    assert_eq!(spellings.filter(|c| reason(&format!("{head}{c}")).is_ok()).collect::<String>(), last);
    for bad in ["", ".", "..", "...", "a.b", "a.b.c", "a..c", "a.b.c.d"] {
        assert!(reason(bad).is_err(), "{bad}");
    }
    assert_eq!(reason(&".".repeat(1 << 20)), Err("token_malformed"));
    let stripped = good.rsplit_once('.').unwrap().0;
    assert_eq!(reason(&format!("{stripped}.")), Err("sig_bad"));
    for (row, seen) in [
        (9, "alg none: alg_refused"),
        (10, "alg HS256: alg_refused"),
        (12, "crit: token_malformed"),
        (15, "ou twice: token_malformed"),
        (16, "Permissions, Ou, permi\u{17f}sions: token_malformed"),
        (18, "keys of 1, 31, 33, 64 bytes, odd and no hex: claim_invalid"),
        (20, "one of 16 spellings of the last symbol is accepted, white space and padding are not"),
        (21, "exp now, now-1, now+0.9, -1: token_expired; 1e300, x: token_malformed; nbf now+1: token_early"),
        (22, "0 to 4 dots and 1 MiB of them: refused"),
    ] {
        choria_rows::row(row, "the device's verifier", seen);
    }
}

#[test]
fn a_policy_larger_than_the_scratch_is_passed_over() {
    let org = key(1);
    let keys = [org.verifying_key().to_bytes()];
    let policy = "package io.choria.aaasvc\n\"quoted\\\" \u{1F600}\"\n".repeat(400);
    let claims = json!({"callerid":"up=a","note":"opa_policy","opa_policy":policy,"purpose":"choria_client_id",
        "user_properties":{"opa_policy":"kept"},"public_key":public(&key(2)),"agents":[]});
    let text = token(&claims, &org);
    let mut scratch = [0; 400];
    let verified = Verifier::new(Trust::Signers(&keys)).verify_client(&text, NOW, &mut scratch).unwrap();
    assert!(verified.claims().policy_bytes >= policy.len());
    assert_eq!(verified.claims().user_properties, Some(&br#"{"opa_policy":"kept"}"#[..]));
    let mut room = vec![0; 1 << 16];
    assert_eq!(serde_json::from_slice::<Value>(decode_claims(&text, &mut room).unwrap()).unwrap(), claims);
    assert_eq!(peek_client(&text, &mut [0; 40]).unwrap_err(), Reject::TooLarge);
    // A policy with an escaped name is a policy as well, and empty ones are none.
    for (claims, policy) in [
        (r#"{"callerid":"a","purpose":"choria_client_id","opa\u005fpolicy":"x"}"#, true),
        (r#"{"callerid":"a","purpose":"choria_client_id","opa_policy":""}"#, false),
        (r#"{"callerid":"a","purpose":"choria_client_id","opa_policy":"\""}"#, true),
    ] {
        let text = sign_token(r#"{"alg":"EdDSA"}"#, claims.as_bytes(), &org);
        assert_eq!(peek_client(&text, &mut [0; 400]).unwrap().claims().policy_bytes > 0, policy, "{claims}");
    }
}

#[test]
fn the_list_of_agents_is_read_in_order() {
    let org = key(1);
    let allows = |agents: Value| {
        let text = token(&json!({"callerid":"a","purpose":"choria_client_id","agents":agents}), &org);
        let mut scratch = [0; 400];
        peek_client(&text, &mut scratch).unwrap().claims().agents.unwrap().allows("rpcutil", "ping").ok()
    };
    assert_eq!(allows(json!(["*"])), Some(true));
    assert_eq!(allows(json!(["rpcutil.*"])), Some(true));
    assert_eq!(allows(json!(["x.y", "rpcutil.ping"])), Some(true));
    assert_eq!(allows(json!(["rpcutil.pong"])), Some(false));
    assert_eq!(allows(json!([])), Some(false));
    assert_eq!(allows(json!(["rpcutil.ping", "bad"])), Some(true));
    assert_eq!(allows(json!(["bad", "rpcutil.ping"])), None);
    assert_eq!(allows(json!(["a.b.c"])), None);
    assert_eq!(allows(json!([1])), None);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,40}|[A-Za-z0-9_-]{0,20}(\\.[A-Za-z0-9_-]{0,20}){0,4}") {
        let keys = [[7; 32]];
        let verifier = Verifier::new(Trust::Signers(&keys));
        for kind in ["client", "server", "provisioning"] {
            prop_assert!(verify(&verifier, kind, &text, NOW).is_err());
        }
    }

    #[test]
    fn signed_garbage_never_panics(claims in "\\PC{0,60}|\\{(\"(exp|iss|tcs|jti|permissions|opa_policy|callerid)\":([0-9e+.-]{1,9}|\"[A-C.-]{0,9}\"|\\{\\}),){0,4}\"purpose\":\"choria_client_id\"\\}") {
        let org = key(1);
        let keys = [org.verifying_key().to_bytes()];
        let text = sign_token(r#"{"alg":"EdDSA"}"#, claims.as_bytes(), &org);
        verify(&Verifier::new(Trust::Signers(&keys)), "client", &text, NOW).ok();
    }
}
