//! Accounts: isolation, imports, the system account, in-process connections, monitoring.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::large_futures,
    reason = "a test says what went wrong by stopping there"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nats_engine::{AccountConfig, Engine, EngineError, Headers, Import, Open, Publisher};
use serde_json::Value;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `edge` may be heard on two subjects in `main`, and may ask one service of it.
async fn network() -> (Engine, SocketAddr) {
    let main = AccountConfig::named("main")
        .import(Import::stream("edge", "life.event.*.up"))
        .import(Import::Stream { from: "edge".into(), subject: "raw.>".into(), prefix: "edge".into() });
    let edge = AccountConfig::named("edge")
        .import(Import::service("main", "svc.INFO.KEY", "$JS.API.INFO.KEY"))
        .import(Import::service("main", "kv.*.put", "store.*.put"));
    let config = nats_engine::EngineConfig { system_account: Some("system".into()), ..config() };
    start_with(config, vec![main, edge, AccountConfig::named("system")]).await
}

#[tokio::test]
async fn streams_cross_narrowed_and_prefixed() {
    let (engine, address) = network().await;
    let mut main = Raw::user(address, "main/a", "").await;
    main.send("SUB life.> 1\r\nSUB edge.raw.x 2\r\nSUB raw.x 3\r\nSUB life.event.*.up q 4\r\n").await;
    main.sync().await;
    let mut edge = Raw::user(address, "edge/b", "").await;
    edge.send("PUB life.event.start.up 0\r\n\r\nPUB life.event.start.down 0\r\n\r\nPUB raw.x 1\r\ny\r\nPUB other 0\r\n\r\n")
        .await;
    edge.sync().await;
    let mut got = main.sync().await;
    got.retain(|line| line.starts_with("MSG"));
    got.sort();
    assert_eq!(got, ["MSG edge.raw.x 2 1", "MSG life.event.start.up 1 0", "MSG life.event.start.up 4 0"]);
    // Nothing goes the other way, and the importer's own messages stay its own.
    edge.send("SUB > 1\r\n").await;
    edge.sync().await;
    main.send("PUB life.event.start.up 0\r\n\r\nUNSUB 1\r\nUNSUB 2\r\nUNSUB 3\r\nUNSUB 4\r\n").await;
    assert_eq!(main.sync().await.len(), 4);
    assert!(edge.sync().await.is_empty());
    assert_eq!(engine.stats().subscriptions, 3, "only `>` and the two of the system service are left");
    engine.shutdown().await;
}

#[tokio::test]
async fn services_answer_once_across_accounts() {
    let (engine, address) = network().await;
    let mut edge = Raw::user(address, "edge/b", ",\"headers\":true,\"no_responders\":true").await;
    edge.send("SUB inbox.> 1\r\nPUB svc.INFO.KEY inbox.1 0\r\n\r\n").await;
    assert!(edge.sync().await[0].starts_with("HMSG inbox.1"), "nobody answers yet");

    let service = engine.connect_in_process("main", "store").unwrap();
    let mut requests = service.subscribe("$JS.API.>").unwrap();
    edge.send(
        "HPUB svc.INFO.KEY inbox.2 45 47\r\nNATS/1.0\r\nNats-Request-Info: forged\r\nX: y\r\n\r\nhi\r\n",
    )
    .await;
    edge.sync().await;
    let request = tokio::time::timeout(PATIENCE, requests.next()).await.unwrap().unwrap();
    assert_eq!(request.subject_text(), "$JS.API.INFO.KEY");
    assert_eq!(&request.payload[..], b"hi");
    assert_eq!(request.header_value("X"), Some("y"));
    let info: Value = serde_json::from_str(request.header_value("Nats-Request-Info").unwrap()).unwrap();
    assert_eq!(info["acc"], "edge");
    let Publisher::Connection(_) = request.publisher else { panic!("a socket asked") };
    assert!(engine.may_subscribe(request.publisher, "anything"));
    let reply = String::from_utf8(request.reply.to_vec()).unwrap();
    assert!(reply.starts_with("_R_.") && reply.len() > 30);
    // Another account cannot answer, and a second answer goes nowhere.
    let mut thief = Raw::user(address, "system/t", "").await;
    thief.send(&format!("PUB {reply} 0\r\n\r\n")).await;
    assert_eq!(thief.sync().await.len(), 1);
    assert_eq!(service.publish_message(&reply, "", None, b"answer").unwrap(), 1);
    assert_eq!(service.publish_message(&reply, "", None, b"again").unwrap(), 0);
    assert_eq!(edge.sync().await, ["MSG inbox.2 1 6", "answer"]);

    let mut puts = service.subscribe("store.*.put").unwrap();
    edge.send("PUB kv.k1.put 1\r\nv\r\n").await;
    let put = tokio::time::timeout(PATIENCE, puts.next()).await.unwrap().unwrap();
    assert_eq!((put.subject_text().as_str(), &put.payload[..]), ("store.k1.put", b"v".as_slice()));
    engine.shutdown().await;
}

#[tokio::test]
async fn contradictory_imports_are_refused() {
    let build = |accounts| Engine::new(config(), accounts, std::sync::Arc::new(Open::new("a")));
    let a = AccountConfig::named("a").import(Import::service("b", "x", "y"));
    let b = AccountConfig::named("b").import(Import::service("a", "y", "x"));
    assert!(matches!(build(vec![a.clone(), b]), Err(EngineError::ImportCycle { .. })));
    assert!(matches!(build(vec![a.clone()]), Err(EngineError::UnknownAccount(_))));
    assert!(matches!(build(vec![AccountConfig::named("a"); 2]), Err(EngineError::AccountTwice(_))));
    let shape = AccountConfig::named("a").import(Import::service("b", "x.*", "y"));
    assert!(matches!(build(vec![shape, AccountConfig::named("b")]), Err(EngineError::ImportShape { .. })));
}

#[tokio::test]
async fn the_system_account_answers_and_hears() {
    let (engine, address) = network().await;
    let mut admin = Raw::user(address, "system/admin", "").await;
    admin.send("SUB $SYS.ACCOUNT.*.CONNECT 1\r\nSUB $SYS.ACCOUNT.*.DISCONNECT 2\r\nSUB $SYS.SERVER.*.CLIENT.AUTH.ERR 3\r\nSUB in.* 9\r\n").await;
    admin.sync().await;
    let victim = Raw::user(address, "main/victim", ",\"name\":\"v\"").await;
    assert_eq!(admin.line().await.split(' ').nth(1), Some("$SYS.ACCOUNT.main.CONNECT"));
    let event: Value = serde_json::from_str(&admin.line().await).unwrap();
    assert_eq!(event["client"]["name"], "v");
    let cid = event["client"]["id"].as_u64().unwrap();

    let mut denied = Raw::open(address).await;
    denied.send(&connect_line("main/x", "").replace("pw", "wrong-secret")).await;
    denied.rest().await;
    assert!(admin.line().await.starts_with("MSG $SYS.SERVER."));
    let event = admin.line().await;
    assert!(event.contains("password_bad") && !event.contains("wrong-secret"), "{event}");

    for what in ["PING", "PING.VARZ", "PING.CONNZ", "PING.SUBSZ", "PING.HEALTHZ", "PING.ACCOUNTZ", "PING.IDZ"]
    {
        admin.send(&format!("PUB $SYS.REQ.SERVER.{what} in.1 0\r\n\r\n")).await;
        assert!(admin.line().await.starts_with("MSG in.1 9 "), "{what}");
        let body: Value = serde_json::from_str(&admin.line().await).unwrap();
        assert_eq!(body["server"]["id"], engine.server_id());
        assert!(body["data"].is_object() || body["statsz"].is_object(), "{body}");
    }
    let kick = format!("{{\"cid\":{cid}}}");
    admin
        .send(&format!("PUB $SYS.REQ.SERVER.{}.KICK in.2 {}\r\n{kick}\r\n", engine.server_id(), kick.len()))
        .await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(admin.line().await);
    }
    assert!(seen.iter().any(|line| line.contains("\"reason\":\"Kicked\"")), "{seen:?}");
    drop(victim);

    // Ordinary users reach none of it but the question who they are.
    let mut user = Raw::user(address, "main/narrow", "").await;
    let mut open = Raw::user(address, "main/open", ",\"headers\":true,\"no_responders\":true").await;
    open.send(&format!("SUB in.> 1\r\nPUB $SYS.REQ.SERVER.{}.KICK in.1 0\r\n\r\n", engine.server_id())).await;
    assert!(open.sync().await[0].contains("Permissions Violation for Publish"));
    open.send("PUB $SYS.REQ.USER.INFO in.2 0\r\n\r\n").await;
    let lines = open.sync().await;
    let body: Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!((&body["data"]["user"], &body["data"]["account"]), (&"open".into(), &"main".into()));
    assert!(user.sync().await.is_empty());
    engine.shutdown().await;
}

#[tokio::test]
async fn in_process_connections() {
    let (engine, address) = network().await;
    let inside = engine.connect_in_process("main", "hub").unwrap();
    assert!(matches!(engine.connect_in_process("nope", "x"), Err(EngineError::UnknownAccount(_))));
    assert!(matches!(inside.publish("a b", b""), Err(EngineError::Subject(_))));
    assert!(matches!(inside.publish("a\r\nPUB x 0", b""), Err(EngineError::Subject(_))));
    assert!(matches!(inside.publish("a", &vec![0; 2_000_000]), Err(EngineError::TooLarge { .. })));
    let result = inside.request("nobody", b"", Duration::from_secs(1)).await;
    assert!(matches!(result, Err(EngineError::NoResponders(_))));

    let mut raw = Raw::user(address, "main/a", ",\"headers\":true").await;
    raw.send("SUB from.hub 1\r\n").await;
    raw.sync().await;
    let mut headers = Headers::new();
    headers.set("K", "v").unwrap();
    assert_eq!(inside.publish_message("from.hub", "to.hub", Some(&headers), b"hi").unwrap(), 1);
    assert_eq!(raw.line().await, "HMSG from.hub 1 to.hub 18 20");
    let mut sub = inside.queue_subscribe("to.*", "q").unwrap();
    raw.sync().await;
    raw.send("PUB to.hub 2\r\nyo\r\n").await;
    let message = tokio::time::timeout(PATIENCE, sub.next()).await.unwrap().unwrap();
    assert_eq!(&message.payload[..], b"yo");
    drop(sub);
    assert_eq!(inside.publish_message("to.hub", "", None, b"").unwrap(), 0);
    let mut ending = inside.subscribe("x").unwrap();
    engine.shutdown().await;
    assert!(tokio::time::timeout(PATIENCE, ending.next()).await.unwrap().is_none());
    assert!(matches!(inside.publish("a", b""), Err(EngineError::ShutDown)));
}

#[tokio::test]
async fn monitoring_over_http() {
    let (engine, address) = network().await;
    let monitor = engine.monitor("127.0.0.1:0".parse().unwrap()).await.unwrap().local_addr();
    let mut raw = Raw::user(address, "main/a", ",\"name\":\"<node>\"").await;
    raw.send("SUB some.subject 1\r\n").await;
    raw.sync().await;
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        async move {
            let mut socket = tokio::net::TcpStream::connect(monitor).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await.unwrap().unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            (head.to_owned(), body.to_owned())
        }
    };
    let (head, body) = get("/varz").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("nosniff"), "{head}");
    let varz: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&varz["connections"], &varz["port"]), (&1.into(), &address.port().into()));
    let (_, body) = get("/connz?subs=1&auth=1").await;
    let connz: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(connz["connections"][0]["subscriptions_list"][0], "some.subject");
    assert_eq!(connz["connections"][0]["authorized_user"], "a");
    assert!(!body.contains("\"pw\"") && !body.contains("nonce"));
    assert_eq!(get("/healthz").await.1, "{\"status\":\"ok\"}");
    assert!(get("/subsz").await.0.starts_with("HTTP/1.1 200"));
    assert!(get("/varz?callback=%3Cscript%3E").await.0.starts_with("HTTP/1.1 400"));
    assert!(get("/debug/pprof").await.0.starts_with("HTTP/1.1 404"));
    drop(raw);
    engine.shutdown().await;
}

/// Lets everybody in, and then no longer.
#[derive(Debug)]
struct ChangesItsMind;

impl nats_engine::Authenticator for ChangesItsMind {
    fn authenticate(
        &self,
        candidate: &nats_engine::Candidate<'_>,
    ) -> Result<nats_engine::Admission, nats_engine::Denial> {
        let tags = vec![candidate.connect.user.clone()];
        Ok(nats_engine::Admission { account: "main".into(), tags, ..nats_engine::Admission::default() })
    }

    fn still_admits(&self, tags: &[String]) -> bool {
        tags != ["main/gone"]
    }
}

#[tokio::test]
async fn what_is_revoked_while_a_connection_is_judged_ends_it() {
    let engine =
        nats_engine::Engine::new(config(), vec![AccountConfig::named("main")], Arc::new(ChangesItsMind))
            .unwrap();
    let address = engine.listen("127.0.0.1:0".parse().unwrap(), None).await.unwrap().local_addr();
    let mut stays = Raw::user(address, "main/stays", "").await;
    let mut gone = Raw::open(address).await;
    gone.send(&connect_line("main/gone", "")).await;
    assert_eq!(gone.rest().await, "-ERR 'Authorization Violation'\r\n");
    assert!(stays.sync().await.is_empty());
    drop(gone);
    let only_one = async {
        while engine.connections().len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, only_one).await.unwrap();
    engine.shutdown().await;
}
