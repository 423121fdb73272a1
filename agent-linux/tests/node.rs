//! A whole node against a small broker over TLS: born by provisioning, back as itself, asked by a client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_core::dispatch::Inbox;
use agent_core::ed25519::{self, SigningKey};
use agent_core::json::SliceSink;
use agent_core::wire::{reply, request, secure_reply, secure_request, transport};
use agent_linux::driver::Shared;
use agent_linux::run::{ExitReason, Life, live};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_host::{clock, tls};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const IDENTITY: &str = "n7.example.net";
const NONCE: &str = "Z4T9x1kQmB2aVwE";

struct Broker {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    port: u16,
    ca: PathBuf,
    pin: String,
}

impl Broker {
    async fn start(directory: &Path) -> Broker {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let (cert, key_file) = (directory.join("broker.pem"), directory.join("broker.key"));
        std::fs::write(&cert, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Broker {
            port: listener.local_addr().unwrap().port(),
            listener,
            acceptor: TlsAcceptor::from(tls::server_config(&cert, &key_file, None).unwrap()),
            ca: cert,
            pin: tls::pin_of_certificate(certificate.der()).unwrap().to_hex(),
        }
    }

    async fn tcp(&self) -> TcpStream {
        let (mut socket, _) = self.listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let info =
            format!("INFO {{\"max_payload\":1048576,\"tls_required\":true,\"nonce\":\"{NONCE}\"}}\r\n");
        socket.write_all(info.as_bytes()).await.unwrap();
        socket
    }

    /// Takes the next connection up to its PING.
    async fn accept(&self) -> Peer {
        let stream = self.acceptor.accept(self.tcp().await).await.unwrap();
        let mut peer = Peer { stream: BufReader::new(stream), connect: Value::Null, subjects: Vec::new() };
        let line = peer.line().await.unwrap();
        peer.connect = serde_json::from_str(line.strip_prefix("CONNECT ").unwrap()).unwrap();
        assert_eq!(peer.line().await.as_deref(), Some("PING"));
        peer
    }
}

struct Peer {
    stream: BufReader<TlsStream<TcpStream>>,
    connect: Value,
    subjects: Vec<String>,
}

impl Peer {
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let size = self.stream.read_line(&mut line).await.unwrap_or(0);
        (size > 0).then(|| line.trim_end().to_owned())
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next publication; subscriptions on the way are noted, pings answered. `None` when the peer closes.
    async fn publication(&mut self) -> Option<(String, Vec<u8>)> {
        loop {
            let line = self.line().await?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["SUB", subject, ..] => self.subjects.push((*subject).to_owned()),
                ["PUB", subject, size] => {
                    let mut payload = vec![0; size.parse::<usize>().unwrap() + 2];
                    self.stream.read_exact(&mut payload).await.unwrap();
                    payload.truncate(payload.len() - 2);
                    return Some(((*subject).to_owned(), payload));
                }
                ["PING"] => self.say(b"PONG\r\n").await,
                _ => {}
            }
        }
    }

    async fn deliver(&mut self, subject: &str, payload: &[u8]) {
        let mut bytes = format!("MSG {subject} 1 {}\r\n", payload.len()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");
        self.say(&bytes).await;
    }

    /// Asks an action on the node's own subject and returns the body of the reply.
    async fn ask(
        &mut self,
        caller: &Caller,
        collective: &str,
        agent: &str,
        action: &str,
        data: &Value,
    ) -> Answer {
        let id = format!("req{}", choria_host::random::below(u32::MAX));
        let inbox = format!("{collective}.reply.{}.{id}", Inbox::of(&caller.id).md5.as_str());
        let body = match agent {
            "discovery" => b"cGluZw==".to_vec(),
            _ => json!({"agent":agent,"action":action,"data":data}).to_string().into_bytes(),
        };
        let payload = caller.request(&id, collective, agent, &inbox, &body);
        self.deliver(&format!("{collective}.node.{IDENTITY}"), &payload).await;
        loop {
            let (subject, payload) = self.publication().await.expect("the node closed instead of answering");
            if subject == inbox {
                return Answer::open(payload, &id);
            }
        }
    }
}

struct Caller {
    id: String,
    token: String,
    key: Option<SigningKey>,
}

fn emitted(write: impl FnOnce(&mut SliceSink<'_>)) -> Vec<u8> {
    let mut buffer = vec![0u8; 256 * 1024];
    let mut sink = SliceSink::new(&mut buffer);
    write(&mut sink);
    sink.finish().unwrap().to_vec()
}

impl Caller {
    fn request(&self, id: &str, collective: &str, agent: &str, inbox: &str, body: &[u8]) -> Vec<u8> {
        let document = emitted(|sink| {
            let fields = request::Fields {
                message: body,
                id,
                sender: "ws1.example.net",
                caller: &self.id,
                collective,
                agent,
                ttl: 60,
                time: clock::unix_nanos(),
                filter: request::EMPTY_FILTER,
            };
            request::emit(sink, &fields).unwrap();
        });
        let signature = self.key.as_ref().map(|key| key.sign_document(&document).unwrap());
        let signature = signature.as_ref().map_or(secure_request::INSECURE, |signature| signature.as_slice());
        emitted(|sink| {
            let headers =
                transport::Headers { reply: Some(inbox), sender: Some("ws1"), ..Default::default() };
            transport::emit(sink, &headers, &mut |inner| {
                secure_request::emit(inner, &document, signature, &self.token, None)
            })
            .unwrap();
        })
    }
}

struct Answer {
    body: Vec<u8>,
    signed: Option<(Vec<u8>, Vec<u8>, String)>,
}

impl Answer {
    fn open(mut bytes: Vec<u8>, id: &str) -> Answer {
        let transport = transport::parse(&mut bytes).unwrap();
        assert_eq!(transport.sender.unwrap().text(&bytes), IDENTITY);
        let secure = secure_reply::parse(&mut bytes, transport.data).unwrap();
        let signed = secure.signature.map(|signature| {
            let token = secure.sender.unwrap().text(&bytes).to_owned();
            (signature.of(&bytes).to_vec(), secure.reply.of(&bytes).to_vec(), token)
        });
        let reply = reply::parse(&mut bytes, secure.reply).unwrap();
        assert_eq!(reply.request.text(&bytes), id);
        Answer { body: reply.message.of(&bytes).to_vec(), signed }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks the signature of the node and returns its token.
    fn verified(&self, key: &[u8; 32]) -> &str {
        let (signature, document, token) = self.signed.as_ref().expect("the reply is not signed");
        assert!(ed25519::verify(key, &[document], signature));
        token
    }
}

fn token(claims: &Value) -> String {
    format!(
        "{}.{}.c2ln",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    )
}

fn keys() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokens/chain.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// `choria=bob` of the token vectors, who signs his own requests.
fn bob() -> Caller {
    let keys = keys();
    let mut seed = [0u8; 32];
    hex::decode_to_slice(keys["keys"]["bob"]["seed_hex"].as_str().unwrap(), &mut seed).unwrap();
    let token = keys["tokens"].as_array().map_or_else(
        || keys["tokens"]["bob"]["token"].clone(),
        |list| list.iter().find(|token| token["name"] == "bob").unwrap()["token"].clone(),
    );
    Caller {
        id: "choria=bob".into(),
        token: token.as_str().unwrap().into(),
        key: SigningKey::from_seed(&seed),
    }
}

fn life(directory: &Path) -> Life {
    Life {
        config: directory.join("node/server.conf"),
        provisioning_jwt: Some(directory.join("provisioning.jwt")),
        identity: IDENTITY.into(),
        tls: None,
        shared: Shared::new(1 << 20),
        reload: None,
        replay_slots: 1024,
        on_stage: None,
    }
}

fn write_provisioning_token(directory: &Path, broker: &Broker) -> String {
    let text = token(&json!({
        "purpose":"choria_provisioning","cht":"s3cret","chs":false,"chu":format!("nats://localhost:{}", broker.port),
        "chpd":true,"v2":true,"extensions":{"choria":{"tls_pin":[broker.pin]}},"ou":"choria"
    }));
    std::fs::create_dir_all(directory.join("node")).unwrap();
    choria_host::private_file::write_private(&directory.join("provisioning.jwt"), text.as_bytes()).unwrap();
    text
}

fn run_test(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(60), test()).await.expect("the test hangs");
    });
}

/// Provisions the node behind `peer` and returns its public key.
async fn provision(peer: &mut Peer, broker: &Broker) -> [u8; 32] {
    let provisioner = Caller { id: "provisioner_signer".into(), token: "t".into(), key: None };
    let ask = async |peer: &mut Peer, action: &str, data: Value| {
        let answer = peer.ask(&provisioner, "provisioning", "choria_provision", action, &data).await;
        assert!(answer.signed.is_none(), "an unprovisioned node has no key to sign with");
        answer.json()
    };
    let refused = ask(peer, "jwt", json!({"token":"guess"})).await;
    assert_eq!(
        (&refused["statuscode"], &refused["statusmsg"]),
        (&json!(1), &json!("Incorrect provision token supplied"))
    );
    let made =
        ask(peer, "gen25519", json!({"token":"s3cret","nonce":"0f8fad5bd9cb469fa16570867728950e"})).await;
    let mut key = [0u8; 32];
    hex::decode_to_slice(made["data"]["public_key"].as_str().unwrap(), &mut key).unwrap();
    let proof = hex::decode(made["data"]["signature"].as_str().unwrap()).unwrap();
    assert!(ed25519::verify(&key, &[b"0f8fad5bd9cb469fa16570867728950e"], &proof));
    let directory = PathBuf::from(made["data"]["directory"].as_str().unwrap());

    let server_jwt = token(&json!({
        "purpose":"choria_server","identity":IDENTITY,"collectives":["choria"],"public_key":hex::encode(key),
        "exp":clock::unix_seconds() + 3600,"ou":"choria"
    }));
    let config = json!({
        "identity":IDENTITY,
        "collectives":"choria",
        "plugin.choria.server.provision":"false",
        "plugin.choria.middleware_hosts":format!("localhost:{}", broker.port),
        "plugin.security.provider":"choria",
        "plugin.security.choria.ca":broker.ca.to_str().unwrap(),
        "plugin.security.choria.seed_file":directory.join("server.seed").to_str().unwrap(),
        "plugin.security.choria.token_file":directory.join("server.jwt").to_str().unwrap(),
        "plugin.security.issuer.names":"choria",
        "plugin.security.issuer.choria.public":keys()["keys"]["org_issuer"]["public_hex"],
        "plugin.choria.status_file_path":directory.join("status.json").to_str().unwrap(),
        "rpcauthorization":"0",
    });
    let lines = config.as_object().unwrap().len() + 1;
    let done = ask(
        peer,
        "configure",
        json!({"token":"s3cret","config":config.to_string(),"server_jwt":server_jwt,"ca":"","certificate":"","ssldir":"",
            "key":"","ecdh_public":"","action_policies":{},"opa_policies":{}}),
    )
    .await;
    let message = done["data"]["message"].as_str().unwrap_or_else(|| panic!("{done}"));
    assert!(message.starts_with(&format!("Wrote {lines} lines to ")), "{message}");
    let restart = ask(peer, "restart", json!({"token":"s3cret","splay":1})).await;
    assert_eq!(restart["data"]["message"], "Restarting Choria Server after 2s");
    key
}

#[test]
fn a_node_is_born_and_serves() {
    run_test(async || {
        let directory = tempfile::tempdir().unwrap();
        let broker = Broker::start(directory.path()).await;
        let jwt = write_provisioning_token(directory.path(), &broker);
        let (stop, stopped) = watch::channel(false);
        let node = tokio::task::spawn_local(live(life(directory.path()), stopped));

        let mut peer = broker.accept().await;
        assert_eq!(peer.connect["auth_token"], jwt.as_str());
        assert_eq!((peer.connect.get("sig"), &peer.connect["name"]), (None, &json!(IDENTITY)));
        peer.say(b"PONG\r\n").await;
        let (subject, _) = peer.publication().await.unwrap();
        assert_eq!(subject, "choria.lifecycle.event.startup.provision_mode_server");
        for wanted in ["provisioning.node.n7.example.net", "provisioning.broadcast.agent.choria_provision"] {
            assert!(peer.subjects.iter().any(|subject| subject == wanted), "{wanted} in {:?}", peer.subjects);
        }
        let key = provision(&mut peer, &broker).await;
        let mut last = Vec::new();
        while let Some((subject, _)) = peer.publication().await {
            last.push(subject);
        }
        assert_eq!(last, ["choria.lifecycle.event.shutdown.provision_mode_server"]);

        let mut peer = broker.accept().await;
        let proof = URL_SAFE_NO_PAD.decode(peer.connect["sig"].as_str().unwrap()).unwrap();
        assert!(ed25519::verify(&key, &[NONCE.as_bytes()], &proof), "the nonce is signed with the new key");
        peer.say(b"PONG\r\n").await;
        let (subject, _) = peer.publication().await.unwrap();
        assert_eq!(subject, "choria.lifecycle.event.startup.server");
        assert!(peer.subjects.iter().any(|subject| subject == "choria.broadcast.agent.rpcutil"));

        let caller = bob();
        let pong = peer.ask(&caller, "choria", "discovery", "", &json!({})).await;
        assert_eq!(pong.body, b"pong");
        let ping = peer.ask(&caller, "choria", "rpcutil", "ping", &json!({})).await;
        let server_token = std::fs::read_to_string(directory.path().join("node/server.jwt")).unwrap();
        assert_eq!(ping.verified(&key), server_token);
        assert_eq!(ping.json()["statuscode"], 0, "{}", ping.json());
        let unknown = peer.ask(&caller, "choria", "rpcutil", "nonsense", &json!({})).await;
        assert_eq!(unknown.json()["statuscode"], 2);

        // Somebody without bob's key is not answered; the node lives on.
        let forger = Caller { key: SigningKey::from_seed(&[8; 32]), ..bob() };
        let inbox = format!("choria.reply.{}.x1", Inbox::of("choria=bob").md5.as_str());
        let body = br#"{"agent":"rpcutil","action":"ping","data":{}}"#;
        let forged = forger.request("x1", "choria", "rpcutil", &inbox, body);
        peer.deliver("choria.broadcast.agent.rpcutil", &forged).await;
        let good = caller.request("x2", "choria", "rpcutil", &inbox.replace("x1", "x2"), body);
        for _ in 0..2 {
            peer.deliver("choria.broadcast.agent.rpcutil", &good).await;
        }
        let (subject, _) = peer.publication().await.unwrap();
        assert!(subject.ends_with(".x2"), "{subject}");
        stop.send_replace(true);
        let rest: Vec<String> = drain(&mut peer).await;
        assert_eq!(rest, ["choria.lifecycle.event.shutdown.server"], "the repeated request ran once");
        assert_eq!(node.await.unwrap(), ExitReason::Stopped);
        let status: Value =
            serde_json::from_slice(&std::fs::read(directory.path().join("node/status.json")).unwrap())
                .unwrap();
        assert_eq!((&status["identity"], &status["provisioning_mode"]), (&json!(IDENTITY), &json!(false)));
        assert_eq!(status["stats"]["replies"], 4);
        assert_eq!(status["stats"]["invalid"], 1);
    });
}

async fn drain(peer: &mut Peer) -> Vec<String> {
    let mut subjects = Vec::new();
    while let Some((subject, _)) = peer.publication().await {
        subjects.push(subject);
    }
    subjects
}

#[test]
fn t_141_t_269_a_broker_with_another_key_gets_no_token() {
    run_test(async || {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut broker = Broker::start(directory.path()).await;
        broker.pin = Broker::start(other.path()).await.pin;
        write_provisioning_token(directory.path(), &broker);
        let (stop, stopped) = watch::channel(false);
        let node = tokio::task::spawn_local(live(life(directory.path()), stopped));
        for _ in 0..2 {
            let handshake = broker.acceptor.accept(broker.tcp().await).await;
            let mut seen = Vec::new();
            if let Ok(mut stream) = handshake {
                // With TLS 1.3 the server is done before it learns that the client is not content.
                stream.read_to_end(&mut seen).await.ok();
            }
            assert!(seen.is_empty(), "{}", String::from_utf8_lossy(&seen));
        }
        stop.send_replace(true);
        assert_eq!(node.await.unwrap(), ExitReason::Stopped);
    });
    choria_rows::row(141, "a broker with another key than the pin, twice", "no byte behind the handshake");
    choria_rows::row(269, "a broker with another key than the pin, twice", "no byte behind the handshake");
}

#[test]
fn the_connection_comes_back_with_what_is_on_disk_now() {
    run_test(async || {
        let directory = tempfile::tempdir().unwrap();
        let broker = Broker::start(directory.path()).await;
        let first = write_provisioning_token(directory.path(), &broker);
        let (stop, stopped) = watch::channel(false);
        let node = tokio::task::spawn_local(live(life(directory.path()), stopped));
        let mut peer = broker.accept().await;
        assert_eq!(peer.connect["auth_token"], first.as_str());
        peer.say(b"PONG\r\n").await;
        peer.publication().await.unwrap();
        let second = {
            let mut claims: Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(first.split('.').nth(1).unwrap()).unwrap())
                    .unwrap();
            claims["jti"] = json!("second");
            token(&claims)
        };
        choria_host::private_file::write_private(
            &directory.path().join("provisioning.jwt"),
            second.as_bytes(),
        )
        .unwrap();
        drop(peer);
        let mut peer = broker.accept().await;
        assert_eq!(peer.connect["auth_token"], second.as_str());
        peer.say(b"-ERR 'Authorization Violation'\r\n").await;
        drop(peer);
        broker.accept().await;
        stop.send_replace(true);
        assert_eq!(node.await.unwrap(), ExitReason::Stopped);
    });
}

/// A broker that sends and does not read must not keep the node for ever.
#[test]
fn a_broker_that_stops_reading_is_left() {
    run_test(async || {
        let directory = tempfile::tempdir().unwrap();
        let broker = Broker::start(directory.path()).await;
        write_provisioning_token(directory.path(), &broker);
        let (stop, stopped) = watch::channel(false);
        let node = tokio::task::spawn_local(live(life(directory.path()), stopped));
        let mut peer = broker.accept().await;
        peer.say(b"PONG\r\n").await;
        peer.publication().await.unwrap();
        // every PING wants an answer, and there is no room for more than some megabytes of them
        let pings = b"PING\r\n".repeat(1 << 20);
        let sending = async {
            for _ in 0..16 {
                peer.say(&pings).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(5), sending).await.is_err(), "all was answered");
        broker.accept().await;
        drop(peer);
        stop.send_replace(true);
        assert_eq!(node.await.unwrap(), ExitReason::Stopped);
    });
}
