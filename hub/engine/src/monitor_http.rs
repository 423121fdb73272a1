//! Monitoring over HTTP. It answers GET and tells everything about the network: listen on loopback, and put
//! something with a password in front for anybody else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::engine::{Engine, ListenerHandle, Shared};
use crate::error::EngineError;
use crate::monitor::Query;

/// Connections at one time, and the time each has for its request.
const CONNECTIONS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_CALLBACK: usize = 64;

/// A page of the embedding program: its content type and body.
pub type Page = (&'static str, String);
/// The embedding program's own pages beside monitoring, by path.
pub type Pages = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

impl Engine {
    /// Serves monitoring (`/varz /connz /subsz /accountz /accstatz /jsz /healthz` and the empty lists of what an
    /// embedded server does not have) over HTTP. The caller chooses the address; loopback is the safe one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn monitor(&self, address: SocketAddr) -> Result<ListenerHandle, EngineError> {
        self.monitor_with(address, Arc::new(|_| None)).await
    }

    /// As [`Engine::monitor`], and asks `pages` first.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn monitor_with(
        &self,
        address: SocketAddr,
        pages: Pages,
    ) -> Result<ListenerHandle, EngineError> {
        let listen = |source| EngineError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        if !bound.ip().is_loopback() {
            tracing::warn!(reason = "exposed", address = %bound, "monitoring is open to other machines");
        }
        tokio::spawn(accept(Arc::clone(&self.shared), listener, pages));
        Ok(ListenerHandle::new(bound))
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, pages: Pages) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopped() => return,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (shared, pages) = (Arc::clone(&shared), Arc::clone(&pages));
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let own = (*request.method() == Method::GET).then(|| pages(request.uri().path())).flatten();
                let response = match own {
                    Some((kind, body)) => page(kind, body),
                    None => respond(&shared, request.method(), request.uri()),
                };
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(socket), service);
            // Whether a monitoring client went away early is of no interest.
            tokio::time::timeout(PATIENCE * 2, connection).await.ok();
            drop(slot);
        });
    }
}

fn respond(shared: &Shared, method: &Method, uri: &hyper::Uri) -> Response<Full<Bytes>> {
    if *method != Method::GET && *method != Method::HEAD {
        return answer(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "GET only" }), None);
    }
    let (query, callback) = match parse_query(uri.query().unwrap_or_default()) {
        Ok(parsed) => parsed,
        Err(detail) => return answer(StatusCode::BAD_REQUEST, &json!({ "error": detail }), None),
    };
    let (status, body) = match uri.path() {
        "/" => (
            StatusCode::OK,
            json!({ "paths": ["/varz", "/connz", "/subsz", "/accountz", "/accstatz", "/healthz"] }),
        ),
        "/varz" => (StatusCode::OK, shared.varz()),
        "/connz" => (StatusCode::OK, shared.connz(&query)),
        "/subsz" | "/subscriptionsz" => (StatusCode::OK, shared.subsz()),
        "/accountz" => (StatusCode::OK, shared.accountz(&query.acc)),
        "/accstatz" => (StatusCode::OK, shared.accstatz(&query.acc)),
        "/jsz" => (StatusCode::OK, shared.jsz()),
        "/routez" => (StatusCode::OK, json!({ "num_routes": 0, "routes": [] })),
        "/gatewayz" => (StatusCode::OK, json!({ "outbound_gateways": {}, "inbound_gateways": {} })),
        "/leafz" => (StatusCode::OK, json!({ "leafnodes": 0, "leafs": [] })),
        "/healthz" => {
            let (healthy, body) = shared.healthz();
            (if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
        }
        _ => (StatusCode::NOT_FOUND, json!({ "error": "no such page" })),
    };
    answer(status, &body, callback.as_deref())
}

fn page(kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn answer(status: StatusCode, body: &Value, callback: Option<&str>) -> Response<Full<Bytes>> {
    let text = match callback {
        None => body.to_string(),
        Some(name) => format!("{name}({body})"),
    };
    let kind = if callback.is_some() { "application/javascript" } else { "application/json" };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Reads the query string; unknown keys are ignored, wrong values are errors.
fn parse_query(text: &str) -> Result<(Query, Option<String>), String> {
    let (mut query, mut callback) = (Query::default(), None);
    for (key, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = decode(value);
        let number = || value.parse::<usize>().map_err(|_| format!("{key} must be a number"));
        let flag = matches!(value.as_str(), "1" | "true");
        match key {
            "sort" => query.sort = value,
            "auth" => query.auth = flag,
            "subs" => {
                query.subscriptions = flag;
                query.subscriptions_detail = value == "detail";
            }
            "offset" => query.offset = number()?,
            "limit" => query.limit = number()?,
            "cid" => query.cid = number()? as u64,
            "state" => {
                query.state = match value.as_str() {
                    "open" => 0,
                    "closed" => 1,
                    "any" | "all" => 2,
                    _ => return Err("state must be open, closed or any".to_owned()),
                }
            }
            "user" => query.user = value,
            "acc" => query.acc = value,
            "filter_subject" => query.filter_subject = value,
            "callback" => {
                let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if value.is_empty() || value.len() > MAX_CALLBACK || !plain {
                    return Err("callback must be a plain name".to_owned());
                }
                callback = Some(value);
            }
            _ => {}
        }
    }
    Ok((query, callback))
}

/// Undoes percent encoding; what is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = match (first, after.first_chunk::<2>()) {
            (b'%', Some(digits)) => {
                std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_a_plain_name() {
        assert_eq!(parse_query("callback=show_1").unwrap().1.as_deref(), Some("show_1"));
        for bad in ["callback=%3Cscript%3E", "callback=a.b", "callback="] {
            assert!(parse_query(bad).is_err(), "{bad}");
        }
        assert!(parse_query(&format!("callback={}", "a".repeat(65))).is_err());
    }

    #[test]
    fn queries_are_decoded() {
        let (query, _) = parse_query("subs=detail&acc=a%20b&limit=5&state=any&x=%zz").unwrap();
        assert!(query.subscriptions_detail && query.acc == "a b" && query.limit == 5 && query.state == 2);
        assert!(parse_query("limit=-1").is_err());
    }
}
