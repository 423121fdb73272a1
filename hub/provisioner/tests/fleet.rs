//! A whole provisioner against a real broker engine, and nodes that answer as nodes do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail where it stands

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use choria_client::{ClientConfig, TlsMode};
use choria_host::{Settings, clock, random};
use choria_protocol::event::LifecycleEvent;
use choria_protocol::rpc::{RpcReply, RpcRequest, StatusCode};
use choria_protocol::{Headers, Reply, SecureReply, SecureRequest, Transport};
use choria_provisioner::{Control, ProvisionerConfig, Surround, run_with};
use choria_token::claims::ProvisioningClaims;
use choria_token::{ClientClaims, Issuer, Key, PublicKey, Seed, Verifier};
use nats_engine::{AccountConfig, Engine, EngineConfig, InProcess, ListenerHandle, Open};
use serde_json::{Value, json};

const CHT: &str = "s3cret";
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A broker, keys, and a provisioner that runs.
struct Site {
    engine: Engine,
    _listener: ListenerHandle,
    directory: tempfile::TempDir,
    organization: PublicKey,
    provisioning_jwt: String,
    control: Control,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    running: tokio::task::JoinHandle<Result<(), choria_provisioner::ProvisionerError>>,
    fleet: Fleet,
}

/// What the nodes were told, for the test to look at.
#[derive(Clone, Default)]
struct Fleet(Arc<Mutex<BTreeMap<String, Told>>>);

#[derive(Clone, Debug, Default)]
struct Told {
    configured: u32,
    restarted: u32,
    server_jwt: String,
    config: Value,
    public_key: String,
}

impl Fleet {
    fn restarted(&self) -> usize {
        self.0.lock().unwrap().values().filter(|told| told.restarted > 0).count()
    }
}

fn write(directory: &Path, file: &str, text: &str) -> PathBuf {
    let path = directory.join(file);
    std::fs::write(&path, text).unwrap();
    path
}

impl Site {
    async fn start() -> Site {
        let engine = Engine::new(
            EngineConfig::default(),
            vec![AccountConfig::named("provisioning")],
            Arc::new(Open::new("provisioning")),
        )
        .unwrap();
        let listener = engine.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();

        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let now = clock::unix_seconds();
        let seed = Seed::generate().unwrap();
        let organization = seed.public();
        let issuer = Issuer::Org(seed);
        let (signing, connecting) = (Seed::generate().unwrap(), Seed::generate().unwrap());
        let chain = issuer
            .issue_chain_issuer(ClientClaims::new("provisioner_issuer", &signing.public()), YEAR, now)
            .unwrap();
        let mut claims = ClientClaims::new("provisioner_signer", &connecting.public());
        claims.permissions.provisioner = true;
        let token = issuer.issue_client(claims, YEAR, now).unwrap();
        write(root, "signing.seed", &signing.to_hex());
        write(root, "signing.jwt", &chain);
        let seed_file = write(root, "connecting.seed", &connecting.to_hex());
        let token_file = write(root, "connecting.jwt", &token);
        let provisioning_jwt = issuer
            .issue_provisioning(
                ProvisioningClaims {
                    token: CHT.into(),
                    urls: "nats://127.0.0.1:4222".into(),
                    default: true,
                    v2: true,
                    ..Default::default()
                },
                YEAR,
                now,
            )
            .unwrap();
        let yaml = format!(
            "jwt_verify_cert: {}
interval: 1m
token: {CHT}
broker_provisioning_password: pass
jwt_signing_key: signing.seed
jwt_signing_token: signing.jwt
helper: builtin
features: {{ jwt: true, ed25519: true }}
builtin:
  configuration:
    role: '{{fact:role}}'
  match:
    - identity: '*.example.net'
",
            organization.to_hex()
        );
        let config = ProvisionerConfig::load(&write(root, "choria-provisioner.yaml", &yaml)).unwrap();
        let text = format!(
            "identity = provisioner.example.net
plugin.security.provider = choria
plugin.security.choria.token_file = {}
plugin.security.choria.seed_file = {}
plugin.choria.middleware_hosts = nats://{}
",
            token_file.display(),
            seed_file.display(),
            listener.local_addr()
        );
        let settings = Settings::parse(&text, Path::new("client.conf")).unwrap();
        let mut client = ClientConfig::from_settings(settings).unwrap();
        // the engine under test has no certificate; everything else is as in a network
        client.tls = TlsMode::Off;

        let control = Control::default();
        let surround = Surround { presence: None, control: control.clone() };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            Box::pin(run_with(config, client, surround, async move { drop(stopped.await) })).await
        });
        let site = Site {
            engine,
            _listener: listener,
            directory,
            organization,
            provisioning_jwt,
            control,
            stop: Some(stop),
            running,
            fleet: Fleet::default(),
        };
        let up = site.until(Duration::from_secs(10), || site.control.metrics().is_some()).await;
        assert!(up, "the provisioner starts");
        site
    }

    fn connection(&self) -> InProcess {
        self.engine.connect_in_process("provisioning", "nodes").unwrap()
    }

    /// A node that listens on its name, and on discovery.
    fn node(&self, name: &str, answers_as: &str) {
        let connection = self.connection();
        let mut direct = connection.subscribe(&format!("provisioning.node.{name}")).unwrap();
        let mut discovery = connection.subscribe("provisioning.broadcast.agent.discovery").unwrap();
        let (fleet, jwt) = (self.fleet.clone(), self.provisioning_jwt.clone());
        let (name, answers_as) = (name.to_string(), answers_as.to_string());
        tokio::spawn(async move {
            let seed = Seed::generate().unwrap();
            loop {
                let message = tokio::select! {
                    message = direct.next() => message,
                    message = discovery.next() => message,
                };
                let Some(message) = message else { return };
                let transport = Transport::parse(&message.payload).unwrap();
                let secure = SecureRequest::parse(&transport.data).unwrap();
                let request = secure.request().unwrap();
                assert_eq!(request.caller, "provisioner_signer");
                let body = if request.agent == "discovery" {
                    b"pong".to_vec()
                } else {
                    let call = RpcRequest::parse(&request.message).unwrap();
                    let data = answer(&name, &call, &seed, &jwt, &fleet);
                    RpcReply { action: call.action, statuscode: StatusCode::Ok, statusmsg: "OK".into(), data }
                        .to_bytes()
                        .unwrap()
                };
                let reply = Reply {
                    message: body,
                    request: request.id,
                    sender: answers_as.clone(),
                    agent: request.agent,
                    time: clock::unix_nanos(),
                };
                let secure = SecureReply { reply: reply.to_bytes().unwrap(), signature: None, sender: None };
                let headers = Headers { sender: answers_as.clone(), ..Headers::default() };
                let bytes = Transport { data: secure.to_bytes().unwrap(), headers }.to_bytes().unwrap();
                connection.publish(&transport.headers.reply, &bytes).unwrap();
            }
        });
    }

    fn announce(&self, name: &str) {
        let event = LifecycleEvent::new(
            "startup",
            "provision_mode_server",
            name,
            clock::unix_seconds(),
            random::array(),
        )
        .with("version", "0.99.0");
        self.connection().publish(&event.subject(), &event.to_bytes().unwrap()).unwrap();
    }

    async fn until(&self, limit: Duration, yes: impl Fn() -> bool) -> bool {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if yes() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        yes()
    }

    fn metric(&self, name: &str) -> f64 {
        let page = self.control.metrics().unwrap();
        let start = format!("choria_provisioner_{name}{{");
        let line = page.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
        line.rsplit(' ').next().unwrap().parse().unwrap_or(0.0)
    }

    async fn end(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(Duration::from_secs(30), self.running).await.unwrap().unwrap().unwrap();
        drop(self.directory);
    }
}

fn answer(name: &str, call: &RpcRequest, seed: &Seed, jwt: &str, fleet: &Fleet) -> Value {
    let mut told = fleet.0.lock().unwrap();
    let told = told.entry(name.to_string()).or_default();
    if call.agent == "choria_provision" {
        assert_eq!(call.data["token"], CHT);
    }
    match call.action.as_str() {
        "jwt" => json!({ "jwt": jwt, "ecdh_public": "" }),
        "gen25519" => {
            told.public_key = seed.public().to_hex();
            let signature = seed.sign(call.data["nonce"].as_str().unwrap().as_bytes());
            json!({ "public_key": told.public_key, "directory": "/etc/choria", "signature": hex::encode(signature) })
        }
        "inventory" => json!({ "facts": {"role": "web"}, "version": "0.99.0", "upgradable": false }),
        "configure" => {
            told.configured += 1;
            told.server_jwt = call.data["server_jwt"].as_str().unwrap().to_string();
            told.config = serde_json::from_str(call.data["config"].as_str().unwrap()).unwrap();
            json!({ "message": "Wrote" })
        }
        "restart" => {
            told.restarted += 1;
            json!({ "message": "Restarting" })
        }
        other => panic!("unexpected action {other}"),
    }
}

#[tokio::test(flavor = "current_thread")]
async fn nodes_become_members() {
    let site = Site::start().await;
    let names: BTreeSet<String> = (0..60).map(|n| format!("n{n}.example.net")).collect();
    for name in &names {
        site.node(name, name);
        site.announce(name);
        site.announce(name);
    }
    assert!(
        site.until(Duration::from_secs(30), || site.fleet.restarted() == 60).await,
        "{}",
        site.fleet.restarted()
    );
    assert!(site.until(Duration::from_secs(5), || site.metric("provisioned") == 60.0).await);

    let verifier = Verifier::single(Key::Ed25519(site.organization));
    for (name, told) in site.fleet.0.lock().unwrap().iter() {
        assert!(names.contains(name));
        assert_eq!((told.configured, told.restarted), (1, 1), "{name}");
        let token = verifier.verify_server(&told.server_jwt, clock::unix_seconds()).unwrap();
        assert_eq!(&token.claims().identity, name);
        assert_eq!(token.claims().standard.public_key.as_deref(), Some(told.public_key.as_str()));
        assert!(token.chain_issuer().is_some());
        assert_eq!(told.config["role"], "web");
        assert_eq!(told.config["plugin.choria.server.provision"], "false");
    }
    assert_eq!(site.metric("event_discovered"), 60.0);
    assert_eq!(site.metric("provision_errors"), 0.0);
    site.end().await;
}

#[tokio::test(flavor = "current_thread")]
async fn pausing_stops_and_resuming_finds_by_broadcast() {
    let site = Site::start().await;
    site.control.pause();
    site.node("quiet.example.net", "quiet.example.net");
    site.announce("quiet.example.net");
    assert!(!site.until(Duration::from_millis(700), || site.fleet.restarted() > 0).await);
    assert_eq!(site.metric("paused"), 1.0);
    // the pause must be seen before it ends, or it never was one
    tokio::time::sleep(Duration::from_millis(600)).await;
    site.control.resume();
    assert!(site.until(Duration::from_secs(15), || site.fleet.restarted() == 1).await);
    assert_eq!(site.metric("discovered"), 1.0);
    site.end().await;
}

#[tokio::test(flavor = "current_thread")]
async fn t_152_invented_names_do_not_hold_up_good_nodes() {
    let site = Site::start().await;
    let began = Instant::now();
    for number in 0..10_000 {
        site.announce(&format!("ghost{number}.example.net"));
    }
    for name in ["*", "a b", "../x", "broker"] {
        site.announce(name);
    }
    for number in 0..20 {
        let name = format!("good{number}.example.net");
        site.node(&name, &name);
        site.announce(&name);
    }
    assert!(
        site.until(Duration::from_secs(30), || site.fleet.restarted() == 20).await,
        "{}",
        site.fleet.restarted()
    );
    let took = began.elapsed().as_secs();
    site.end().await;
    choria_rows::row(
        152,
        "10,000 invented names and four that are none before 20 good nodes",
        format!("all 20 enrolled after {took} s"),
    );
}

#[tokio::test(flavor = "current_thread")]
async fn t_133_an_answer_of_another_node_does_not_count() {
    let site = Site::start().await;
    site.node("victim.example.net", "attacker.example.net");
    site.announce("victim.example.net");
    assert!(site.until(Duration::from_secs(10), || site.metric("unexpected_replies") >= 1.0).await);
    assert_eq!(site.fleet.0.lock().unwrap().get("victim.example.net").map_or(0, |told| told.configured), 0);
    // an end is asked for while the node still waits for its answer
    let started = Instant::now();
    site.end().await;
    assert!(started.elapsed() < Duration::from_secs(12));
    choria_rows::row(
        133,
        "the attacker answers what the victim was asked, in its own name",
        "counted as unexpected, never configured",
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_new_configuration_is_used_and_a_bad_one_is_not() {
    let site = Site::start().await;
    let path = site.directory.path().join("choria-provisioner.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("interval: 1m", "interval: soon")).unwrap();
    site.control.reload();
    std::fs::write(&path, text.replace("{fact:role}", "changed")).unwrap();
    site.control.reload();
    site.node("n1.example.net", "n1.example.net");
    site.announce("n1.example.net");
    assert!(site.until(Duration::from_secs(15), || site.fleet.restarted() == 1).await);
    assert_eq!(site.fleet.0.lock().unwrap()["n1.example.net"].config["role"], "changed");
    site.end().await;
}

/// How fast it can be with nodes that answer at once: `cargo test --release -p choria-provisioner --test fleet -- --ignored --nocapture`
#[tokio::test(flavor = "current_thread")]
#[ignore = "a measurement"]
async fn throughput() {
    let site = Site::start().await;
    let count = 2000;
    for number in 0..count {
        let name = format!("n{number}.example.net");
        site.node(&name, &name);
    }
    let started = Instant::now();
    for number in 0..count {
        site.announce(&format!("n{number}.example.net"));
    }
    assert!(site.until(Duration::from_secs(120), || site.fleet.restarted() == count).await);
    let took = started.elapsed();
    println!("{count} nodes in {took:?}: {:.0} a minute", count as f64 * 60.0 / took.as_secs_f64());
    site.end().await;
}
