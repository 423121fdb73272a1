//! A broker and a real NATS client over real TLS, with Choria credentials.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]
#![allow(clippy::print_stdout)] // a skipped test says so

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Auth, Client, ConnectOptions, Event};
use choria_broker::{Broker, BrokerConfig};
use choria_host::clock::unix_seconds;
use choria_host::settings::Settings;
use choria_host::tls::{Trust, client_config};
use choria_token::claims::ProvisioningClaims;
use choria_token::{ClientClaims, Issuer, Seed, ServerClaims, private_network_id};
use futures_util::StreamExt as _;

/// For what must happen, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

struct Network {
    dir: tempfile::TempDir,
    org: Issuer,
    broker: Broker,
}

/// What a peer connects with.
#[derive(Clone, Default)]
struct Credentials {
    token: String,
    /// Hex of the seed that signs the nonce; none for bearers.
    seed: Option<String>,
    user: Option<String>,
    password: Option<String>,
    name: String,
}

/// A client and the errors the broker sent it.
struct Peer {
    client: Client,
    errors: Arc<Mutex<Vec<String>>>,
}

fn settings(dir: &Path, issuer: &str, more: &str) -> Settings {
    let text = format!(
        "identity = localhost\nplugin.choria.broker_network = true\nplugin.choria.network.listen_address = 127.0.0.1\n\
         plugin.choria.network.client_port = 0\nplugin.security.issuer.names = choria\n\
         plugin.security.issuer.choria.public = {issuer}\nplugin.security.provider = choria\n\
         plugin.security.choria.certificate = {dir}/cert.pem\nplugin.security.choria.key = {dir}/key.pem\n\
         plugin.choria.network.provisioning.client_password = s3cret\n\
         plugin.choria.network.system.user = system\nplugin.choria.network.system.password = sYst3m\n{more}\n",
        dir = dir.display()
    );
    Settings::parse(&text, Path::new("broker.conf")).unwrap()
}

impl Network {
    async fn start() -> Network {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let org = Issuer::Org(Seed::generate().unwrap());
        let config = BrokerConfig::from_settings(&settings(dir.path(), &org.public().to_hex(), "")).unwrap();
        let broker = Broker::start(config).await.unwrap();
        Network { dir, org, broker }
    }

    fn client(&self, caller: &str, change: impl FnOnce(&mut ClientClaims)) -> Credentials {
        let seed = Seed::generate().unwrap();
        let mut claims = ClientClaims::new(caller, &seed.public());
        change(&mut claims);
        let token = self.org.issue_client(claims, HOUR, unix_seconds()).unwrap();
        Credentials {
            token,
            seed: Some(seed.to_hex().to_string()),
            name: caller.into(),
            ..Credentials::default()
        }
    }

    fn server(&self, identity: &str) -> Credentials {
        let seed = Seed::generate().unwrap();
        let token =
            self.org.issue_server(ServerClaims::new(identity, &seed.public()), HOUR, unix_seconds()).unwrap();
        Credentials {
            token,
            seed: Some(seed.to_hex().to_string()),
            name: identity.into(),
            ..Credentials::default()
        }
    }

    fn waiting(&self, name: &str) -> Credentials {
        let claims = ProvisioningClaims {
            token: "t".into(),
            urls: "nats://x".into(),
            ..ProvisioningClaims::default()
        };
        let token = self.org.issue_provisioning(claims, HOUR, unix_seconds()).unwrap();
        Credentials { token, name: name.into(), ..Credentials::default() }
    }

    async fn connect(&self, credentials: Credentials) -> Result<Peer, String> {
        let ca = self.dir.path().join("cert.pem");
        let tls = client_config(&Trust::CaFile(ca), None).unwrap();
        let errors = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&errors);
        let name = credentials.name.clone();
        let options = ConnectOptions::with_auth_callback(move |nonce| {
            let credentials = credentials.clone();
            async move {
                let mut auth = Auth::new();
                auth.token = Some(credentials.token).filter(|token| !token.is_empty());
                auth.username = credentials.user;
                auth.password = credentials.password;
                auth.signature =
                    credentials.seed.map(|seed| Seed::from_hex(&seed).unwrap().sign(&nonce).to_vec());
                Ok(auth)
            }
        })
        .name(name)
        .require_tls(true)
        .tls_client_config((*tls).clone())
        .connection_timeout(PATIENCE)
        .event_callback(move |event| {
            let seen = Arc::clone(&seen);
            async move {
                if let Event::ServerError(error) = event {
                    seen.lock().unwrap().push(error.to_string());
                }
            }
        });
        let url = format!("tls://localhost:{}", self.broker.client_addr().port());
        let client = Box::pin(options.connect(url)).await.map_err(|error| error.to_string())?;
        Ok(Peer { client, errors })
    }

    async fn denied(&self, credentials: Credentials) {
        let error = self.connect(credentials).await.err().expect("the connection must be refused");
        assert!(error.contains("authorization violation"), "{error}");
    }
}

impl Network {
    /// Waits until the broker holds this many subscriptions of the connection of this name. A client's flush only empties
    /// its buffer: what another connection sends next may still overtake it.
    async fn holds_subscriptions(&self, name: &str, count: usize) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let connections = self.broker.engine().connections();
            let held: usize = connections.iter().filter(|c| c.name == name).map(|c| c.subscriptions).sum();
            if held >= count {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{name} has {held} subscriptions, not {count}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Peer {
    /// The broker says that this peer may not subscribe.
    async fn may_not_subscribe(&self, subject: &str) -> bool {
        let _refused = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.is_told_of_violation(subject).await
    }

    /// The broker says that this peer may not publish.
    async fn may_not_publish(&self, subject: &str) -> bool {
        self.client.publish(subject.to_owned(), "x".into()).await.unwrap();
        self.is_told_of_violation(subject).await
    }

    async fn is_told_of_violation(&self, subject: &str) -> bool {
        let named = format!("\"{subject}\"");
        let told = async {
            while !self.errors.lock().unwrap().iter().any(|error| error.contains(&named)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.is_ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_and_nodes_reach_each_other_and_no_more() {
    let network = Network::start().await;
    let node = network.connect(network.server("n1.example.net")).await.unwrap();
    let alice =
        network.connect(network.client("up=alice", |c| c.permissions.fleet_management = true)).await.unwrap();
    let bob = network.connect(network.client("up=bob", |_| {})).await.unwrap();

    let mut requests = node.client.subscribe("choria.node.n1.example.net").await.unwrap();
    network.holds_subscriptions("n1.example.net", 1).await;
    alice.client.publish("choria.node.n1.example.net", "hello".into()).await.unwrap();
    let request = tokio::time::timeout(PATIENCE, requests.next()).await.unwrap().unwrap();
    assert_eq!(&request.payload[..], b"hello");

    let own = format!("choria.reply.{}.>", private_network_id("up=alice"));
    let _own = alice.client.subscribe(own.clone()).await.unwrap();
    network.holds_subscriptions("up=alice", 1).await;
    assert!(bob.may_not_subscribe(&own).await, "T-087");
    for subject in ["*.reply.>", "choria.reply.*.>", ">"] {
        assert!(bob.may_not_subscribe(subject).await, "T-088 {subject}");
    }
    for subject in ["*.node.>", "*.broadcast.>"] {
        assert!(alice.may_not_subscribe(subject).await, "T-091 {subject}");
    }
    for subject in ["choria.broadcast.agent.rpcutil", "choria.node.other", "choria.submission.in.x"] {
        assert!(node.may_not_publish(subject).await, "T-090 {subject}");
    }
    for subject in ["choria.node.n1.example.net", "choria.broadcast.agent.rpcutil", "$JS.API.INFO"] {
        assert!(bob.may_not_publish(subject).await, "T-092 {subject}");
    }
    network.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitoring_answers_with_the_engines_pages_and_its_own() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let network = Network::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let more = format!("plugin.choria.stats_port = {free}");
    let settings = settings(network.dir.path(), &network.org.public().to_hex(), &more);
    let broker = Broker::start(BrokerConfig::from_settings(&settings).unwrap()).await.unwrap();
    let get = |path: &'static str| async move {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", free)).await.unwrap();
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    };
    assert!(get("/varz").await.contains("\"server_name\":\"localhost\""));
    assert!(get("/choria/").await.contains("\"identity\":\"localhost\""));
    assert!(get("/choria/prometheus").await.contains("choria_network_connections{identity=\"localhost\"} 0"));
    assert!(get("/nothing").await.starts_with("HTTP/1.1 404"));
    broker.shutdown().await;
    network.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_account_answers_who_may_ask() {
    let network = Network::start().await;
    let admin = Credentials {
        user: Some("system".into()),
        password: Some("sYst3m".into()),
        ..network.client("up=admin", |c| c.permissions.system_user = true)
    };
    let admin = network.connect(admin).await.unwrap();
    let answer = admin.client.request("$SYS.REQ.SERVER.PING", "{}".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&answer.payload).contains("\"statsz\""));
    network.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_cannot_prove_himself_is_refused() {
    let network = Network::start().await;
    let good = network.client("up=alice", |_| {});
    network.denied(Credentials { seed: None, ..good.clone() }).await;
    let other = Seed::generate().unwrap().to_hex().to_string();
    network.denied(Credentials { seed: Some(other), ..good.clone() }).await;
    network.denied(Credentials { token: String::new(), ..good.clone() }).await;
    network
        .denied(Credentials { user: Some("system".into()), password: Some("sYst3m".into()), ..good.clone() })
        .await;
    let stranger = Issuer::Org(Seed::generate().unwrap());
    let seed = Seed::generate().unwrap();
    let token =
        stranger.issue_client(ClientClaims::new("up=x", &seed.public()), HOUR, unix_seconds()).unwrap();
    network
        .denied(Credentials { token, seed: Some(seed.to_hex().to_string()), ..Credentials::default() })
        .await;
    assert!(network.connect(good).await.is_ok());
    network.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_nodes_are_kept_apart_from_the_fleet_and_from_each_other() {
    let network = Network::start().await;
    let node = network.connect(network.waiting("new1.example.net")).await.unwrap();
    let provisioner = Credentials {
        user: Some("provisioner".into()),
        password: Some("s3cret".into()),
        ..network.client("provisioner_signer", |c| c.permissions.provisioner = true)
    };
    network.denied(Credentials { password: Some("wrong".into()), ..provisioner.clone() }).await;
    network.denied(Credentials { seed: None, ..provisioner.clone() }).await;
    let provisioner = network.connect(provisioner).await.unwrap();
    let watcher =
        network.connect(network.client("up=watch", |c| c.permissions.events_viewer = true)).await.unwrap();

    let mut own = node.client.subscribe("provisioning.node.new1.example.net").await.unwrap();
    let mut events = watcher.client.subscribe("choria.lifecycle.event.>").await.unwrap();
    network.holds_subscriptions("new1.example.net", 1).await;
    network.holds_subscriptions("up=watch", 1).await;
    provisioner.client.publish("provisioning.node.new1.example.net", "configure".into()).await.unwrap();
    assert!(tokio::time::timeout(PATIENCE, own.next()).await.unwrap().is_some());

    for subject in
        ["provisioning.node.>", "provisioning.node.new2.example.net", "provisioning.broadcast.agent.other"]
    {
        assert!(node.may_not_subscribe(subject).await, "T-093 T-124 {subject}");
    }
    assert!(node.may_not_publish("choria.node.n1.example.net").await, "T-093");

    // T-129: of what a waiting node says, the fleet hears only what belongs to provisioning.
    for kind in ["startup.server", "startup.provision_mode_server"] {
        node.client.publish(format!("choria.lifecycle.event.{kind}"), "x".into()).await.unwrap();
    }
    let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!(event.subject.as_str(), "choria.lifecycle.event.startup.provision_mode_server");
    network.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_is_replaced_takes_its_sessions_along() {
    let network = Network::start().await;
    let old = network.client("up=alice", |_| {});
    let _peer = network.connect(old.clone()).await.unwrap();
    assert_eq!(network.broker.engine().connections().len(), 1);
    let both = format!("{}, {}", network.org.public().to_hex(), Seed::generate().unwrap().public().to_hex());
    let dir = network.dir.path();
    let port = "plugin.choria.network.client_port = 0";
    let reload = |issuer: &str| network.broker.reload(&settings(dir, issuer, port));
    reload(&both).unwrap();
    assert_eq!(network.broker.engine().connections().len(), 1, "a second key cuts nobody");
    reload(&Seed::generate().unwrap().public().to_hex()).unwrap();
    network.denied(old).await;
    assert!(reload("not a key").is_err());
    network.broker.shutdown().await;
}
