//! Rates on loopback, printed and not judged: `cargo test -p nats-engine --test throughput -- --ignored --nocapture`
//! in an optimized build. The generator shares the machine with the engine.

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

use std::time::{Duration, Instant};

use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Publishes `count` messages of `size` bytes and waits until the engine has read them.
async fn publish(raw: &mut Raw, count: usize, size: usize) {
    let one = format!("PUB bench {size}\r\n{}\r\n", "x".repeat(size));
    let per_write = (64 * 1024 / one.len()).max(1);
    let batch = one.repeat(per_write);
    for _ in 0..count / per_write {
        raw.send(&batch).await;
    }
    raw.sync().await;
}

async fn fan_out(subscribers: usize, count: usize, size: usize) -> f64 {
    let (engine, address) = start().await;
    let per_write = 64 * 1024 / format!("PUB bench {size}\r\n{}\r\n", "x".repeat(size)).len();
    let count = count / per_write * per_write;
    let mut readers = Vec::new();
    for _ in 0..subscribers {
        let mut raw = Raw::user(address, "main/r", "").await;
        raw.send("SUB bench 1\r\n").await;
        raw.sync().await;
        let expected = count * format!("MSG bench 1 {size}\r\n{}\r\n", "x".repeat(size)).len();
        readers.push(tokio::spawn(async move {
            let (mut seen, mut buffer) = (0, vec![0; 64 * 1024]);
            while seen < expected {
                seen += raw.socket.read(&mut buffer).await.unwrap();
            }
        }));
    }
    let mut sender = Raw::user(address, "main/s", "").await;
    let began = Instant::now();
    publish(&mut sender, count, size).await;
    for reader in readers {
        tokio::time::timeout(Duration::from_secs(60), reader).await.unwrap().unwrap();
    }
    let rate = (count * subscribers.max(1)) as f64 / began.elapsed().as_secs_f64() / 1e6;
    engine.shutdown().await;
    rate
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rates() {
    for (subscribers, count, size) in [
        (0, 4_000_000, 16),
        (0, 2_000_000, 256),
        (1, 2_000_000, 16),
        (1, 800_000, 256),
        (100, 60_000, 16),
        (100, 20_000, 256),
    ] {
        println!("1->{subscribers} {size} B: {:.2} M/s", fan_out(subscribers, count, size).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn connections() {
    let (engine, address) = start().await;
    let before = resident_kib();
    let began = Instant::now();
    let mut all = Vec::new();
    let count: usize = 4000;
    for number in 0..count {
        let mut raw = Raw::user(address, "main/n", "").await;
        raw.send(&format!("SUB c.node.{number} 1\r\nSUB c.broadcast.x 2\r\n")).await;
        let line = raw.sync().await;
        assert!(line.is_empty());
        all.push(raw.socket);
    }
    let took = began.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!(
        "{count} plain connections, one after another: {:.0}/s; {:.1} KiB each, the client's side included",
        count as f64 / took,
        (resident_kib() - before) as f64 / count as f64
    );
    let mut sender = Raw::user(address, "main/s", "").await;
    let began = Instant::now();
    let request = format!("PUB c.broadcast.x 600\r\n{}\r\n", "x".repeat(600));
    sender.send(&request).await;
    let mut buffer = vec![0; 4096];
    for socket in &mut all {
        let mut seen = 0;
        // PING may come in between.
        while seen < 600 {
            seen += socket.read(&mut buffer).await.unwrap();
        }
    }
    println!("one request to {count}: {:.3} s", began.elapsed().as_secs_f64());
    for socket in &mut all {
        socket.shutdown().await.unwrap();
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn tls_connections() {
    let (server, client) = tls();
    let engine = nats_engine::Engine::new(
        config(),
        vec![nats_engine::AccountConfig::named("main")],
        std::sync::Arc::new(TestUsers),
    )
    .unwrap();
    let address = engine.listen("127.0.0.1:0".parse().unwrap(), Some(server)).await.unwrap().local_addr();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client));
    let before = resident_kib();
    let began = Instant::now();
    let mut all = Vec::new();
    let count = 1000;
    for _ in 0..count {
        let raw = Raw::open(address).await;
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, raw.socket).await.unwrap();
        let text = format!("{}SUB a.b 1\r\nSUB c.d 2\r\nPING\r\n", connect_line("main/a", ""));
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = [0u8; 6];
        stream.read_exact(&mut answer).await.unwrap();
        all.push(stream);
    }
    let took = began.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!(
        "{count} TLS connections, one after another: {:.0}/s; {:.1} KiB each, the client's side included",
        f64::from(count) / took,
        (resident_kib() - before) as f64 / f64::from(count)
    );
    engine.shutdown().await;
}
