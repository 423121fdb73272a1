//! Rows 14.1 on the device: tokens made to be misread.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_conformance::Kind;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::bench::{Case, Cases};
use crate::forge::{NOW, client, key, public, sign_token, token};
use crate::shot::{Caller, ChainIssuer, READY, Shot, member};

const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

fn org() -> [u8; 32] {
    key(1).verifying_key().to_bytes()
}

fn verify(kind: &str, token: &str) -> Case {
    Case::new(Kind::Token).bytes(kind).trust(&[("choria", org())]).number(NOW).bytes(token)
}

/// The token is refused where it is verified, and so is a request that carries it.
fn refused_twice(cases: &mut Cases, name: &str, text: &str, word: &str) {
    cases.begins(name, verify("client", text), format!("refused {word} "));
    let caller = Caller { id: "up=alice".into(), key: key(3), token: text.to_owned() };
    cases.begins(name, member(&[("choria", org())]), READY);
    cases.begins(name, Shot::of(&caller, "req1", |_| {}).sent(), format!("dropped {word} ready"));
}

fn claims(holder: &SigningKey) -> Value {
    json!({"callerid": "up=alice", "ou": "choria", "permissions": {"fleet_management": true}, "purpose": "choria_client_id",
        "public_key": public(holder), "exp": NOW + 60, "nbf": NOW, "iat": NOW})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims(&key(3));
    claims[name] = value;
    claims
}

#[test]
fn t_001_t_002_t_003_t_023_chains_that_do_not_hold() -> Result<()> {
    let (org, chain, forger, alice) = (key(1), key(6), key(7), key(3));
    let good = ChainIssuer::vouched_by(&org, &chain);
    let mut cases = Cases::default();
    let named = format!("chain={}:{}", good.jti, public(&chain));
    let honest = verify("client", &good.issue("up=alice", &alice));
    cases.add("the real chain", honest, vec![crate::bench::Line::Has(named)]);

    let own = ChainIssuer::vouched_by(&forger, &forger);
    refused_twice(&mut cases, "an issuer that signed itself", &own.issue("up=alice", &alice), "chain_forged");

    let borrowed = ChainIssuer { key: forger.clone(), ..good.clone() };
    let forged = borrowed.issue("up=alice", &alice);
    refused_twice(&mut cases, "the real issuer's id, another key", &forged, "chain_forged");

    // the trust chain of another user's token of the same second, by the same issuer
    let of_bob = good.claims("up=bob", &key(4));
    let mut copied = good.claims("up=alice", &alice);
    copied["tcs"] = of_bob["tcs"].clone();
    copied["jti"] = agent_core::ids::Ksuid::new(NOW, &[7; 16]).as_str().into();
    refused_twice(&mut cases, "tcs of another user", &token(&copied, &chain), "chain_forged");

    let mut late = good.claims("up=alice", &alice);
    late["iat"] = (NOW - 1).into();
    refused_twice(&mut cases, "an id of another second", &token(&late, &chain), "chain_forged");
    cases.hold()?;
    for (row, tried) in [
        (1, "a chain issuer that signed itself"),
        (2, "the real issuer's id with another key"),
        (3, "tcs copied from another user's token"),
        (23, "iat a second before the id"),
    ] {
        choria_rows::row(
            row,
            format!("{tried}: verified, and in a request; on the device"),
            "chain_forged, dropped",
        );
    }
    Ok(())
}

#[test]
fn t_009_t_010_t_012_t_013_algorithms_headers_and_kinds() -> Result<()> {
    let (org, alice) = (key(1), key(3));
    let mut cases = Cases::default();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let body = part(&claims(&alice).to_string());
    let none = format!("{}.{body}.", part(r#"{"alg":"none","typ":"JWT"}"#));
    refused_twice(&mut cases, "alg none", &none, "alg_refused");

    let signed = format!("{}.{body}", part(r#"{"alg":"HS256","typ":"JWT"}"#));
    let mac = hmac(&org.verifying_key().to_bytes(), signed.as_bytes());
    let shared = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac));
    refused_twice(&mut cases, "the public key as a secret", &shared, "alg_refused");
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"RS256"}"#, r#"{"alg":"eddsa"}"#] {
        let text = sign_token(header, claims(&alice).to_string().as_bytes(), &org);
        cases.begins(header, verify("client", &text), "refused alg_refused ");
    }
    let text = sign_token(r#"{"alg":"EdDSA","crit":["x"]}"#, claims(&alice).to_string().as_bytes(), &org);
    refused_twice(&mut cases, "crit", &text, "token_malformed");
    for header in [r#"{"alg":"EdDSA","Alg":"none"}"#, r#"{"typ":"JWT"}"#, "[]", "{\"alg\":7}"] {
        let text = sign_token(header, claims(&alice).to_string().as_bytes(), &org);
        cases.begins(header, verify("client", &text), "refused token_malformed ");
    }
    let text =
        sign_token(r#"{"alg":"EdDSA","kid":"x","jku":"y"}"#, claims(&alice).to_string().as_bytes(), &org);
    cases.begins("kid, jku", verify("client", &text), "ok ");

    let server = token(
        &json!({"identity":"n1","ou":"choria","purpose":"choria_server","public_key":public(&alice),"exp":NOW + 60}),
        &org,
    );
    let provisioning = token(
        &json!({"cht":"t","chu":"nats://h:1","ou":"choria","purpose":"choria_provisioning","sub":"choria_provisioning"}),
        &org,
    );
    let client = token(&claims(&alice), &org);
    for (own, text) in [("server", &server), ("provisioning", &provisioning), ("client", &client)] {
        for kind in ["client", "server", "provisioning"] {
            let line = if kind == own { "ok " } else { "refused kind_mismatch " };
            cases.begins(format!("{own} as {kind}"), verify(kind, text), line);
        }
    }
    cases.hold()?;
    for (row, tried, seen) in [
        (9, "alg none, no signature: verified, and in a request", "alg_refused, dropped"),
        (10, "HS256 with the organization's key as the secret, and its like", "alg_refused, dropped"),
        (12, "crit, two algorithms, none, no object", "token_malformed, dropped"),
        (13, "server, provisioning and client tokens as each other", "kind_mismatch, six times"),
    ] {
        choria_rows::row(row, format!("{tried}; on the device"), seen);
    }
    Ok(())
}

fn hmac(secret: &[u8], bytes: &[u8]) -> [u8; 32] {
    let pad =
        |byte: u8| -> Vec<u8> { (0..64).map(|at| secret.get(at).copied().unwrap_or(0) ^ byte).collect() };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(bytes).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[test]
fn t_016_t_018_t_020_t_021_t_022_claims_spellings_and_times() -> Result<()> {
    let org = key(1);
    let mut cases = Cases::default();
    let of_text = |claims: &str| {
        let base = r#""callerid":"up=a","ou":"choria","purpose":"choria_client_id""#;
        sign_token(HEADER, format!("{{{base},{claims}}}").as_bytes(), &org)
    };
    for twice in [
        r#""permissions":{},"Permissions":{}"#,
        r#""Ou":"a""#,
        r#""permi\u017fsions":{}"#,
        r#""permissions":{"fleet_management":true,"fleet_management":false}"#,
    ] {
        refused_twice(&mut cases, twice, &of_text(twice), "token_malformed");
    }
    cases.begins("unknown ones", verify("client", &of_text(r#""x":1,"X":2"#)), "ok ");

    for bad in ["00".repeat(31), "00".repeat(33), "00".repeat(64), "0".repeat(63), "zz".repeat(32)] {
        let text = token(&with("public_key", bad.clone().into()), &org);
        refused_twice(&mut cases, &bad, &text, "claim_invalid");
    }
    let text = token(&with("public_key", "".into()), &org);
    cases.begins("no key", verify("client", &text), "ok ");
    let keyless = Caller { id: "up=alice".into(), key: key(3), token: text };
    cases.begins("no key", member(&[("choria", org.verifying_key().to_bytes())]), READY);
    cases.begins("no key", Shot::of(&keyless, "r", |_| {}).sent(), "dropped key_missing ");

    let good = token(&claims(&key(3)), &org);
    for fine in [good.clone(), format!("{good}\n"), format!("{good}\r\n")] {
        cases.begins("line end", verify("client", &fine), "ok ");
    }
    for bad in [
        format!(" {good}"),
        format!("{good} "),
        format!("{good}="),
        format!("{good}\n\n"),
        good.replacen('.', ".\n", 1),
        good.replacen('.', "=.", 1),
        good.replacen('.', ".+", 1),
        good.replacen('.', "./", 1),
    ] {
        cases.begins(bad.clone(), verify("client", &bad), "refused token_malformed ");
    }
    // the last symbol of a 64 byte signature has four unused bits: one of the spellings of its two bits is the token
    let (head, last) = good.split_at(good.len() - 1);
    let symbols = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for symbol in symbols.chars() {
        let line = if last == symbol.to_string() { "ok " } else { "refused " };
        cases.begins(format!("ends with {symbol}"), verify("client", &format!("{head}{symbol}")), line);
    }

    for (claim, value, line) in [
        ("exp", json!(NOW), "refused token_expired "),
        ("exp", json!(NOW - 1), "refused token_expired "),
        ("exp", json!(1_798_761_600.9), "refused token_expired "),
        ("exp", json!(NOW + 1), "ok "),
        ("exp", json!(-1), "refused token_expired "),
        ("exp", json!(1e300), "refused token_malformed "),
        ("exp", json!("x"), "refused token_malformed "),
        ("exp", json!(true), "refused token_malformed "),
        ("nbf", json!(NOW), "ok "),
        ("nbf", json!(NOW + 1), "refused token_early "),
    ] {
        let text = token(&with(claim, value.clone()), &org);
        cases.begins(format!("{claim} {value}"), verify("client", &text), line);
    }
    for now in [i64::MAX, i64::MIN + 1, -1, 0] {
        let case =
            Case::new(Kind::Token).bytes("client").trust(&[("choria", org.verifying_key().to_bytes())]);
        cases.begins(format!("at {now}"), case.number(now).bytes(&good), "refused token_");
    }

    for bad in ["", "a", ".", "..", "a.b", "a.b.c", "a..c", "..c", "a.b.c.d", "a.b.c.d.e", "a.b.c.d.e.f.g"] {
        cases.begins(bad, verify("client", bad), "refused token_malformed ");
    }
    let dots = ".".repeat(choria_conformance::RX);
    cases.begins("12 KiB of dots", verify("client", &dots), "refused token_malformed ");
    cases.hold()?;
    for (row, tried, seen) in [
        (
            16,
            "permissions and Permissions, Ou, a long s: verified, and in requests",
            "token_malformed, dropped",
        ),
        (18, "keys of 31, 33, 64 bytes, odd and no hex; none", "claim_invalid; key_missing"),
        (
            20,
            "64 last symbols, padding, +, /, blanks and line ends",
            "one spelling is accepted, and a line end behind it",
        ),
        (
            21,
            "exp now, now-1, now+0.9, -1, 1e300, x; nbf now+1; clocks at both ends",
            "the boundary is exact, no fault",
        ),
        (22, "0 to 6 dots, and a receive buffer full of them", "token_malformed"),
    ] {
        choria_rows::row(row, format!("{tried}; on the device"), seen);
    }
    Ok(())
}

/// The eight points of small order in their canonical encodings, and other spellings of some.
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

#[test]
fn t_017_keys_of_small_order_and_scalars_above_the_order() -> Result<()> {
    let (org, honest) = (key(1), key(3));
    let mut cases = Cases::default();
    let check = |key: [u8; 32], message: &[u8], signature: &[u8]| {
        Case::new(Kind::Signature).bytes(key).bytes(message).bytes(signature)
    };
    let (own, good) = (honest.verifying_key().to_bytes(), honest.sign(b"{}").to_bytes());
    cases.is("an honest one", check(own, b"{}", &good), "ok");
    cases.is("of something else", check(own, b"{ }", &good), "refused sig_bad");
    for point in SMALL_ORDER.map(crate::bench::key_of) {
        for nonce in SMALL_ORDER.map(crate::bench::key_of) {
            let signature = [nonce, [0; 32]].concat();
            cases.is(hex::encode(nonce), check(point, b"{}", &signature), "refused sig_bad");
        }
        let mut signature = good;
        signature[..32].copy_from_slice(&point);
        cases.is("an honest key", check(own, b"{}", &signature), "refused sig_bad");
    }
    let (mut above, mut carry) = (good, 0_u16);
    for (byte, add) in above[32..].iter_mut().zip(crate::bench::key_of(ORDER)) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    cases.is("S + L", check(own, b"{}", &above), "refused sig_bad");
    for length in [0, 8, 32, 63] {
        cases.is("short", check(own, b"{}", &good[..length]), "refused sig_bad");
    }
    cases.is("long", check(own, b"{}", &[&good[..], &[0]].concat()), "refused sig_bad");

    // a holder's key of small order, with a signature that holds for any document under a lax verifier
    for point in [SMALL_ORDER[0], SMALL_ORDER[4]] {
        let mut claims = claims(&honest);
        claims["public_key"] = point.into();
        let caller = Caller { id: "up=alice".into(), key: honest.clone(), token: token(&claims, &org) };
        let shot = Shot::of(&caller, "r", |_| {}).with(|shot| {
            shot.signature = [crate::bench::key_of(SMALL_ORDER[0]), [0; 32]].concat();
        });
        cases.begins("a member", member(&[("choria", org.verifying_key().to_bytes())]), READY);
        cases.begins(point, shot.sent(), "dropped sig_bad ready");
    }
    // and the same for an issuer's
    let text = client("up=alice", &json!({}), &honest, &org);
    let lax =
        Case::new(Kind::Token).bytes("client").trust(&[("choria", crate::bench::key_of(SMALL_ORDER[0]))]);
    cases.begins("an issuer", lax.number(NOW).bytes(text), "refused sig_bad ");
    cases.hold()?;
    choria_rows::row(
        17,
        "12 keys of small order with 12 universal signatures each, S + L, wrong lengths, requests; on the device",
        "all refused, sig_bad",
    );
    Ok(())
}
