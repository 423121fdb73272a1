//! A network in one process: a broker of a hundred lines that does what these tests need, nodes with real tokens.
//! It checks nothing; admission has its own tests.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::large_futures
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use choria_client::{
    BrokerSource, ClientConfig, ConnectOptions, Connection, CredentialSource, Identity, TlsMode,
};
use choria_host::{Settings, clock};
use choria_protocol::rpc::{RpcReply, RpcRequest, StatusCode};
use choria_protocol::{Headers, Reply, SecureReply, SecureRequest, Transport, subjects};
use choria_token::{ClientClaims, Issuer, PublicKey, Seed, ServerClaims};
use futures_util::StreamExt as _;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;

pub const NONCE: &str = "Z4T9x1kQmB2aVwE";

#[derive(Default)]
struct Board {
    next_client: u64,
    subscriptions: Vec<Subscription>,
    connects: Vec<serde_json::Value>,
    published: Vec<String>,
    turn: usize,
}

struct Subscription {
    client: u64,
    sid: String,
    subject: String,
    queue: Option<String>,
    out: UnboundedSender<Vec<u8>>,
}

#[derive(Clone)]
pub struct Broker {
    pub address: SocketAddr,
    board: Arc<Mutex<Board>>,
}

impl Broker {
    pub async fn start(nonce: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, nonce)
    }

    pub fn on(listener: TcpListener, nonce: &'static str) -> Self {
        let broker = Self { address: listener.local_addr().unwrap(), board: Arc::default() };
        let accepting = broker.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                tokio::spawn(serve(socket, Arc::clone(&accepting.board), Some(nonce)));
            }
        });
        broker
    }

    /// A broker that upgrades to TLS after INFO.
    pub async fn with_tls(listener: TcpListener, tls: Arc<rustls::ServerConfig>) -> Self {
        Self::with_injection(listener, tls, "").await
    }

    /// The same; somebody on the way puts these bytes behind INFO.
    pub async fn with_injection(
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        injected: &'static str,
    ) -> Self {
        let broker = Self { address: listener.local_addr().unwrap(), board: Arc::default() };
        let accepting = broker.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (board, tls) = (Arc::clone(&accepting.board), Arc::clone(&tls));
                tokio::spawn(async move {
                    let greeting = [info(NONCE), injected.as_bytes().to_vec()].concat();
                    socket.write_all(&greeting).await.unwrap_or(());
                    if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(socket).await {
                        serve(stream, board, None).await;
                    }
                });
            }
        });
        broker
    }

    /// The CONNECT lines seen so far.
    pub fn connects(&self) -> Vec<serde_json::Value> {
        self.board.lock().unwrap().connects.clone()
    }

    /// The subjects that clients published to.
    pub fn published(&self) -> Vec<String> {
        self.board.lock().unwrap().published.clone()
    }

    /// Waits until the broker has this subscription: a client's flush only empties its buffer.
    pub async fn has_subscription(&self, subject: &str) {
        let has = || self.board.lock().unwrap().subscriptions.iter().any(|s| s.subject == subject);
        let seen = async {
            while !has() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the subscription arrives");
    }

    pub async fn plain_client(&self) -> async_nats_client::Client {
        async_nats_client::connect(format!("nats://{}", self.address)).await.unwrap()
    }
}

pub use choria_client::async_nats as async_nats_client;

fn info(nonce: &str) -> Vec<u8> {
    let nonce = serde_json::to_string(nonce).unwrap();
    format!(
        "INFO {{\"server_id\":\"x\",\"server_name\":\"mini\",\"version\":\"2.12.0\",\"proto\":1,\"host\":\"127.0.0.1\",\"port\":1,\"headers\":true,\"max_payload\":1048576,\"connect_urls\":[\"192.0.2.1:4222\"],\"nonce\":{nonce}}}\r\n"
    )
    .into_bytes()
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    socket: S,
    board: Arc<Mutex<Board>>,
    greet: Option<&str>,
) {
    let (reading, mut writing) = tokio::io::split(socket);
    let (out, mut queue) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    if let Some(nonce) = greet {
        out.send(info(nonce)).unwrap();
    }
    tokio::spawn(async move {
        while let Some(bytes) = queue.recv().await {
            if writing.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
    let client = {
        let mut board = board.lock().unwrap();
        board.next_client += 1;
        board.next_client
    };
    let mut reader = BufReader::new(reading);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).await.unwrap_or(0) == 0 {
            break;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first().copied().unwrap_or_default() {
            "CONNECT" => {
                let connect = serde_json::from_str(line.trim_start_matches("CONNECT").trim()).unwrap();
                board.lock().unwrap().connects.push(connect);
            }
            "PING" => out.send(b"PONG\r\n".to_vec()).unwrap_or(()),
            "SUB" => board.lock().unwrap().subscriptions.push(Subscription {
                client,
                sid: (*words.last().unwrap()).to_owned(),
                subject: words[1].to_owned(),
                queue: (words.len() == 4).then(|| words[2].to_owned()),
                out: out.clone(),
            }),
            "UNSUB" => {
                board.lock().unwrap().subscriptions.retain(|s| s.client != client || s.sid != words[1])
            }
            "PUB" => {
                let size: usize = words.last().unwrap().parse().unwrap();
                let mut payload = vec![0; size + 2];
                reader.read_exact(&mut payload).await.unwrap();
                board.lock().unwrap().published.push(words[1].to_owned());
                route(&board, words[1], &payload);
            }
            _ => {}
        }
    }
    board.lock().unwrap().subscriptions.retain(|s| s.client != client);
}

fn route(board: &Mutex<Board>, subject: &str, payload: &[u8]) {
    let mut board = board.lock().unwrap();
    board.turn += 1;
    let mut groups: BTreeMap<&str, Vec<&Subscription>> = BTreeMap::new();
    let send = |s: &Subscription| {
        let mut message = format!("MSG {subject} {} {}\r\n", s.sid, payload.len() - 2).into_bytes();
        message.extend_from_slice(payload);
        s.out.send(message).unwrap_or(());
    };
    for s in board.subscriptions.iter().filter(|s| matches(&s.subject, subject)) {
        match &s.queue {
            Some(queue) => groups.entry(queue).or_default().push(s),
            None => send(s),
        }
    }
    for members in groups.values() {
        send(members[board.turn % members.len()]);
    }
}

fn matches(pattern: &str, subject: &str) -> bool {
    match pattern.strip_suffix(">") {
        Some(prefix) => subject.starts_with(prefix),
        None => pattern == subject,
    }
}

/// An organization that issues tokens.
pub struct Org {
    issuer: Issuer,
    pub key: PublicKey,
}

impl Org {
    pub fn new() -> Self {
        let seed = Seed::generate().unwrap();
        Self { key: seed.public(), issuer: Issuer::Org(seed) }
    }

    pub fn client(&self, caller: &str, change: impl FnOnce(&mut ClientClaims)) -> (Seed, String) {
        let seed = Seed::generate().unwrap();
        let mut claims = ClientClaims::new(caller, &seed.public());
        claims.permissions.fleet_management = true;
        change(&mut claims);
        let token =
            self.issuer.issue_client(claims, Duration::from_secs(3600), clock::unix_seconds()).unwrap();
        (seed, token)
    }

    pub fn server(&self, identity: &str) -> (Seed, String) {
        let seed = Seed::generate().unwrap();
        let mut claims = ServerClaims::new(identity, &seed.public());
        claims.collectives = vec!["choria".to_owned()];
        let token =
            self.issuer.issue_server(claims, Duration::from_secs(3600), clock::unix_seconds()).unwrap();
        (seed, token)
    }

    pub fn issuers(&self) -> BTreeMap<String, Vec<PublicKey>> {
        BTreeMap::from([("choria".to_owned(), vec![self.key])])
    }
}

pub fn config(broker: SocketAddr, (seed, token): (Seed, String), org: Option<&Org>) -> ClientConfig {
    let mut settings = Settings::empty();
    settings.set("plugin.security.provider", "choria");
    settings.set("identity", "workstation.example.net");
    let mut config = ClientConfig::from_settings(settings).unwrap();
    config.tls = TlsMode::Off;
    config.brokers = BrokerSource { hosts: vec![broker.to_string()], ..BrokerSource::default() };
    config.credentials = Some(CredentialSource::Memory(Identity::new(&token, Some(seed)).unwrap()));
    config.issuers = org.map(Org::issuers).unwrap_or_default();
    config.discovery_timeout = Duration::from_millis(1500);
    config
}

pub async fn connect(config: &ClientConfig) -> Connection {
    Connection::connect(config, ConnectOptions::default()).await.unwrap()
}

/// How a node behaves.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    Good,
    Unsigned,
    /// Fails every action.
    Failing,
    /// Discovered, but never answers an action.
    Silent,
    /// Answers in the name of another node.
    Impostor(&'static str),
    /// Alters its reply after signing.
    Altered,
    /// Answers another request than the one it got.
    Elsewhere,
    /// Answers everything twice.
    Twice,
    /// Does not stop repeating its answer; a quarter of a minute to be exact.
    Endless,
    /// Answers discovery in names that are none, or somebody's escape sequences, unsigned.
    Inventive,
}

/// Names that are no identities.
pub const HOSTILE_NAMES: [&str; 9] =
    ["a\r\nSUB > 1", "*", ">", "n1.*", "a b", "\u{1b}]52;c;x\u{7}", "", "../../etc", "$JS.API.INFO"];

pub async fn node(broker: &Broker, org: &Org, identity: &str, manner: Manner) {
    let client = broker.plain_client().await;
    let mut requests = futures_util::stream::select_all([
        client.subscribe(subjects::broadcast("choria", "discovery")).await.unwrap(),
        client.subscribe(subjects::node("choria", identity)).await.unwrap(),
    ]);
    broker.has_subscription(&subjects::node("choria", identity)).await;
    let (seed, token) = org.server(identity);
    let identity = identity.to_owned();
    tokio::spawn(async move {
        while let Some(message) = requests.next().await {
            let transport = Transport::parse(&message.payload).unwrap();
            let request = SecureRequest::parse(&transport.data).unwrap().request().unwrap();
            let body = if request.agent == "discovery" {
                b"pong".to_vec()
            } else if manner == Manner::Silent {
                continue;
            } else {
                let rpc = RpcRequest::parse(&request.message).unwrap();
                let failing = manner == Manner::Failing;
                let reply = RpcReply {
                    action: rpc.action,
                    statuscode: if failing { StatusCode::Aborted } else { StatusCode::Ok },
                    statusmsg: if failing { "no".to_owned() } else { "OK".to_owned() },
                    data: serde_json::json!({"pong": 1}),
                };
                reply.to_bytes().unwrap()
            };
            if manner == Manner::Inventive {
                for name in HOSTILE_NAMES {
                    let payload = unsigned_answer(&request, name);
                    client.publish(transport.headers.reply.clone(), payload.into()).await.unwrap();
                }
                continue;
            }
            let sender =
                if let Manner::Impostor(other) = manner { other.to_owned() } else { identity.clone() };
            let mut reply = Reply {
                message: body,
                request: if manner == Manner::Elsewhere { "0".repeat(32) } else { request.id },
                sender: sender.clone(),
                agent: request.agent,
                time: clock::unix_nanos(),
            }
            .to_bytes()
            .unwrap();
            let signed = manner != Manner::Unsigned;
            let signature = signed.then(|| seed.sign(&reply).to_vec());
            if manner == Manner::Altered {
                reply = String::from_utf8(reply).unwrap().replace("\"time\":1", "\"time\":2").into_bytes();
            }
            let secure = SecureReply { reply, signature, sender: signed.then(|| token.clone()) };
            let headers = Headers { sender, ..Headers::default() };
            let payload = Transport { data: secure.to_bytes().unwrap(), headers }.to_bytes().unwrap();
            let times = match manner {
                Manner::Twice => 2,
                Manner::Endless => 300,
                _ => 1,
            };
            for _ in 0..times {
                client.publish(transport.headers.reply.clone(), payload.clone().into()).await.unwrap();
                if manner == Manner::Endless {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
}

/// Written by hand where a library might refuse the name.
fn unsigned_answer(request: &choria_protocol::Request, sender: &str) -> Vec<u8> {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let reply = serde_json::json!({
        "protocol": "io.choria.protocol.v2.reply", "message": encode(b"pong"), "sender": sender, "agent": "discovery",
        "request": request.id, "time": clock::unix_nanos(),
    })
    .to_string();
    let hash = {
        use sha2::Digest as _;
        encode(&sha2::Sha256::digest(reply.as_bytes()))
    };
    let secure = serde_json::json!({
        "protocol": "io.choria.protocol.v2.secure_reply", "reply": encode(reply.as_bytes()), "hash": hash,
    });
    let transport = serde_json::json!({
        "protocol": "io.choria.protocol.v2.transport", "data": encode(secure.to_string().as_bytes()),
        "headers": {"mc_sender": sender},
    });
    transport.to_string().into_bytes()
}
