//! Acceptance of requests by a node: the golden verdicts, and the refusals of docs/spec/10 §14.6 with their words.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "a test may fail")]

mod forge;

use agent_core::secure::{DelegatedCaller, Policy, Refusal, VerifiedRequest, open};
use agent_core::token::{Issuer, Trust, Verifier};
use ed25519_dalek::Signer as _;
use forge::{NOW, client, envelope, key, public, token, wire};
use serde_json::{Value, json};

const DEVICE: usize = 12 * 1024;

fn accept_with<T>(
    message: &[u8],
    issuers: &[Issuer<'_>],
    delegated_caller: DelegatedCaller,
    then: impl FnOnce(&[u8], &VerifiedRequest<'_>) -> T,
) -> Result<T, Refusal> {
    let mut device = [0; DEVICE];
    let mut scratch = [0; 2048];
    let buffer = &mut device[..message.len()];
    buffer.copy_from_slice(message);
    let policy = Policy { verifier: Verifier::new(Trust::Issuers(issuers)), delegated_caller, proven: None };
    let verified = open(buffer)?.verify(buffer, &policy, NOW, &mut scratch)?;
    Ok(then(buffer, &verified))
}

fn reason(message: &[u8], delegated_caller: DelegatedCaller) -> Result<(), &'static str> {
    let issuers = [
        Issuer { organization: "choria", key: key(1).verifying_key().to_bytes() },
        Issuer { organization: "other", key: key(2).verifying_key().to_bytes() },
    ];
    accept_with(message, &issuers, delegated_caller, |_, _| ()).map_err(|refusal| refusal.reason())
}

#[test]
fn all_fourteen_verdicts_are_upstreams() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../tests/fixtures/protocol/v2_secure_request_verdicts.json"))
            .unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 14);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let issuers: Vec<Issuer<'_>> = case["issuers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(organization, key)| Issuer {
                organization,
                key: hex::decode(key.as_str().unwrap()).unwrap().try_into().unwrap(),
            })
            .collect();
        let secure = case["secure_request_json"].as_str().unwrap();
        let mut room = vec![0; DEVICE];
        let mut sink = agent_core::json::SliceSink::new(&mut room);
        agent_core::wire::transport::emit(&mut sink, &Default::default(), &mut |inner| {
            inner.put(secure.as_bytes())
        })
        .unwrap();
        let message = sink.written().to_vec();
        for mode in [DelegatedCaller::Any, DelegatedCaller::Match] {
            let verdict = accept_with(&message, &issuers, mode, |buffer, verified| {
                verified.request().caller.text(buffer).to_owned()
            });
            println!("{name}: {verdict:?} ({})", case["why"]);
            assert_eq!(verdict.is_ok(), case["expect"] == "allow", "{name} {mode:?}: {verdict:?}");
        }
    }
}

#[test]
fn what_was_verified_can_be_read() {
    let (org, alice) = (key(1), key(3));
    let caller = client("up=alice", &json!({"fleet_management":true}), &alice, &org);
    let message = wire("up=alice", &alice, &caller, None);
    let issuers = [Issuer { organization: "choria", key: org.verifying_key().to_bytes() }];
    accept_with(&message, &issuers, DelegatedCaller::Match, |buffer, verified| {
        assert_eq!(verified.request().agent.text(buffer), "rpcutil");
        assert_eq!(
            verified.request().message.text(buffer),
            r#"{"agent":"rpcutil","action":"ping","data":{}}"#
        );
        assert_eq!(verified.caller().claims().caller_id, "up=alice");
        assert_eq!(verified.caller_token().text(buffer), caller);
        assert_eq!(verified.request().ttl, 60);
        assert!(verified.signer().is_none());
    })
    .unwrap();
}

#[test]
fn t_216_t_218_t_223_t_224_t_225_callers_who_sign_themselves() {
    let (org, alice, mallory) = (key(1), key(3), key(4));
    let fleet = json!({"fleet_management":true});
    let own = client("up=alice", &fleet, &alice, &org);
    let own_mode = |message: &[u8]| reason(message, DelegatedCaller::Match);
    assert_eq!(own_mode(&wire("up=alice", &alice, &own, None)), Ok(()));
    assert_eq!(own_mode(&wire("up=alice", &alice, &format!("{own}\n"), None)), Ok(()));
    assert_eq!(own_mode(&wire("up=alice", &mallory, &own, None)), Err("sig_bad"));
    assert_eq!(own_mode(&wire("up=admin", &alice, &own, None)), Err("caller_mismatch"));
    // Without a delegated signer there is no rewriting.
    let dotted = client("up=a@b.c", &fleet, &alice, &org);
    assert_eq!(own_mode(&wire("up=a_b_c", &alice, &dotted, None)), Err("caller_mismatch"));
    for both in [
        json!({"signed_fleet_management":true}),
        json!({"fleet_management":true,"signed_fleet_management":true}),
    ] {
        let token = client("up=alice", &both, &alice, &org);
        assert_eq!(own_mode(&wire("up=alice", &alice, &token, None)), Err("delegation_missing"));
    }
    let nothing = client("up=alice", &json!({}), &alice, &org);
    assert_eq!(own_mode(&wire("up=alice", &alice, &nothing, None)), Err("permission_missing"));
    let server = token(
        &json!({"identity":"n1","ou":"choria","purpose":"choria_server","public_key":public(&alice)}),
        &org,
    );
    assert_eq!(own_mode(&wire("n1", &alice, &server, None)), Err("kind_mismatch"));
    let foreign = client("up=alice", &fleet, &alice, &mallory);
    assert_eq!(own_mode(&wire("up=alice", &alice, &foreign, None)), Err("sig_bad"));
    let keyless = token(
        &json!({"callerid":"up=alice","ou":"choria","purpose":"choria_client_id","permissions":fleet}),
        &org,
    );
    assert_eq!(own_mode(&wire("up=alice", &alice, &keyless, None)), Err("key_missing"));
    for (row, seen) in [
        (216, "sig_bad"),
        (218, "delegation_missing with one flag and with both"),
        (223, "kind_mismatch"),
        (224, "permission_missing"),
        (225, "caller_mismatch, also for the rewritten name"),
    ] {
        choria_rows::row(row, "in a device's buffers", seen);
    }
}

#[test]
fn t_214_t_217_a_request_changed_after_signing_is_refused() {
    let (org, alice) = (key(1), key(3));
    let own = client("up=alice", &json!({"fleet_management":true}), &alice, &org);
    let document = br#"{"protocol":"io.choria.protocol.v2.request","message":"e30=","id":"i","sender":"s","caller":"up=alice","collective":"c","agent":"a","ttl":60,"time":1}"#;
    let signature = alice.sign(document).to_bytes();
    assert_eq!(reason(&envelope(document, &signature, &own, None), DelegatedCaller::Match), Ok(()));
    for (from, to) in [
        ("\"ttl\":60", "\"ttl\":61"),
        ("\"agent\":\"a\"", "\"agent\":\"b\""),
        ("\"id\":\"i\"", "\"id\":\"j\""),
        ("\"time\":1", "\"time\":1,\"filter\":{}"),
    ] {
        let changed = std::str::from_utf8(document).unwrap().replace(from, to);
        let message = envelope(changed.as_bytes(), &signature, &own, None);
        assert_eq!(reason(&message, DelegatedCaller::Match), Err("sig_bad"), "{to}");
    }
    for signature in [&b""[..], b"insecure", &signature[..63]] {
        let message = envelope(document, signature, &own, None);
        assert_eq!(reason(&message, DelegatedCaller::Match), Err("sig_bad"));
    }
    choria_rows::row(214, "empty, the insecure marker, one byte short", "sig_bad");
    choria_rows::row(217, "ttl, agent, id and filter changed", "sig_bad");
}

#[test]
fn t_219_t_220_t_221_t_222_callers_who_have_their_requests_signed() {
    let (org, other, alice, bob, signer) = (key(1), key(2), key(3), key(4), key(5));
    let signed_fleet = json!({"signed_fleet_management":true});
    let delegator = json!({"authentication_delegator":true});
    let alice_token = client("up=alice", &signed_fleet, &alice, &org);
    let bob_token = client("up=bob", &signed_fleet, &bob, &org);
    let signer_token = client("signer", &delegator, &signer, &org);
    let strict = |message: &[u8]| reason(message, DelegatedCaller::Match);

    assert_eq!(strict(&wire("up=alice", &signer, &alice_token, Some(&signer_token))), Ok(()));
    // One captured request with another caller's token.
    let swapped = wire("up=alice", &signer, &bob_token, Some(&signer_token));
    assert_eq!(strict(&swapped), Err("caller_mismatch"));
    assert_eq!(reason(&swapped, DelegatedCaller::Any), Ok(()));
    // The signer rewrites @ and dots.
    let dotted = client("up=a@b.c", &signed_fleet, &alice, &org);
    assert_eq!(strict(&wire("up=a_b_c", &signer, &dotted, Some(&signer_token))), Ok(()));
    assert_eq!(strict(&wire("up=a-b-c", &signer, &dotted, Some(&signer_token))), Err("caller_mismatch"));
    // Signed by the caller although a signer is named.
    assert_eq!(strict(&wire("up=alice", &alice, &alice_token, Some(&signer_token))), Err("sig_bad"));

    let no_delegator = client("signer", &json!({"fleet_management":true}), &signer, &org);
    assert_eq!(
        strict(&wire("up=alice", &signer, &alice_token, Some(&no_delegator))),
        Err("delegator_refused")
    );
    let server = token(
        &json!({"identity":"n1","ou":"choria","purpose":"choria_server","public_key":public(&signer)}),
        &org,
    );
    assert_eq!(strict(&wire("up=alice", &signer, &alice_token, Some(&server))), Err("delegator_refused"));
    let foreign = token(
        &json!({"callerid":"signer","ou":"other","purpose":"choria_client_id","permissions":delegator,
            "public_key":public(&signer)}),
        &other,
    );
    assert_eq!(strict(&wire("up=alice", &signer, &alice_token, Some(&foreign))), Err("delegator_refused"));
    let powerless = client("up=alice", &json!({}), &alice, &org);
    assert_eq!(
        strict(&wire("up=alice", &signer, &powerless, Some(&signer_token))),
        Err("permission_missing")
    );
    choria_rows::row(219, "a client without the flag, a server token", "delegator_refused");
    choria_rows::row(220, "a delegator of another organization that the node knows", "delegator_refused");
    choria_rows::row(221, "bob's token with alice's request", "caller_mismatch; with `any` accepted");
    choria_rows::row(222, "up=a_b_c for up=a@b.c", "accepted; up=a-b-c: caller_mismatch");
}

#[test]
fn t_243_ambiguity_in_any_layer_is_named() {
    let (org, alice) = (key(1), key(3));
    let own = client("up=alice", &json!({"fleet_management":true}), &alice, &org);
    let document = br#"{"protocol":"io.choria.protocol.v2.request","message":"e30=","id":"i","sender":"s","caller":"up=alice","Caller":"up=root","collective":"c","agent":"a","ttl":60,"time":1}"#;
    let signature = alice.sign(document).to_bytes();
    assert_eq!(
        reason(&envelope(document, &signature, &own, None), DelegatedCaller::Match),
        Err("json_ambiguous")
    );
    assert_eq!(
        reason(b"{\"protocol\":\"\",\"protocol\":\"\"}", DelegatedCaller::Match),
        Err("json_ambiguous")
    );
    assert_eq!(reason(b"\x00\xff", DelegatedCaller::Match), Err("transport_bad"));
    assert_eq!(reason(b"", DelegatedCaller::Match), Err("transport_bad"));
    choria_rows::row(243, "a signed request with caller and Caller", "json_ambiguous");
}
