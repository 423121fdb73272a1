//! A raw NATS connection over TLS that says whatever a test wants, from whatever loopback address it wants.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use choria_host::tls::{self, Trust};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::forge::Key;

/// The only answer to bad credentials.
const AUTHORIZATION_VIOLATION: &str = "-ERR 'Authorization Violation'\r\n";
/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Debug)]
pub struct Liar {
    stream: BufReader<TlsStream<TcpStream>>,
    /// The broker's INFO.
    pub info: Value,
    messages: Vec<Message>,
}

/// A message that arrived.
#[derive(Debug, Clone)]
pub struct Message {
    pub subject: String,
    pub payload: Vec<u8>,
}

impl Liar {
    /// Connects up to the end of the TLS handshake. A log of its own needs an address of its own: brokers thin their
    /// logs out by address.
    pub async fn dial(broker: SocketAddr, from: Ipv4Addr, ca: &Path) -> Result<Liar> {
        tokio::time::timeout(PATIENCE, Liar::dial_patiently(broker, from, ca))
            .await
            .context("the broker does not answer")?
    }

    async fn dial_patiently(broker: SocketAddr, from: Ipv4Addr, ca: &Path) -> Result<Liar> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
        let mut stream = socket.connect(broker).await?;
        stream.set_nodelay(true)?;
        // byte by byte: nothing behind the line end may be taken from TLS
        let mut line = Vec::new();
        loop {
            let byte = stream.read_u8().await?;
            if byte == b'\n' {
                break;
            }
            line.push(byte);
            ensure!(line.len() < 65_536, "INFO without end");
        }
        let info = line.strip_prefix(b"INFO ").context("no INFO")?;
        let info: Value = serde_json::from_slice(info)?;
        let config = tls::client_config(&Trust::CaFile(ca.to_path_buf()), None)?;
        let stream =
            TlsConnector::from(config).connect(ServerName::IpAddress(broker.ip().into()), stream).await?;
        Ok(Liar { stream: BufReader::new(stream), info, messages: Vec::new() })
    }

    pub fn nonce(&self) -> &str {
        self.info.get("nonce").and_then(Value::as_str).unwrap_or_default()
    }

    /// CONNECT as a well-behaved client would write it.
    pub fn hello(&self, name: &str, token: &str, key: Option<&Key>) -> Value {
        let mut connect = json!({
            "verbose": false, "pedantic": false, "tls_required": true, "name": name, "lang": "test", "version": "1",
            "protocol": 1, "headers": true, "no_responders": true, "echo": true,
        });
        let fields = connect.as_object_mut();
        if let Some(fields) = fields {
            if !token.is_empty() {
                fields.insert("auth_token".into(), token.into());
            }
            if let Some(key) = key {
                fields.insert("sig".into(), key.sign_nonce(self.nonce()).into());
            }
        }
        connect
    }

    /// Sends bytes as they are.
    pub async fn say(&mut self, text: &str) -> Result<()> {
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.flush().await?;
        Ok(())
    }

    pub async fn connect(&mut self, connect: &Value) -> Result<()> {
        self.say(&format!("CONNECT {connect}\r\nPING\r\n")).await
    }

    /// Everything until the broker hangs up must be the one refusal.
    pub async fn is_refused(&mut self) -> Result<()> {
        let answer = self.last_words().await?;
        ensure!(answer == AUTHORIZATION_VIOLATION, "not refused as agreed: {answer:?}");
        Ok(())
    }

    /// Everything until the broker hangs up.
    pub async fn last_words(&mut self) -> Result<String> {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut answer)).await;
        // a peer that hangs up without a TLS goodbye is an error of the library's, and fine
        drop(read.context("still connected")?);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The answer to what was sent since the last PING: an error line, or nothing.
    pub async fn settled(&mut self) -> Result<Option<String>> {
        tokio::time::timeout(PATIENCE, async {
            let mut error = None;
            loop {
                let line = self.line().await?;
                if line.starts_with("PONG") {
                    return Ok(error);
                }
                if line.starts_with("-ERR") {
                    error.get_or_insert(line);
                }
            }
        })
        .await
        .context("no PONG")?
    }

    /// CONNECT must be accepted.
    pub async fn is_admitted(&mut self) -> Result<()> {
        match self.settled().await? {
            None => Ok(()),
            Some(error) => bail!("not admitted: {error}"),
        }
    }

    pub async fn subscribe(&mut self, subject: &str) -> Result<Option<String>> {
        self.say(&format!("SUB {subject} 1\r\nPING\r\n")).await?;
        self.settled().await
    }

    pub async fn publish(&mut self, subject: &str, payload: &[u8]) -> Result<Option<String>> {
        self.publish_with_reply(subject, "", payload).await
    }

    pub async fn publish_with_reply(
        &mut self,
        subject: &str,
        reply: &str,
        payload: &[u8],
    ) -> Result<Option<String>> {
        let space = if reply.is_empty() { "" } else { " " };
        self.stream
            .write_all(format!("PUB {subject} {reply}{space}{}\r\n", payload.len()).as_bytes())
            .await?;
        self.stream.write_all(payload).await?;
        self.say("\r\nPING\r\n").await?;
        self.settled().await
    }

    /// The next message, or `None` when none came in this time.
    pub async fn message(&mut self, limit: Duration) -> Result<Option<Message>> {
        let until = tokio::time::Instant::now() + limit;
        loop {
            if !self.messages.is_empty() {
                return Ok(Some(self.messages.remove(0)));
            }
            // waiting may be given up, reading a line may not: half of it would be lost
            match tokio::time::timeout_at(until, self.stream.fill_buf()).await {
                Err(_) => return Ok(None),
                Ok(bytes) => ensure!(!bytes?.is_empty(), "the broker hung up"),
            }
            tokio::time::timeout(PATIENCE, self.line()).await.context("half a line")??;
        }
    }

    /// Handles one line. Messages are put aside.
    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line).await? > 0, "the broker hung up");
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first().copied() {
            Some("PING") => self.say("PONG\r\n").await?,
            Some(kind @ ("MSG" | "HMSG")) => {
                let size: usize = words.last().context("no size")?.parse()?;
                let headers: usize = match kind {
                    "HMSG" => words.get(words.len().saturating_sub(2)).context("no size")?.parse()?,
                    _ => 0,
                };
                let mut payload = vec![0; size + 2];
                self.stream.read_exact(&mut payload).await?;
                payload.truncate(size);
                let subject = (*words.get(1).context("no subject")?).to_owned();
                self.messages.push(Message { subject, payload: payload.split_off(headers) });
            }
            _ => {}
        }
        Ok(line)
    }
}
