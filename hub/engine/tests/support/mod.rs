//! A test engine, its certificates, and a raw socket that speaks lines.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use nats_engine::{
    AccountConfig, Admission, Authenticator, Candidate, Denial, Engine, EngineConfig, Pace, Permissions,
    Rate, Rules, SubjectPace,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(10);

/// Users are `account/name`; the password is `pw`. Some names carry permissions.
#[derive(Debug)]
pub struct TestUsers;

impl Authenticator for TestUsers {
    fn authenticate(&self, candidate: &Candidate<'_>) -> Result<Admission, Denial> {
        let connect = candidate.connect;
        if connect.user.is_empty() {
            return Err(Denial::new("no_credentials", "no user name"));
        }
        if connect.pass != "pw" {
            return Err(Denial::new("password_bad", "wrong password"));
        }
        let (account, name) = connect.user.split_once('/').unwrap_or(("main", &connect.user));
        let list = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (mut permissions, mut expires_unix) = (Permissions::default(), None);
        let (mut pace, mut max_account_connections) = (None, None);
        match name {
            "narrow" => {
                permissions.publish = Rules { allow: Some(list(&["ok.>"])), deny: list(&["ok.no"]) };
                permissions.subscribe = Rules { allow: Some(list(&["*.reply.me.>"])), deny: Vec::new() };
            }
            "filtered" => permissions.subscribe.deny = list(&["*.reply.>"]),
            "short" => expires_unix = Some(unix_now() + 4),
            "paced" => {
                pace = Some(Pace {
                    messages: Rate { per_second: 50, burst: 100 },
                    bytes: Rate { per_second: 1 << 20, burst: 1 << 20 },
                    subjects: vec![SubjectPace {
                        prefix: "event.".to_owned(),
                        messages: Rate { per_second: 1, burst: 2 },
                        max_payload: 16,
                    }],
                });
            }
            "crowd" => max_account_connections = Some(2),
            "late" => expires_unix = Some(unix_now() - 1),
            _ => {}
        }
        Ok(Admission {
            account: account.to_owned(),
            user: name.to_owned(),
            permissions,
            expires_unix,
            pace,
            max_account_connections,
            ..Admission::default()
        })
    }
}

pub fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

pub fn config() -> EngineConfig {
    EngineConfig {
        auth_timeout: Duration::from_millis(700),
        tls_timeout: Duration::from_millis(700),
        ..EngineConfig::default()
    }
}

pub async fn start_with(config: EngineConfig, accounts: Vec<AccountConfig>) -> (Engine, SocketAddr) {
    let engine = Engine::new(config, accounts, Arc::new(TestUsers)).unwrap();
    let address = engine.listen("127.0.0.1:0".parse().unwrap(), None).await.unwrap().local_addr();
    (engine, address)
}

pub async fn start() -> (Engine, SocketAddr) {
    start_with(config(), vec![AccountConfig::named("main"), AccountConfig::named("other")]).await
}

/// A certificate for `localhost` and the client side that trusts only it.
pub fn tls() -> (Arc<ArcSwap<rustls::ServerConfig>>, rustls::ClientConfig) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.send_tls13_tickets = 0;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(ArcSwap::from_pointee(server)), client)
}

/// A raw connection.
pub struct Raw {
    pub socket: TcpStream,
    buffer: Vec<u8>,
    pub info: serde_json::Value,
}

impl Raw {
    /// Connects and reads INFO.
    pub async fn open(address: SocketAddr) -> Raw {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut raw = Raw { socket, buffer: Vec::new(), info: serde_json::Value::Null };
        let line = raw.line().await;
        raw.info = serde_json::from_str(line.strip_prefix("INFO ").unwrap()).unwrap();
        raw
    }

    /// Connects as a user with quiet defaults; `more` is further JSON.
    pub async fn user(address: SocketAddr, user: &str, more: &str) -> Raw {
        let mut raw = Raw::open(address).await;
        raw.send(&connect_line(user, more)).await;
        raw.send("PING\r\n").await;
        assert_eq!(raw.line().await, "PONG");
        raw
    }

    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The next line without CRLF, but no PING: it is answered. Panics at the end of the stream.
    pub async fn line(&mut self) -> String {
        loop {
            let line = self.any_line().await;
            if line != "PING" {
                return line;
            }
            self.send("PONG\r\n").await;
        }
    }

    async fn any_line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.buffer.split_off(end + 2);
                let line = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.fill().await > 0, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    async fn fill(&mut self) -> usize {
        let mut chunk = vec![0; 65536];
        let count = timeout(PATIENCE, self.socket.read(&mut chunk)).await.expect("no answer").unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..count]);
        count
    }

    /// Reads at most this much, and throws it away; false when the peer has closed.
    pub async fn sip(&mut self, bytes: usize) -> bool {
        let mut chunk = vec![0; bytes];
        matches!(timeout(PATIENCE, self.socket.read(&mut chunk)).await.expect("no answer"), Ok(1..))
    }

    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> String {
        while self.fill().await > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// Sends PING and returns the lines before its PONG.
    pub async fn sync(&mut self) -> Vec<String> {
        self.send("PING\r\n").await;
        let mut lines = Vec::new();
        loop {
            match self.line().await.as_str() {
                "PONG" => return lines,
                "PING" => self.send("PONG\r\n").await,
                line => lines.push(line.to_owned()),
            }
        }
    }
}

pub fn connect_line(user: &str, more: &str) -> String {
    format!("CONNECT {{\"verbose\":false,\"pedantic\":false,\"user\":\"{user}\",\"pass\":\"pw\"{more}}}\r\n")
}
