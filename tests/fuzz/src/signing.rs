//! Login and signing as anybody on the network reaches them, without the network.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use choria_aaa::{AaaConfig, Handlers, HttpRequest};
use choria_host::clock;
use choria_protocol::rpc::{RpcRequest, StatusCode};
use choria_protocol::{Filter, Request, SecureRequest};
use choria_token::{ClientClaims, Issuer, Seed, SigningKey, ksuid};
use serde_json::{Value, json};

use crate::Target;
use crate::corpus::texts;
use crate::pieces::Script;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "login_http",
        oracle: "never 5xx; a token only for the right password with a proof by the key it names",
        run: login_http,
        seeds: || {
            let mut seeds = vec![vec![1], vec![2], vec![3], vec![4, 10], vec![5]];
            seeds.extend(
                texts(&[
                    r#"{"username":"bob","password":"x","public_key":"00","timestamp":"1","signature":"00"}"#,
                    r#"["bob","x"]"#,
                    r#"{"username":null}"#,
                ])
                .into_iter()
                .map(|text| [&[0], text.as_slice()].concat()),
            );
            seeds
        },
        words: &[
            "\"username\":\"bob\"",
            "\"password\":\"",
            "\"public_key\":\"",
            "\"timestamp\":\"",
            "\"signature\":\"",
            "null",
            "\\u0000",
        ],
        longest: 1024,
    },
    Target {
        name: "sign_http",
        oracle: "never 5xx; signs only a request that its caller proved and its policy allows, unchanged but for the caller",
        run: sign_http,
        seeds: sign_seeds,
        words: SIGN_WORDS,
        longest: 1024,
    },
    Target {
        name: "sign_rpc",
        oracle: "as sign_http, as a call of the service aaa_signer",
        run: sign_rpc,
        seeds: sign_seeds,
        words: SIGN_WORDS,
        longest: 1024,
    },
];

const SIGN_WORDS: &[&str] = &[
    "\"request\":\"",
    "\"token\":\"",
    "\"signature\":\"",
    "\"agent\":\"rpcutil\"",
    "\"ttl\":",
    "\"time\":",
    "\"collective\":\"",
    "\"caller\":\"up=bob\"",
    "null",
];

fn sign_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (1..8).map(|kind| vec![kind]).collect();
    seeds.extend([vec![1, 40, 7], vec![2, 200, 7], vec![1, 1, 1, 1, 1], vec![0]]);
    seeds.push([&[0], br#"{"request":"e30=","token":"a.b.c","signature":"00"}"#.as_slice()].concat());
    seeds
}

const PASSWORD: &str = "correct: horse";
const POLICY: &str = "package io.choria.aaasvc\n\ndefault allow = false\n\nallow {\n  input.agent == \"rpcutil\"\n  input.action == \"ping\"\n}\n";
const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4711);

/// A site with one user, his token, and a token whose policy allows nothing.
struct Site {
    handlers: Handlers,
    runtime: tokio::runtime::Runtime,
    bob: (Seed, String),
    observer: (Seed, String),
    delegation: String,
    _directory: tempfile::TempDir,
}

thread_local! {
    static SITE: OnceCell<Site> = const { OnceCell::new() };
}

fn with_site(test: impl FnOnce(&Site)) {
    SITE.with(|site| test(site.get_or_init(Site::new)));
}

impl Site {
    fn new() -> Site {
        let directory = tempfile::tempdir().expect("a directory");
        let seed = |byte: u8| Seed::from_bytes(&[byte; 32]);
        let (org, chain, delegator) = (seed(51), seed(52), seed(53));
        let now = clock::unix_seconds();
        let long = Duration::from_secs(3600 * 1000);
        let key = SigningKey::Seed(seed(51));
        let chain_token = key
            .issue_chain_issuer(ClientClaims::new("up=aaa_chain", &chain.public()), long, now)
            .expect("a chain issuer");
        let mut claims = ClientClaims::new("up=request_signer", &delegator.public());
        claims.permissions.authentication_delegator = true;
        let delegation = key.issue_client(claims, long, now).expect("a delegator");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
            path.display().to_string()
        };
        let hash = choria_aaa::crypt(PASSWORD, 4).expect("a hash");
        let users = json!([{"username": "bob", "password": hash, "opa_policy": POLICY, "acls": ["rpcutil.ping"],
            "broker_permissions": {"signed_fleet_management": true}}]);
        let config = json!({
            "site": "fuzz", "port": 1, "listen_address": "127.0.0.1",
            "tls_certificate": write("https.crt", ""), "tls_key": write("https.key", ""),
            "authenticator": "userlist", "signer": "basicjwt", "authorizer": "opa", "auditors": ["logfile"],
            "logfile_auditor": {"logfile": "/dev/null"},
            "userlist_authenticator": {"users_file": write("users.json", &users.to_string()), "validity": "1h",
                "signing_key": write("chain.seed", &chain.to_hex()), "signing_token": write("chain.jwt", &chain_token)},
            "basicjwt_signer": {"signing_certificate": write("org.public", &org.public().to_hex()),
                "signing_token": write("signer.jwt", &delegation), "signing_seed": write("signer.seed", &delegator.to_hex()),
                "max_validity": "9999h"},
        });
        let path = directory.path().join("aaasvc.conf");
        std::fs::write(&path, config.to_string()).expect("written");
        let mut config = AaaConfig::load(&path).expect("a configuration").without_tls();
        config.limits.exempt_loopback = true;
        if let Some(signer) = &mut config.signer {
            // As many as the fuzzer likes.
            signer.rate = 1_000_000_000;
        }
        let token = |byte: u8, caller: &str, policy: &str| {
            let holder = seed(byte);
            let mut claims = ClientClaims::new(caller, &holder.public());
            claims.opa_policy = policy.to_owned();
            claims.permissions.signed_fleet_management = true;
            let issuer = Issuer::chain(seed(52), &chain_token, Some(org.public())).expect("an issuer");
            let token = issuer.issue_client(claims, Duration::from_secs(3600 * 900), now).expect("a token");
            (holder, token)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Site {
            handlers: Handlers::new(&config).expect("a service"),
            runtime,
            bob: token(61, "up=bob", POLICY),
            observer: token(62, "up=observer", "package io.choria.aaasvc\n\ndefault allow = false\n"),
            delegation,
            _directory: directory,
        }
    }

    /// Status and JSON of a POST.
    fn post(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let request =
            HttpRequest { method: "POST", path, content_type: "application/json", body, from: FROM };
        let (status, answer) = self.runtime.block_on(self.handlers.http(request)).expect("a request");
        assert!(status < 500, "status {status} for {}", String::from_utf8_lossy(body));
        let answer = serde_json::from_slice(&answer)
            .unwrap_or_else(|error| panic!("no JSON ({error}) for status {status}"));
        (status, answer)
    }
}

fn login_http(input: &[u8]) {
    with_site(|site| {
        let mut script = Script::new(input);
        let kind = script.byte() % 6;
        let holder = Seed::from_bytes(&[71; 32]);
        let (username, password) = match kind {
            2 => ("alice", PASSWORD),
            3 => ("bob", "wrong"),
            _ => ("bob", PASSWORD),
        };
        let offset = if kind == 4 { i64::from(script.byte()) * 10 } else { 0 };
        let timestamp = (clock::unix_seconds() - offset).to_string();
        let mut proof = hex::encode(holder.sign(format!("{timestamp}:{username}:{password}").as_bytes()));
        if kind == 5 {
            proof = hex::encode(holder.sign(format!("{timestamp}:{username}:").as_bytes()));
        }
        let mut body = if kind == 0 {
            script.rest().to_vec()
        } else {
            json!({"username": username, "password": password, "public_key": holder.public().to_hex(), "timestamp": timestamp,
                "signature": proof})
            .to_string()
            .into_bytes()
        };
        let genuine = body.clone();
        change(&mut body, &mut script);
        let (status, answer) = site.post("/choria/v1/login", &body);
        let token = answer["token"].as_str().unwrap_or_default();
        if !body.trim_ascii_start().starts_with(b"{") {
            assert!(status != 200 && token.is_empty(), "{status}: {answer}");
        }
        if !token.is_empty() {
            assert_eq!(choria_token::peek_client(token).expect("a token").claims().caller_id, "up=bob");
            let same = said(&body) == said(&genuine);
            assert!(
                same && matches!(kind, 1 | 4) && offset <= 62,
                "a token for {}",
                String::from_utf8_lossy(&body)
            );
        }
        assert!(!answer.to_string().contains(PASSWORD), "the password comes back");
    });
}

/// What a body says, however it is written.
fn said(body: &[u8]) -> Option<[String; 5]> {
    let value: Value = serde_json::from_slice(body).ok()?;
    Some(["username", "password", "public_key", "timestamp", "signature"].map(|name| {
        let text = value[name].as_str().unwrap_or_default();
        // Hexadecimal has two spellings.
        if matches!(name, "public_key" | "signature") { text.to_ascii_lowercase() } else { text.to_owned() }
    }))
}

/// Overwrites bytes as the rest of the script says: pairs of place and value.
fn change(body: &mut [u8], script: &mut Script<'_>) {
    while !script.is_over() && !body.is_empty() {
        let at = (usize::from(script.byte()) * 256 + usize::from(script.byte())) % body.len();
        body[at] = script.byte();
    }
}

/// One request to sign: its document, token and proof.
struct Asked {
    document: Vec<u8>,
    token: String,
    signature: String,
}

/// What the script asks for: by whom, for what, and what is changed after the proof was made.
fn asked(site: &Site, kind: u8, script: &mut Script<'_>) -> Asked {
    let (holder, token) = if kind == 3 { &site.observer } else { &site.bob };
    let caller = if kind == 3 { "up=observer" } else { "up=bob" };
    let agent = if kind == 4 { "puppet" } else { "rpcutil" };
    let action = if kind == 5 { "stop" } else { "ping" };
    let body =
        RpcRequest { agent: agent.to_owned(), action: action.to_owned(), data: serde_json::Map::new() };
    let request = Request {
        message: body.to_bytes().expect("a body"),
        id: ksuid::new(clock::unix_seconds(), &choria_host::random::array()),
        sender: "ws.example.net".to_owned(),
        caller: caller.to_owned(),
        collective: if kind == 6 { "elsewhere" } else { "choria" }.to_owned(),
        agent: agent.to_owned(),
        ttl: 60,
        time: clock::unix_nanos(),
        filter: Filter::default(),
    };
    let mut document = request.to_bytes().expect("a document");
    if kind == 2 {
        // Any bytes, proved by their caller.
        change(&mut document, script);
    }
    let signature = if kind == 7 { String::new() } else { hex::encode(holder.sign(&document)) };
    Asked { document, token: token.clone(), signature }
}

/// Nothing is signed but what the caller proved and the policy allows.
fn check_signed(
    site: &Site,
    kind: u8,
    asked: &Asked,
    document: &[u8],
    token: &str,
    signature: &str,
    signed: &[u8],
) {
    assert!(matches!(kind, 1 | 2), "kind {kind} was signed");
    assert_eq!(token.trim(), asked.token, "another token");
    let holder = Seed::from_bytes(&[61; 32]).public();
    let proof = hex::decode(signature).expect("a proof in hexadecimal");
    assert!(holder.verify(document, &proof), "signed without proof");
    let secure = SecureRequest::parse(signed).expect("a secure request");
    // The client puts the caller's own token in place.
    assert_eq!(
        (secure.caller.as_str(), secure.signer.as_deref()),
        (site.delegation.as_str(), Some(site.delegation.as_str()))
    );
    let (wanted, got) = (Request::parse(document).expect("a request"), secure.request().expect("a request"));
    let rpc = RpcRequest::parse(&wanted.message).expect("a call");
    assert_eq!(
        (wanted.agent.as_str(), rpc.agent.as_str(), rpc.action.as_str()),
        ("rpcutil", "rpcutil", "ping")
    );
    assert_eq!(
        (&got.message, &got.agent, &got.collective, &got.id),
        (&wanted.message, &wanted.agent, &wanted.collective, &wanted.id)
    );
    assert_eq!((got.ttl, got.time, &got.filter), (wanted.ttl, wanted.time, &wanted.filter));
    assert_eq!(got.collective, "choria");
    assert!(
        Seed::from_bytes(&[53; 32]).public().verify(&secure.request, &secure.signature),
        "a signature of another"
    );
}

fn sign_http(input: &[u8]) {
    with_site(|site| {
        let mut script = Script::new(input);
        let kind = script.byte() % 8;
        let asked = asked(site, kind, &mut script);
        let mut body = if kind == 0 {
            script.rest().to_vec()
        } else {
            json!({"request": STANDARD.encode(&asked.document), "token": asked.token, "signature": asked.signature})
                .to_string()
                .into_bytes()
        };
        change(&mut body, &mut script);
        let (status, answer) = site.post("/choria/v1/sign", &body);
        let Some(signed) = answer["secure_request"].as_str() else { return };
        assert_eq!(status, 200);
        let sent: Value = serde_json::from_slice(&body).expect("JSON");
        let field = |name: &str| sent[name].as_str().unwrap_or_default();
        let document = STANDARD.decode(field("request")).expect("base64");
        let signed = STANDARD.decode(signed).expect("base64");
        check_signed(site, kind, &asked, &document, field("token"), field("signature"), &signed);
    });
}

fn sign_rpc(input: &[u8]) {
    with_site(|site| {
        let mut script = Script::new(input);
        let kind = script.byte() % 8;
        let asked = asked(site, kind, &mut script);
        let document = String::from_utf8_lossy(&asked.document).into_owned();
        let mut body = if kind == 0 {
            script.rest().to_vec()
        } else {
            json!({"agent": "aaa_signer", "action": "sign",
                "data": {"request": document, "token": asked.token, "signature": asked.signature}})
            .to_string()
            .into_bytes()
        };
        change(&mut body, &mut script);
        let Ok(call) = RpcRequest::parse(&body) else { return };
        let field = |name: &str| call.data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (document, token, signature) = (field("request"), field("token"), field("signature"));
        let action = call.action.clone();
        let reply = site.runtime.block_on(site.handlers.rpc(call));
        assert_ne!(reply.statuscode, StatusCode::UnknownError);
        let Some(signed) = reply.data.get("secure_request").and_then(Value::as_str) else {
            return assert_ne!(reply.statuscode, StatusCode::Ok, "OK without a signed request");
        };
        assert_eq!((reply.statuscode, action.as_str()), (StatusCode::Ok, "sign"));
        check_signed(site, kind, &asked, document.as_bytes(), &token, &signature, signed.as_bytes());
    });
}
