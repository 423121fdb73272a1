//! A stock client library against the engine, plain and over TLS.

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

use std::sync::Arc;

use futures_util::StreamExt;
use nats_engine::{AccountConfig, Engine};
use support::*;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_subscribe_request_and_queues() {
    let (engine, address) = start().await;
    exercise(
        async_nats::ConnectOptions::with_user_and_password("main/a".into(), "pw".into()),
        format!("nats://{address}"),
    )
    .await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_over_tls() {
    let (server, client) = tls();
    let engine = Engine::new(config(), vec![AccountConfig::named("main")], Arc::new(TestUsers)).unwrap();
    let address = engine.listen("127.0.0.1:0".parse().unwrap(), Some(server)).await.unwrap().local_addr();
    let options = async_nats::ConnectOptions::with_user_and_password("main/a".into(), "pw".into())
        .require_tls(true)
        .tls_client_config(client);
    exercise(options, format!("tls://localhost:{}", address.port())).await;
    assert!(engine.connections().is_empty() || engine.connections()[0].tls_version.as_deref() == Some("1.3"));
    engine.shutdown().await;
}

async fn exercise(options: async_nats::ConnectOptions, url: String) {
    let client = timeout(PATIENCE, options.connect(url)).await.unwrap().unwrap();
    let mut wild = client.subscribe("a.*.c").await.unwrap();
    let mut exact = client.subscribe("a.b.c").await.unwrap();
    let mut service = client.queue_subscribe("svc", "workers".into()).await.unwrap();
    let mut service_two = client.queue_subscribe("svc", "workers".into()).await.unwrap();
    client.flush().await.unwrap();

    let mut headers = async_nats::HeaderMap::new();
    headers.insert("X-Test", "yes");
    client.publish_with_headers("a.b.c", headers, "one".into()).await.unwrap();
    for sub in [&mut wild, &mut exact] {
        let message = timeout(PATIENCE, sub.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, "one");
        assert_eq!(message.headers.unwrap().get("X-Test").unwrap().as_str(), "yes");
    }

    let answering = client.clone();
    let worker = tokio::spawn(async move {
        loop {
            let message = tokio::select! { m = service.next() => m, m = service_two.next() => m };
            let Some(message) = message else { return };
            answering.publish(message.reply.unwrap(), message.payload).await.unwrap();
        }
    });
    for number in 0..50 {
        let text = format!("request {number}");
        let answer = timeout(PATIENCE, client.request("svc", text.clone().into())).await.unwrap().unwrap();
        assert_eq!(answer.payload, text);
    }
    let error = timeout(PATIENCE, client.request("nobody", "".into())).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);

    // Large payloads travel to several subscribers, in order.
    let mut big = client.subscribe("big").await.unwrap();
    let mut big_two = client.subscribe("big").await.unwrap();
    for size in [0usize, 1, 5000, 200_000, 1_048_576] {
        client.publish("big", vec![b'x'; size].into()).await.unwrap();
        for sub in [&mut big, &mut big_two] {
            assert_eq!(timeout(PATIENCE, sub.next()).await.unwrap().unwrap().payload.len(), size);
        }
    }
    worker.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_refused() {
    let (engine, address) = start().await;
    let result = async_nats::ConnectOptions::with_user_and_password("main/a".into(), "no".into())
        .connect(format!("nats://{address}"))
        .await;
    assert_eq!(result.unwrap_err().kind(), async_nats::ConnectErrorKind::AuthorizationViolation);
    assert_eq!(engine.stats().denied, 1);
    engine.shutdown().await;
}

/// The client library closes its connection over a line that is no text, and panics at a CR in a header's value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_publisher_can_end_the_connections_of_others() {
    let (engine, address) = start().await;
    let options = async_nats::ConnectOptions::with_user_and_password("main/a".into(), "pw".into());
    let client = timeout(PATIENCE, options.connect(format!("nats://{address}"))).await.unwrap().unwrap();
    let mut all = client.subscribe("a.>").await.unwrap();
    client.flush().await.unwrap();
    let mut raw = Raw::user(address, "main/b", ",\"headers\":true,\"no_responders\":true").await;
    let block = |block: &str| format!("HPUB a.b {0} {0}\r\n{block}\r\n", block.len()).into_bytes();
    let hostile = [
        b"PUB a.\xff 2\r\nhi\r\n".to_vec(),
        b"PUB a.b\rc 2\r\nhi\r\n".to_vec(),
        b"PUB a.b a.\xff 2\r\nhi\r\n".to_vec(),
        "HPUB a.\u{2003}b 12 12\r\nNATS/1.0\r\n\r\n\r\n".into(),
        block("GARBAGE\r\n\r\n"),
        block("NATS/1.0 now\r\n\r\n"),
        block("NATS/1.0\r\nA: b\rc\r\n\r\n"),
        block("NATS/1.0\r\nno colon\r\n\r\n"),
        block("NATS/1.0\r\n\u{e4}: b\r\n\r\n"),
    ];
    for bytes in hostile {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        raw.send_bytes(&bytes).await;
        let said = raw.sync().await;
        assert!(said.first().is_some_and(|line| line.starts_with("-ERR '")), "{shown:?}: {said:?}");
    }
    raw.send("HPUB a.last 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nhi\r\n").await;
    assert_eq!(raw.sync().await, Vec::<String>::new());
    let message = timeout(PATIENCE, all.next()).await.unwrap().unwrap();
    assert_eq!((message.subject.as_str(), message.payload.as_ref()), ("a.last", b"hi".as_slice()));
    assert_eq!(client.connection_state(), async_nats::connection::State::Connected);
    assert_eq!(engine.connections().len(), 2, "the publisher is told, and stays");
    engine.shutdown().await;
}
