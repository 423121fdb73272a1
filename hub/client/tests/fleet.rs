//! An operator and a small fleet.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    clippy::print_stdout
)]

mod network;

use std::time::{Duration, Instant};

use choria_client::{
    Amount, Asking, ClientError, ConnectOptions, Connection, DiscoveryOptions, PingOptions, RpcOptions,
    Verification, call, discover, ping,
};
use choria_protocol::Filter;
use choria_protocol::ddl::builtin;
use network::{Broker, Manner, NONCE, Org, config, connect, node};
use serde_json::{Map, json};

fn quick() -> RpcOptions {
    RpcOptions { timeout: Some(Duration::from_secs(2)), ..RpcOptions::default() }
}

fn named(nodes: &[&str]) -> RpcOptions {
    RpcOptions { targets: Some(nodes.iter().map(|n| (*n).to_owned()).collect()), ..quick() }
}

#[tokio::test]
async fn connect_sends_the_token_once_with_the_signed_nonce() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    let (seed, token) = org.client("up=alice", |_| {});
    let public = seed.public();
    let connection = connect(&config(broker.address, (seed, token.clone()), Some(&org))).await;
    assert_eq!(connection.caller(), "up=alice");
    assert_eq!(connection.inbox_prefix(), "choria.reply.9ff94a8781520105e44481be68e5d47f");
    let connect = broker.connects().pop().unwrap();
    assert_eq!(connect["auth_token"], token);
    assert_eq!(connect.get("jwt").and_then(|jwt| jwt.as_str()), None);
    assert_eq!(connect.get("nkey").and_then(|nkey| nkey.as_str()), None);
    use base64::Engine as _;
    let signature =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(connect["sig"].as_str().unwrap()).unwrap();
    assert!(public.verify(NONCE.as_bytes(), &signature));
}

#[tokio::test]
async fn t_267_t_268_what_is_no_nonce_is_not_signed_and_no_credentials_leave() {
    let org = Org::new();
    for nonce in [
        "{\"protocol\":\"io.choria.protocol.v2.request\"}",
        "eyJhbGciOiJFZERTQSJ9.eyJ4IjoxfQ",
        "37dGao6a6GXEqNFFtVGRsaNa2iI.00",
        "1798761600:alice:x",
    ] {
        let broker = Broker::start(nonce).await;
        let error = Connection::connect(
            &config(broker.address, org.client("up=alice", |_| {}), None),
            ConnectOptions::default(),
        )
        .await
        .unwrap_err();
        assert!(matches!(error, ClientError::NonceRefused), "{error}");
        assert_eq!(error.exit_code(), 5);
        assert!(broker.connects().is_empty());
    }
    choria_rows::row(
        267,
        "the CLI's client: nonces that are a request, a JWT, chain data, a login text",
        "NonceRefused, exit 5, no CONNECT",
    );
    choria_rows::row(
        268,
        "the CLI's client: nonces that are a request, a JWT, chain data, a login text",
        "NonceRefused, exit 5, no CONNECT",
    );
}

#[tokio::test]
async fn a_broker_that_comes_late_is_waited_for_and_one_that_never_comes_is_not() {
    let org = Org::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = config(address, org.client("up=alice", |_| {}), None);

    let options = ConnectOptions { timeout: Some(Duration::from_millis(1200)), ..ConnectOptions::default() };
    let error = Connection::connect(&config, options).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(error.exit_code(), 1);

    let waiting = tokio::spawn({
        let config = config.clone();
        async move {
            Connection::connect(&config, ConnectOptions { timeout: None, ..ConnectOptions::default() }).await
        }
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    let _broker = Broker::on(tokio::net::TcpListener::bind(address).await.unwrap(), NONCE);
    let connected = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert!(connected.is_ok());
}

#[tokio::test]
async fn expired_tokens_are_refused_before_connecting() {
    let org = Org::new();
    let seed = choria_token::Seed::generate().unwrap();
    let claims = choria_token::ClientClaims::new("up=alice", &seed.public());
    let issuer = choria_token::Issuer::Org(choria_token::Seed::generate().unwrap());
    let token = issuer
        .issue_client(claims, Duration::from_secs(60), choria_host::clock::unix_seconds() - 3600)
        .unwrap();
    let error = choria_client::Identity::new(&token, Some(seed)).unwrap_err();
    assert!(matches!(error, ClientError::TokenExpired { .. }), "{error}");
    let (_, token) = org.client("up=alice", |_| {});
    let other = choria_token::Seed::generate().unwrap();
    assert!(matches!(
        choria_client::Identity::new(&token, Some(other)),
        Err(ClientError::SeedMismatch { .. })
    ));
}

#[tokio::test]
async fn t_276_t_278_t_277_ping_and_discovery_find_each_node_once() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    for (identity, manner) in [
        ("n1.example.net", Manner::Good),
        ("n2.example.net", Manner::Twice),
        ("n3.example.net", Manner::Unsigned),
        ("n4.example.net", Manner::Impostor("n1.example.net")),
        ("n5.example.net", Manner::Altered),
        ("n6.example.net", Manner::Elsewhere),
    ] {
        node(&broker, &org, identity, manner).await;
    }
    let connection = connect(&config(broker.address, org.client("up=alice", |_| {}), Some(&org))).await;
    let mut answers = Vec::new();
    let summary =
        ping(&connection, &Filter::default(), &PingOptions::default(), |answer| answers.push(answer))
            .await
            .unwrap();
    let mut names: Vec<_> = answers.iter().map(|a| (a.identity.as_str(), a.verification.clone())).collect();
    names.sort_by_key(|(name, _)| *name);
    assert_eq!(
        names,
        [
            ("n1.example.net", Verification::Verified),
            ("n2.example.net", Verification::Verified),
            ("n3.example.net", Verification::Unverified),
        ]
    );
    assert_eq!((summary.answers, summary.duplicates, summary.invalid), (3, 1, 3));

    // with --expect it ends early
    let started = Instant::now();
    let expect =
        PingOptions { expect: Some(2), timeout: Some(Duration::from_secs(20)), ..PingOptions::default() };
    assert_eq!(ping(&connection, &Filter::default(), &expect, |_| {}).await.unwrap().answers, 2);
    let windowed = DiscoveryOptions {
        windowed: Some(true),
        timeout: Some(Duration::from_secs(20)),
        ..DiscoveryOptions::default()
    };
    assert_eq!(discover(&connection, &Filter::default(), &windowed).await.unwrap().nodes.len(), 3);
    assert!(started.elapsed() < Duration::from_secs(5));

    // literal identities need no network
    let mut filter = Filter::default();
    filter.add_identity("absent.example.net");
    let found = discover(&connection, &filter, &DiscoveryOptions::default()).await.unwrap();
    assert!(found.offline);
    assert_eq!(found.identities(), ["absent.example.net"]);
    filter.add_identity("not a name");
    assert!(discover(&connection, &filter, &DiscoveryOptions::default()).await.is_err());
    choria_rows::row(
        276,
        "an answer altered after signing; an unsigned one",
        "dropped and counted; marked unverified",
    );
    choria_rows::row(
        278,
        "an answer altered after signing; an unsigned one",
        "dropped and counted; marked unverified",
    );
    choria_rows::row(277, "an answer to another request id", "dropped and counted");
}

#[tokio::test]
async fn t_107_t_280_invented_names_are_counted_and_never_used() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    node(&broker, &org, "n1.example.net", Manner::Good).await;
    node(&broker, &org, "n2.example.net", Manner::Inventive).await;
    let connection = connect(&config(broker.address, org.client("up=alice", |_| {}), Some(&org))).await;
    let summary = ping(&connection, &Filter::default(), &PingOptions::default(), |answer| {
        assert_eq!(answer.identity, "n1.example.net");
    })
    .await
    .unwrap();
    let hostile = network::HOSTILE_NAMES.len();
    assert_eq!((summary.answers, summary.invalid), (1, hostile));

    let rpcutil = builtin("rpcutil").unwrap();
    let summary = call(&connection, &rpcutil, "ping", Map::new(), quick(), |_| {}).await.unwrap();
    assert_eq!((summary.targets, summary.ok), (vec!["n1.example.net".to_owned()], 1));
    let strange: Vec<String> =
        broker.published().into_iter().filter(|subject| !subject.starts_with("choria.")).collect();
    assert_eq!(strange, Vec::<String>::new());
    for subject in broker.published() {
        assert!(!subject.contains(['*', '>', '\r', '\u{1b}', '$']), "{subject:?}");
    }
    let tried = format!("{hostile} discovery answers in names like {:?}", network::HOSTILE_NAMES[0]);
    for row in [107, 280] {
        choria_rows::row(row, &tried, format!("{hostile} counted as invalid, nothing is published to them"));
    }
}

#[tokio::test]
async fn t_275_t_279_a_call_reports_who_did_what() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    for (identity, manner) in [
        ("ok.example.net", Manner::Good),
        ("fails.example.net", Manner::Failing),
        ("silent.example.net", Manner::Silent),
        ("twice.example.net", Manner::Twice),
        ("impostor.example.net", Manner::Impostor("ok.example.net")),
    ] {
        node(&broker, &org, identity, manner).await;
    }
    let connection = connect(&config(broker.address, org.client("up=alice", |_| {}), Some(&org))).await;
    let rpcutil = builtin("rpcutil").unwrap();
    let mut replies = Vec::new();
    let all = named(&[
        "ok.example.net",
        "fails.example.net",
        "silent.example.net",
        "twice.example.net",
        "impostor.example.net",
        "ok.example.net",
    ]);
    let summary =
        call(&connection, &rpcutil, "ping", Map::new(), all, |reply| replies.push(reply)).await.unwrap();
    assert_eq!(summary.targets.len(), 5, "each node is asked once");
    assert_eq!((summary.ok, summary.failed, summary.verified), (2, 1, 3));
    assert_eq!(summary.missing, ["silent.example.net", "impostor.example.net"]);
    assert_eq!(summary.invalid, 1, "the impostor");
    assert_eq!(replies.len(), 3);
    assert!(
        replies
            .iter()
            .all(|reply| reply.verification == Verification::Verified && reply.data == json!({"pong": 1}))
    );

    // discovery and request in one, early end once all have replied
    let mut options = quick();
    options.timeout = Some(Duration::from_secs(20));
    options.filter.add_identity("ok.example.net");
    let started = Instant::now();
    let summary = call(&connection, &rpcutil, "ping", Map::new(), options, |_| {}).await.unwrap();
    assert!(summary.all_ok() && started.elapsed() < Duration::from_secs(5));
    choria_rows::row(
        275,
        "a node answers as another; a node answers twice",
        "counted as invalid, the node's own answer is used; the first counts",
    );
    choria_rows::row(
        279,
        "a node answers as another; a node answers twice",
        "counted as invalid, the node's own answer is used; the first counts",
    );
}

#[tokio::test]
async fn mistakes_are_found_before_anything_is_sent() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    let connection = connect(&config(broker.address, org.client("up=alice", |_| {}), None)).await;
    let rpcutil = builtin("rpcutil").unwrap();
    let error = call(&connection, &rpcutil, "get_fact", Map::new(), quick(), |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid input: input 'fact' is required");
    let error = call(&connection, &rpcutil, "nope", Map::new(), quick(), |_| {}).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit_code()), ("unknown action rpcutil#nope", 2));
    let error = call(&connection, &rpcutil, "ping", Map::new(), named(&["a b"]), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("invalid identity string"), "{error}");
    let error = call(&connection, &rpcutil, "ping", Map::new(), quick(), |_| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::NothingDiscovered) && error.exit_code() == 3);
}

/// What is no reply, or none any more, is no reason to wait on.
#[tokio::test]
async fn noise_does_not_keep_a_quiet_request_going() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    let [endless, silent] = ["endless.example.net", "silent.example.net"];
    node(&broker, &org, endless, Manner::Endless).await;
    node(&broker, &org, silent, Manner::Silent).await;
    let connection = connect(&config(broker.address, org.client("up=alice", |_| {}), Some(&org))).await;
    let rpcutil = builtin("rpcutil").unwrap();
    let options = RpcOptions {
        timeout: Some(Duration::from_secs(14)),
        quiet_after: Some(Duration::from_millis(500)),
        ..named(&[endless, silent])
    };
    let started = Instant::now();
    let summary = call(&connection, &rpcutil, "ping", Map::new(), options, |_| {}).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(summary.ok == 1 && summary.duplicates > 0, "{summary:?}");
    assert_eq!(summary.missing, [silent]);
}

#[tokio::test]
async fn whoever_awaits_no_reply_is_told_the_id_all_the_same() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    let connection = connect(&config(broker.address, org.client("up=alice", |_| {}), Some(&org))).await;
    let rpcutil = builtin("rpcutil").unwrap();
    let (asking, asked) = std::sync::mpsc::channel();
    let options = RpcOptions {
        reply_to: Some("site.replies".to_owned()),
        asking: Some(asking),
        ..named(&["n1.example.net", "n2.example.net"])
    };
    let summary = call(&connection, &rpcutil, "ping", Map::new(), options, |_| {}).await.unwrap();
    let asked: Vec<_> = asked.try_iter().collect();
    assert_eq!(asked, [Asking { request_id: summary.request_id, nodes: summary.targets }]);
    for subject in ["site.>", "site.*", "a..b", "a b", ""] {
        let options = RpcOptions { reply_to: Some(subject.to_owned()), ..named(&["n1.example.net"]) };
        let error = call(&connection, &rpcutil, "ping", Map::new(), options, |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("no subject to reply to"), "{subject}: {error}");
    }
}

#[tokio::test]
async fn batches_and_limits() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    let names: Vec<String> = (0..6).map(|n| format!("n{n}.example.net")).collect();
    for (number, name) in names.iter().enumerate() {
        node(&broker, &org, name, if number == 2 { Manner::Failing } else { Manner::Good }).await;
    }
    let connection = connect(&config(broker.address, org.client("up=alice", |_| {}), Some(&org))).await;
    let rpcutil = builtin("rpcutil").unwrap();
    let base = RpcOptions {
        targets: Some(names.clone()),
        batch: Some(Amount::Nodes(2)),
        batch_sleep: Some(Duration::from_millis(10)),
        ..quick()
    };
    let summary = call(&connection, &rpcutil, "ping", Map::new(), base.clone(), |_| {}).await.unwrap();
    assert_eq!((summary.ok, summary.failed, summary.batches), (5, 1, 3));

    let aborting = RpcOptions { batch_abort: Some(Amount::Nodes(1)), ..base.clone() };
    let summary = call(&connection, &rpcutil, "ping", Map::new(), aborting, |_| {}).await.unwrap();
    assert_eq!((summary.ok, summary.failed, summary.batches), (3, 1, 2));
    assert_eq!(summary.not_contacted, ["n4.example.net", "n5.example.net"]);

    let limited = RpcOptions { limit: Some(Amount::Percent(50)), batch: None, ..base };
    let summary = call(&connection, &rpcutil, "ping", Map::new(), limited, |_| {}).await.unwrap();
    assert_eq!(summary.targets, names[..3]);
}

#[tokio::test]
async fn t_278_unsigned_replies_count_unless_signatures_are_required() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    node(&broker, &org, "plain.example.net", Manner::Unsigned).await;
    let connection = connect(&config(broker.address, org.client("up=alice", |_| {}), Some(&org))).await;
    let rpcutil = builtin("rpcutil").unwrap();
    let summary =
        call(&connection, &rpcutil, "ping", Map::new(), named(&["plain.example.net"]), |_| {}).await.unwrap();
    assert_eq!((summary.ok, summary.unverified, summary.invalid), (1, 1, 0));
    let strict = RpcOptions { require_signed: true, ..named(&["plain.example.net"]) };
    let summary = call(&connection, &rpcutil, "ping", Map::new(), strict, |_| {}).await.unwrap();
    assert_eq!((summary.ok, summary.invalid, summary.missing.len()), (0, 1, 1));
    choria_rows::row(278, "unsigned replies, and --require-signed", "marked unverified; dropped");
}

/// One connection, one subscription and constant work for each reply: two thousand take moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_replies() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    let client = broker.plain_client().await;
    use futures_util::StreamExt as _;
    let mut requests = client.subscribe("choria.node.>").await.unwrap();
    broker.has_subscription("choria.node.>").await;
    let tokens: std::collections::HashMap<String, (choria_token::Seed, String)> = (0..2000)
        .map(|n| format!("n{n}.example.net"))
        .map(|name| {
            let t = org.server(&name);
            (name, t)
        })
        .collect();
    let targets: Vec<String> = tokens.keys().cloned().collect();
    tokio::spawn(async move {
        while let Some(message) = requests.next().await {
            let name = message.subject.strip_prefix("choria.node.").unwrap();
            let (seed, token) = &tokens[name];
            let transport = choria_protocol::Transport::parse(&message.payload).unwrap();
            let id = choria_protocol::SecureRequest::parse(&transport.data).unwrap().request().unwrap().id;
            let reply = choria_protocol::Reply {
                message: br#"{"action":"ping","statuscode":0,"statusmsg":"OK","data":{"pong":1}}"#.to_vec(),
                request: id,
                sender: name.to_owned(),
                agent: "rpcutil".to_owned(),
                time: 1,
            }
            .to_bytes()
            .unwrap();
            let secure = choria_protocol::SecureReply {
                signature: Some(seed.sign(&reply).to_vec()),
                sender: Some(token.clone()),
                reply,
            };
            let payload =
                choria_protocol::Transport { data: secure.to_bytes().unwrap(), headers: Default::default() };
            client.publish(transport.headers.reply, payload.to_bytes().unwrap().into()).await.unwrap();
        }
    });
    let connection = connect(&config(broker.address, org.client("up=alice", |_| {}), Some(&org))).await;
    let options = RpcOptions {
        targets: Some(targets),
        timeout: Some(Duration::from_secs(60)),
        ..RpcOptions::default()
    };
    let summary =
        call(&connection, &builtin("rpcutil").unwrap(), "ping", Map::new(), options, |_| {}).await.unwrap();
    println!("2,000 verified replies in {:?}", summary.request_time);
    assert_eq!((summary.ok, summary.verified, summary.missing.len()), (2000, 2000, 0));
    assert!(summary.request_time < Duration::from_secs(30), "{:?}", summary.request_time);
}
