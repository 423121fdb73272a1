//! From an accepted socket to an authenticated connection: INFO, TLS, CONNECT, credentials
//! (`docs/spec/09 §A2`), inside the bounds of `docs/spec/10 §9`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::server::Acceptor;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use crate::authenticator::{Admission, Candidate, Denial, PeerKind, PeerTls};
use crate::client::{Client, Profile, TlsSummary};
use crate::clock;
use crate::close::{CloseReason, error_line};
use crate::connect::ConnectOptions;
use crate::engine::Shared;
use crate::parser::{Op, Parser, ParserLimits};
use crate::preauth::{Place, Reserved};
use crate::session::{Opened, Session, parse_failure};
use crate::stream::Stream;

/// Bytes read at once before authentication.
const READ_STEP: usize = 4096;
/// How long an error line to a peer that is being refused may take.
const REFUSAL: Duration = Duration::from_secs(1);

/// A TLS configuration that can be replaced while listening.
pub(crate) type TlsConfig = Arc<ArcSwap<rustls::ServerConfig>>;

/// Serves one accepted socket to its end.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    socket: TcpStream,
    remote: SocketAddr,
    tls: Option<TlsConfig>,
    place: Place,
    port: u16,
) {
    // The states of the opening are large and short-lived: boxed, so that a session does not carry their size.
    let opening = Box::pin(open(&shared, socket, remote, tls, &place, port));
    let opened = tokio::select! {
        opened = opening => opened,
        () = place.evicted() => {
            shared.log_denial(Some(remote), "limit", "too many connections that have not authenticated", "");
            None
        }
        () = shared.stopped() => None,
    };
    drop(place);
    let Some(opened) = opened else { return };
    let client = Arc::clone(&opened.client);
    let (session, rest) = Session::new(Arc::clone(&shared), opened);
    shared.connected(&client);
    if !shared.authenticator.still_admits(&client.tags) {
        client.close(CloseReason::CredentialsRevoked);
    }
    let reason = session.run(rest).await;
    shared.disconnected(&client, reason);
}

async fn open(
    shared: &Arc<Shared>,
    mut socket: TcpStream,
    remote: SocketAddr,
    tls: Option<TlsConfig>,
    place: &Place,
    port: u16,
) -> Option<Opened> {
    socket.set_nodelay(true).ok()?;
    let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(300));
    socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive).ok();
    let cid = shared.next_cid();
    let nonce = match shared.nonce() {
        Ok(nonce) => nonce,
        Err(error) => {
            tracing::error!(reason = "random", %error, "refusing a connection without a nonce");
            return None;
        }
    };
    let info = shared.info_line(cid, remote, &nonce, tls.is_some(), port);
    timeout(shared.config.auth_timeout, socket.write_all(&info)).await.ok()?.ok()?;
    if place.over_limit() {
        shared.log_denial(Some(remote), "limit", "maximum number of connections reached", "");
        refuse(&mut Stream::Plain(socket), CloseReason::MaximumConnections).await;
        return None;
    }
    let mut stream = match tls {
        None => Stream::Plain(socket),
        Some(config) => Box::pin(encrypt(shared, socket, remote, &config, place)).await?,
    };
    let deadline = shared.config.auth_timeout;
    match timeout(deadline, introduce(shared, &mut stream, remote, cid, &nonce)).await {
        Err(_) => {
            let reason = CloseReason::AuthenticationTimeout;
            shared.log_denial(Some(remote), "auth_timeout", "no complete CONNECT in time", "");
            refuse(&mut stream, reason).await;
            None
        }
        Ok(Err(Refusal::Gone)) => None,
        Ok(Err(Refusal::Close(reason))) => {
            refuse(&mut stream, reason).await;
            None
        }
        Ok(Ok(introduced)) => {
            // What takes time now is our own judgement.
            place.waiting_on_us(true);
            admit(shared, stream, remote, cid, nonce, introduced).await
        }
    }
}

/// Why an opening ends early.
enum Refusal {
    /// The peer went away.
    Gone,
    Close(CloseReason),
}

/// What the peer said, and what came after it.
struct Introduced {
    options: ConnectOptions,
    /// False when the peer left out CONNECT where none is required.
    connected: bool,
    parser: Parser,
    rest: Vec<u8>,
}

/// Runs the TLS handshake. Waiting for a free slot is our time, not the peer's; a peer that stalls holds no slot:
/// one is taken when the whole ClientHello is there, for the key exchange and signature only.
async fn encrypt(
    shared: &Shared,
    socket: TcpStream,
    remote: SocketAddr,
    config: &TlsConfig,
    place: &Place,
) -> Option<Stream> {
    let limit = shared.config.tls_timeout;
    let began = Instant::now();
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), socket);
    let start = match timeout(limit, &mut acceptor).await {
        Ok(Ok(start)) => start,
        Ok(Err(error)) => {
            shared.log_denial(Some(remote), "tls_required", &format!("no TLS handshake: {error}"), "");
            return None;
        }
        Err(_) => {
            shared.log_denial(Some(remote), "tls_required", "no TLS handshake in time", "");
            if let Some(socket) = acceptor.take_io() {
                refuse(&mut Stream::Plain(socket), CloseReason::TlsHandshake).await;
            }
            return None;
        }
    };
    let used = began.elapsed();
    place.waiting_on_us(true);
    let mut slot = shared.handshakes.acquire().await.ok();
    place.waiting_on_us(false);
    let mut handshake = Box::pin(start.into_stream(config.load_full()));
    let handshake = std::future::poll_fn(|cx| {
        let result = handshake.as_mut().poll(cx);
        drop(slot.take());
        result
    });
    match timeout(limit.saturating_sub(used), handshake).await {
        Ok(Ok(stream)) => Some(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            let reason = handshake_reason(&error);
            shared.log_denial(Some(remote), reason, &format!("TLS handshake failed: {error}"), "");
            None
        }
        Err(_) => {
            shared.log_denial(Some(remote), "tls_required", "TLS handshake not finished in time", "");
            None
        }
    }
}

/// The word for a handshake that failed: we refused the peer's certificate, the peer refused us, or neither got so far.
fn handshake_reason(error: &std::io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            "tls_client_cert"
        }
        Some(rustls::Error::AlertReceived(_)) => "tls_refused",
        _ => "tls_required",
    }
}

/// Reads up to and including the CONNECT line.
async fn introduce(
    shared: &Shared,
    stream: &mut Stream,
    remote: SocketAddr,
    cid: u64,
    nonce: &str,
) -> Result<Introduced, Refusal> {
    let config = &shared.config;
    let after = ParserLimits {
        control_line: config.max_control_line,
        connect_line: config.max_control_line,
        payload: config.max_payload,
    };
    let before = ParserLimits { connect_line: config.max_connect_line, payload: 0, ..after };
    let mut parser = Parser::new(before);
    let mut buffer = vec![0u8; READ_STEP];
    let mut budget = Reserved::new(&shared.preauth_bytes, config.max_unauthenticated_bytes);
    if !budget.hold(READ_STEP) {
        shared.log_denial(Some(remote), "limit", "unauthenticated connections hold too many bytes", "");
        return Err(Refusal::Close(CloseReason::Throttled));
    }
    loop {
        let count = stream.read(&mut buffer).await.map_err(|_| Refusal::Gone)?;
        let mut input = buffer.get(..count).unwrap_or_default();
        let Some(first) = input.first() else { return Err(Refusal::Gone) };
        if parser.held() == 0 && !shared.authenticator.required() && !first.eq_ignore_ascii_case(&b'c') {
            let rest = input.to_vec();
            parser.set_limits(after);
            return Ok(Introduced { options: ConnectOptions::default(), connected: false, parser, rest });
        }
        let found = match parser.next(&mut input) {
            Ok(None) => None,
            Ok(Some(Op::Connect(json))) => Some(ConnectOptions::parse(json)),
            Ok(Some(_)) => {
                shared.log_denial(Some(remote), "no_credentials", "an operation before CONNECT", "");
                return Err(Refusal::Close(CloseReason::AuthenticationFailure));
            }
            Err(error) => {
                let reason = parse_failure(error);
                let word = match reason {
                    CloseReason::MaximumControlLine => "line_too_long",
                    // A publish before CONNECT, whatever its size.
                    CloseReason::MaximumPayload => "no_credentials",
                    _ => "connect_malformed",
                };
                shared.log_denial(Some(remote), word, &error.to_string(), "");
                let early = reason == CloseReason::MaximumPayload;
                return Err(Refusal::Close(if early { CloseReason::AuthenticationFailure } else { reason }));
            }
        };
        let Some(options) = found else {
            if !budget.hold(READ_STEP + parser.held()) {
                shared.log_denial(
                    Some(remote),
                    "limit",
                    "unauthenticated connections hold too many bytes",
                    "",
                );
                return Err(Refusal::Close(CloseReason::Throttled));
            }
            continue;
        };
        let options = options.map_err(|error| {
            shared.log_denial(Some(remote), "connect_malformed", &error.to_string(), "");
            Refusal::Close(CloseReason::ParseError)
        })?;
        tracing::trace!(cid, nonce_len = nonce.len(), name = ?options.name, "CONNECT");
        let rest = input.to_vec();
        parser.set_limits(after);
        return Ok(Introduced { options, connected: true, parser, rest });
    }
}

/// Asks the authenticator, and makes the connection what it answers.
async fn admit(
    shared: &Arc<Shared>,
    mut stream: Stream,
    remote: SocketAddr,
    cid: u64,
    nonce: String,
    introduced: Introduced,
) -> Option<Opened> {
    let Introduced { options, connected, parser, rest } = introduced;
    let options = Arc::new(options);
    if let Some(reason) = unsupported(&options) {
        shared.log_denial(Some(remote), reason.log_reason(), reason.text(), &options.name);
        refuse(&mut stream, reason).await;
        return None;
    }
    let (certificates, summary) = peer_tls(&stream);
    let encrypted = stream.is_tls();
    let judged = judge(shared, Arc::clone(&options), remote, nonce, certificates, encrypted).await;
    let verdict = judged.and_then(|admission| {
        let account = shared.account(&admission.account).ok_or_else(|| {
            Denial::new("account_missing", format!("account {:?} is not configured", admission.account))
        })?;
        let most = admission.max_account_connections.unwrap_or(usize::MAX);
        if account.connections.load(Ordering::Relaxed) >= most as u64 {
            let detail = format!("account {:?} has its {most} connections", admission.account);
            return Err(Denial::new("limit", detail));
        }
        let expires_in = match admission.expires_unix {
            None => None,
            Some(at) => time_left(at, clock::now_nanos())?,
        };
        Ok((admission, account, expires_in))
    });
    let (admission, account, expires_in) = match verdict {
        Ok(verdict) => verdict,
        Err(denial) => {
            shared.denied(remote, &denial, &options);
            let delay = shared.failures.record(remote.ip(), &shared.config.failures, Instant::now());
            shared.failures.delay(delay, &shared.config.failures).await;
            refuse(&mut stream, CloseReason::AuthenticationFailure).await;
            return None;
        }
    };
    let profile = Profile {
        cid,
        account,
        remote: Some(remote),
        user: admission.user,
        name: options.name.clone(),
        lang: options.lang.clone(),
        version: options.version.clone(),
        tags: admission.tags,
        tls: summary,
        permissions: admission.permissions,
        expires_unix: admission.expires_unix,
        started: clock::now_nanos(),
        echo: options.echo,
        headers: options.headers,
        protocol: options.protocol,
    };
    let client = Arc::new(Client::new(profile, shared.limits()));
    if options.verbose && connected {
        client.send_control(b"+OK\r\n");
    }
    let max_subscriptions = admission.max_subscriptions.unwrap_or(shared.config.max_subscriptions);
    // Only the flags are needed from here on; the credentials end with this function.
    let flags = ConnectOptions {
        verbose: options.verbose,
        pedantic: options.pedantic,
        no_responders: options.no_responders,
        ..ConnectOptions::default()
    };
    Some(Opened {
        stream,
        parser,
        client,
        options: flags,
        max_subscriptions,
        pace: admission.pace,
        expires_in,
        rest,
    })
}

/// Until `at_unix` seconds, from `now` nanoseconds since 1970. `None`: longer than a timer runs, as with a token good until
/// the year 9999.
fn time_left(at_unix: i64, now: i64) -> Result<Option<Duration>, Denial> {
    let left = i128::from(at_unix) * 1_000_000_000 - i128::from(now);
    if left <= 0 {
        return Err(Denial::new("token_expired", "the credentials have expired"));
    }
    Ok(u64::try_from(left).ok().map(Duration::from_nanos))
}

/// What no credentials can make good.
fn unsupported(options: &ConnectOptions) -> Option<CloseReason> {
    if !(0..=1).contains(&options.protocol) {
        return Some(CloseReason::BadClientProtocolVersion);
    }
    (options.no_responders && !options.headers).then_some(CloseReason::NoRespondersRequiresHeaders)
}

/// Runs the authenticator on a thread of its own, a bounded number at a time.
async fn judge(
    shared: &Arc<Shared>,
    options: Arc<ConnectOptions>,
    remote: SocketAddr,
    nonce: String,
    certificates: Vec<CertificateDer<'static>>,
    encrypted: bool,
) -> Result<Admission, Denial> {
    if !options.account.is_empty() || options.new_account {
        return Err(Denial::new("connect_malformed", "CONNECT names an account"));
    }
    let authenticator = Arc::clone(&shared.authenticator);
    let slot = shared.handshakes.acquire().await;
    let kind = if options.remote_account || options.hub { PeerKind::Leaf } else { PeerKind::Client };
    let work = move || {
        let tls =
            encrypted.then_some(PeerTls { verified: !certificates.is_empty(), certificates: &certificates });
        authenticator.authenticate(&Candidate { remote, tls, nonce: &nonce, connect: &options, kind })
    };
    let result = tokio::task::spawn_blocking(work).await;
    drop(slot);
    result
        .unwrap_or_else(|error| Err(Denial::new("internal", format!("the credential check failed: {error}"))))
}

fn peer_tls(stream: &Stream) -> (Vec<CertificateDer<'static>>, Option<TlsSummary>) {
    let Stream::Tls(stream) = stream else { return (Vec::new(), None) };
    let (_, session) = stream.get_ref();
    let certificates =
        session.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
    let summary = TlsSummary {
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "1.3".to_owned(),
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2".to_owned(),
            other => format!("{other:?}"),
        },
        cipher: session
            .negotiated_cipher_suite()
            .map(|suite| format!("{:?}", suite.suite()))
            .unwrap_or_default(),
    };
    (certificates, Some(summary))
}

/// Tells a peer the little it may know, and closes.
async fn refuse(stream: &mut Stream, reason: CloseReason) {
    let work = async {
        if let Some(text) = reason.wire_error() {
            stream.write_all(&error_line(text)).await?;
        }
        stream.flush().await?;
        stream.shutdown().await?;
        // What the peer still sends is read away for a moment: closing with unread bytes would reset the
        // connection, and the reset can overtake the line that says why.
        let mut sink = [0u8; 512];
        while stream.read(&mut sink).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    timeout(REFUSAL, work).await.ok();
}

impl Shared {
    /// The log line and event of a refusal by the authenticator.
    fn denied(&self, remote: SocketAddr, denial: &Denial, options: &ConnectOptions) {
        self.log_denial(Some(remote), denial.reason, &denial.detail, &options.name);
        self.counters.denied.fetch_add(1, Ordering::Relaxed);
        self.auth_error_event(remote, options, denial.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_may_outlive_every_timer() {
        let now = 1_800_000_000_000_000_000;
        let left = |at| time_left(at, now).map_err(|denial| denial.reason);
        assert_eq!(left(1_800_000_002), Ok(Some(Duration::from_secs(2))));
        for over in [1_800_000_000, 0, -1, i64::MIN] {
            assert_eq!(left(over), Err("token_expired"));
        }
        for far in [253_402_300_799, i64::MAX] {
            assert_eq!(left(far), Ok(None));
        }
    }
}
