//! Logins over HTTPS, docs/spec/10 §14.5.

use choria_token::{Key, Seed, Verifier};
use serde_json::{Value, json};

use crate::fixture::{PASSWORD, Site, login_body};

const FAILED: &str = "Login failed";

fn seed() -> Seed {
    Seed::generate().expect("a seed")
}

#[test]
fn a_login_gives_a_chained_token_bound_to_the_presented_key() {
    let site = Site::new();
    let server = site.start();
    let key = seed();
    let answer = server.login(&login_body(&key, "bob", PASSWORD, 0));
    assert_eq!(answer.get("error"), None, "{answer}");
    let verifier = Verifier::single(Key::Ed25519(site.org.public()));
    let token = answer["token"].as_str().expect("a token");
    let verified = verifier.verify_client(token, choria_host::clock::unix_seconds()).expect("verified");
    let claims = verified.claims();
    assert_eq!(claims.caller_id, "up=bob");
    assert_eq!(claims.org, "choria");
    assert_eq!(claims.agents, ["rpcutil.ping"]);
    assert_eq!(claims.user_properties["team"], "ops");
    assert!(claims.permissions.signed_fleet_management && !claims.permissions.fleet_management);
    assert_eq!(verified.holder(), Some(&key.public()));
    assert_eq!(verified.chain_issuer().map(|issuer| issuer.key), Some(site.chain.public()));
    assert!(verified.expires().is_some_and(|at| at <= choria_host::clock::unix_seconds() + 3600));
}

#[test]
fn t_165_wrong_password_then_the_right_one() {
    let site = Site::new();
    let server = site.start();
    let key = seed();
    for _ in 0..3 {
        assert_eq!(server.login(&login_body(&key, "bob", "wrong", 0)), json!({"error": FAILED}));
    }
    assert_eq!(server.login(&login_body(&key, "nobody", "wrong", 0)), json!({"error": FAILED}));
    assert!(server.login(&login_body(&key, "bob", PASSWORD, 0))["token"].is_string());
    choria_rows::row(
        165,
        "three wrong passwords and an unknown user, then the right one",
        "the same Login failed each time; then a token",
    );
}

#[test]
fn t_167_guessing_is_slowed_with_the_same_text() {
    let site = Site::new();
    let server = site.start();
    let key = seed();
    for _ in 0..5 {
        server.login(&login_body(&key, "bob", "wrong", 0));
    }
    assert_eq!(server.login(&login_body(&key, "bob", PASSWORD, 0)), json!({"error": FAILED}));
    choria_rows::row(
        167,
        "five wrong passwords, then the right one from the same address",
        "Login failed, the generic text",
    );
}

#[test]
fn loopback_can_be_exempt_from_the_limits() {
    let mut site = Site::new();
    site.config["login_limits"] = json!({"exempt_loopback": true});
    let server = site.start();
    let key = seed();
    for _ in 0..70 {
        server.login(&login_body(&key, "bob", "wrong", 0));
    }
    assert!(server.login(&login_body(&key, "bob", PASSWORD, 0))["token"].is_string());
}

#[test]
fn t_168_a_replayed_login_only_serves_the_first_key() {
    let site = Site::new();
    let server = site.start();
    let key = seed();
    let body = login_body(&key, "bob", PASSWORD, 0);
    for _ in 0..2 {
        let answer = server.login(&body);
        let token = choria_token::peek_client(answer["token"].as_str().expect("a token")).expect("a token");
        assert_eq!(token.claims().standard.public_key.as_deref(), Some(key.public().to_hex().as_str()));
    }
    let mut stolen = body;
    stolen["public_key"] = seed().public().to_hex().into();
    assert_eq!(server.login(&stolen), json!({"error": FAILED}));
    choria_rows::row(
        168,
        "the same login body twice; with another public key",
        "the token is bound to the first key; Login failed",
    );
}

#[test]
fn t_169_t_170_t_171_malformed_logins_fail_alike() {
    let mut site = Site::new();
    site.config["login_limits"] = json!({"exempt_loopback": true});
    let server = site.start();
    let key = seed();
    let good = || login_body(&key, "bob", PASSWORD, 0);
    let with = |name: &str, value: Value| {
        let mut body = good();
        body[name] = value;
        body
    };
    for body in [
        login_body(&key, "bob", PASSWORD, 33),
        login_body(&key, "bob", PASSWORD, -62),
        with("timestamp", "now".into()),
        with("timestamp", "9223372036854775808".into()),
        with("public_key", "".into()),
        with("public_key", "ab".repeat(31).into()),
        with("public_key", "ab".repeat(33).into()),
        with("public_key", "zz".repeat(32).into()),
        with("public_key", "00".repeat(32).into()),
        with("signature", "".into()),
        with("signature", "ab".repeat(63).into()),
        with("signature", "ab".repeat(65).into()),
        with("signature", hex::encode(key.sign(b"bob:correct: horse")).into()),
        with("username", "observer".into()),
        with("username", "x".repeat(300).into()),
        with("password", "x".repeat(2000).into()),
        json!({}),
    ] {
        assert_eq!(server.login(&body), json!({"error": FAILED}), "{body}");
    }
    assert!(server.login(&good())["token"].is_string());
    choria_rows::row(
        170,
        "public keys of 31 and 33 bytes, no hex, all zero; signatures of 0, 63 and 65 bytes",
        "Login failed for each; a good login works",
    );
    choria_rows::row(171, "signature over user:password; another user name", "Login failed for each");
    choria_rows::row(169, "clock +33 s, -62 s, text, 2^63", "Login failed for each");
}

#[test]
fn policies_come_from_files_and_a_missing_one_refuses() {
    let site = Site::new();
    let users: Vec<Value> =
        serde_json::from_slice(&std::fs::read(site.path("users.json")).expect("users")).expect("json");
    let mut bob = users[0].clone();
    bob["opa_policy"] = "".into();
    bob["opa_policy_file"] = site.path("bob.rego").display().to_string().into();
    std::fs::write(site.path("users.json"), json!([bob]).to_string()).expect("written");
    let server = site.start();
    assert_eq!(server.login(&login_body(&seed(), "bob", PASSWORD, 0)), json!({"error": FAILED}));
    std::fs::write(site.path("bob.rego"), "package io.choria.aaasvc\nallow := true\n").expect("written");
    let answer = server.login(&login_body(&seed(), "bob", PASSWORD, 0));
    let token = choria_token::peek_client(answer["token"].as_str().expect("a token")).expect("a token");
    assert!(token.claims().opa_policy.contains("allow := true"));
}

#[test]
fn a_broken_signing_key_says_so_without_details() {
    let site = Site::new();
    let server = site.start();
    std::fs::write(site.path("chain.seed"), "nonsense").expect("written");
    let answer = server.login(&login_body(&seed(), "bob", PASSWORD, 0));
    assert_eq!(answer, json!({"error": "Could not sign JWT token"}));
}

#[test]
fn a_direct_issuer_names_itself() {
    let mut site = Site::new();
    choria_host::private_file::write_private(&site.path("org.seed"), site.org.to_hex().as_bytes())
        .expect("written");
    site.set("/userlist_authenticator/signing_key", site.path("org.seed").display().to_string());
    site.set("/userlist_authenticator/signing_token", "");
    let server = site.start();
    let answer = server.login(&login_body(&seed(), "bob", PASSWORD, 0));
    let token = choria_token::peek_client(answer["token"].as_str().expect("a token")).expect("a token");
    assert_eq!(token.claims().standard.iss, "Choria Userlist Authenticator");
}

/// Timing of whole logins is noisy on a shared machine: this asks only that both cost a hash.
#[test]
fn t_166_an_unknown_user_costs_as_much_as_a_known_one() {
    let mut site = Site::new();
    site.config["login_limits"] = json!({"exempt_loopback": true});
    let hash = choria_aaa::crypt(PASSWORD, 9).expect("a hash");
    std::fs::write(site.path("users.json"), json!([{"username": "bob", "password": hash}]).to_string())
        .expect("written");
    let server = site.start();
    let key = seed();
    let once = |user: &str| {
        let started = std::time::Instant::now();
        server.login(&login_body(&key, user, "wrong", 0));
        started.elapsed()
    };
    // by turns: what else the machine does meets both
    let (mut known, mut unknown): (Vec<_>, Vec<_>) = (0..21).map(|_| (once("bob"), once("nobody"))).unzip();
    let median = |times: &mut Vec<std::time::Duration>| {
        times.sort();
        times[10].as_secs_f64()
    };
    let ratio = median(&mut known) / median(&mut unknown);
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
    choria_rows::row(
        166,
        "21 logins each of a known and an unknown user by turns, wrong password",
        "medians within a factor of 2",
    );
}
