//! Tokens that somebody made to be misread. Each case names the rows of docs/spec/10 §14 that it covers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]
#![allow(clippy::print_stdout)] // a skipped test says so

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_token::claims::ProvisioningClaims;
use choria_token::{ClientClaims, Issuer, Key, Seed, ServerClaims, SigningKey, Verifier};

const NOW: i64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn org() -> Seed {
    Seed::from_bytes(&[42; 32])
}

fn verifier() -> Verifier {
    Verifier::single(Key::Ed25519(org().public()))
}

fn signed(claims: &str) -> String {
    let input =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#), URL_SAFE_NO_PAD.encode(claims));
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(org().sign(input.as_bytes())))
}

fn client_with(claim: &str) -> &'static str {
    let token = signed(&format!(r#"{{"callerid":"up=x","purpose":"choria_client_id",{claim}}}"#));
    verifier().verify_client(&token, NOW).err().map_or("ok", |reject| reject.reason())
}

#[test]
fn t_021_dates() {
    for (claim, expected) in [
        (format!(r#""exp":{NOW}"#), "token_expired"),
        (format!(r#""exp":{}"#, NOW - 1), "token_expired"),
        (format!(r#""exp":{}"#, NOW + 1), "ok"),
        (format!(r#""exp":{}.9"#, NOW + 1), "ok"),
        (format!(r#""exp":{NOW}.9"#), "token_expired"),
        (r#""exp":-1"#.into(), "token_expired"),
        (r#""exp":1e300"#.into(), "token_malformed"),
        (r#""exp":1e999"#.into(), "token_malformed"),
        (r#""exp":-1e300"#.into(), "token_malformed"),
        (r#""exp":"x""#.into(), "token_malformed"),
        (r#""exp":[1]"#.into(), "token_malformed"),
        (r#""exp":18446744073709551615"#.into(), "token_malformed"),
        (format!(r#""nbf":{}"#, NOW + 1), "token_early"),
        (format!(r#""nbf":{NOW}"#), "ok"),
        (r#""nbf":9223372036854775807"#.into(), "token_early"),
    ] {
        assert_eq!(client_with(&claim), expected, "{claim}");
    }
    choria_rows::row(
        21,
        "exp now, now-1, 1e300, -1, text, fraction, nbf +1 s, with an injected clock",
        "token_expired, token_malformed, token_early at the exact second",
    );
}

#[test]
fn a_caller_that_is_no_name_has_no_token() {
    for (id, good) in
        [("up=alice", true), ("up=ä", true), ("up=\u{8}b", false), ("up=a b", false), ("up=*", false)]
    {
        let claims =
            serde_json::json!({"callerid": id, "ou": "choria", "purpose": "choria_client_id"}).to_string();
        let verdict = verifier().verify_client(&signed(&claims), NOW).map(drop);
        assert_eq!(
            verdict.map_err(|reject| reject.reason()),
            if good { Ok(()) } else { Err("claim_invalid") },
            "{id:?}"
        );
    }
}

#[test]
fn t_020_encodings_of_the_same_token() {
    let token = signed(r#"{"callerid":"up=x","purpose":"choria_client_id"}"#);
    let reason = |token: &str| verifier().verify_client(token, NOW).err().map_or("ok", |r| r.reason());
    assert_eq!(reason(&token), "ok");
    assert_eq!(reason(&format!("{token}\n")), "ok");
    assert_eq!(reason(&format!("{token}=")), "token_malformed");
    assert_eq!(reason(&token.replace('.', ". ")), "token_malformed");
    let signature = token.rsplit('.').next().unwrap();
    assert_eq!(signature.len() % 4, 2, "64 bytes leave four unused bits");
    let last = signature.chars().last().unwrap();
    let neighbour = char::from(last as u8 + 1);
    assert_eq!(reason(&format!("{}{neighbour}", &token[..token.len() - 1])), "token_malformed");
    for (from, to) in [('-', '+'), ('_', '/')] {
        if token.contains(from) {
            assert_eq!(reason(&token.replace(from, &to.to_string())), "token_malformed");
        }
    }
    choria_rows::row(
        20,
        "unused trailing bits, padding, + and /, space inside, line end behind",
        "token_malformed; the line end is accepted",
    );
}

#[test]
fn t_022_shapes_are_refused_at_once() {
    let (verifier, mut slowest) = (verifier(), Duration::ZERO);
    for text in ["", ".", "..", "....", "......", &".".repeat(1 << 20), "a.b.c"] {
        // the best of many: what else the machine does is not this code's time
        let best = (0..200).map(|_| {
            let start = Instant::now();
            assert_eq!(verifier.verify_client(text, NOW).unwrap_err().reason(), "token_malformed");
            start.elapsed()
        });
        slowest = slowest.max(best.min().unwrap_or_default());
    }
    assert!(slowest < Duration::from_millis(1), "{slowest:?}");
    choria_rows::row(
        22,
        "0, 1, 2, 4 and 6 dots, 1 MiB of dots, a.b.c",
        format!("token_malformed, each in under 1 ms (slowest {slowest:?})"),
    );
}

#[test]
fn t_013_every_kind_as_every_other() {
    let issuer = Issuer::Org(org());
    let key = Seed::from_bytes(&[1; 32]).public();
    let client = issuer.issue_client(ClientClaims::new("up=x", &key), HOUR, NOW).unwrap();
    let server = issuer.issue_server(ServerClaims::new("n1", &key), HOUR, NOW).unwrap();
    let claims = ProvisioningClaims { token: "t".into(), urls: "u".into(), ..ProvisioningClaims::default() };
    let provisioning = issuer.issue_provisioning(claims, HOUR, NOW).unwrap();
    let v = verifier();
    for token in [&server, &provisioning] {
        assert_eq!(v.verify_client(token, NOW).unwrap_err().reason(), "kind_mismatch");
    }
    for token in [&client, &provisioning] {
        assert_eq!(v.verify_server(token, NOW).unwrap_err().reason(), "kind_mismatch");
    }
    for token in [&client, &server] {
        assert_eq!(v.verify_provisioning(token, NOW).unwrap_err().reason(), "kind_mismatch");
    }
    choria_rows::row(13, "every kind of token to every other parser", "kind_mismatch, six times");
}

#[test]
fn t_024_and_depth_of_the_chain() {
    let chain_seed = Seed::from_bytes(&[5; 32]);
    let chain_key = chain_seed.public();
    let issuer = Issuer::Org(org());
    let chain_token = issuer
        .issue_chain_issuer(ClientClaims::new("login", &chain_key), Duration::from_secs(60), NOW)
        .unwrap();
    let chain = Issuer::chain(chain_seed, &chain_token, Some(org().public())).unwrap();

    let holder = Seed::from_bytes(&[6; 32]);
    let token = chain.issue_client(ClientClaims::new("up=x", &holder.public()), HOUR, NOW).unwrap();
    let verified = verifier().verify_client(&token, NOW).unwrap();
    assert_eq!(verified.expires(), Some(NOW + 60));
    assert_eq!(verified.chain_issuer().unwrap().key, chain_key);
    assert!(verifier().verify_client(&token, NOW + 60).is_err());

    // What was issued cannot issue, and a chain issuer cannot name another one.
    assert!(Issuer::chain(holder, &token, Some(org().public())).is_err());
    assert!(chain.issue_chain_issuer(ClientClaims::new("y", &chain_key), HOUR, NOW).is_err());
    assert!(
        chain.issue_client(ClientClaims::new("y", &chain_key), HOUR, NOW + 60).is_err(),
        "expired issuer"
    );
    // Another organization's chain issuer is none here, nor is another seed this one's.
    let other = Seed::from_bytes(&[9; 32]);
    assert!(Issuer::chain(Seed::from_bytes(&[5; 32]), &chain_token, Some(other.public())).is_err());
    assert!(Issuer::chain(other, &chain_token, Some(org().public())).is_err());
    choria_rows::row(24, "a chained token at the issuer's expiry", "refused");
}

#[test]
fn a_key_that_does_not_fit_the_algorithm_is_refused() {
    let Some(pem) = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join("shared/vectors/tokens/upstream/rsa/signer-public.pem"))
        .find(|path| path.is_file())
    else {
        println!("skipped: upstream's vectors are not at hand");
        return;
    };
    let rsa = Verifier::single(Key::load(pem.to_str().unwrap()).unwrap());
    let token = signed(r#"{"callerid":"up=x","purpose":"choria_client_id"}"#);
    assert_eq!(rsa.verify_client(&token, NOW).unwrap_err().reason(), "alg_refused");
    let rs256 = std::fs::read_to_string(pem.with_file_name("good-provisioning.jwt")).unwrap();
    assert_eq!(verifier().verify_provisioning(&rs256, NOW).unwrap_err().reason(), "alg_refused");
}

#[test]
fn key_files_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    for (text, good) in [
        (format!("{}\n", *org().to_hex()), true),
        ("abc".into(), false),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n".into(), false),
        ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n".into(), false),
        ("x".repeat(100_000), false),
    ] {
        choria_host::private_file::write_private(&path, text.as_bytes()).unwrap();
        assert_eq!(SigningKey::load(&path).is_ok(), good, "{:.30}", text);
    }
}
