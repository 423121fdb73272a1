//! Counters for Prometheus and the page that shows them (docs/spec/03 §11.3).
//!
//! Upstream's servers open no port; this one does only when `plugin.choria.stats_port` is set. Names carry no
//! `_total`, because dashboards know them without.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::VERSION;
use crate::node::Node;

/// Connections served at once (docs/spec/10 §9, row `monitoring HTTP`).
const MAX_CONNECTIONS: usize = 64;
/// Longest life of one connection.
const DEADLINE: Duration = Duration::from_secs(5);

/// The page in the text format of Prometheus.
pub fn page(node: &Node) -> String {
    let live = node.live();
    let identity = &node.config.identity;
    let counters = &live.counters;
    let mut text = String::with_capacity(2048);
    let mut sample = |kind: &str, name: &str, help: &str, labels: &str, value: u64| {
        // Writing to a String does not fail.
        let _written = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{identity=\"{identity}\"{labels}}} {value}\n"
        );
    };
    for (name, help, value) in [
        ("choria_server_total", "Messages received", counters.total),
        ("choria_server_validated", "Requests that passed every check", counters.valid),
        ("choria_server_unvalidated", "Messages that failed a check", counters.invalid),
        ("choria_server_passed", "Requests whose filter matched", counters.passed),
        ("choria_server_filtered", "Requests whose filter did not match", counters.filtered),
        ("choria_server_replies", "Replies published", counters.replies),
        ("choria_server_ttlexpired", "Requests that were too old", counters.ttlexpired),
        ("choria_server_events", "Lifecycle events published", counters.events),
        ("choria_connector_reconnections", "Connections after the first", live.traffic.reconnects),
    ] {
        sample("counter", name, help, "", value);
    }
    sample(
        "gauge",
        "choria_connector_connected",
        "1 while connected to a broker",
        "",
        u64::from(!matches!(live.connected_server.as_str(), "" | "unknown")),
    );
    sample(
        "gauge",
        "choria_connector_tls_unverified",
        "1 when the identity of the broker is not checked",
        "",
        u64::from(!node.config.trust.verifies()),
    );
    sample("gauge", "choria_build_info", "Build information", &format!(",version=\"{VERSION}\""), 1);
    if !live.refused.is_empty() {
        text.push_str("# HELP choria_server_refused Messages dropped, by reason\n# TYPE choria_server_refused counter\n");
        for (reason, count) in &live.refused {
            let _written = writeln!(
                text,
                "choria_server_refused{{identity=\"{identity}\",reason=\"{reason}\"}} {count}"
            );
        }
    }
    text
}

fn build_information(node: &Node) -> String {
    serde_json::json!({
        "build": {"version": VERSION, "license": "Apache-2.0", "tls": true, "secure": true},
        "config_file": node.config.path.display().to_string(),
        "identity": node.config.identity,
    })
    .to_string()
}

fn answer(node: &Node, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics" | "/choria/metrics" | "/choria/prometheus") => {
            (StatusCode::OK, "text/plain; version=0.0.4", page(node))
        }
        (&Method::GET | &Method::HEAD, "/choria/") => {
            (StatusCode::OK, "application/json", build_information(node))
        }
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "text/plain", "not found\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// A listening metrics server.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
}

impl MetricsServer {
    /// # Errors
    /// The address is in use or not ours.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(MetricsServer { listener: TcpListener::bind(address).await? })
    }

    /// # Errors
    /// The socket is gone.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped. Must run inside a [`tokio::task::LocalSet`].
    pub async fn serve(self, node: Rc<Node>) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a metrics connection");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let node = Rc::clone(&node);
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let response = answer(&node, request.method(), request.uri().path());
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(DEADLINE)
                    .max_buf_size(8 * 1024)
                    .serve_connection(TokioIo::new(stream), service);
                // A slow or broken reader costs its own connection and nothing else.
                let _closed = tokio::time::timeout(DEADLINE, connection).await;
                drop(permit);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn the_page_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let node = Rc::new(crate::node::tests::configured(dir.path(), ""));
            node.live_mut().counters.total = 42;
            node.live_mut().refused.insert("sig_bad", 3);
            let server = MetricsServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let address = server.local_addr().unwrap();
            tokio::task::spawn_local(server.serve(node));
            let get = async |request: &'static str| {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut text = String::new();
                tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut text))
                    .await
                    .unwrap()
                    .unwrap();
                text
            };
            let page = get("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            assert!(page.contains("choria_server_total{identity=\"n1.example.net\"} 42\n"), "{page}");
            assert!(
                page.contains("choria_server_refused{identity=\"n1.example.net\",reason=\"sig_bad\"} 3\n")
            );
            assert!(page.contains("choria_connector_tls_unverified{identity=\"n1.example.net\"} 1\n"));
            let missing = get("GET /etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
            let post = get("POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            assert!(post.starts_with("HTTP/1.1 405"), "{post}");
        });
    }
}
