//! The signer over HTTPS, docs/spec/10 §14.5.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use choria_protocol::{Request, SecureRequest};
use choria_token::{ClientClaims, Issuer, Seed, ServerClaims, SigningKey};
use serde_json::{Value, json};

use crate::fixture::{POLICY, Server, Site, request};

fn denied(answer: &Value) -> &str {
    assert_eq!(answer["error"], "Request denied", "{answer}");
    assert_eq!(answer.get("secure_request"), None);
    answer["reason"].as_str().expect("a reason")
}

fn bytes(request: &Request) -> Vec<u8> {
    request.to_bytes().expect("bytes")
}

fn signed(answer: &Value) -> SecureRequest {
    let text = answer["secure_request"].as_str().unwrap_or_else(|| panic!("denied: {answer}"));
    SecureRequest::parse(&STANDARD.decode(text).expect("base64")).expect("a secure request")
}

/// The answer to one request with a good proof, changed before it is made bytes.
fn ask(site: &Site, server: &Server, change: impl FnOnce(&mut Request)) -> Value {
    let (seed, token) = site.token("up=bob", |_| ());
    let mut request = request("up=bob", "rpcutil", "ping");
    change(&mut request);
    server.sign(&seed, &token, &bytes(&request))
}

/// The same for text that no honest client would write.
fn ask_text(site: &Site, server: &Server, edit: impl FnOnce(String) -> String) -> Value {
    let (seed, token) = site.token("up=bob", |_| ());
    let text = String::from_utf8(bytes(&request("up=bob", "rpcutil", "ping"))).expect("text");
    server.sign(&seed, &token, edit(text).as_bytes())
}

#[test]
fn an_allowed_request_is_signed_by_the_delegate() {
    let site = Site::new();
    let server = site.start();
    let (seed, token) = site.token("ginkgo=test@example.net", |_| ());
    let asked = request("ginkgo=test@example.net", "rpcutil", "ping");
    let secure = signed(&server.sign(&seed, &token, &bytes(&asked)));
    assert!(site.delegator.public().verify(&secure.request, &secure.signature));
    assert_eq!(secure.signer.as_deref(), Some(secure.caller.as_str()));
    let inner = secure.request().expect("a request");
    assert_eq!(inner.caller, "ginkgo=test_example_net");
    assert_eq!(Request { caller: asked.caller.clone(), ..inner }, asked);
    let audit = site.audit();
    assert_eq!(audit.len(), 1);
    assert_eq!(
        (audit[0]["action"].as_str(), audit[0]["caller"].as_str()),
        (Some("allow"), Some("ginkgo=test_example_net"))
    );
    assert_eq!(audit[0]["caller_id"], "ginkgo=test@example.net");
    assert_eq!(audit[0]["msg"].as_str().map(str::as_bytes), Some(bytes(&asked).as_slice()));
    assert_eq!((audit[0]["auditor"].as_str(), audit[0]["site"].as_str()), (Some("logfile"), Some("ginkgo")));
}

#[test]
fn the_policy_decides_and_both_outcomes_are_recorded() {
    let site = Site::new();
    let server = site.start();
    signed(&ask(&site, &server, |_| ()));
    let (seed, token) = site.token("up=bob", |_| ());
    let answer = server.sign(&seed, &token, &bytes(&request("up=bob", "shell", "run")));
    assert_eq!(denied(&answer), "denied");
    // Discovery carries no RPC body and needs no policy.
    let mut discovery = request("up=bob", "discovery", "ping");
    discovery.message = b"ping".to_vec();
    signed(&server.sign(&seed, &token, &bytes(&discovery)));
    let actions: Vec<_> =
        site.audit().iter().map(|line| line["action"].as_str().map(str::to_owned)).collect();
    assert_eq!(actions, [Some("allow".to_owned()), Some("deny".to_owned()), Some("allow".to_owned())]);
}

#[test]
fn t_176_t_177_a_token_alone_is_not_enough() {
    let site = Site::new();
    let server = site.start();
    let (_, token) = site.token("up=bob", |_| ());
    let asked = bytes(&request("up=bob", "rpcutil", "ping"));
    assert_eq!(denied(&server.sign_with("", &token, &asked)), "sig_bad");
    assert_eq!(denied(&server.sign_with("zz", &token, &asked)), "sig_bad");
    let thief = Seed::generate().expect("a seed");
    assert_eq!(denied(&server.sign(&thief, &token, &asked)), "sig_bad");
    choria_rows::row(
        176,
        "no proof, a proof that is no hex, over HTTP",
        "Request denied, reason sig_bad, nothing signed",
    );
    choria_rows::row(
        177,
        "somebody else's token with a proof by another key",
        "Request denied, reason sig_bad",
    );
}

#[test]
fn bearer_mode_is_possible_over_http_and_a_present_proof_still_counts() {
    let mut site = Site::new();
    site.set("/basicjwt_signer/allow_bearer_tokens", true);
    let server = site.start();
    let (_, token) = site.token("up=bob", |_| ());
    let asked = bytes(&request("up=bob", "rpcutil", "ping"));
    signed(&server.sign_with("", &token, &asked));
    assert_eq!(denied(&server.sign_with(&"00".repeat(64), &token, &asked)), "sig_bad");
}

#[test]
fn t_179_t_180_the_proof_covers_every_byte() {
    let site = Site::new();
    let server = site.start();
    let (seed, token) = site.token("up=bob", |_| ());
    let (one, two) = (request("up=bob", "rpcutil", "ping"), request("up=bob", "rpcutil", "ping"));
    let proof = hex::encode(seed.sign(&bytes(&one)));
    assert_eq!(denied(&server.sign_with(&proof, &token, &bytes(&two))), "sig_bad");
    let mut changed = one.clone();
    changed.ttl = 61;
    assert_eq!(denied(&server.sign_with(&proof, &token, &bytes(&changed))), "sig_bad");
    signed(&server.sign_with(&proof, &token, &bytes(&one)));
    // The same bytes again are a repeated attempt; the same id with others is not.
    signed(&server.sign_with(&proof, &token, &bytes(&one)));
    assert_eq!(denied(&server.sign(&seed, &token, &bytes(&changed))), "replayed");
    choria_rows::row(179, "the proof of another request", "Request denied, reason sig_bad");
    choria_rows::row(
        180,
        "the proven request with another ttl",
        "Request denied, reason sig_bad; the proven bytes are signed; same id with other bytes: replayed",
    );
}

#[test]
fn a_client_that_calls_nodes_in_groups_has_one_request_signed_again() {
    let site = Site::new();
    let server = site.start();
    let (seed, token) = site.token("up=bob", |_| ());
    let mut group = request("up=bob", "rpcutil", "ping");
    for _ in 0..3 {
        signed(&server.sign(&seed, &token, &bytes(&group)));
        group.time += 1_000_000;
    }
}

#[test]
fn t_181_body_and_envelope_name_the_same_agent() {
    let site = Site::new();
    let server = site.start();
    assert_eq!(denied(&ask(&site, &server, |request| request.agent = "shell".to_owned())), "agent_mismatch");
    assert_eq!(site.audit()[0]["reason"], "agent_mismatch");
    choria_rows::row(
        181,
        "envelope shell, body rpcutil",
        "Request denied, reason agent_mismatch, one audit line with it",
    );
}

#[test]
fn t_182_t_183_ambiguous_json_is_refused() {
    let site = Site::new();
    let server = site.start();
    for body in [
        r#"{"agent":"rpcutil","action":"ping","action":"destroy","data":{}}"#,
        r#"{"agent":"rpcutil","action":"ping","Action":"destroy","data":{}}"#,
        r#"{"agent":"rpcutil","action":"ping","data":{"a":1,"a":2}}"#,
        r#"{"agent":"rpcutil","action":"ping","data":{"x":[{"a":1,"\u0061":2}]}}"#,
    ] {
        let answer = ask(&site, &server, |request| request.message = body.as_bytes().to_vec());
        assert_eq!(denied(&answer), "json_ambiguous", "{body}");
    }
    for extra in [r#""agent":"shell","agent":"#, r#""Agent":"shell","agent":"#] {
        let answer = ask_text(&site, &server, |text| text.replacen(r#""agent":"#, extra, 1));
        assert_eq!(denied(&answer), "json_ambiguous", "{extra}");
    }
    choria_rows::row(
        182,
        "action twice, data key twice, escaped twin, agent twice in the envelope",
        "Request denied, reason json_ambiguous for each",
    );
    choria_rows::row(
        183,
        "Action beside action, Agent beside agent",
        "Request denied, reason json_ambiguous for each",
    );
}

#[test]
fn t_184_the_body_is_read_as_it_is() {
    let site = Site::new();
    let server = site.start();
    let body = STANDARD.encode(r#"{"agent":"rpcutil","action":"ping","data":{}}"#);
    denied(&ask(&site, &server, |request| request.message = body.into_bytes()));
    for body in ["[]", "null", "\"ping\"", r#"{"agent":"rpcutil","action":"ping","data":[]}"#, "\u{0}"] {
        denied(&ask(&site, &server, |request| request.message = body.as_bytes().to_vec()));
    }
    choria_rows::row(
        184,
        "the body as base64 of a good body, and bodies of other types",
        "Request denied for each",
    );
}

#[test]
fn t_185_the_request_is_of_now() {
    let site = Site::new();
    let server = site.start();
    for hours in [1i64, -1] {
        let answer = ask(&site, &server, |request| request.time += hours * 3_600_000_000_000);
        assert_eq!(denied(&answer), "ttl_expired");
    }
    choria_rows::row(185, "time one hour ahead and one hour ago", "Request denied, reason ttl_expired");
}

#[test]
fn t_186_the_time_to_live_is_bounded() {
    let site = Site::new();
    let server = site.start();
    for ttl in ["0", "-1", "601", "9223372036854775808", "1e3", "60.5"] {
        let answer = ask_text(&site, &server, |text| text.replace(r#""ttl":60"#, &format!(r#""ttl":{ttl}"#)));
        assert_eq!(denied(&answer), "ttl_cap", "{ttl}");
    }
    signed(&ask(&site, &server, |request| request.ttl = 600));
    choria_rows::row(
        186,
        "ttl 0, -1, 601, 2^63, 1e3, 60.5; then 600",
        "Request denied, reason ttl_cap for each; 600 is signed",
    );
}

#[test]
fn t_187_t_188_long_tokens() {
    let mut site = Site::new();
    site.set("/basicjwt_signer/max_validity", "1h");
    site.set("/basicjwt_signer/service_max_validity", "20h");
    let server = site.start();
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let ask = |validity: Duration, service: bool| {
        let (seed, token) = site.token_for("up=bob", validity, |claims| claims.permissions.service = service);
        server.sign(&seed, &token, &bytes(&request("up=bob", "rpcutil", "ping")))
    };
    signed(&ask(Duration::from_secs(3590), false));
    assert_eq!(denied(&ask(hours(10), false)), "claim_invalid");
    signed(&ask(hours(10), true));
    assert_eq!(denied(&ask(hours(24 * 365 * 50), true)), "claim_invalid");
    choria_rows::row(
        187,
        "10 h token under max_validity 1h; the same with the service flag under 20h",
        "denied, claim_invalid; signed",
    );
    choria_rows::row(188, "service token of 50 years", "denied, claim_invalid");
}

#[test]
fn t_189_only_client_tokens_count() {
    let site = Site::new();
    let server = site.start();
    let seed = Seed::generate().expect("a seed");
    let chain = Seed::from_hex(&site.chain.to_hex()).expect("a seed");
    let issuer = Issuer::chain(chain, &site.chain_token, None).expect("an issuer");
    let claims = ServerClaims::new("n1.example.net", &seed.public());
    let token = issuer
        .issue_server(claims, Duration::from_secs(60), choria_host::clock::unix_seconds())
        .expect("a token");
    let asked = bytes(&request("up=bob", "rpcutil", "ping"));
    assert_eq!(denied(&server.sign(&seed, &token, &asked)), "kind_mismatch");
    assert_eq!(denied(&server.sign(&seed, "", &asked)), "token_malformed");
    assert_eq!(denied(&server.sign(&seed, "a.b.c", &asked)), "token_malformed");
    choria_rows::row(
        189,
        "server token, no token, a.b.c as caller",
        "denied, kind_mismatch; token_malformed",
    );
}

/// A chain issuer that the organization never named.
fn forged() -> (Seed, String) {
    let (forger_org, forger) = (Seed::generate().expect("a seed"), Seed::generate().expect("a seed"));
    let now = choria_host::clock::unix_seconds();
    let own = SigningKey::Seed(forger_org)
        .issue_chain_issuer(ClientClaims::new("up=forger", &forger.public()), Duration::from_secs(7200), now)
        .expect("a token");
    let issuer = Issuer::chain(forger, &own, None).expect("an issuer");
    let seed = Seed::generate().expect("a seed");
    let mut claims = ClientClaims::new("up=root", &seed.public());
    claims.opa_policy = POLICY.to_owned();
    claims.permissions.fleet_management = true;
    let token = issuer.issue_client(claims, Duration::from_secs(3600), now).expect("a token");
    (seed, token)
}

#[test]
fn t_190_forged_chains_are_refused_in_both_readings_of_the_certificate() {
    for certificate in ["org.public", "chain.public"] {
        let mut site = Site::new();
        site.set("/basicjwt_signer/signing_certificate", site.path(certificate).display().to_string());
        let server = site.start();
        signed(&ask(&site, &server, |_| ()));
        let (seed, token) = forged();
        let asked = bytes(&request("up=root", "rpcutil", "ping"));
        denied(&server.sign(&seed, &token, &asked));
        // Another organization's honest token is none of ours either.
        let other = Site::new();
        let (seed, token) = other.token("up=bob", |_| ());
        denied(&server.sign(&seed, &token, &bytes(&request("up=bob", "rpcutil", "ping"))));
        assert!(site.audit().iter().filter(|line| line["action"] == "deny").count() == 2);
    }
    choria_rows::row(
        190,
        "token of a chain the organization never named, and of another organization, with the certificate read as org and as chain issuer",
        "denied and audited, both readings",
    );
}

#[test]
fn a_pinned_chain_issuer_and_the_organization_can_both_be_asked() {
    let mut site = Site::new();
    site.set("/basicjwt_signer/signing_certificate", site.path("chain.public").display().to_string());
    site.set("/basicjwt_signer/issuer", site.org.public().to_hex());
    let server = site.start();
    signed(&ask(&site, &server, |_| ()));
    drop(server);
    site.set("/basicjwt_signer/issuer", Seed::generate().expect("a seed").public().to_hex());
    let server = site.start();
    assert_eq!(denied(&ask(&site, &server, |_| ())), "chain_forged");
}

#[test]
fn t_192_a_token_without_fleet_rights_is_denied_early() {
    let site = Site::new();
    let server = site.start();
    let (seed, token) =
        site.token("up=observer", |claims| claims.permissions.signed_fleet_management = false);
    let answer = server.sign(&seed, &token, &bytes(&request("up=observer", "rpcutil", "ping")));
    assert_eq!(denied(&answer), "permission_missing");
    choria_rows::row(192, "a token without fleet flags", "denied, permission_missing");
}

#[test]
fn t_193_the_collective_belongs_to_the_organization() {
    let mut site = Site::new();
    let server = site.start();
    assert_eq!(
        denied(&ask(&site, &server, |request| request.collective = "other".to_owned())),
        "collective_unknown"
    );
    drop(server);
    site.set("/basicjwt_signer/collectives", json!({"choria": ["london"], "acme": ["choria"]}));
    let server = site.start();
    assert_eq!(denied(&ask(&site, &server, |_| ())), "collective_unknown");
    signed(&ask(&site, &server, |request| request.collective = "london".to_owned()));
    choria_rows::row(
        193,
        "collective outside the organization, default and configured",
        "denied, collective_unknown; own collective is signed",
    );
}

#[test]
fn t_198_an_audit_that_fails_is_counted_and_may_stop_signing() {
    for (audit, signs) in [("fail_open", true), ("fail_closed", false)] {
        let mut site = Site::new();
        site.set("/logfile_auditor/logfile", "/dev/full");
        site.set("/audit", audit);
        site.set("/monitor_port", 1);
        let server = site.start();
        let answer = ask(&site, &server, |_| ());
        if signs {
            signed(&answer);
        } else {
            assert_eq!(denied(&answer), "audit");
        }
        let monitor = server.monitor.expect("a monitor");
        let (_, text) = server.get(&format!("http://127.0.0.1:{}/metrics", monitor.port()));
        assert!(text.contains("choria_aaa_auditor_errors{auditor=\"logfile\",site=\"ginkgo\"} 1"), "{text}");
    }
    choria_rows::row(
        198,
        "audit file on a full device, fail_open and fail_closed",
        "signed and counted; denied, reason audit",
    );
}

#[test]
fn t_206_t_207_t_208_t_209_t_210_hostile_policies_deny_and_the_service_lives() {
    let site = Site::new();
    let server = site.start();
    for rules in [
        format!("allow if {{ x := {}1{} }}", "[".repeat(18), "]".repeat(18)),
        "f(x) if { f(x) }\nallow if f(1)".to_owned(),
        "xs := numbers.range(0, 99)\nallow if { xs[a]; xs[b]; xs[c]; xs[d]; a + b + c + d == -1 }".to_owned(),
        "allow if { not http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"}) }".to_owned(),
        "allow := \"true\"".to_owned(),
        "allow := 1".to_owned(),
        "allow if requires_filter()".to_owned(),
        "other := true".to_owned(),
    ] {
        let (seed, token) =
            site.token("up=bob", |claims| claims.opa_policy = format!("package io.choria.aaasvc\n{rules}\n"));
        let started = Instant::now();
        let answer = server.sign(&seed, &token, &bytes(&request("up=bob", "rpcutil", "ping")));
        assert_eq!(denied(&answer), "denied", "{rules}");
        assert!(started.elapsed() < Duration::from_secs(2), "{rules}");
    }
    signed(&ask(&site, &server, |_| ()));
    choria_rows::row(
        206,
        "token policy with 18 brackets, at the signer",
        "denied in under 2 s, the next request is signed",
    );
    choria_rows::row(
        207,
        "token policy that calls itself, at the signer",
        "denied, the next request is signed",
    );
}

#[test]
fn an_action_list_decides_without_rego() {
    let mut site = Site::new();
    site.set("/authorizer", "actionlist");
    let server = site.start();
    for (acls, fine) in [
        (&["rpcutil.ping"][..], true),
        (&["nothing.*"], false),
        (&["*"], true),
        (&["rpcutil"], false),
        (&[], false),
    ] {
        let (seed, token) =
            site.token("up=bob", |claims| claims.agents = acls.iter().map(|s| (*s).to_owned()).collect());
        let answer = server.sign(&seed, &token, &bytes(&request("up=bob", "rpcutil", "ping")));
        assert_eq!(answer.get("error").is_none(), fine, "{acls:?}");
    }
}

#[test]
fn one_caller_cannot_take_all_signatures() {
    let mut site = Site::new();
    site.set("/basicjwt_signer/rate", 1);
    let server = site.start();
    let (seed, token) = site.token("up=bob", |_| ());
    let answers: Vec<_> =
        (0..8).map(|_| server.sign(&seed, &token, &bytes(&request("up=bob", "rpcutil", "ping")))).collect();
    assert!(answers.iter().any(|answer| answer["reason"] == "busy"));
    signed(&ask_as(&site, &server, "up=alice"));
}

fn ask_as(site: &Site, server: &Server, caller: &str) -> Value {
    let (seed, token) = site.token(caller, |_| ());
    server.sign(&seed, &token, &bytes(&request(caller, "rpcutil", "ping")))
}

#[test]
fn an_expired_token_that_was_good_before_is_refused() {
    let mut site = Site::new();
    site.set("/basicjwt_signer/rate", 0);
    let server = site.start();
    let (seed, token) = site.token_for("up=bob", Duration::from_secs(5), |_| ());
    signed(&server.sign(&seed, &token, &bytes(&request("up=bob", "rpcutil", "ping"))));
    let started = Instant::now();
    loop {
        let answer = server.sign(&seed, &token, &bytes(&request("up=bob", "rpcutil", "ping")));
        if answer.get("error").is_some() {
            assert_eq!(denied(&answer), "token_expired");
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(15));
    }
}

#[test]
fn secrets_of_a_request_are_not_in_the_audit() {
    let site = Site::new();
    let server = site.start();
    let (seed, token) = site.token("up=bob", |_| ());
    let mut asked = request("up=bob", "rpcutil", "ping");
    asked.message = br#"{"agent":"rpcutil","action":"ping","data":{"password":"canary-7f3a"}}"#.to_vec();
    signed(&server.sign(&seed, &token, &bytes(&asked)));
    let audit = site.audit();
    let msg: Value = serde_json::from_str(audit[0]["msg"].as_str().expect("text")).expect("json");
    let message = STANDARD.decode(msg["message"].as_str().expect("text")).expect("base64");
    assert!(!String::from_utf8_lossy(&message).contains("canary-7f3a"));
    assert_eq!(audit[0]["request_sha256"].as_str().map(str::len), Some(64));
}
