//! The service's handlers without sockets and without a broker, for whoever brings requests by other ways: tests that send
//! more of them than a network would carry.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::body::Body;
use axum::http::{Method, Request, Uri, header};
use choria_protocol::rpc::{RpcReply, RpcRequest};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use crate::broker::SignerHost;
use crate::config::AaaConfig;
use crate::error::AaaError;
use crate::http::{self, Api};
use crate::metrics::Metrics;
use crate::monitor::Health;
use crate::services::{Current, Lasting, Services};

/// Longest answer that is read.
const MAX_ANSWER: usize = 1024 * 1024;

/// Login and signing as they answer on the wire. Auditors that need a broker get nothing.
#[derive(Debug)]
pub struct Handlers {
    api: Arc<Api>,
    signer: SignerHost,
}

/// One HTTP request, taken apart.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub content_type: &'a str,
    pub body: &'a [u8],
    pub from: SocketAddr,
}

impl Handlers {
    /// Loads what the configuration names.
    ///
    /// # Errors
    /// As starting the service, without its listeners.
    pub fn new(config: &AaaConfig) -> Result<Handlers, AaaError> {
        let metrics = Arc::new(Metrics::new(&config.site)?);
        let lasting = Lasting {
            metrics: Arc::clone(&metrics),
            login: Arc::default(),
            signer: Arc::default(),
            publisher: None,
        };
        let current = Arc::new(Current::new(Services::build(config, &lasting)?));
        let cores = Arc::new(Semaphore::new(1));
        let health = Arc::new(Health { metrics, ready: AtomicBool::new(true) });
        let signer = SignerHost { current: Arc::clone(&current), cores: Arc::clone(&cores), health };
        Ok(Handlers { api: Arc::new(Api { current, cores }), signer })
    }

    /// Answers one HTTP request: status and body. `None`: it is no request that could arrive over HTTP.
    pub async fn http(&self, request: HttpRequest<'_>) -> Option<(u16, Vec<u8>)> {
        let head = Request::builder()
            .method(Method::from_bytes(request.method.as_bytes()).ok()?)
            .uri(request.path.parse::<Uri>().ok()?)
            .header(header::CONTENT_TYPE, request.content_type);
        let head = head.body(Body::from(request.body.to_vec())).ok()?;
        let router = http::from_peer(http::api(Arc::clone(&self.api)), request.from);
        let Ok(response) = TowerToHyperService::new(router).call(head).await;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), MAX_ANSWER).await.ok()?;
        Some((status, body.to_vec()))
    }

    /// Answers one call of the service `aaa_signer`.
    pub async fn rpc(&self, request: RpcRequest) -> RpcReply {
        self.signer.answer(request).await
    }
}
