//! What reaches AAA, and leaves it, over the broker: the signer as a Choria service, and audit records for the stream.
//!
//! Requests to the signer cannot be signed by the signer, so their envelope is not verified. That holds for agent
//! `aaa_signer` on its service subject alone (docs/spec/05 §7.3, docs/spec/10 S10); the proof inside decides.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use choria_client::{ClientConfig, ConnectOptions, Connection, RequestPolicy, Service, ServiceOptions};
use choria_protocol::SIGNER_AGENT;
use choria_protocol::rpc::{RpcReply, RpcRequest, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::error::AaaError;
use crate::monitor::Health;
use crate::services::Current;
use crate::signer::SignRequest;

/// How long one request may take, as the DDL says.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the hosted agent needs.
#[derive(Debug, Clone)]
pub(crate) struct SignerHost {
    pub(crate) current: Arc<Current>,
    pub(crate) cores: Arc<Semaphore>,
    pub(crate) health: Arc<Health>,
}

/// Hosts `aaa_signer` in every configured collective until `stop` changes.
pub(crate) async fn host_signer(
    client: ClientConfig,
    host: SignerHost,
    mut stop: watch::Receiver<bool>,
) -> Result<(), AaaError> {
    let options =
        ConnectOptions { name_suffix: "-aaa".to_owned(), timeout: None, ..ConnectOptions::default() };
    let connection = tokio::select! {
        connection = Box::pin(Connection::connect(&client, options)) => connection?,
        _ = stop.changed() => return Ok(()),
    };
    host.health.ready.store(true, Ordering::Relaxed);
    let service = Service::new(
        connection.clone(),
        ServiceOptions {
            agent: SIGNER_AGENT.to_owned(),
            collectives: client.collectives.clone(),
            policy: RequestPolicy::SignerService,
            timeout: TIMEOUT,
        },
    )?;
    let handler = move |request: choria_client::ServiceRequest| {
        let host = host.clone();
        async move { host.answer(request.rpc).await }
    };
    let outcome = service
        .run(handler, async move {
            // An error means that the sender is gone: also a stop.
            let _changed = stop.changed().await.is_ok();
        })
        .await;
    // Replies under way are written out before the connection goes.
    if let Err(error) = connection.close().await {
        tracing::debug!("closing the broker connection: {error}");
    }
    Ok(outcome?)
}

impl SignerHost {
    pub(crate) async fn answer(&self, rpc: RpcRequest) -> RpcReply {
        if rpc.action != "sign" {
            return reply(&rpc.action, StatusCode::UnknownAction, "Unknown action", json!({}));
        }
        let Some(signer) = self.current.get().signer.clone() else {
            return reply("sign", StatusCode::Aborted, "No signer configured", json!({}));
        };
        let denied = || reply("sign", StatusCode::Aborted, "Request Denied", json!({}));
        let Ok(core) = Arc::clone(&self.cores).acquire_owned().await else { return denied() };
        let work = tokio::task::spawn_blocking(move || {
            let _core = core;
            let text = |name| text_input(&rpc.data, name);
            let asked = SignRequest {
                request: text("request").as_bytes(),
                token: text("token").trim(),
                signature: text("signature"),
                from: "broker",
            };
            signer.sign(asked).map_err(|refusal| refusal.reason())
        });
        match work.await {
            Ok(Ok(signed)) => match String::from_utf8(signed) {
                Ok(signed) => reply("sign", StatusCode::Ok, "OK", json!({ "secure_request": signed })),
                Err(_) => denied(),
            },
            // The reason is an extra output that clients which do not know it ignore.
            Ok(Err(reason)) => {
                reply("sign", StatusCode::Aborted, "Request Denied", json!({ "reason": reason }))
            }
            Err(_) => denied(),
        }
    }
}

fn text_input<'a>(data: &'a Map<String, Value>, name: &str) -> &'a str {
    data.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn reply(action: &str, statuscode: StatusCode, statusmsg: &str, data: Value) -> RpcReply {
    RpcReply { action: action.to_owned(), statuscode, statusmsg: statusmsg.to_owned(), data }
}

/// Publishes audit records as they come. The queue before this is bounded: when the broker is away, it fills, and then
/// records are lost and counted instead of requests waiting.
pub(crate) async fn publish_audits(
    mut client: ClientConfig,
    servers: Vec<String>,
    topic: String,
    mut records: mpsc::Receiver<Vec<u8>>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), AaaError> {
    if !servers.is_empty() {
        client.settings.set("plugin.choria.middleware_hosts", &servers.join(","));
        client = ClientConfig::from_settings(client.settings)?;
    }
    let options =
        ConnectOptions { name_suffix: "-aaa-audit".to_owned(), timeout: None, ..ConnectOptions::default() };
    let connection = tokio::select! {
        connection = Box::pin(Connection::connect(&client, options)) => connection?,
        _ = stop.changed() => return Ok(()),
    };
    loop {
        let record = tokio::select! {
            record = records.recv() => record,
            _ = stop.changed() => None,
        };
        let Some(record) = record else { break };
        if let Err(error) = connection.publish(topic.clone(), record).await {
            tracing::error!(auditor = "jetstream", "audit record lost: {error}");
        }
    }
    while let Ok(record) = records.try_recv() {
        if let Err(error) = connection.publish(topic.clone(), record).await {
            tracing::error!(auditor = "jetstream", "audit record lost: {error}");
            break;
        }
    }
    connection.flush().await?;
    connection.close().await?;
    Ok(())
}
