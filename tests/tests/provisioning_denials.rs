//! Rows of docs/spec/10 §14 about enrolment, against a running provisioner and against a running node that waits.
#![allow(clippy::large_futures)] // one future for each test, not for each connection

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use choria_host::clock;
use choria_protocol::event::LifecycleEvent;
use choria_protocol::rpc::{RpcReply, RpcRequest, StatusCode};
use choria_tests::forge::{self, Key};
use choria_tests::request::{self, Received};
use choria_tests::{Liar, PROVISIONER_PASSWORD, PROVISIONING_TOKEN, Stage};
use serde_json::{Value, json};

/// Longest wait for a step of an enrolment.
const PATIENCE: Duration = Duration::from_secs(40);

/// How a node proves its key.
type Proof = fn(&Key, &str) -> Result<String>;

/// Plays a waiting node up to `configure` or the provisioner's last try; returns what it was asked.
async fn play(stage: &Stage, number: u8, prove: Proof) -> Result<Vec<String>> {
    let identity = format!("t137-{number}.example.net");
    let jwt = stage.provisioning_token()?;
    let key = Key::generate()?;
    let mut node = stage.dial(Ipv4Addr::new(127, 7, 137, number)).await?;
    let hello = node.hello(&identity, &jwt, None);
    node.connect(&hello).await?;
    node.is_admitted().await?;
    let refused = node.subscribe(&format!("provisioning.node.{identity}")).await?;
    ensure!(refused.is_none(), "{refused:?}");
    let started = LifecycleEvent::new(
        "startup",
        "provision_mode_server",
        &identity,
        clock::unix_seconds(),
        forge::random()?,
    )
    .with("version", "0.99.0");
    node.publish(&started.subject(), &started.to_bytes()?).await?;
    let mut asked = Vec::new();
    // the provisioner's own end is told by its log, not by silence alone
    while let Some(message) = node.message(Duration::from_secs(6)).await? {
        let received = Received::parse(&message.payload)?;
        let call = RpcRequest::parse(&received.request.message)?;
        asked.push(call.action.clone());
        let data = match call.action.as_str() {
            "jwt" => json!({"jwt": jwt, "ecdh_public": ""}),
            "gen25519" => {
                let nonce = call.data.get("nonce").and_then(Value::as_str).context("no nonce")?;
                json!({"public_key": key.public(), "directory": "/etc/choria", "signature": prove(&key, nonce)?})
            }
            "inventory" => json!({"facts": {}, "version": "0.99.0", "upgradable": false}),
            _ => json!({"message": "done"}),
        };
        let reply = RpcReply {
            action: call.action.clone(),
            statuscode: StatusCode::Ok,
            statusmsg: "OK".into(),
            data,
        };
        received.answer(&mut node, &identity, reply.to_bytes()?).await?;
        if call.action == "restart" {
            break;
        }
    }
    Ok(asked)
}

#[tokio::test]
async fn t_137_a_key_that_is_not_proven() -> Result<()> {
    let stage = Stage::shared()?;
    let mut control = stage.control().await?;
    control.is_served().await.context("before")?;
    stage.provisioner()?;
    let honest: Proof = |key, nonce| Ok(hex::encode(key.sign(nonce.as_bytes())));
    let asked = play(&stage, 1, honest).await?;
    ensure!(asked == ["jwt", "gen25519", "inventory", "configure", "restart"], "{asked:?}");

    let unsigned: Proof = |_, _| Ok(String::new());
    let old_nonce: Proof = |key, _| Ok(hex::encode(key.sign(b"00112233445566778899aabbccddeeff")));
    let wrong_key: Proof = |_, nonce| Ok(hex::encode(Key::generate()?.sign(nonce.as_bytes())));
    let (first, second, third) =
        tokio::join!(play(&stage, 2, unsigned), play(&stage, 3, old_nonce), play(&stage, 4, wrong_key));
    for (number, asked) in [(2, first?), (3, second?), (4, third?)] {
        let identity = format!("t137-{number}.example.net");
        ensure!(asked.iter().any(|action| action == "gen25519"), "{identity} was asked {asked:?}");
        ensure!(!asked.iter().any(|action| action == "configure"), "{identity} was enrolled: {asked:?}");
        let reason = stage.one_reason("provisioner", &identity)?;
        ensure!(reason == "failed", "{identity}: {reason}");
    }
    ensure!(stage.log("provisioner").contains("did not prove its key"), "{}", stage.log("provisioner"));
    let asked = play(&stage, 5, honest).await?;
    ensure!(asked.last().is_some_and(|last| last == "restart"), "after: {asked:?}");
    control.is_served().await.context("after")
}

/// A connection in the provisioning account, as its provisioner.
struct Provisioner {
    caller: request::Caller,
    connection: Liar,
    node: String,
}

impl Provisioner {
    async fn connect(stage: &Stage, node: &str) -> Result<Provisioner> {
        let caller = stage.provisioner_caller()?;
        let mut connection = stage.dial(Ipv4Addr::new(127, 7, 150, 1)).await?;
        let hello = forge::with(
            connection.hello("provisioner", &caller.token, Some(&caller.key)),
            json!({"user": "provisioner", "pass": PROVISIONER_PASSWORD}),
        );
        connection.connect(&hello).await?;
        connection.is_admitted().await?;
        connection.subscribe(&caller.inbox("provisioning")).await?;
        Ok(Provisioner { caller, connection, node: node.to_owned() })
    }

    async fn gen25519(&mut self, nonce: &str) -> Result<RpcReply> {
        self.ask("gen25519", &json!({"nonce": nonce})).await
    }

    async fn ask(&mut self, action: &str, data: &Value) -> Result<RpcReply> {
        let data = forge::with(data.clone(), json!({"token": PROVISIONING_TOKEN}));
        let until = tokio::time::Instant::now() + PATIENCE;
        let subject = format!("provisioning.node.{}", self.node);
        while tokio::time::Instant::now() < until {
            let request =
                request::request(&self.caller.id, "provisioning", "choria_provision", action, &data)?;
            let secure = request::signed(&request, &self.caller)?;
            let limit = Duration::from_secs(3);
            let reply = request::ask(&mut self.connection, &subject, &request, &secure, limit).await?;
            if let Some(reply) = reply {
                return Ok(reply);
            }
        }
        bail!("{} does not answer", self.node)
    }
}

#[tokio::test]
async fn t_150_nonces_that_are_more_than_that() -> Result<()> {
    // alone: another test's provisioner would enrol the node
    let stage = Stage::start()?;
    let mut control = stage.control().await?;
    control.is_served().await.context("before")?;
    let identity = "t150.example.net";
    let folder = stage.waiting_node(identity)?;
    let mut provisioner = Provisioner::connect(&stage, identity).await?;
    let seed = || std::fs::read_to_string(folder.join("server.seed")).ok();
    let long = "a".repeat(65);
    let bad = ["eyJh.eyJi", "{\"a\":1}", long.as_str(), "with spaces in it", "short", ""];
    for round in 0..2 {
        let before = seed();
        ensure!(before.is_none() == (round == 0), "round {round}");
        for nonce in bad {
            let refusals = refusals(&stage.log(identity));
            let reply = provisioner.gen25519(nonce).await?;
            ensure!(reply.statuscode == StatusCode::Aborted, "{nonce:?}: {reply:?}");
            ensure!(reply.data.get("signature").is_none(), "{nonce:?} was signed: {reply:?}");
            ensure!(seed() == before, "the key was replaced for {nonce:?}");
            ensure!(refusals + 1 == self::refusals(&stage.log(identity)), "{}", stage.log(identity));
            control.is_served().await.context("during")?;
        }
        let nonce = "0011223344556677889900aabbccddee";
        let reply = provisioner.gen25519(nonce).await?;
        ensure!(reply.statuscode.is_ok(), "a good nonce is refused: {reply:?}");
        ensure!(seed().is_some() && seed() != before, "no key was made");
    }
    control.is_served().await.context("after")
}

/// Values and names that would write more than one line, or elsewhere, are refused and change no file.
#[tokio::test]
async fn t_145_t_146_configurations_that_reach_further() -> Result<()> {
    let stage = Stage::start()?;
    let mut control = stage.control().await?;
    let identity = "t145.example.net";
    let folder = stage.waiting_node(identity)?;
    let mut provisioner = Provisioner::connect(&stage, identity).await?;
    provisioner.gen25519("0011223344556677889900aabbccddee").await?;
    let before = files(&folder)?;
    let good = json!({"plugin.choria.server.provision": "false"}).to_string();
    let config = |value: Value| json!({"config": value.to_string()});
    let policies = |name: &str| json!({"config": good, "action_policies": {name: "policy default deny\n"}});
    let rego = |name: &str| json!({"config": good, "opa_policies": {name: "package io.choria.aaasvc\n"}});
    for data in [
        config(json!({"loglevel": "info\nplugin.choria.server.provision=1"})),
        config(json!({"a=b": "1"})),
        config(json!({"a\r": "1"})),
        config(json!({"a\u{0}b": "1"})),
        config(json!({"loglevel": 7})),
        config(json!({"loglevel": {"a": "b"}})),
        config(json!(["loglevel"])),
        policies("../x.policy"),
        policies("a/b.policy"),
        policies("x.rego"),
        rego("../x.rego"),
        rego("a/b.rego"),
        rego(".rego"),
        rego("x.policy"),
    ] {
        let reply = provisioner.ask("configure", &data).await?;
        ensure!(!reply.statuscode.is_ok(), "{data}: {reply:?}");
        ensure!(files(&folder)? == before, "{data} changed {:?}", files(&folder)?);
        control.is_served().await.context("during")?;
    }
    ensure!(!stage.path("x.policy").exists() && !stage.path("x.rego").exists(), "written elsewhere");
    stage.kept_secrets()
}

/// Files below a folder with their content.
fn files(folder: &std::path::Path) -> Result<std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            let bytes = std::fs::read(&path)?;
            found.insert(path, bytes);
        }
    }
    Ok(found)
}

/// What a candidate says about others stays where it is; what announces itself is heard by the fleet.
#[tokio::test]
async fn t_129_t_130_events_of_candidates() -> Result<()> {
    let stage = Stage::shared()?;
    let watcher = stage.caller_with("up=t129", json!({"permissions": {"events_viewer": true}}))?;
    let mut watching = stage.connected(&watcher, Ipv4Addr::new(127, 7, 129, 1)).await?;
    ensure!(watching.subscribe("choria.lifecycle.event.>").await?.is_none(), "events may be viewed");
    let identity = "t129.example.net";
    let mut candidate = stage.dial(Ipv4Addr::new(127, 7, 129, 2)).await?;
    let hello = candidate.hello(identity, &stage.provisioning_token()?, None);
    candidate.connect(&hello).await?;
    candidate.is_admitted().await?;
    for (kind, component, who) in [
        ("shutdown", "server", "victim.example.net"),
        ("startup", "server", "victim.example.net"),
        ("startup", "provision_mode_server", identity),
    ] {
        let event = LifecycleEvent::new(kind, component, who, clock::unix_seconds(), forge::random()?)
            .with("version", "0.99.0");
        candidate.publish(&event.subject(), &event.to_bytes()?).await?;
    }
    loop {
        let message =
            watching.message(Duration::from_secs(10)).await?.context("the startup event is lost")?;
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        if payload.contains(identity) {
            ensure!(message.subject == "choria.lifecycle.event.startup.provision_mode_server", "{message:?}");
            return stage.kept_secrets();
        }
        ensure!(
            !payload.contains("victim.example.net"),
            "a candidate's event about another reached the fleet: {payload}"
        );
    }
}

fn refusals(log: &str) -> usize {
    log.lines().filter(|line| line.contains("reason=provision_refused")).count()
}
