//! The HTTPS server: connections within limits, and what they may ask.
//!
//! Limits are those of `docs/spec/10 §9`: a peer gets 5 s for a head, 15 s for a whole request, bodies are small, and
//! only so many connections are held. Every application outcome, refusals included, is status 200 (docs/spec/05 §2).

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::login::{LoginRequest, LoginResponse};
use crate::refusal_log::RefusalLog;
use crate::services::Current;
use crate::signer::SignRequest;

const HEAD_TIME: Duration = Duration::from_secs(5);
const REQUEST_TIME: Duration = Duration::from_secs(15);
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long open connections may finish what they do after a stop.
const STOP_TIME: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 1024;
const MAX_HEAD: usize = 32 * 1024;
const MAX_LOGIN_BODY: usize = 16 * 1024;
const MAX_SIGN_BODY: usize = 256 * 1024;

/// The TLS configuration of a listener; replaced by a reload.
#[derive(Debug)]
pub(crate) struct Tls {
    current: RwLock<(Arc<rustls::ServerConfig>, bool)>,
}

impl Tls {
    /// `client_certificate`: whether a client has to show one.
    pub(crate) fn new(config: Arc<rustls::ServerConfig>, client_certificate: bool) -> Tls {
        Tls { current: RwLock::new((config, client_certificate)) }
    }

    pub(crate) fn replace(&self, config: Arc<rustls::ServerConfig>, client_certificate: bool) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (config, client_certificate);
    }

    fn get(&self) -> (Arc<rustls::ServerConfig>, bool) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&current.0), current.1)
    }
}

/// What handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) current: Arc<Current>,
    /// Signing is work for a core: no more at once than there are.
    pub(crate) cores: Arc<Semaphore>,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
struct Peer(SocketAddr);

/// The login and signing API.
pub(crate) fn api(api: Arc<Api>) -> Router {
    Router::new().fallback(route).with_state(api)
}

/// The routes for requests of one peer.
pub(crate) fn from_peer(router: Router, peer: SocketAddr) -> Router {
    router.layer(Extension(Peer(peer)))
}

/// Accepts until `stop` changes, then lets connections finish for a moment.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let refusals = Arc::new(RefusalLog::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: trying again at once would only burn a core.
                tracing::warn!("could not accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if let Some(left_out) = refusals.may_log("limit", &peer.ip().to_string()) {
                tracing::warn!(reason = "limit", %peer, left_out, "connection closed: {MAX_CONNECTIONS} are open");
            }
            continue;
        };
        let (tls, router, stop, refusals) =
            (tls.clone(), router.clone(), stop.clone(), Arc::clone(&refusals));
        tokio::spawn(async move {
            let _place = place;
            Box::pin(connection(stream, peer, tls, router, stop, &refusals)).await;
        });
    }
    let everyone = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _all_done = tokio::time::timeout(STOP_TIME, places.acquire_many(everyone)).await.is_ok();
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    router: Router,
    stop: watch::Receiver<bool>,
    refusals: &RefusalLog,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, "no TCP_NODELAY: {error}");
    }
    let Some(tls) = tls else { return requests(stream, peer, router, stop).await };
    let (config, client_certificate) = tls.get();
    let handshake = Box::pin(TlsAcceptor::from(config).accept(stream));
    let stream = match tokio::time::timeout(HANDSHAKE_TIME, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, "TLS handshake failed: {error}"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
    };
    if client_certificate && stream.get_ref().1.peer_certificates().is_none_or(<[_]>::is_empty) {
        if let Some(left_out) = refusals.may_log("tls_client_cert", &peer.ip().to_string()) {
            tracing::warn!(reason = "tls_client_cert", %peer, left_out, "connection closed: no client certificate");
        }
        return;
    }
    requests(stream, peer, router, stop).await;
}

async fn requests<S>(stream: S, peer: SocketAddr, router: Router, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(from_peer(router, peer));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, "connection ended: {error}");
    }
}

#[derive(Serialize)]
struct Failure {
    code: u16,
    message: String,
}

fn failure(status: StatusCode, code: u16, message: impl Into<String>) -> Response {
    json(status, &Failure { code, message: message.into() })
}

fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[derive(Clone, Copy)]
enum Call {
    Login,
    Sign,
}

async fn route(
    State(api): State<Arc<Api>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let (call, limit) = match head.uri.path() {
        "/choria/v1/login" => (Call::Login, MAX_LOGIN_BODY),
        "/choria/v1/sign" => (Call::Sign, MAX_SIGN_BODY),
        _ => return failure(StatusCode::NOT_FOUND, 404, "path was not found"),
    };
    if head.method != Method::POST {
        let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, 405, "method is not allowed, use POST");
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
        return response;
    }
    if !is_json(&head.headers) {
        return failure(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            415,
            "unsupported media type, use application/json",
        );
    }
    let bytes = match read(&head.headers, body, limit).await {
        Ok(bytes) => bytes,
        Err(response) => return response,
    };
    if bytes.is_empty() {
        return failure(StatusCode::UNPROCESSABLE_ENTITY, 602, "the body is required");
    }
    // serde would read a list as the members in their order, which no other reader does.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return failure(StatusCode::BAD_REQUEST, 400, "the body is no JSON object");
    }
    match call {
        Call::Login => match serde_json::from_slice::<LoginRequest>(&bytes) {
            Ok(request) => login(&api, request, peer).await,
            Err(_) => failure(StatusCode::BAD_REQUEST, 400, "the body is no JSON of a login"),
        },
        Call::Sign => match serde_json::from_slice::<SignBody>(&bytes) {
            Ok(body) => sign(&api, body, peer).await,
            Err(_) => failure(StatusCode::BAD_REQUEST, 400, "the body is no JSON of a request to sign"),
        },
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<axum::body::Bytes, Response> {
    let too_large =
        || failure(StatusCode::PAYLOAD_TOO_LARGE, 413, format!("the body is larger than {limit} bytes"));
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(REQUEST_TIME, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.to_string().contains("limit") => Err(too_large()),
        Ok(Err(_)) => Err(failure(StatusCode::BAD_REQUEST, 400, "the body could not be read")),
        Err(_) => {
            let mut response = failure(StatusCode::REQUEST_TIMEOUT, 408, "the body took too long");
            // What is still to come of the body is of no use to anybody.
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
            Err(response)
        }
    }
}

async fn login(api: &Api, request: LoginRequest, peer: SocketAddr) -> Response {
    let services = api.current.get();
    match &services.login {
        Some(login) => json(StatusCode::OK, &login.login(request, peer.ip()).await),
        None => json(StatusCode::NOT_IMPLEMENTED, &LoginResponse::error("No authenticator configured")),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SignBody {
    /// Standard base64 of the request's JSON.
    request: String,
    token: String,
    signature: String,
}

#[derive(Serialize, Default)]
struct SignAnswer {
    #[serde(skip_serializing_if = "String::is_empty")]
    secure_request: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'static str,
    /// *ours*: the word of docs/spec/10 §8; clients that do not know it ignore it.
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
}

async fn sign(api: &Api, body: SignBody, peer: SocketAddr) -> Response {
    let denied = |reason| {
        json(StatusCode::OK, &SignAnswer { error: "Request denied", reason, ..SignAnswer::default() })
    };
    let Some(signer) = api.current.get().signer.clone() else {
        let answer = SignAnswer { error: "No signer configured", ..SignAnswer::default() };
        return json(StatusCode::NOT_IMPLEMENTED, &answer);
    };
    let Ok(core) = Arc::clone(&api.cores).acquire_owned().await else { return denied("busy") };
    let work = tokio::task::spawn_blocking(move || {
        let _core = core;
        let request = STANDARD.decode(&body.request).map_err(|_| "secure_bad")?;
        let from = peer.ip().to_string();
        let asked = SignRequest {
            request: &request,
            token: body.token.trim(),
            signature: &body.signature,
            from: &from,
        };
        let signed = signer.sign(asked).map_err(|refusal| refusal.reason())?;
        Ok::<_, &'static str>(STANDARD.encode(signed))
    });
    match work.await {
        Ok(Ok(secure_request)) => {
            json(StatusCode::OK, &SignAnswer { secure_request, ..SignAnswer::default() })
        }
        Ok(Err(reason)) => denied(reason),
        Err(_) => denied("busy"),
    }
}
