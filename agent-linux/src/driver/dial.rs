//! Finding a broker and reaching it.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::broker_target::{Broker, Targets};

/// How many attempts make one pass over the brokers.
pub(super) fn pass(targets: &Targets) -> u32 {
    match targets {
        Targets::Brokers(list) => u32::try_from(list.len()).unwrap_or(1).max(1),
        Targets::Srv { .. } => 1,
    }
}

/// The broker of attempt `turn`; `shift` differs between nodes so that they spread over the list. SRV names are asked
/// anew for each attempt.
pub(super) async fn pick(targets: &Targets, turn: u32, shift: u32) -> Option<Broker> {
    let from = |list: &[Broker]| {
        let len = u32::try_from(list.len()).ok().filter(|len| *len > 0)?;
        let at = turn.wrapping_add(shift).checked_rem(len)?;
        list.get(usize::try_from(at).ok()?).cloned()
    };
    match targets {
        Targets::Brokers(list) => from(list),
        Targets::Srv { names, fallback } => {
            for name in names {
                match super::srv::lookup(name).await {
                    Ok(found) if !found.is_empty() => return from(&found),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(name, %error, "could not look up brokers in DNS"),
                }
            }
            fallback.clone()
        }
    }
}

/// A byte stream, before or after the upgrade.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens TCP within `timeout`.
pub(super) async fn connect(broker: &Broker, timeout: Duration) -> std::io::Result<Stream> {
    let dial = TcpStream::connect((broker.host.as_str(), broker.port));
    let stream = tokio::time::timeout(timeout, dial).await.map_err(|_| std::io::ErrorKind::TimedOut)??;
    // Without it the last packet of a handshake waits for a delayed acknowledgement.
    stream.set_nodelay(true)?;
    Ok(Stream::Plain(stream))
}

/// Makes the TLS handshake; the certificate must be good for `host` as the configuration sees it.
pub(super) async fn secure(
    stream: Stream,
    host: &str,
    config: &Arc<rustls::ClientConfig>,
    timeout: Duration,
) -> std::io::Result<Stream> {
    let Stream::Plain(plain) = stream else { return Ok(stream) };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("'{host}' is no host name"))
    })?;
    let handshake = Box::pin(TlsConnector::from(Arc::clone(config)).connect(name, plain));
    let tls = tokio::time::timeout(timeout, handshake).await.map_err(|_| std::io::ErrorKind::TimedOut)??;
    Ok(Stream::Tls(Box::new(tls)))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => std::pin::Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => std::pin::Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => std::pin::Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => std::pin::Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => std::pin::Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => std::pin::Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => std::pin::Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => std::pin::Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
