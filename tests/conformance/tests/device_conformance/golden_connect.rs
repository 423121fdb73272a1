//! What connects a node: nonces, ids, encodings, and the words of a broker.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use choria_conformance::Kind;

use crate::bench::{Case, Cases, digest, fixture, key_of};

#[test]
fn nonces_are_signed_as_upstream_signs_them_and_nothing_else_is() -> Result<()> {
    let (vectors, chain) = (fixture("connect/nats_connect.json")?, fixture("tokens/chain.json")?);
    let mut cases = Cases::default();
    for (who, key) in [("client", "alice"), ("server", "server_chained")] {
        let (vector, key) = (&vectors[who], &chain["keys"][key]);
        let seed = key_of(key["seed_hex"].as_str().context("no seed")?);
        let nonce = vector["info_nonce"].as_str().context("no nonce")?;
        let signature = vector["signature_hex"].as_str().context("no signature")?;
        let public = key["public_hex"].as_str().context("no key")?;
        let case = Case::new(Kind::Nonce).bytes(seed).bytes(nonce);
        cases.is(who, case, format!("ok {signature} by {public}"));
    }
    for bad in
        ["", "short", "has.dot.inside", "{\"json\":1}", "1798761600:alice:pw", "with space 12", "aaaaaaa="]
    {
        cases.is(bad, Case::new(Kind::Nonce).bytes([3; 32]).bytes(bad), "refused nonce_bad");
    }
    cases.is("65", Case::new(Kind::Nonce).bytes([3; 32]).bytes("a".repeat(65)), "refused nonce_bad");
    cases.is("no seed", Case::new(Kind::Nonce).bytes([0; 32]).bytes("Z4T9x1kQmB2aVwE"), "refused nonce_bad");
    cases.hold().map(drop)
}

#[test]
fn nodes_connect_as_upstreams_do() -> Result<()> {
    let (vectors, chain) = (fixture("connect/nats_connect.json")?, fixture("tokens/chain.json")?);
    let mut cases = Cases::default();
    let mut wanted = Vec::new();
    for (who, key) in [
        ("client", "alice"),
        ("server", "server_chained"),
        ("provisioning", ""),
        ("provisioner", "provisioner"),
    ] {
        let connect = &vectors[who]["connect"];
        let text = |name: &str| connect[name].as_str().unwrap_or_default();
        let seed = chain["keys"][key]["seed_hex"].as_str().map(key_of);
        let case = Case::new(Kind::Connect).bytes(text("name")).bytes(text("lang")).bytes(text("version"));
        let case =
            case.bytes(text("auth_token")).bytes(seed.as_ref().map_or(&[][..], |seed| seed.as_slice()));
        let case = case.bytes(text("user")).bytes(text("pass")).bytes("Z4T9x1kQmB2aVwE");
        cases.begins(who, case.number(seed.is_some().into()), "CONNECT {");
        wanted.push(connect.clone());
    }
    let signer = Case::new(Kind::Connect).bytes("n").bytes("rust").bytes("0").bytes("t").bytes([1; 32]);
    for nonce in ["", "{\"a\":1}"] {
        cases.is("no nonce", signer.clone().bytes("").bytes("").bytes(nonce).number(0), "refused Nonce");
    }
    let huge = Case::new(Kind::Connect).bytes("n").bytes("rust").bytes("0").bytes("t".repeat(5000)).bytes("");
    cases.is("a token too long for the line", huge.bytes("").bytes("").bytes("").number(0), "refused NoRoom");
    let lines = cases.hold()?;
    for (line, wanted) in lines.iter().zip(&wanted) {
        let sent: serde_json::Value =
            serde_json::from_str(line.strip_prefix("CONNECT ").context("no CONNECT")?)?;
        assert_eq!(&sent, wanted);
    }
    Ok(())
}

fn encoding(operation: &str, input: impl AsRef<[u8]>) -> Case {
    Case::new(Kind::Encoding).bytes(operation).bytes(input)
}

#[test]
fn ids_and_encodings_follow_the_vectors() -> Result<()> {
    let mut cases = Cases::default();
    let subjects = fixture("connect/reply_subjects.json")?;
    for case in subjects["cases"].as_array().context("no cases")? {
        let id = case["id"].as_str().context("no id")?;
        for hash in ["md5", "sha256"] {
            cases.is(id, encoding(hash, id), format!("ok {}", case[hash].as_str().context("no hash")?));
        }
    }
    let chain = fixture("tokens/chain.json")?;
    for case in chain["ksuid"].as_array().context("no ids")? {
        let (raw, text) =
            (case["raw_hex"].as_str().context("no raw")?, case["ksuid"].as_str().context("no id")?);
        cases.is(text, encoding("base62", hex::decode(raw).unwrap()), format!("ok {text}"));
        cases.is(text, encoding("from base62", text), format!("ok {raw}"));
        cases.is(text, encoding("ksuid", text), format!("ok {}", case["unix"].as_i64().context("no time")?));
    }
    for bytes in [&b""[..], b"a", b"pi", b"pin", b"ping", &[0xff; 64], &[0xfb, 0xef, 0xbe]] {
        for (to, from, text) in [
            ("base64", "from base64", STANDARD.encode(bytes)),
            ("base64url", "from base64url", URL_SAFE_NO_PAD.encode(bytes)),
            ("hex", "from hex", hex::encode(bytes)),
        ] {
            cases.is(to, encoding(to, bytes), format!("ok {text}"));
            cases.is(from, encoding(from, &text), format!("ok {}", hex::encode(bytes)));
        }
    }
    for (from, bad) in [
        ("from base64", "cGluZw="),
        ("from base64", "cGluZx=="),
        ("from base64", "cG_u"),
        ("from base64url", "cGluZw=="),
        ("from base64url", "cGlu\nZw"),
        ("from base64url", "cGluZx"),
        ("from hex", "abc"),
        ("from hex", "zz"),
        ("from base62", "zzzzzzzzzzzzzzzzzzzzzzzzzzz"),
    ] {
        cases.is(bad, encoding(from, bad), "refused Malformed");
    }
    cases.is("line ends", encoding("from base64", "cGlu\r\nZw==\n"), "ok 70696e67");
    cases.hold().map(drop)
}

#[test]
fn a_brokers_words_in_pieces_of_any_size() -> Result<()> {
    let mut cases = Cases::default();
    let body = "x".repeat(3000);
    let talk = format!(
        "INFO {{\"a\":1}}\r\nPING\r\n+OK\r\nMSG a.b 7 5\r\nhello\r\nMSG a.b 7 r.s {}\r\n{body}\r\nHMSG a 1 12 14\r\nNATS/1.0\r\n\r\nok\r\nMSG big 9 9000\r\n{}\r\nPONG\r\n-ERR 'No such'\r\n",
        body.len(),
        "y".repeat(9000)
    );
    let heard = format!(
        "info {} ping +ok msg a.b 7  {} {} msg a.b 7 r.s {} {} msg a 1  {} {} large big 9 9000 pong -err No such end",
        digest("{\"a\":1}"),
        digest(""),
        digest("hello"),
        digest(""),
        digest(&body),
        digest("NATS/1.0\r\n\r\n"),
        digest("ok"),
    );
    let frames = |bytes: &[u8], piece| Case::new(Kind::Frames).bytes(bytes).number(piece).number(8192);
    for piece in [1, 7, 1460, 20_000] {
        cases.is(format!("pieces of {piece}"), frames(talk.as_bytes(), piece), heard.clone());
    }
    for bad in [
        "NONSENSE\r\n",
        "MSG a\r\n",
        "MSG a b c d e f\r\n",
        "MSG a 1 -1\r\n",
        "MSG a 1 99999999999999999999\r\n",
    ] {
        cases.begins(bad, frames(bad.as_bytes(), 1460), "refused ");
    }
    cases.begins("5,000 bytes without an end", frames(&[b'a'; 5000], 1460), "refused LineTooLong");
    cases.begins("not behind its size", frames(b"MSG a 1 2\r\nokMSG", 1460), "refused Unterminated");
    cases.hold().map(drop)
}
