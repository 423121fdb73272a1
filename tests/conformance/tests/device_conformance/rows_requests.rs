//! Rows of 14.6 about who may ask, on the device.

use anyhow::Result;
use choria_conformance::Kind;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use crate::bench::{Case, Cases, Line};
use crate::forge::{NOW, key, public, token};
use crate::shot::{Caller, READY, Shot, inbox, member, start};

const SERVED: &str = "call rpcutil#ping by ";

fn raw(key: &SigningKey) -> [u8; 32] {
    key.verifying_key().to_bytes()
}

fn issuers() -> [(&'static str, [u8; 32]); 2] {
    [("choria", raw(&key(1))), ("other", raw(&key(2)))]
}

/// A member, and a good request that it serves: before and after everything that it drops.
struct Range {
    cases: Cases,
    good: Caller,
    sent: usize,
}

impl Range {
    fn new() -> Range {
        let mut cases = Cases::default();
        cases.begins("start", member(&issuers()), READY);
        Range { cases, good: Caller::fleet("up=good", &key(8), &key(1)), sent: 0 }
    }

    fn serves(&mut self, name: &str, shot: &Shot) {
        let lines = vec![Line::Begins(SERVED.into()), Line::Has(" status=0 \"OK\" to=choria.reply.".into())];
        self.cases.add(name, shot.sent(), lines);
    }

    /// Silence and one reason; then the good one is served.
    fn drops(&mut self, name: &str, shot: &Shot, reason: &str) {
        self.cases.is(name, shot.sent(), format!("dropped {reason} ready"));
        self.control();
    }

    fn control(&mut self) {
        self.sent += 1;
        let id = format!("control{}", self.sent);
        let good = Shot::of(&self.good, &id, |_| {});
        let line = format!("{SERVED}up=good status=0 \"OK\" to={} sent=", inbox("up=good", &id));
        self.cases.begins("the control", good.sent(), line);
    }
}

#[test]
fn t_214_t_216_t_217_t_223_t_224_t_225_who_signs_for_itself() -> Result<()> {
    let (org, alice, mallory) = (key(1), key(3), key(4));
    let own = Caller::fleet("up=alice", &alice, &org);
    let mut range = Range::new();
    range.serves("alice", &Shot::of(&own, "r0", |_| {}));
    for (name, signature) in [("absent", &b""[..]), ("insecure", b"insecure"), ("short", &[7; 63])] {
        let shot = Shot::of(&own, "r1", |_| {}).with(|shot| shot.signature = signature.to_vec());
        range.drops(name, &shot, "sig_bad");
    }
    let mut without = Shot::of(&own, "r1", |_| {}).secure();
    without.as_object_mut().unwrap().remove("signature");
    let wire =
        crate::shot::transport(without.to_string().as_bytes(), &json!({"reply": inbox("up=alice", "r1")}));
    let sent = crate::shot::message("choria.node.n1.example.net", wire, 0, crate::shot::NANOS);
    range.cases.is("no signature", sent, "dropped sig_bad ready");

    let by_mallory = Shot::of(&own, "r2", |_| {})
        .with(|shot| shot.signature = mallory.sign(shot.document.as_bytes()).to_bytes().to_vec());
    range.drops("by another", &by_mallory, "sig_bad");
    for (from, to) in [
        (r#""ttl":60"#, r#""ttl":61"#),
        (r#""agent":"rpcutil""#, r#""agent":"rpcutik""#),
        (r#""id":"r3""#, r#""id":"r4""#),
        (r#""identity":[]"#, r#""identity":["x"]"#),
    ] {
        let shot = Shot::of(&own, "r3", |_| {});
        let changed = shot.document.replace(from, to);
        assert_ne!(changed, shot.document);
        range.drops(to, &shot.with(|shot| shot.document = changed), "sig_bad");
    }
    let server = token(
        &json!({"identity":"n1","ou":"choria","purpose":"choria_server","public_key":public(&alice),"exp":NOW + 60}),
        &org,
    );
    let as_server = Caller { id: "n1".into(), key: alice.clone(), token: server };
    range.drops("a server", &Shot::of(&as_server, "r5", |_| {}), "kind_mismatch");
    let nothing = Caller::with("up=alice", &alice, &json!({}), &org);
    range.drops("no flags", &Shot::of(&nothing, "r6", |_| {}), "permission_missing");
    let admin = Caller { id: "up=admin".into(), ..own.clone() };
    range.drops("as admin", &Shot::of(&admin, "r7", |_| {}), "caller_mismatch");
    let dotted = Caller { id: "up=a_b".into(), ..Caller::fleet("up=a.b", &alice, &org) };
    range.drops("rewritten without a signer", &Shot::of(&dotted, "r8", |_| {}), "caller_mismatch");
    range.cases.hold()?;
    for (row, tried, seen) in [
        (214, "no signature, an empty one, the insecure marker, 63 bytes", "sig_bad"),
        (216, "alice's token, mallory's signature", "sig_bad"),
        (217, "agent, filter, id and ttl changed after signing", "sig_bad"),
        (223, "a server's token and key", "kind_mismatch"),
        (224, "a client without flags", "permission_missing"),
        (225, "up=admin with alice's token; the rewritten name without a signer", "caller_mismatch"),
    ] {
        choria_rows::row(
            row,
            format!("{tried}: a connected device"),
            format!("silence, {seen}; the next is served"),
        );
    }
    Ok(())
}

#[test]
fn t_218_t_219_t_220_t_221_t_222_who_has_its_requests_signed() -> Result<()> {
    let (org, other) = (key(1), key(2));
    let signed_fleet = json!({"signed_fleet_management": true});
    let alice = Caller::with("up=alice", &key(3), &signed_fleet, &org);
    let both = json!({"fleet_management": true, "signed_fleet_management": true});
    let alice_both = Caller::with("up=alice", &key(3), &both, &org);
    let bob = Caller::with("up=bob", &key(4), &signed_fleet, &org);
    let delegator = json!({"authentication_delegator": true});
    let signer = Caller::with("aaa_signer", &key(5), &delegator, &org);

    let mut range = Range::new();
    range.drops("alone", &Shot::of(&alice, "r0", |_| {}), "delegation_missing");
    range.drops("alone with both flags", &Shot::of(&alice_both, "r0", |_| {}), "delegation_missing");
    range.serves("signed", &Shot::of(&alice, "r1", |_| {}).delegated(&signer));

    let plain = Caller::fleet("aaa_signer", &key(5), &org);
    range.drops("no delegator", &Shot::of(&alice, "r2", |_| {}).delegated(&plain), "delegator_refused");
    let server = token(
        &json!({"identity":"n1","ou":"choria","purpose":"choria_server","public_key":public(&key(5)),"exp":NOW + 60}),
        &org,
    );
    let server = Caller { token: server, ..signer.clone() };
    range.drops("a server", &Shot::of(&alice, "r3", |_| {}).delegated(&server), "delegator_refused");
    let foreign = token(
        &json!({"callerid":"signer","ou":"other","purpose":"choria_client_id","permissions":delegator,
            "public_key":public(&key(5)),"exp":NOW + 60}),
        &other,
    );
    let foreign = Caller { token: foreign, ..signer.clone() };
    range.drops(
        "of another organization",
        &Shot::of(&alice, "r4", |_| {}).delegated(&foreign),
        "delegator_refused",
    );
    let itself = Shot::of(&alice, "r5", |_| {}).with(|shot| shot.signer = Some(signer.token.clone()));
    range.drops("signed by the caller", &itself, "sig_bad");

    let swapped = Caller { token: bob.token.clone(), ..alice.clone() };
    let swapped = Shot::of(&swapped, "r6", |_| {}).delegated(&signer);
    range.drops("bob's token", &swapped, "caller_mismatch");
    let dotted = Caller { id: "up=a_b_c".into(), ..Caller::with("up=a@b.c", &key(3), &signed_fleet, &org) };
    let inbox_of = |shot: Shot| shot.with(|shot| shot.headers["reply"] = inbox("up=a@b.c", "r7").into());
    range.serves("rewritten", &inbox_of(Shot::of(&dotted, "r7", |_| {})).delegated(&signer));
    let dashed = Caller { id: "up=a-b-c".into(), ..dotted };
    range.drops(
        "rewritten otherwise",
        &Shot::of(&dashed, "r8", |_| {}).delegated(&signer),
        "caller_mismatch",
    );

    // a device that takes any name from a signer
    range.cases.begins("start", start(true, &issuers(), true, "nobody"), READY);
    let asked = swapped.with(|shot| shot.headers["reply"] = inbox("up=bob", "r6").into());
    range.cases.begins("bob's token, any name", asked.sent(), SERVED);
    range.cases.hold()?;
    for (row, tried, seen) in [
        (
            218,
            "a caller who needs a signer, alone, also with both flags",
            "delegation_missing; with one served",
        ),
        (219, "a signer without the flag, a server", "delegator_refused"),
        (220, "a delegator of another organization that the device knows", "delegator_refused"),
        (221, "alice's request, bob's token", "caller_mismatch; where any name is taken, served"),
        (222, "up=a_b_c for up=a@b.c", "served; up=a-b-c: caller_mismatch"),
    ] {
        choria_rows::row(row, format!("{tried}: a connected device"), seen);
    }
    Ok(())
}

#[test]
fn t_226_t_227_t_230_t_231_t_232_a_request_lives_once_and_as_long_as_it_says() -> Result<()> {
    let alice = Caller::fleet("up=alice", &key(3), &key(1));
    let mut range = Range::new();
    let first = Shot::of(&alice, "first", |_| {});
    range.serves("the first", &first);
    range.drops("the same bytes", &first, "replayed");
    range.drops(
        "the same id",
        &Shot::of(&alice, "first", |document| document["ttl"] = 59.into()),
        "replayed",
    );
    range.serves(
        "another caller's id",
        &Shot::of(&Caller::fleet("up=bob", &key(4), &key(1)), "first", |_| {}),
    );

    let aged = |id: &str, ttl: Value, seconds: i64, nanos: i64| {
        Shot::of(&alice, id, |document| {
            document["ttl"] = ttl;
            let time = document["time"].as_i64().unwrap();
            document["time"] = (time - seconds * 1_000_000_000 + nanos).into();
        })
    };
    for ttl in [json!(0), json!(-5), json!(9_223_372_036_854_775_808_u64), json!("60"), json!(null)] {
        range.drops(&format!("ttl {ttl}"), &aged("t0", ttl, 0, 0), "secure_bad");
    }
    range.serves("ttl 3600, a second old", &aged("t1", 3600.into(), 1, 0));
    range.drops("ttl 3600, a second over the cap", &aged("t2", 3600.into(), 61, 0), "ttl_cap");
    range.drops("as old as its ttl", &aged("t3", 60.into(), 60, 0), "ttl_expired");
    range.serves("a nanosecond younger", &aged("t4", 60.into(), 60, 1));
    range.drops("older", &aged("t5", 60.into(), 61, 0), "ttl_expired");
    range.drops("from the future", &aged("t6", 60.into(), -61, 0), "ttl_expired");
    let far = |document: &mut Value| document["time"] = (1_i64 << 62).into();
    range.drops("from the far future", &Shot::of(&alice, "t7", far), "ttl_expired");
    range.drops("at no time", &Shot::of(&alice, "t8", |document| document["time"] = 0.into()), "secure_bad");

    // the cache of a device is filled with newer requests of the same second
    range.cases.begins("start", member(&issuers()), READY);
    range.serves("the first", &first);
    for n in 1..=60 {
        let name = format!("newer{n}");
        range.serves(&name, &aged(&name, 60.into(), 0, n));
    }
    // the watermark is above everything of that nanosecond, and below what is newer
    let old = Shot::of(&alice, "neverseen", |_| {});
    for (name, shot) in [("the first again", &first), ("as old as it, never seen", &old)] {
        range.cases.is(name, shot.sent(), "dropped replayed ready");
    }
    range.serves("the newest", &aged("newest", 60.into(), 0, 61));
    range.cases.hold()?;
    for (row, tried, seen) in [
        (226, "the same bytes, the same id with other bytes", "replayed"),
        (227, "60 newer requests, then the first again: 64 slots", "replayed, by the watermark"),
        (
            230,
            "ttl 0, -5, 2^63, text, null; 3600 and a second; and a second over the cap",
            "secure_bad; served; ttl_cap",
        ),
        (231, "older than its ttl; as old as it; a nanosecond younger", "ttl_expired twice; served"),
        (232, "time + ttl + 1, 2^62", "ttl_expired"),
    ] {
        choria_rows::row(row, format!("{tried}: a connected device"), seen);
    }
    Ok(())
}

#[test]
fn t_247_t_248_what_a_token_says_of_actions() -> Result<()> {
    let org = key(1);
    let caller = |permissions: Value, more: Value| {
        let mut claims = json!({"callerid": "up=alice", "ou": "choria", "permissions": permissions,
            "purpose": "choria_client_id", "public_key": public(&key(3)), "exp": NOW + 60, "nbf": NOW, "iat": NOW});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Caller { id: "up=alice".into(), key: key(3), token: token(&claims, &org) }
    };
    let fleet = json!({"fleet_management": true});
    let policy = "package io.choria.aaasvc\ndefault allow = true\n";
    let denied = |why: &str| {
        format!(
            "call rpcutil#ping by up=alice denied {why:?} status=1 \"You are not authorized to call this agent or action\" "
        )
    };
    let served = "call rpcutil#ping by up=alice status=0 \"OK\" to=";
    let neither = "no policy received in token";
    let both = "the token holds both an action list and a policy";
    let unnamed = "the action list does not name this action";
    let malformed = "an entry of the action list is not of the form agent.action";
    let rego = "device cannot evaluate rego";
    let mut cases = Cases::default();
    cases.begins("start", start(true, &issuers(), false, "device"), READY);
    for (n, (more, line)) in [
        (json!({"agents": ["*"]}), served.to_owned()),
        (json!({"agents": ["rpcutil.*"]}), served.to_owned()),
        (json!({"agents": ["x.y", "rpcutil.ping"]}), served.to_owned()),
        (json!({"agents": ["rpcutil.ping", "bad"]}), served.to_owned()),
        (json!({}), denied(neither)),
        (json!({"agents": []}), denied(neither)),
        (json!({"agents": ["*"], "opa_policy": policy}), denied(both)),
        (json!({"opa_policy": policy}), denied(rego)),
        (json!({"agents": ["rpcutil.pong"]}), denied(unnamed)),
        (json!({"agents": ["bad", "rpcutil.ping"]}), denied(malformed)),
        (json!({"agents": ["a.b.c", "rpcutil.ping"]}), denied(malformed)),
        (json!({"agents": [1, "rpcutil.ping"]}), denied(malformed)),
    ]
    .into_iter()
    .enumerate()
    {
        let alice = caller(fleet.clone(), more.clone());
        cases.begins(more.to_string(), Shot::of(&alice, &format!("p{n}"), |_| {}).sent(), line);
    }
    // an image that takes the signer's word for policies
    let signer = Caller::with("aaa_signer", &key(5), &json!({"authentication_delegator": true}), &org);
    let signed = caller(json!({"signed_fleet_management": true}), json!({"opa_policy": policy}));
    let alone = caller(fleet, json!({"opa_policy": policy}));
    cases.begins("start", start(true, &issuers(), false, "device"), READY);
    cases.begins("a signer's word", Shot::of(&signed, "q0", |_| {}).delegated(&signer).sent(), denied(rego));
    cases.begins("start", start(true, &issuers(), false, "signer"), READY);
    cases.begins("a signer's word", Shot::of(&signed, "q1", |_| {}).delegated(&signer).sent(), served);
    cases.begins("nobody's word", Shot::of(&alone, "q2", |_| {}).sent(), denied(rego));
    cases.hold()?;
    choria_rows::row(
        247,
        "a list and a policy, neither, an empty list: a connected device",
        "status 1, not authorized",
    );
    choria_rows::row(
        248,
        "a malformed entry before a match, and behind one; a policy with and without a signer: a connected device",
        "status 1, a match before it counts; device cannot evaluate rego",
    );
    Ok(())
}

/// A candidate that knows its issuer obeys that organization's provisioner, by its own signature.
#[test]
fn whom_a_candidate_obeys() -> Result<()> {
    let (org, other) = (key(1), key(2));
    let provisioner = json!({"provisioner": true});
    let good = Caller::with("provisioner", &key(5), &provisioner, &org);
    let obey = |shot: &Shot| Case::new(Kind::Obey).trust(&issuers()[..1]).number(NOW).bytes(shot.wire());
    let mut cases = Cases::default();
    let shot = Shot::of(&good, "r0", |_| {});
    cases.begins("the provisioner", obey(&shot), "ok as=provisioner inbox=");
    cases.is(
        "a fleet's client",
        obey(&Shot::of(&Caller::fleet("p", &key(5), &org), "r", |_| {})),
        "refused permission_missing",
    );
    let foreign = Caller::with("provisioner", &key(5), &provisioner, &other);
    cases.is("another organization's", obey(&Shot::of(&foreign, "r", |_| {})), "refused sig_bad");
    cases.is("signed by a signer", obey(&shot.clone().delegated(&good)), "refused delegator_refused");
    let unsigned = shot.clone().with(|shot| shot.signature = b"insecure".to_vec());
    cases.is("not signed", obey(&unsigned), "refused sig_bad");
    let renamed = Caller { id: "up=x".into(), ..good.clone() };
    cases.is("another name", obey(&Shot::of(&renamed, "r", |_| {})), "refused caller_mismatch");
    cases.hold().map(drop)
}
