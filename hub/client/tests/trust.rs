//! Which brokers are believed (decision D1, docs/spec/10 §14.7).
#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures)]

mod network;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use choria_client::{ClientConfig, ClientError, ConnectOptions, Connection, TlsMode};
use network::{Broker, NONCE, Org, config};
use tokio::net::TcpListener;

/// Writes a self-signed certificate for `name`; it is its own CA.
fn certificate(directory: &Path, file: &str, name: &str) -> (PathBuf, Arc<rustls::ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (cert, key) = (directory.join(format!("{file}.pem")), directory.join(format!("{file}.key")));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    choria_host::private_file::write_private(&key, made.signing_key.serialize_pem().as_bytes()).unwrap();
    let tls = choria_host::tls::server_config(&cert, &key, None).unwrap();
    (cert, tls)
}

/// The same, good for `localhost` until the year 2020.
fn expired_certificate(directory: &Path) -> (PathBuf, Arc<rustls::ServerConfig>) {
    let mut wanted = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    wanted.not_before = rcgen::date_time_ymd(2019, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let pair = rcgen::KeyPair::generate().unwrap();
    let made = wanted.self_signed(&pair).unwrap();
    let (cert, key) = (directory.join("expired.pem"), directory.join("expired.key"));
    std::fs::write(&cert, made.pem()).unwrap();
    choria_host::private_file::write_private(&key, pair.serialize_pem().as_bytes()).unwrap();
    let tls = choria_host::tls::server_config(&cert, &key, None).unwrap();
    (cert, tls)
}

fn trusting(broker: &Broker, org: &Org, tls: TlsMode) -> ClientConfig {
    let mut config = config(broker.address, org.client("up=alice", |_| {}), None);
    config.brokers.hosts = vec![format!("localhost:{}", broker.address.port())];
    config.tls = tls;
    config
}

async fn attempt(config: &ClientConfig) -> Result<Connection, ClientError> {
    let options = ConnectOptions { timeout: Some(Duration::from_secs(3)), ..ConnectOptions::default() };
    Connection::connect(config, options).await
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn t_269_with_a_ca_only_its_brokers_with_the_right_name_get_credentials() {
    let (directory, org) = (tempfile::tempdir().unwrap(), Org::new());
    let (ca, tls) = certificate(directory.path(), "good", "localhost");
    let (other_ca, _) = certificate(directory.path(), "other", "localhost");
    let broker = Broker::with_tls(listen().await, tls).await;
    assert!(attempt(&trusting(&broker, &org, TlsMode::Ca(ca))).await.is_ok());
    let seen = broker.connects().len();

    let error = attempt(&trusting(&broker, &org, TlsMode::Ca(other_ca))).await.unwrap_err();
    assert!(matches!(error, ClientError::CertificateRefused(_)), "{error}");
    assert!(error.hint().unwrap().contains("plugin.security.choria.ca"));
    assert_eq!(broker.connects().len(), seen);

    let (ca, tls) = certificate(directory.path(), "name", "broker.example.net");
    let broker = Broker::with_tls(listen().await, tls).await;
    let error = attempt(&trusting(&broker, &org, TlsMode::Ca(ca))).await.unwrap_err();
    assert!(matches!(error, ClientError::CertificateRefused(_)), "{error}");
    assert!(broker.connects().is_empty());

    let (ca, tls) = expired_certificate(directory.path());
    let broker = Broker::with_tls(listen().await, tls).await;
    let error = attempt(&trusting(&broker, &org, TlsMode::Ca(ca))).await.unwrap_err();
    assert!(matches!(error, ClientError::CertificateRefused(_)), "{error}");
    assert!(broker.connects().is_empty());
    choria_rows::row(
        269,
        "the CLI's client: broker of another CA, of another name, with an expired certificate",
        "CertificateRefused, no CONNECT",
    );
}

#[tokio::test]
async fn without_a_ca_the_key_seen_first_counts_and_another_is_refused() {
    let (directory, org) = (tempfile::tempdir().unwrap(), Org::new());
    let store = directory.path().join("known_brokers");
    let (_, tls) = certificate(directory.path(), "first", "localhost");
    let broker = Broker::with_tls(listen().await, tls).await;
    let config = trusting(&broker, &org, TlsMode::RootsOrFirstUse(store.clone()));
    assert!(attempt(&config).await.is_ok());
    assert!(attempt(&config).await.is_ok(), "the same key again");
    assert!(store.exists());

    let (_, tls) = certificate(directory.path(), "second", "localhost");
    let imposter = Broker::with_tls(listen().await, tls).await;
    let config = trusting(&imposter, &org, TlsMode::RootsOrFirstUse(store));
    let error = attempt(&config).await.unwrap_err();
    assert!(matches!(error, ClientError::CertificateRefused(_)), "{error}");
    assert!(error.to_string().contains("known_brokers"), "{error}");
    assert!(imposter.connects().is_empty());
}

#[tokio::test]
async fn t_272_a_broker_without_tls_gets_nothing_when_tls_is_configured() {
    let (directory, org) = (tempfile::tempdir().unwrap(), Org::new());
    let (ca, _) = certificate(directory.path(), "ca", "localhost");
    let broker = Broker::start(NONCE).await;
    assert!(attempt(&trusting(&broker, &org, TlsMode::Ca(ca))).await.is_err());
    assert!(broker.connects().is_empty());
    choria_rows::row(272, "the CLI's client: INFO without TLS", "refused, no CONNECT");
}

/// What stands between INFO and the handshake came from nobody: it is an error, or thrown away, and never believed.
#[tokio::test]
async fn t_273_bytes_before_the_handshake_are_not_believed() {
    for injected in [
        "MSG choria.reply.x 1 5\r\nhello\r\n",
        "-ERR 'Permissions Violation'\r\n",
        "PING\r\n",
        "+OK\r\n",
        "\u{16}",
    ] {
        let (directory, org) = (tempfile::tempdir().unwrap(), Org::new());
        let (ca, tls) = certificate(directory.path(), "good", "localhost");
        let broker = Broker::with_injection(listen().await, tls, injected).await;
        let config = trusting(&broker, &org, TlsMode::Ca(ca));
        if let Ok(connection) = attempt(&config).await {
            // the library threw the bytes away with its plaintext buffer; the session is the broker's own
            let statistics = connection.nats().statistics();
            assert_eq!(statistics.in_messages.load(std::sync::atomic::Ordering::Relaxed), 0, "{injected:?}");
        }
        for connect in broker.connects() {
            assert!(connect["tls_required"].as_bool().unwrap_or(true), "CONNECT in plaintext");
        }
    }
    choria_rows::row(
        273,
        "the CLI's client: MSG, -ERR, PING, +OK and half a record between INFO and the handshake",
        "an error or thrown away; no message counted",
    );
}

#[tokio::test]
async fn t_274_unverified_is_possible_when_asked_for_and_other_brokers_in_info_are_not_dialled() {
    let (directory, org) = (tempfile::tempdir().unwrap(), Org::new());
    let (_, tls) = certificate(directory.path(), "any", "elsewhere.example.net");
    let broker = Broker::with_tls(listen().await, tls).await;
    let connection = attempt(&trusting(&broker, &org, TlsMode::Unverified)).await.unwrap();
    let pool = connection.nats().server_pool().await.unwrap();
    assert_eq!(pool.len(), 1, "INFO named 192.0.2.1, before TLS");
    assert_eq!(connection.reconnects(), 0);
    choria_rows::row(274, "INFO in plaintext names 192.0.2.1", "not in the pool, never dialled");
}
