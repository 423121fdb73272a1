//! HTTPS for login and the HTTP signer: JSON out, JSON back, over a connection whose peer is known (decision D2).

use std::sync::Arc;
use std::time::Duration;

use choria_host::tls::{self, CertificateSummary, Trust};
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde::Serialize;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport,
    TransportAdapter,
};

use crate::ClientError;
use crate::connection::{chain, find};

/// Largest answer read, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;

/// When is an HTTPS server good enough.
#[derive(Debug, Clone)]
pub enum ServerTrust {
    Chain(Trust),
    /// The certificate with this SHA-256 fingerprint, whatever else it says.
    Fingerprint(String),
}

/// Posts JSON to `url` and gives back status and body. Blocking work runs on its own thread.
///
/// # Errors
/// [`ClientError::PlainHttp`] for `http` beyond loopback, [`ClientError::UntrustedServer`] with the certificate when
/// verification is what failed, [`ClientError::Http`] for the rest.
pub(crate) async fn post_json<T: Serialize>(
    what: &'static str,
    url: &str,
    body: &T,
    trust: ServerTrust,
    timeout: Duration,
) -> Result<(u16, String), ClientError> {
    check_scheme(what, url)?;
    let body = serde_json::to_vec(body)
        .map(zeroize::Zeroizing::new)
        .map_err(|e| ClientError::Http { url: shown(url), reason: e.to_string() })?;
    let url = url.to_owned();
    let on_thread = url.clone();
    tokio::task::spawn_blocking(move || post(&on_thread, &body, &trust, timeout))
        .await
        .map_err(|e| ClientError::Http { url: shown(&url), reason: e.to_string() })?
}

fn post(
    url: &str,
    body: &[u8],
    trust: &ServerTrust,
    timeout: Duration,
) -> Result<(u16, String), ClientError> {
    let failed = |error: &(dyn std::error::Error + 'static)| ClientError::Http {
        url: shown(url),
        reason: chain(error),
    };
    let agent = agent(trust, timeout)?;
    let answer = agent.post(url).header("Content-Type", "application/json").send(body);
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let refused = find(inner(&error), |error| match error.downcast_ref::<rustls::Error>() {
                Some(refusal @ (rustls::Error::InvalidCertificate(_) | rustls::Error::Other(_))) => {
                    Some(refusal.to_string())
                }
                _ => None,
            });
            return Err(match refused {
                Some(reason) => untrusted(url, reason, timeout).unwrap_or_else(|| failed(&error)),
                None => failed(&error),
            });
        }
    };
    let text =
        answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string().map_err(|error| failed(&error))?;
    Ok((answer.status().as_u16(), text))
}

/// ureq does not name the I/O error it holds as its source.
fn inner(error: &ureq::Error) -> &(dyn std::error::Error + 'static) {
    match error {
        ureq::Error::Io(inner) => inner,
        other => other,
    }
}

fn agent(trust: &ServerTrust, timeout: Duration) -> Result<ureq::Agent, ClientError> {
    let (trust, fingerprint) = match trust {
        ServerTrust::Chain(trust) => (trust.clone(), None),
        ServerTrust::Fingerprint(fingerprint) => (Trust::Unverified, Some(fingerprint.clone())),
    };
    let tls = TlsConnector { config: tls::client_config(&trust, None)?, fingerprint };
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // a redirect would send the password where nobody asked
        .max_redirects(0)
        .proxy(None)
        .max_idle_connections(0)
        .timeout_global(Some(timeout))
        .build();
    Ok(ureq::Agent::with_parts(config, TcpConnector::default().chain(tls), DefaultResolver::default()))
}

/// Connects once more to learn which certificate was refused. Nothing is sent but the handshake.
fn untrusted(url: &str, reason: String, timeout: Duration) -> Option<ClientError> {
    let certificate = certificate_of(url, timeout)?;
    Some(ClientError::UntrustedServer {
        url: shown(url),
        reason,
        fingerprint: tls::fingerprint_sha256(&certificate),
        certificate: Box::new(tls::describe(&certificate).unwrap_or_else(|| CertificateSummary {
            subject: "not readable".to_owned(),
            issuer: "not readable".to_owned(),
            names: Vec::new(),
            not_after: 0,
        })),
    })
}

fn certificate_of(url: &str, timeout: Duration) -> Option<Vec<u8>> {
    use std::net::{TcpStream, ToSocketAddrs as _};
    let uri: ureq::http::Uri = url.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let address = (host.as_str(), uri.port_u16().unwrap_or(443)).to_socket_addrs().ok()?.next()?;
    let mut socket = TcpStream::connect_timeout(&address, timeout).ok()?;
    socket.set_read_timeout(Some(timeout)).ok()?;
    socket.set_write_timeout(Some(timeout)).ok()?;
    let config = tls::client_config(&Trust::Unverified, None).ok()?;
    let mut session = ClientConnection::new(config, ServerName::try_from(host).ok()?).ok()?;
    while session.is_handshaking() {
        session.complete_io(&mut socket).ok()?;
    }
    session.peer_certificates()?.first().map(|certificate| certificate.as_ref().to_vec())
}

/// Passwords and tokens only travel protected, or not at all on the wire.
fn check_scheme(what: &'static str, url: &str) -> Result<(), ClientError> {
    let refuse = || ClientError::PlainHttp { what, url: shown(url) };
    let uri: ureq::http::Uri = url.parse().map_err(|_| refuse())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if loopback => Ok(()),
        _ => Err(refuse()),
    }
}

/// A URL without user, password and query (docs/spec/10 §10).
pub(crate) fn shown(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    match bare.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            match path {
                Some(path) => format!("{scheme}://{host}/{path}"),
                None => format!("{scheme}://{host}"),
            }
        }
        None => bare.to_owned(),
    }
}

/// TLS for ureq with the workspace's own idea of trust, which ureq's settings cannot express.
#[derive(Debug)]
struct TlsConnector {
    config: Arc<rustls::ClientConfig>,
    fingerprint: Option<String>,
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host)
            .map_err(|_| ureq::Error::Tls("the host of the URL is no valid name"))?;
        let mut session = ClientConnection::new(Arc::clone(&self.config), name).map_err(in_io)?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        if let Some(wanted) = &self.fingerprint {
            let shown = session.peer_certificates().and_then(|chain| chain.first());
            let matches =
                shown.is_some_and(|der| tls::same_fingerprint(&tls::fingerprint_sha256(der), wanted));
            if !matches {
                return Err(in_io(rustls::Error::InvalidCertificate(
                    rustls::CertificateError::ApplicationVerificationFailure,
                )));
            }
        }
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned::new(session, socket) })))
    }
}

fn in_io(error: rustls::Error) -> ureq::Error {
    ureq::Error::Io(std::io::Error::other(error))
}

struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        use std::io::Write as _;
        self.stream.get_mut().set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output)?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        use std::io::Read as _;
        self.stream.get_mut().set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let read = self.stream.read(input)?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_only_to_ourselves() {
        for fine in ["https://a.example/x", "http://localhost:1/x", "http://127.0.0.1/x", "http://[::1]:8/x"]
        {
            assert!(check_scheme("login service", fine).is_ok(), "{fine}");
        }
        for bad in ["http://a.example/x", "ftp://localhost/", "", "nothing", "http://127.0.0.1.evil.example/"]
        {
            assert!(check_scheme("login service", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_are_shown_without_secrets() {
        assert_eq!(shown("https://u:p@h:1/x?token=1"), "https://h:1/x");
        assert_eq!(shown("https://h"), "https://h");
    }
}
