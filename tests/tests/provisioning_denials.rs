//! Rows of docs/spec/10 §14 about enrolment, against a running provisioner and against a running node that waits.
#![allow(clippy::large_futures)] // one future for each test, not for each connection

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use choria_host::clock;
use choria_protocol::event::LifecycleEvent;
use choria_protocol::rpc::{RpcReply, StatusCode};
use choria_tests::forge::{self, Key};
use choria_tests::request;
use choria_tests::{
    Asked, Doing, FalseNode, Liar, PROVISIONER_PASSWORD, PROVISIONING_TOKEN, Row, Stage, wait_until,
};
use serde_json::{Value, json};

/// Longest wait for a step of an enrolment.
const PATIENCE: Duration = Duration::from_secs(40);

/// How a node proves its key.
type Proof = fn(&Key, &str) -> Result<String>;

/// Plays a waiting node up to `restart` or the provisioner's last try; returns what it was asked.
async fn play(stage: &Stage, number: u8, prove: Proof) -> Result<Vec<String>> {
    let mut node = candidate(stage, &format!("t137-{number}.example.net"), [137, number]).await?;
    node.announce().await?;
    let mut asked = Vec::new();
    // the provisioner's own end is told by its log, not by silence alone
    while let Some(call) = node.asked(Duration::from_secs(6)).await? {
        let mut reply = node.honest(&call)?;
        if let Some(nonce) = call.call.data.get("nonce").and_then(Value::as_str) {
            let proof = prove(&node.key, nonce)?;
            reply.data = forge::with(reply.data, json!({"signature": proof}));
        }
        let identity = node.identity.clone();
        node.answer(&call, &identity, &reply).await?;
        asked.push(call.call.action);
        if asked.last().is_some_and(|action| action == "restart") {
            break;
        }
    }
    Ok(asked)
}

async fn candidate(stage: &Stage, identity: &str, [high, low]: [u8; 2]) -> Result<FalseNode> {
    let from = Ipv4Addr::new(127, 7, high, low);
    FalseNode::connect(stage.broker, &stage.ca, &stage.provisioning_token()?, identity, from).await
}

fn actions(asked: &[Asked]) -> Vec<&str> {
    asked.iter().map(|asked| asked.call.action.as_str()).collect()
}

const WHOLE_STORY: [&str; 5] = ["jwt", "gen25519", "inventory", "configure", "restart"];

/// Another candidate cannot hear what a node is asked; what it says in that node's name, once it learnt where to, is late.
#[tokio::test]
async fn t_128_another_candidate_answers_with_its_own_key() -> Result<()> {
    let held = Stage::shared()?;
    held.provisioner()?;
    let mut row = Row::begin(128).await?;
    let stage = Arc::clone(&row.stage);
    let identity = "t128.example.net";
    let mut attacker = candidate(&stage, "t128-attacker.example.net", [128, 2]).await?;
    let refused = attacker.connection.subscribe(&format!("provisioning.node.{identity}")).await?;
    ensure!(refused.as_deref().is_some_and(|error| error.contains("Permissions Violation")), "{refused:?}");
    let mut node = candidate(&stage, identity, [128, 1]).await?;
    node.announce().await?;
    let mut asked = Vec::new();
    while let Some(call) = node.asked(PATIENCE).await? {
        let reply = node.honest(&call)?;
        node.answer(&call, identity, &reply).await?;
        if call.call.action == "gen25519" {
            let forged = attacker.honest(&call)?;
            attacker.answer(&call, identity, &forged).await?;
        }
        let last = call.call.action == "restart";
        asked.push(call);
        if last {
            break;
        }
    }
    ensure!(actions(&asked) == WHOLE_STORY, "{:?}", actions(&asked));
    let configure = asked.iter().find(|asked| asked.call.action == "configure").context("configure")?;
    let token = configure.call.data.get("server_jwt").and_then(Value::as_str).context("a token")?;
    let token = choria_token::peek_server(token).map_err(|error| anyhow::anyhow!("{error}"))?;
    let key = token.claims().standard.public_key.clone().unwrap_or_default();
    ensure!(key == node.key.public(), "the token is for {key}");
    ensure!(attacker.asked(Duration::from_millis(200)).await?.is_none(), "the attacker was asked");
    row.saw(
        "PV for the attacker's subscription; its late answer is ignored; the token carries the node's key",
    );
    row.end().await
}

/// Answers of others, answers to other questions, and second answers change nothing.
#[tokio::test]
async fn t_133_t_134_answers_that_do_not_count() -> Result<()> {
    let held = Stage::shared()?;
    held.provisioner()?;
    let mut row = Row::begin(133).await?.also(134);
    let stage = Arc::clone(&row.stage);
    let identity = "t133.example.net";
    let mut node = candidate(&stage, identity, [133, 1]).await?;
    let mut other = candidate(&stage, "t133-other.example.net", [133, 2]).await?;
    node.announce().await?;
    let mut asked = Vec::new();
    while let Some(mut call) = node.asked(PATIENCE).await? {
        let refusal = RpcReply {
            action: call.call.action.clone(),
            statuscode: StatusCode::Aborted,
            statusmsg: "not me".into(),
            data: json!({}),
        };
        // in its own name, and by the right node for another question
        other.answer(&call, "t133-other.example.net", &refusal).await?;
        let real = std::mem::replace(&mut call.received.request.id, "0".repeat(32));
        other.answer(&call, identity, &refusal).await?;
        call.received.request.id = real;
        let reply = node.honest(&call)?;
        node.answer(&call, identity, &reply).await?;
        other.answer(&call, identity, &refusal).await?;
        let last = call.call.action == "restart";
        asked.push(call);
        if last {
            break;
        }
    }
    ensure!(actions(&asked) == WHOLE_STORY, "{:?}", actions(&asked));
    row.saw("a foreign sender, a foreign request id and a second answer are ignored; the node is enrolled");
    row.end().await
}

#[tokio::test]
async fn t_137_a_key_that_is_not_proven() -> Result<()> {
    let held = Stage::shared()?;
    held.provisioner()?;
    let mut row = Row::begin(137).await?;
    let stage = Arc::clone(&row.stage);
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
    row.saw("unsigned, old nonce, wrong key: asked again, then failed; never configured; an honest node enrols before and after");
    row.end().await
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
    let mut row = Row::on(Arc::new(Stage::start()?), 150).await?;
    let stage = Arc::clone(&row.stage);
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
            row.control.is_served().await.context("during")?;
            row.saw("status 1, nothing signed, no key replaced, one line with reason=provision_refused");
        }
        let nonce = "0011223344556677889900aabbccddee";
        let reply = provisioner.gen25519(nonce).await?;
        ensure!(reply.statuscode.is_ok(), "a good nonce is refused: {reply:?}");
        ensure!(seed().is_some() && seed() != before, "no key was made");
    }
    row.end().await
}

/// A node whose token names its organization's issuer obeys only a provisioner of that organization.
#[tokio::test]
async fn t_139_t_140_a_node_that_knows_its_issuer() -> Result<()> {
    let mut row = Row::on(Arc::new(Stage::start()?), 139).await?.also(140);
    let stage = Arc::clone(&row.stage);
    let claims = forge::provisioning(PROVISIONING_TOKEN, &format!("nats://{}", stage.broker))?;
    let knowing = json!({"extensions": {"choria": {"issuer": stage.org.public()}}});
    let identity = "t140.example.net";
    stage.waiting_node_with(identity, &forge::token(&forge::with(claims, knowing), &stage.org))?;
    let plain = "t140-plain.example.net";
    stage.waiting_node(plain)?;
    let mut provisioner = Provisioner::connect(&stage, identity).await?;
    let data = json!({"token": PROVISIONING_TOKEN});
    let ask = |caller: &str| request::request(caller, "provisioning", "choria_provision", "jwt", &data);
    let good = provisioner.caller.clone();
    let subject = format!("provisioning.node.{identity}");

    let acme = Key::generate()?;
    let foreign =
        request::Caller::new(&good.id, &good.key, forge::token(&forge::client(&good.id, &good.key)?, &acme));
    let unflagged = stage.caller(&good.id)?;
    let mut tampered = request::signed(&ask(&good.id)?, &good)?;
    tampered.request = ask(&good.id)?.to_bytes()?;
    let attempts = [
        (request::insecure(&ask(&good.id)?, &good.token)?, "sig_bad"),
        (request::signed(&ask(&good.id)?, &foreign)?, "sig_bad"),
        (tampered, "sig_bad"),
        (request::signed(&ask(&good.id)?, &unflagged)?, "permission_missing"),
    ];
    for (secure, reason) in &attempts {
        let request = secure.request()?;
        let before = stage.log(identity).matches(&format!("reason={reason}")).count();
        let limit = Duration::from_millis(700);
        let reply = request::ask(&mut provisioner.connection, &subject, &request, secure, limit).await?;
        ensure!(reply.is_none(), "answered: {reply:?}");
        wait_until(reason, PATIENCE, || {
            stage.log(identity).matches(&format!("reason={reason}")).count() == before + 1
        })
        .with_context(|| stage.log(identity))?;
        row.saw(format!("silence, reason={reason}"));
        row.control.is_served().await?;
    }
    // nobody took the lock, and the right one is heard; a node that knows nobody takes what upstream's takes
    ensure!(provisioner.ask("jwt", &json!({})).await?.statuscode.is_ok());
    let request = ask(&good.id)?;
    let secure = request::insecure(&request, &good.token)?;
    let subject = format!("provisioning.node.{plain}");
    let reply = request::ask(&mut provisioner.connection, &subject, &request, &secure, PATIENCE).await?;
    ensure!(reply.as_ref().is_some_and(|reply| reply.statuscode.is_ok()), "{reply:?}");
    row.saw("the provisioner is answered; without the extension an unsigned request is answered");
    row.end().await
}

/// In the provisioning account: no subject of another node, with whatever name one came.
#[tokio::test]
async fn t_125_t_164_candidates_keep_to_themselves() -> Result<()> {
    let mut row = Row::begin(164).await?;
    let token = row.stage.provisioning_token()?;
    for subject in ["provisioning.node.n2.example.net", "provisioning.broadcast.agent.choria_provision"] {
        row.may_not(&token, None, Doing::Publish(subject)).await?;
    }
    let mut row = row.then(125).await?;
    for name in ["", "*", "a b", "a.>", "../x"] {
        let (_, mut connection) = row.attacker().await?;
        let hello = connection.hello(name, &token, None);
        connection.connect(&hello).await?;
        connection.is_admitted().await?;
        for subject in ["provisioning.node.n2.example.net", "provisioning.node.*", "provisioning.node.>"] {
            let answer = connection.subscribe(subject).await?;
            ensure!(
                answer.is_some_and(|error| error.contains("Permissions Violation")),
                "{name:?} {subject}"
            );
        }
        ensure!(
            connection.subscribe("provisioning.broadcast.agent.choria_provision").await?.is_none(),
            "{name:?}"
        );
        row.saw("no node subject, broadcasts are heard");
    }
    row.end().await
}

/// Values and names that would write more than one line, or elsewhere, are refused and change no file.
#[tokio::test]
async fn t_145_t_146_t_147_configurations_that_reach_further() -> Result<()> {
    let mut row = Row::on(Arc::new(Stage::start()?), 145).await?.also(146).also(147);
    let stage = Arc::clone(&row.stage);
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
        config(json!({"loglevel": "x".repeat(300 * 1024)})),
        policies("../x.policy"),
        policies("a/b.policy"),
        policies("x.rego"),
        rego("../x.rego"),
        rego("a/b.rego"),
        rego(".rego"),
        rego("x.policy"),
    ] {
        let reply = provisioner.ask("configure", &data).await?;
        let shown: String = data.to_string().chars().take(100).collect();
        ensure!(!reply.statuscode.is_ok(), "{shown}: {reply:?}");
        ensure!(files(&folder)? == before, "{shown} changed something");
        row.control.is_served().await.context("during")?;
        row.saw(format!("status {:?}, no file changed", reply.statuscode));
    }
    ensure!(!stage.path("x.policy").exists() && !stage.path("x.rego").exists(), "written elsewhere");
    row.end().await
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
    let mut row = Row::begin(129).await?.also(130);
    let stage = Arc::clone(&row.stage);
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
            row.saw("an event about somebody else is not heard; the candidate's own startup event is");
            return row.end().await;
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

/// docs/spec/10 §9: what a waiting node sends too fast is read later, and its events are few and small.
#[tokio::test]
async fn a_waiting_node_publishes_no_faster_than_it_needs_to() -> Result<()> {
    let stage = Stage::shared()?;
    let identity = "paced.example.net";
    let mut node = candidate(&stage, identity, [9, 1]).await?;
    let began = std::time::Instant::now();
    let reply = format!("PUB provisioning.reply.{} 2\r\n{{}}\r\n", "0".repeat(32));
    node.connection.say(&format!("{}PING\r\n", reply.repeat(300))).await?;
    ensure!(node.connection.settled().await?.is_none(), "refused instead of read later");
    let took = began.elapsed();
    ensure!(took >= Duration::from_millis(1_900), "200 at once and 50 a second, so 2 s: {took:?}");
    let event = format!("PUB choria.lifecycle.event.startup.{identity} 2\r\n{{}}\r\n");
    node.connection.say(&format!("{}PING\r\n", event.repeat(20))).await?;
    let refused = node.connection.settled().await?.unwrap_or_default();
    ensure!(refused.contains("Permissions Violation") && refused.contains("too often"), "{refused:?}");
    let large = vec![b' '; 4097];
    let refused = node.connection.publish("choria.lifecycle.event.startup.x", &large).await?;
    ensure!(refused.is_some_and(|error| error.contains("too large")), "a large event was taken");
    wait_until("both refusals are logged", Duration::from_secs(10), || {
        let log = stage.log("broker");
        log.lines().any(|line| line.contains("reason=limit") && line.contains(identity))
    })
}
