//! Answers requests in the system account (`docs/spec/09 §A13`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::close::CloseReason;
use crate::engine::{Engine, Shared};
use crate::error::EngineError;
use crate::in_process::{InMessage, Subscription};
use crate::monitor::Query;

/// Requests that are answered together; a subject beyond them gets no answer.
const SUBJECTS: [&str; 2] = ["$SYS.REQ.SERVER.>", "$SYS.REQ.ACCOUNT.>"];

/// Time between two statistics events.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(10);

/// Starts the service when there is a system account. It ends when the engine is shut down.
pub(crate) fn start(engine: &Engine) -> Result<(), EngineError> {
    let Some(account) = engine.shared.config.system_account.clone() else { return Ok(()) };
    let inside = engine.connect_in_process(&account, "system")?;
    for subject in SUBJECTS {
        let requests = inside.subscribe(subject)?;
        tokio::spawn(serve(Arc::clone(&engine.shared), requests));
    }
    tokio::spawn(report(Arc::clone(&engine.shared)));
    Ok(())
}

/// Publishes the server's statistics at intervals, for those who watch.
async fn report(shared: Arc<Shared>) {
    let subject = format!("$SYS.SERVER.{}.STATSZ", shared.server_id);
    loop {
        tokio::select! {
            () = tokio::time::sleep(STATISTICS_INTERVAL) => {}
            () = shared.stopped() => return,
        }
        shared
            .publish_event(&subject, || json!({ "server": shared.server_info(), "statsz": shared.statsz() }));
    }
}

async fn serve(shared: Arc<Shared>, mut requests: Subscription) {
    while let Some(request) = requests.next().await {
        answer(&shared, &request);
    }
}

fn answer(shared: &Arc<Shared>, request: &InMessage) {
    let Ok(reply) = std::str::from_utf8(&request.reply) else { return };
    let query = if request.payload.is_empty() {
        Query::default()
    } else {
        match serde_json::from_slice::<Query>(&request.payload) {
            Ok(query) => query,
            Err(error) => {
                let body = json!({
                    "server": shared.server_info(),
                    "error": { "code": 400, "description": format!("the request is not the JSON expected: {error}") },
                });
                respond(shared, reply, &body);
                return;
            }
        }
    };
    if !query.selects(shared) {
        return;
    }
    let subject = request.subject_text();
    let body = if let Some(rest) = subject.strip_prefix("$SYS.REQ.SERVER.") {
        server_request(shared, rest, &query)
    } else if let Some(rest) = subject.strip_prefix("$SYS.REQ.ACCOUNT.") {
        account_request(shared, rest, query)
    } else {
        None
    };
    if let Some(body) = body {
        respond(shared, reply, &body);
    }
}

fn respond(shared: &Arc<Shared>, reply: &str, body: &Value) {
    if let Some(system) = shared.system_account()
        && !reply.is_empty()
    {
        shared.publish_as_engine(&system, reply, "", body);
    }
}

/// `PING`, `PING.<what>` or `<id>.<what>`.
fn server_request(shared: &Shared, rest: &str, query: &Query) -> Option<Value> {
    let (whom, what) = rest.split_once('.').unwrap_or((rest, "STATSZ"));
    if whom != "PING" && whom != shared.server_id {
        return None;
    }
    let data = match what {
        "STATSZ" => return Some(json!({ "server": shared.server_info(), "statsz": shared.statsz() })),
        "IDZ" => json!({ "name": shared.name(), "host": shared.host(), "id": shared.server_id }),
        "VARZ" => shared.varz(),
        "CONNZ" => shared.connz(query),
        "SUBSZ" => shared.subsz(),
        "ACCOUNTZ" => shared.accountz(if query.account.is_empty() { &query.acc } else { &query.account }),
        "JSZ" => shared.jsz(),
        "HEALTHZ" => shared.healthz().1,
        "ROUTEZ" => json!({ "num_routes": 0, "routes": [] }),
        "GATEWAYZ" => json!({ "outbound_gateways": {}, "inbound_gateways": {} }),
        "LEAFZ" => json!({ "leafnodes": 0, "leafs": [] }),
        "KICK" if whom != "PING" => return Some(kick(shared, query)),
        _ => return None,
    };
    Some(json!({ "server": shared.server_info(), "data": data }))
}

/// Closes the connection that a request names; logged, because it is an act of an operator.
fn kick(shared: &Shared, query: &Query) -> Value {
    let client = shared.lock_clients().get(&query.cid).cloned();
    let Some(client) = client else {
        return json!({
            "server": shared.server_info(),
            "error": { "code": 404, "description": format!("no connection {}", query.cid) },
        });
    };
    tracing::warn!(
        reason = "kicked", cid = client.cid, user = ?client.user, name = ?client.name,
        "connection closed by request of the system account"
    );
    client.close(CloseReason::Kicked);
    json!({ "server": shared.server_info(), "data": null })
}

/// `<account>.<what>`, `PING.STATZ` or `PING.CONNZ`.
fn account_request(shared: &Shared, rest: &str, mut query: Query) -> Option<Value> {
    let (whom, what) = rest.rsplit_once('.')?;
    let data = if whom == "PING" {
        match what {
            "STATZ" => shared.accstatz(""),
            "CONNZ" => shared.connz(&query),
            _ => return None,
        }
    } else {
        let account = shared.account(whom)?;
        query.acc.clone_from(&account.name);
        match what {
            "CONNZ" => shared.connz(&query),
            "SUBSZ" => shared.subsz(),
            "INFO" => shared.accountz(whom),
            "STATZ" | "CONNS" => shared.accstatz(whom),
            _ => return None,
        }
    };
    Some(json!({ "server": shared.server_info(), "data": data }))
}
