//! The socket of one who misbehaves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_host::tls::{self, Trust};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// More than this of what was heard is not remembered.
const REMEMBERED: usize = 16 * 1024;

/// A byte stream of either kind.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Makes TLS connections.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    pub(crate) fn trusting(ca: &Path) -> Result<Tls> {
        Ok(Tls(TlsConnector::from(Arc::clone(&tls::client_config(&Trust::CaFile(ca.to_path_buf()), None)?))))
    }

    pub(crate) async fn wrap(&self, address: SocketAddr, stream: TcpStream) -> Result<Box<dyn Bytes>> {
        let name = ServerName::IpAddress(address.ip().into());
        Ok(Box::new(self.0.connect(name, stream).await?))
    }
}

/// Who misbehaves: an address of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) from: Ipv4Addr,
    pub(crate) number: usize,
}

impl Peer {
    pub(crate) async fn dial(self, address: SocketAddr) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(self.from), 0))?;
        Ok(socket.connect(address).await?)
    }

    /// Up to the broker's INFO.
    pub(crate) async fn greeted(self, address: SocketAddr) -> Result<(TcpStream, Value)> {
        let mut stream = self.dial(address).await?;
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
        Ok((stream, serde_json::from_slice(info)?))
    }
}

/// Says this, whoever hangs up meanwhile.
pub(crate) async fn say(stream: &mut (impl Bytes + ?Sized), bytes: &[u8]) {
    // a peer that hangs up is what the others wait for
    if stream.write_all(bytes).await.is_ok() {
        drop(stream.flush().await);
    }
}

/// Listens to the end, and returns what was said.
pub(crate) async fn last_words(stream: &mut (impl Bytes + ?Sized)) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if heard.len() < REMEMBERED {
            heard.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
    }
    heard
}

/// The same, while a byte of this is said each second.
pub(crate) async fn byte_by_byte(stream: Box<dyn Bytes>, text: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let saying = async {
        for byte in text.iter().cycle() {
            if writing.write_all(&[*byte]).await.is_err() || writing.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut heard = Vec::new();
    let listening = async {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = reading.read(&mut buffer).await {
            heard.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
    };
    tokio::select! {
        () = saying => {}
        () = listening => {}
    }
    heard
}
