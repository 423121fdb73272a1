//! Signing with a stand-in for Vault that speaks its transit API over TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]
#![allow(clippy::print_stdout)] // a skipped test says so

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use choria_host::private_file::Secret;
use choria_token::{ClientClaims, Key, Seed, SigningKey, VaultKey, Verifier};

const NOW: i64 = 1_800_000_000;

/// Serves `requests` requests with the key `seed` and tells its port; `prefix` begins its signatures.
fn vault(seed: Seed, prefix: &'static str, tls: Arc<rustls::ServerConfig>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seed = Arc::new(seed);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&tls)).unwrap();
            let seed = Arc::clone(&seed);
            let mut stream = BufReader::new(rustls::StreamOwned::new(connection, socket.unwrap()));
            std::thread::spawn(move || {
                loop {
                    let (mut first, mut length, mut token) = (String::new(), 0, false);
                    if stream.read_line(&mut first).unwrap_or(0) == 0 {
                        break;
                    }
                    loop {
                        let mut line = String::new();
                        stream.read_line(&mut line).unwrap();
                        let lower = line.trim().to_ascii_lowercase();
                        if lower.is_empty() {
                            break;
                        }
                        if let Some(value) = lower.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        token |= lower == "x-vault-token: t0ken";
                    }
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).unwrap();
                    let answer = if first.starts_with("GET /v1/transit/keys/org ") {
                    let public = STANDARD.encode(seed.public().as_bytes());
                    serde_json::json!({"data": {"keys": {"1": {"public_key": "AAAA"}, "2": {"public_key": public}}}})
                } else {
                    assert!(first.starts_with("POST /v1/transit/sign/org "), "{first}");
                    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    assert_eq!(body["signature_algorithm"], "ed25519");
                    let input = STANDARD.decode(body["input"].as_str().unwrap()).unwrap();
                    let signature = STANDARD.encode(seed.sign(&input));
                    serde_json::json!({"data": {"signature": format!("{prefix}{signature}")}})
                }
                .to_string();
                    let status = if token { "200 OK" } else { "403 Forbidden" };
                    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", answer.len());
                    stream.get_mut().write_all(format!("{head}{answer}").as_bytes()).unwrap();
                }
            });
        }
    });
    port
}

struct Setup {
    dir: tempfile::TempDir,
    org: Seed,
    port: u16,
}

fn setup(prefix: &'static str) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let tls =
        choria_host::tls::server_config(&dir.path().join("cert.pem"), &dir.path().join("key.pem"), None)
            .unwrap();
    let port = vault(Seed::from_bytes(&[42; 32]), prefix, tls);
    Setup { dir, org: Seed::from_bytes(&[42; 32]), port }
}

impl Setup {
    fn key(&self, token: &str) -> SigningKey {
        let address = format!("https://localhost:{}/ignored", self.port);
        let ca = self.dir.path().join("cert.pem");
        let timeout = Duration::from_secs(10);
        SigningKey::Vault(
            VaultKey::new("org", &address, Secret::new(token.into()), Some(&ca), timeout).unwrap(),
        )
    }
}

#[test]
fn tokens_and_chain_issuers_are_signed_in_vault() {
    let setup = setup("vault:v2:");
    let key = setup.key("t0ken");
    let holder = Seed::from_bytes(&[1; 32]).public();
    let verifier = Verifier::single(Key::Ed25519(setup.org.public()));
    let hour = Duration::from_secs(3600);

    let token = key.issue_client(ClientClaims::new("up=x", &holder), hour, NOW).unwrap();
    verifier.verify_client(&token, NOW).unwrap();
    let token = key.issue_chain_issuer(ClientClaims::new("login", &holder), hour, NOW).unwrap();
    assert!(verifier.verify_client(&token, NOW).unwrap().claims().is_chain_issuer(&setup.org.public()));

    let refused = setup.key("wrong").issue_client(ClientClaims::new("up=x", &holder), hour, NOW).unwrap_err();
    assert!(refused.to_string().contains("status 403"), "{refused}");
}

#[test]
fn an_older_version_of_the_key_is_not_mistaken_for_the_newest() {
    let setup = setup("vault:v1:");
    let holder = Seed::from_bytes(&[1; 32]).public();
    let refused =
        setup.key("t0ken").issue_client(ClientClaims::new("up=x", &holder), Duration::ZERO, NOW).unwrap_err();
    assert!(refused.to_string().contains("rotated"), "{refused}");
}

#[test]
fn only_https_is_spoken() {
    for address in ["http://localhost:8200", "localhost:8200", "https://", "https://user@host", ""] {
        let refused = VaultKey::new("org", address, Secret::new("t".into()), None, Duration::from_secs(1));
        assert!(refused.is_err(), "{address}");
    }
    for name in ["", "a/b", "../keys", "a?b", "a b"] {
        let refused = VaultKey::new(name, "https://v", Secret::new("t".into()), None, Duration::from_secs(1));
        assert!(refused.is_err(), "{name}");
    }
}
