//! More rows of docs/spec/10 §14 about who gets in, and what those who got in may not do.
#![allow(clippy::large_futures)] // a test has few of them

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_tests::forge::{self, Key};
use choria_tests::{Doing, PROVISIONER_PASSWORD, PROVISIONING_TOKEN, Row, Stage};
use serde_json::{Value, json};

#[tokio::test]
async fn t_010_the_public_key_as_a_shared_secret() -> Result<()> {
    let mut row = Row::begin(10).await?;
    let holder = Key::generate()?;
    let claims = forge::client("up=t010", &holder)?;
    let public = hex::decode(row.stage.org.public()).map_err(|error| anyhow::anyhow!("{error}"))?;
    for secret in [public, row.stage.org.public().into_bytes()] {
        let token = forge::token_with_public_secret(&claims, &secret);
        row.refused(&token, Some(&holder), "alg_refused").await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_014_a_token_of_two_kinds() -> Result<()> {
    let mut row = Row::begin(14).await?;
    let holder = Key::generate()?;
    let claims = forge::with(forge::client("up=t014", &holder)?, json!({"sub": "choria_provisioning"}));
    let token = forge::token(&claims, &row.stage.org);
    row.refused(&token, None, "kind_mismatch").await?;
    row.refused(&token, Some(&holder), "kind_mismatch").await?;
    row.end().await
}

#[tokio::test]
async fn t_015_t_016_claims_that_can_be_read_in_two_ways() -> Result<()> {
    let mut row = Row::begin(15).await?.also(16);
    let holder = Key::generate()?;
    let claims = forge::client("up=t015", &holder)?.to_string();
    let open = claims.strip_suffix('}').context("an object")?;
    for more in
        [r#""ou":"acme""#, r#""ou":"choria""#, r#""Permissions":{"org_admin":true}"#, r#""OU":"acme""#]
    {
        let token = forge::token_of_text(&format!("{open},{more}}}"), &row.stage.org);
        row.refused(&token, Some(&holder), "token_malformed").await.with_context(|| more.to_owned())?;
    }
    row.end().await
}

/// What user `provisioner` sends beside its token.
fn as_provisioner(password: &str) -> Value {
    json!({"user": "provisioner", "pass": password})
}

#[tokio::test]
async fn t_038_t_039_a_provisioner_that_proves_nothing() -> Result<()> {
    let mut row = Row::begin(38).await?;
    let provisioner = row.stage.provisioner_caller()?;
    let good = as_provisioner(PROVISIONER_PASSWORD);
    row.refused_with(&provisioner.token, None, good.clone(), &["nonce_missing"]).await?;
    let node = Key::generate()?;
    row.refused_with(&provisioner.token, Some(&node), good.clone(), &["nonce_bad"]).await?;
    row.end().await?;

    // the compatibility switch admits old provisioners, and still nobody who signs with another key
    let setting = "plugin.choria.network.provisioning.require_signature = false";
    let mut row = Row::on(Arc::new(Stage::with_broker_settings(setting)?), 39).await?;
    let provisioner = row.stage.provisioner_caller()?;
    row.refused_with(&provisioner.token, Some(&node), good.clone(), &["nonce_bad"]).await?;
    let (name, mut old) = row.attacker().await?;
    let hello = forge::with(old.hello(&name, &provisioner.token, None), good);
    old.connect(&hello).await?;
    old.is_admitted().await?;
    let log = row.stage.log("broker");
    let warned = |line: &&str| line.contains(&name) && line.contains("require_signature = false");
    ensure!(log.lines().filter(warned).count() == 1, "{log}");
    row.end().await
}

#[tokio::test]
async fn t_040_a_wrong_password() -> Result<()> {
    let mut row = Row::begin(40).await?;
    let provisioner = row.stage.provisioner_caller()?;
    let prefix = PROVISIONER_PASSWORD.get(..10).unwrap_or_default();
    for password in ["wrong", "", prefix] {
        let more = as_provisioner(password);
        row.refused_with(&provisioner.token, Some(&provisioner.key), more, &["password_bad"]).await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_041_a_client_that_calls_itself_provisioner() -> Result<()> {
    let mut row = Row::begin(41).await?;
    let client = row.stage.caller("up=t041")?;
    let more = as_provisioner(PROVISIONER_PASSWORD);
    row.refused_with(&client.token, Some(&client.key), more, &["permission_missing"]).await?;
    row.end().await
}

#[tokio::test]
async fn t_062_a_token_in_the_wrong_place() -> Result<()> {
    let mut row = Row::begin(62).await?;
    let client = row.stage.caller("up=t062")?;
    row.refused_with("", Some(&client.key), json!({"jwt": client.token}), &["no_credentials"]).await?;
    row.end().await
}

/// Whatever is wrong, a peer hears the same bytes: `is_refused` compares them.
#[tokio::test]
async fn t_066_all_refusals_sound_alike() -> Result<()> {
    let mut row = Row::begin(66).await?;
    let holder = Key::generate()?;
    let good = forge::client("up=t066", &holder)?;
    let org = row.stage.org.clone();
    let changed = |changes: Value| forge::token(&forge::with(good.clone(), changes), &org);
    let good = forge::token(&good, &org);
    let tokens = [
        changed(json!({"exp": 1})),
        changed(json!({"nbf": 4_000_000_000_u64})),
        changed(json!({"ou": "acme"})),
        changed(json!({"ou": null})),
        changed(json!({"public_key": "00"})),
        changed(json!({"public_key": null})),
        changed(json!({"purpose": "other"})),
        changed(json!({"callerid": ""})),
        changed(json!({"callerid": "a b"})),
        changed(json!({"iss": "C-x.y", "tcs": "z"})),
        changed(json!({"permissions": "all"})),
        forge::token(&json!({}), &org),
        format!("{good}x"),
        good.replacen('.', "..", 1),
        "a.b.c".into(),
        ".".repeat(6),
        "x".repeat(4096),
    ];
    for (number, token) in tokens.iter().enumerate() {
        let (_, mut attacker) = row.attacker().await?;
        let hello = attacker.hello("t066", token, Some(&holder));
        attacker.connect(&hello).await?;
        attacker.is_refused().await.with_context(|| format!("token {number}"))?;
    }
    for (key, more) in
        [(None, json!({})), (Some(Key::generate()?), json!({})), (Some(holder), json!({"account": "system"}))]
    {
        let (_, mut attacker) = row.attacker().await?;
        let hello = forge::with(attacker.hello("t066", &good, key.as_ref()), more);
        attacker.connect(&hello).await?;
        attacker.is_refused().await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_067_a_connect_without_end() -> Result<()> {
    let mut row = Row::begin(67).await?;
    for size in [64 * 1024 + 1, 10 * 1024 * 1024] {
        let (_, mut attacker) = row.attacker().await?;
        let (_, before) = row.stage.held_by("broker")?;
        // the broker hangs up before all is written
        drop(attacker.say(&format!("CONNECT {{\"name\":\"{}", "x".repeat(size))).await);
        // behind 10 MiB that nobody reads the answer may be lost; the log has it
        let answer = attacker.last_words().await.unwrap_or_default();
        let lost = size > 1024 * 1024 && answer.is_empty();
        ensure!(lost || answer == "-ERR 'maximum control line exceeded'\r\n", "{answer:?}");
        row.saw(if lost { "closed" } else { answer.trim_end() });
        let (_, after) = row.stage.held_by("broker")?;
        ensure!(after < before + 8 * 1024, "{size} bytes made {before} KiB {after} KiB");
        row.control.is_served().await?;
    }
    let log = row.stage.log("broker");
    let ours = |line: &&str| line.contains("127.7.67.") && line.contains("reason=line_too_long");
    ensure!(log.lines().filter(ours).count() == 2, "{log}");
    row.end().await
}

#[tokio::test]
async fn t_068_a_connect_that_stops() -> Result<()> {
    let mut row = Row::begin(68).await?;
    let own = row.stage.caller("up=t068")?;
    let mut waiting = Vec::new();
    for part in 0..40 {
        let (name, mut attacker) = row.attacker().await?;
        let connect = format!("CONNECT {}\r\n", attacker.hello(&name, &own.token, Some(&own.key)));
        let cut = (connect.len() - 2) * part / 40;
        attacker.say(connect.get(..cut).unwrap_or_default()).await?;
        waiting.push((attacker, tokio::time::Instant::now()));
    }
    row.control.is_served().await.context("while they wait")?;
    for (mut attacker, since) in waiting {
        let answer = attacker.last_words().await?;
        ensure!(answer == "-ERR 'Authentication Timeout'\r\n", "{answer:?}");
        // two seconds, and what a loaded machine adds
        ensure!(since.elapsed() < Duration::from_secs(8), "after {:?}", since.elapsed());
    }
    row.end().await
}

/// Rule 5 of the table: what was refused leaves nothing behind.
#[tokio::test]
async fn refused_peers_leave_nothing_behind() -> Result<()> {
    let mut row = Row::on(Arc::new(Stage::start()?), 1).await?;
    let holder = Key::generate()?;
    let token = forge::token(&forge::client("up=nobody", &holder)?, &Key::generate()?);
    let mut before = (0, 0);
    for number in 0..150 {
        // the first ones fill caches and pools
        if number == 50 {
            before = settled(&row.stage).await?;
        }
        let (_, mut attacker) = row.attacker().await?;
        let hello = attacker.hello("nobody", &token, Some(&holder));
        attacker.connect(&hello).await?;
        attacker.is_refused().await?;
    }
    let after = settled(&row.stage).await?;
    ensure!(after.0 == before.0, "{} descriptors became {}", before.0, after.0);
    ensure!(after.1 < before.1 + 4 * 1024, "{} KiB became {} KiB", before.1, after.1);
    row.end().await
}

/// What the broker holds once connections that were closed are gone.
async fn settled(stage: &Stage) -> Result<(usize, u64)> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.held_by("broker")
}

#[tokio::test]
async fn t_092_a_client_without_flags() -> Result<()> {
    let mut row = Row::begin(92).await?;
    let own = row.stage.caller_with("up=t092", json!({"permissions": {}}))?;
    for subject in [
        "choria.broadcast.agent.discovery",
        "choria.broadcast.agent.rpcutil",
        "choria.broadcast.service.rpcutil",
        "choria.node.n1.example.net",
        "choria.federation.c.federation",
        "choria.lifecycle.event.startup.server",
        "choria.machine.transition",
        "choria.reply.0123456789abcdef0123456789abcdef.x",
        "choria.governor.x",
        "provisioning.node.n1.example.net",
        "$JS.API.INFO",
        "$JS.API.STREAM.CREATE.X",
        "$KV.X.y",
        "$SYS.REQ.SERVER.PING",
    ] {
        row.may_not(&own.token, Some(&own.key), Doing::Publish(subject)).await?;
    }
    let (name, mut connection) = row.attacker().await?;
    let hello = connection.hello(&name, &own.token, Some(&own.key));
    connection.connect(&hello).await?;
    connection.is_admitted().await?;
    connection.subscribe(&own.inbox("choria")).await?;
    let inbox = own.inbox("choria").replace('>', "info");
    let refused = connection.publish_with_reply("$SYS.REQ.USER.INFO", &inbox, b"").await?;
    ensure!(refused.is_none(), "{refused:?}");
    let answer = connection.message(Duration::from_secs(10)).await?.context("no answer")?;
    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
    ensure!(answer.contains("up=t092") && answer.contains("choria"), "{answer}");
    row.end().await
}

#[tokio::test]
async fn t_093_a_candidate_in_the_main_account() -> Result<()> {
    let mut row = Row::begin(93).await?;
    let token = row.stage.provisioning_token()?;
    let admin = row.stage.caller_with("up=t093", json!({"permissions": {"org_admin": true}}))?;
    let mut listener = row.stage.connected(&admin, Ipv4Addr::new(127, 7, 93, 200)).await?;
    ensure!(listener.subscribe(">").await?.is_none(), "an admin may listen to everything");
    let (name, mut candidate) = row.attacker().await?;
    let hello = candidate.hello(&name, &token, None);
    candidate.connect(&hello).await?;
    candidate.is_admitted().await?;
    for subject in
        ["provisioning.reply.x.1", "provisioning.registration.n1", "choria.lifecycle.event.shutdown.server"]
    {
        let refused = candidate.publish(subject, b"from the candidate").await?;
        ensure!(refused.is_none(), "{subject}: {refused:?}");
    }
    for subject in ["choria.broadcast.agent.rpcutil", "choria.node.n1.example.net"] {
        row.may_not(&token, None, Doing::Publish(subject)).await?;
    }
    for subject in ["choria.>", "choria.reply.>", "provisioning.broadcast.agent.other"] {
        row.may_not(&token, None, Doing::Subscribe(subject)).await?;
    }
    // what the listener hears of others is fine, and shows that it hears
    row.control.is_served().await?;
    let mut others = 0;
    while let Some(message) = listener.message(Duration::from_millis(300)).await? {
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        ensure!(!payload.contains("from the candidate"), "the main account hears it on {}", message.subject);
        others += 1;
    }
    ensure!(others > 0, "the listener hears nothing at all");
    row.saw("what it may publish is not heard in the main account");
    row.end().await
}

#[tokio::test]
async fn t_126_a_candidate_that_takes_anothers_name() -> Result<()> {
    let mut row = Row::begin(126).await?;
    let claims = forge::provisioning(PROVISIONING_TOKEN, "nats://127.0.0.1:1")?;
    let token = forge::token(&claims, &row.stage.org);
    let (name, mut first) = row.attacker().await?;
    let hello = first.hello(&name, &token, None);
    first.connect(&hello).await?;
    first.is_admitted().await?;
    let own = format!("provisioning.node.{name}");
    ensure!(first.subscribe(&own).await?.is_none(), "its own name is refused");
    row.may_not(&token, None, Doing::Subscribe(&own)).await?;
    first.say("PING\r\n").await?;
    first.settled().await.context("the first one was disturbed")?;
    row.end().await
}
