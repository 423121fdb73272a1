//! Nodes that share a process: each connects for itself, and all end together.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_linux::swarm::{self, Progress, SwarmOptions};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_host::tls;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

/// Accepts whoever comes and tells the names.
async fn broker(listener: TcpListener, acceptor: TlsAcceptor, names: mpsc::UnboundedSender<String>) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let (acceptor, names) = (acceptor.clone(), names.clone());
        tokio::spawn(async move {
            socket.set_nodelay(true).ok()?;
            socket.write_all(b"INFO {\"tls_required\":true,\"nonce\":\"Z4T9x1kQmB2aVwE\"}\r\n").await.ok()?;
            let mut lines = BufReader::new(acceptor.accept(socket).await.ok()?).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(json) = line.strip_prefix("CONNECT ") {
                    let connect: Value = serde_json::from_str(json).ok()?;
                    names.send(connect.get("name")?.as_str()?.to_owned()).ok()?;
                } else if line == "PING" {
                    lines.get_mut().write_all(b"PONG\r\n").await.ok()?;
                }
            }
            Some(())
        });
    }
}

fn token(port: u16, pin: &str) -> String {
    let claims = json!({
        "purpose":"choria_provisioning","cht":"s3cret","chu":format!("nats://localhost:{port}"),"chpd":true,"v2":true,
        "extensions":{"choria":{"tls_pin":[pin]}}
    });
    format!(
        "{}.{}.c2ln",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    )
}

/// Resident memory of this process, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

fn acceptor(directory: &Path) -> (TlsAcceptor, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    let (cert, key_file) = (directory.join("broker.pem"), directory.join("broker.key"));
    std::fs::write(&cert, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let pin = tls::pin_of_certificate(certificate.der()).unwrap().to_hex();
    (TlsAcceptor::from(tls::server_config(&cert, &key_file, None).unwrap()), pin)
}

/// Set `SWARM` to try another size; the memory of nodes and of their broker's side is printed.
#[test]
fn every_node_has_a_connection_of_its_own() {
    let count: usize = std::env::var("SWARM").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let (acceptor, pin) = acceptor(directory.path());
    let jwt = directory.path().join("provisioning.jwt");
    let text = token(listener.local_addr().unwrap().port(), &pin);
    choria_host::private_file::write_private(&jwt, text.as_bytes()).unwrap();

    let (names_tx, mut names) = mpsc::unbounded_channel();
    let (end, mut ended) = watch::channel(false);
    let serving = std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = broker(listener, acceptor, names_tx) => {}
                _ = ended.wait_for(|end| *end) => {}
            }
        });
    });
    let before = resident();
    let options = SwarmOptions {
        start_rate: 500,
        ..SwarmOptions::new(count, directory.path().join("state"), jwt, "lab.example")
    };
    let progress = Arc::new(Progress::default());
    let (stop, stopped) = watch::channel(false);
    let running = {
        let (options, progress) = (options.clone(), Arc::clone(&progress));
        std::thread::spawn(move || swarm::run(&options, &progress, &stopped))
    };
    let started = Instant::now();
    let mut seen = BTreeSet::new();
    while seen.len() < count || progress.candidates() < count {
        while let Ok(name) = names.try_recv() {
            seen.insert(name);
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{} of {count} came", progress.candidates());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let each = resident().saturating_sub(before) / u64::try_from(count).unwrap();
    eprintln!("{count} nodes in {:?}, {each} KiB each with the broker's side", started.elapsed());
    assert!(seen.contains(&options.identity(1)) && seen.contains(&options.identity(count)));
    assert_eq!(progress.members(), 0);
    stop.send_replace(true);
    running.join().unwrap().unwrap();
    assert_eq!(progress.ended(), count);
    end.send_replace(true);
    serving.join().unwrap();
}
