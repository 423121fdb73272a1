//! A broker of a hundred lines: TLS upgrade, one client, nothing checked. What the agent sends is the test's to
//! judge.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_core::ids::private_network_id;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use choria_host::tls::{self, Pin};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const CALLER: &str = "provisioner_signer";
pub(crate) const NONCE: &str = "lW2ynbcdQIWYn9k";

pub(crate) struct Broker {
    listener: TcpListener,
    tls: TlsAcceptor,
    pub(crate) pin: Pin,
}

pub(crate) struct Session {
    stream: BufReader<TlsStream<TcpStream>>,
    pub(crate) connect: Value,
    pub(crate) subscriptions: Vec<(String, String)>,
    requests: u32,
}

/// A message the agent published.
pub(crate) struct Published {
    pub(crate) subject: String,
    pub(crate) payload: Value,
}

impl Broker {
    pub(crate) async fn start(dir: &Path) -> Broker {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["broker".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (cert_file, key_file) = (dir.join("broker.pem"), dir.join("broker.key"));
        std::fs::write(&cert_file, certificate.pem()).unwrap();
        choria_host::private_file::write_private(&key_file, key.serialize_pem().as_bytes()).unwrap();
        let config = tls::server_config(&cert_file, &key_file, None).unwrap();
        Broker {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tls: TlsAcceptor::from(Arc::clone(&config)),
            pin: tls::pin_of_certificate(certificate.der()).unwrap(),
        }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// The next connection, up to its first PING.
    pub(crate) async fn session(&self) -> Session {
        tokio::time::timeout(PATIENCE, self.open()).await.expect("no agent connected in time")
    }

    async fn open(&self) -> Session {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let info = json!({"server_id":"T","server_name":"test","version":"2.10.0","proto":1,"host":"127.0.0.1",
            "port":4222,"headers":true,"max_payload":1_048_576,"tls_required":true,"nonce":NONCE});
        stream.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let stream = self.tls.accept(stream).await.unwrap();
        let mut session = Session {
            stream: BufReader::new(stream),
            connect: Value::Null,
            subscriptions: Vec::new(),
            requests: 0,
        };
        while session.connect.is_null() {
            session.step().await;
        }
        session
    }
}

impl Session {
    /// Handles one operation; a published message is returned.
    async fn step(&mut self) -> Option<Published> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_line(&mut line)).await;
        assert!(read.expect("the agent is silent").unwrap() > 0, "the agent hung up");
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first().copied() {
            Some("CONNECT") => {
                let at = line.find('{').unwrap();
                self.connect = serde_json::from_str(&line[at..]).unwrap();
            }
            Some("PING") => self.stream.write_all(b"PONG\r\n").await.unwrap(),
            Some("SUB") => {
                self.subscriptions.push((words[1].to_owned(), words.last().unwrap().to_string()));
            }
            Some("PUB") => {
                let mut payload = vec![0; words.last().unwrap().parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut payload).await.unwrap();
                let payload = serde_json::from_slice(&payload[..payload.len() - 2]).unwrap();
                return Some(Published { subject: words[1].to_owned(), payload });
            }
            _ => {}
        }
        None
    }

    /// Waits for a message on a subject; others are dropped.
    pub(crate) async fn published(&mut self, subject: &str) -> Value {
        loop {
            if let Some(message) = self.step().await
                && message.subject == subject
            {
                return message.payload;
            }
        }
    }

    pub(crate) async fn subscribed(&mut self, subject: &str) -> String {
        loop {
            if let Some((_, sid)) = self.subscriptions.iter().find(|(name, _)| name == subject) {
                return sid.clone();
            }
            self.step().await;
        }
    }

    /// An RPC request from a provisioner, and the body of its reply.
    pub(crate) async fn ask(&mut self, node: &str, action: &str, data: Value) -> Value {
        self.requests += 1;
        let subject = format!("provisioning.node.{node}");
        let sid = self.subscribed(&subject).await;
        let id = format!("2Jd0aaaaaaaaaaaaaaaaaaaaa{:02}", self.requests);
        let body = json!({"agent":"choria_provision","action":action,"data":data}).to_string();
        let request = json!({"protocol":"io.choria.protocol.v2.request","message":STANDARD.encode(body),"id":id,
            "sender":"prov.example.net","caller":CALLER,"collective":"provisioning","agent":"choria_provision",
            "ttl":60,"time":choria_host::clock::unix_nanos(),
            "filter":{"fact":[],"cf_class":[],"agent":["choria_provision"],"identity":[],"compound":[]}});
        let secure = json!({"protocol":"io.choria.protocol.v2.secure_request",
            "request":STANDARD.encode(request.to_string()),"signature":"aW5zZWN1cmU=","caller":"eyJh.eyJi.c2ln"});
        let reply = format!("provisioning.reply.{}.{id}", private_network_id(CALLER).as_str());
        let transport = json!({"protocol":"io.choria.protocol.v2.transport",
            "data":STANDARD.encode(secure.to_string()),"headers":{"reply":reply,"sender":"prov.example.net"}});
        let payload = transport.to_string();
        let message = format!("MSG {subject} {sid} {}\r\n{payload}\r\n", payload.len());
        self.stream.write_all(message.as_bytes()).await.unwrap();
        let transport = self.published(&reply).await;
        let secure = layer(&transport, "data");
        assert!(
            secure.get("signature").is_none_or(|signature| signature == ""),
            "unsigned while provisioning"
        );
        layer(&layer(&secure, "reply"), "message")
    }
}

fn layer(outer: &Value, member: &str) -> Value {
    let text = outer[member].as_str().unwrap_or_else(|| panic!("no {member} in {outer}"));
    serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap()
}
