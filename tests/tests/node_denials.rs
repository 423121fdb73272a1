//! Rows of docs/spec/10 §14.6 against a running node: what arrives past the broker, signed or not, and is not for it.
//!
//! The attacker is a member who may hear and say everything on the network, so that silence is silence everywhere.
#![allow(clippy::large_futures)] // a test has few of them

use anyhow::{Context as _, Result, ensure};
use choria_host::clock;
use choria_protocol::rpc::StatusCode;
use choria_protocol::subjects;
use choria_tests::forge::{self, ChainIssuer, Key};
use choria_tests::request::Caller;
use choria_tests::{NODE, PROVISIONING_TOKEN, Row, Shot};
use serde_json::{Value, json};

const SECOND: i64 = 1_000_000_000;

/// A user whose requests somebody else has to sign, and who may sign for users.
fn delegation(row: &Row, user: &str) -> Result<(Caller, Caller)> {
    let user = row.stage.caller_with(user, json!({"permissions": {"signed_fleet_management": true}}))?;
    let signer = row.stage.caller_with(
        "aaa_signer",
        json!({"permissions": {"authentication_delegator": true}, "agents": null}),
    )?;
    Ok((user, signer))
}

#[tokio::test]
async fn t_106_t_233_t_234_t_235_replies_go_to_the_caller_only() -> Result<()> {
    let mut row = Row::begin(233).await?.also(106).also(234).also(235);
    let alice = row.stage.caller("up=alice")?;
    let shot = || Shot::of(&alice, |_| {});
    let foreign = subjects::reply("choria", "up=bob", "x");
    let own = subjects::reply("choria", "up=alice", "*");
    for reply in [
        foreign.as_str(),
        own.as_str(),
        "choria.reply.x\r\nPUB choria.node.n2 1\r\nb",
        "$JS.API.STREAM.DELETE.X",
        "choria.lifecycle.event.x.y",
        "choria.node.n2",
        "choria.reply.>",
        "",
    ] {
        row.node_drops(&shot()?.with(|shot| reply.clone_into(&mut shot.reply)), "reply_refused")
            .await
            .with_context(|| format!("{reply:?}"))?;
    }
    ensure!(row.node_answers(&shot()?).await?.statuscode.is_ok());
    row.end().await
}

#[tokio::test]
async fn t_214_t_215_t_216_what_nobody_signed() -> Result<()> {
    let mut row = Row::begin(214).await?.also(216);
    let (alice, bob) = (row.stage.caller("up=alice")?, row.stage.caller("up=bob")?);
    let shot = || Shot::of(&alice, |_| {});
    row.node_drops(&shot()?.unsigned(), "sig_bad").await?;
    for signature in [Vec::new(), vec![0; 64], vec![0; 63], b"INSECURE".to_vec()] {
        row.node_drops(&shot()?.with(|shot| shot.signature = signature), "sig_bad").await?;
    }
    let stolen = Caller { token: alice.token.clone(), id: alice.id.clone(), key: bob.key.clone() };
    row.node_drops(&Shot::of(&stolen, |_| {})?, "sig_bad").await?;

    // the agent that takes unsigned requests, on a node that does not host it
    let mut row = row.then(215).await?;
    let asks =
        Shot::calling(&alice, "aaa_signer", "sign", &json!({"request": "x", "token": "y"}))?.unsigned();
    let service = subjects::service("choria", "aaa_signer");
    row.node_drops(&asks, "sig_bad").await?;
    row.node_does_not_hear(&asks.with(|shot| shot.subject = service)).await?;
    row.end().await
}

#[tokio::test]
async fn t_217_t_226_what_was_signed_stays_as_it_was_signed() -> Result<()> {
    let mut row = Row::begin(217).await?;
    let alice = row.stage.caller("up=alice")?;
    for (from, to) in [
        (r#""ttl":60"#, r#""ttl":61"#),
        (r#""agent":"rpcutil""#, r#""agent":"rpcutik""#),
        (r#""sender":"tests"#, r#""sender":"texts"#),
        (r#""filter":{"#, r#""filter":{ "#),
        (r#""collective":"choria""#, r#""collective":"other""#),
    ] {
        let shot = Shot::of(&alice, |_| {})?;
        let text = String::from_utf8(shot.document.clone())?;
        ensure!(text.contains(from), "{text}");
        row.node_drops(&shot.with(|shot| shot.document = text.replace(from, to).into_bytes()), "sig_bad")
            .await
            .with_context(|| to.to_owned())?;
    }

    let mut row = row.then(226).await?;
    let shot = Shot::of(&alice, |_| {})?;
    ensure!(row.node_answers(&shot).await?.statuscode.is_ok());
    row.node_drops(&shot, "replayed").await?;
    let id: Value = serde_json::from_slice(&shot.document)?;
    let id = id.get("id").and_then(Value::as_str).context("an id")?.to_owned();
    row.node_drops(
        &Shot::of(&alice, |request| {
            request.id = id;
            request.ttl = 59;
        })?,
        "replayed",
    )
    .await?;
    row.end().await
}

#[tokio::test]
async fn t_200_t_218_t_219_t_220_who_may_sign_for_others() -> Result<()> {
    let mut row = Row::begin(218).await?.also(200);
    let (alice, signer) = delegation(&row, "up=alice")?;
    let shot = |caller: &Caller| Shot::of(caller, |_| {});
    row.node_drops(&shot(&alice)?, "delegation_missing").await?;
    let both = json!({"permissions": {"signed_fleet_management": true, "fleet_management": true}});
    row.node_drops(&shot(&row.stage.caller_with("up=both", both)?)?, "delegation_missing").await?;
    ensure!(row.node_answers(&shot(&alice)?.delegated(&signer)).await?.statuscode.is_ok());

    let mut row = row.then(219).await?;
    let plain = row.stage.caller("up=plain")?;
    row.node_drops(&shot(&alice)?.delegated(&plain), "delegator_refused").await?;
    let key = Key::generate()?;
    let node = Caller::new("n2", &key, forge::token(&forge::server("n2.example.net", &key)?, &row.stage.org));
    row.node_drops(&shot(&alice)?.delegated(&node), "delegator_refused").await?;
    // a signer's token whose key did not sign
    let borrowed = Caller { token: signer.token.clone(), id: signer.id.clone(), key: Key::generate()? };
    row.node_drops(&shot(&alice)?.delegated(&borrowed), "sig_bad").await?;

    let mut row = row.then(220).await?;
    let other = Key::generate()?;
    let claims = forge::with(
        forge::client("aaa_signer", &key)?,
        json!({"permissions": {"authentication_delegator": true}, "agents": null, "ou": "acme"}),
    );
    for issuer in [&other, &row.stage.org.clone()] {
        let foreign = Caller::new("aaa_signer", &key, forge::token(&claims, issuer));
        row.node_drops(&shot(&alice)?.delegated(&foreign), "ou_unknown").await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_221_t_222_t_225_the_caller_is_who_the_token_says() -> Result<()> {
    let mut row = Row::begin(221).await?;
    let (bob, signer) = delegation(&row, "up=bob")?;
    let named = |name: &str, caller: &Caller| {
        let named = Caller { id: name.to_owned(), ..caller.clone() };
        Shot::of(&named, |_| {})
    };
    row.node_drops(&named("up=alice", &bob)?.delegated(&signer), "caller_mismatch").await?;

    let mut row = row.then(222).await?;
    let (dotted, signer) = delegation(&row, "up=a@b.c")?;
    let renamed = named("up=a_b_c", &dotted)?.delegated(&signer);
    // the inbox is that of the token's name
    let inbox = subjects::reply("choria", "up=a@b.c", "r");
    let reply = row.node_answers(&renamed.with(|shot| shot.reply = inbox)).await?;
    ensure!(reply.statuscode.is_ok(), "{reply:?}");

    let mut row = row.then(225).await?;
    let bob = row.stage.caller("up=bob")?;
    for name in ["up=admin", "up=Bob", "up=bob ", "bob"] {
        row.node_drops(&named(name, &bob)?, "caller_mismatch").await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_223_t_224_t_356_tokens_that_give_no_right_to_ask() -> Result<()> {
    let mut row = Row::begin(223).await?;
    let key = Key::generate()?;
    let node = forge::token(&forge::server("n2.example.net", &key)?, &row.stage.org);
    row.node_drops(&Shot::of(&Caller::new("up=n2", &key, node), |_| {})?, "kind_mismatch").await?;

    let mut row = row.then(224).await?;
    for permissions in
        [json!({}), json!({"org_admin": true}), json!({"streams_admin": true, "service": true})]
    {
        let viewer = row.stage.caller_with("up=viewer", json!({"permissions": permissions}))?;
        row.node_drops(&Shot::of(&viewer, |_| {})?, "permission_missing").await?;
    }

    let mut row = row.then(356).await?;
    let acme = Key::generate()?;
    let claims = forge::with(forge::client("up=acme", &key)?, json!({"ou": "acme"}));
    let stranger = Caller::new("up=acme", &key, forge::token(&claims, &acme));
    row.node_drops(&Shot::of(&stranger, |_| {})?, "ou_unknown").await?;
    let issuer = ChainIssuer::vouched_by(&acme, Key::generate()?)?;
    let stranger = Caller::new("up=acme", &key, issuer.issue(claims));
    row.node_drops(&Shot::of(&stranger, |_| {})?, "ou_unknown").await?;
    row.end().await
}

#[tokio::test]
async fn t_230_t_231_t_232_a_request_lives_as_long_as_it_says() -> Result<()> {
    let mut row = Row::begin(230).await?.also(231).also(232);
    let alice = row.stage.caller("up=alice")?;
    for ttl in ["0", "-5", "9223372036854775808", "\"60\"", "1e2"] {
        let shot = Shot::edited(&alice, |text| text.replace(r#""ttl":60"#, &format!(r#""ttl":{ttl}"#)))?;
        row.node_drops(&shot, "secure_bad").await.with_context(|| ttl.to_owned())?;
    }
    let made = |seconds: i64, ttl: i64| {
        Shot::of(&alice, |request| {
            request.time = clock::unix_nanos() - seconds * SECOND;
            request.ttl = ttl;
        })
    };
    ensure!(row.node_answers(&made(1, 3600)?).await?.statuscode.is_ok());
    row.node_drops(&made(602, 3600)?, "ttl_cap").await?;
    row.node_drops(&made(61, 60)?, "ttl_expired").await?;
    row.node_drops(&made(-120, 60)?, "ttl_expired").await?;
    row.node_drops(&Shot::of(&alice, |request| request.time += 1 << 62)?, "ttl_expired").await?;
    row.end().await
}

#[tokio::test]
async fn t_237_t_238_t_239_t_240_subjects_and_names_agree() -> Result<()> {
    let mut row = Row::begin(237).await?;
    let alice = row.stage.caller("up=alice")?;
    let shot = || Shot::of(&alice, |_| {});
    let to = |subject: String| Ok::<_, anyhow::Error>(shot()?.with(|shot| shot.subject = subject));
    row.node_drops(&to(subjects::broadcast("choria", "discovery"))?, "subject_mismatch").await?;
    row.node_drops(
        &Shot::of(&alice, |request| request.agent = "discovery".into())?.with(|shot| {
            shot.subject = subjects::broadcast("choria", "rpcutil");
        }),
        "subject_mismatch",
    )
    .await?;

    let mut row = row.then(238).await?;
    row.node_does_not_hear(&to(subjects::service("choria", "rpcutil"))?).await?;

    let mut row = row.then(239).await?;
    row.node_drops(&Shot::of(&alice, |request| request.collective = "mars".into())?, "collective_unknown")
        .await?;

    let mut row = row.then(240).await?;
    row.node_drops(&Shot::of(&alice, |request| request.agent = "unknown".into())?, "agent_unknown").await?;
    let reply = row.node_answers(&Shot::calling(&alice, "rpcutil", "unknown", &json!({}))?).await?;
    ensure!(reply.statuscode == StatusCode::UnknownAction, "{reply:?}");
    row.end().await
}

#[tokio::test]
async fn t_241_t_244_t_245_inputs_and_bodies() -> Result<()> {
    let mut row = Row::begin(241).await?;
    let alice = row.stage.caller("up=alice")?;
    for data in [json!({}), json!({"fact": 7}), json!({"fact": "x".repeat(5000)}), json!({"fact": ["role"]})]
    {
        let reply = row.node_answers(&Shot::calling(&alice, "rpcutil", "get_fact", &data)?).await?;
        let refused = matches!(
            reply.statuscode,
            StatusCode::InvalidData | StatusCode::Aborted | StatusCode::MissingData
        );
        ensure!(refused, "{data}: {reply:?}");
    }

    let mut row = row.then(244).await?;
    let body = |text: &str| Shot::of(&alice, |request| request.message = text.as_bytes().to_vec());
    let encoded = "eyJhZ2VudCI6InJwY3V0aWwiLCJhY3Rpb24iOiJwaW5nIiwiZGF0YSI6e319";
    ensure!(row.node_answers(&body(encoded)?).await?.statuscode == StatusCode::InvalidData);

    let mut row = row.then(245).await?;
    let other = r#"{"agent":"discovery","action":"ping","data":{}}"#;
    ensure!(row.node_answers(&body(other)?).await?.statuscode == StatusCode::InvalidData);
    row.end().await
}

#[tokio::test]
async fn t_242_t_243_layers_that_are_broken_or_mean_two_things() -> Result<()> {
    let mut row = Row::begin(242).await?;
    let alice = row.stage.caller("up=alice")?;
    let node = subjects::node("choria", NODE);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for transport in [
        "",
        "{}",
        "null",
        "[]",
        "{\"protocol\":",
        "\u{0}\u{1}",
        deep.as_str(),
        r#"{"protocol":"io.choria.protocol.v2.transport","data":"!","headers":{}}"#,
        r#"{"protocol":"io.choria.protocol.v2.transport","data":7,"headers":{}}"#,
    ] {
        row.node_drops_bytes(&node, transport.as_bytes(), "", "transport_bad")
            .await
            .with_context(|| transport.chars().take(80).collect::<String>())?;
    }
    for document in
        ["", "{}", "null", "{\"protocol\":", deep.as_str(), r#"{"protocol":"io.choria.protocol.v2.reply"}"#]
    {
        let shot = Shot::edited(&alice, |_| document.to_owned())?;
        row.node_drops(&shot, "secure_bad")
            .await
            .with_context(|| document.chars().take(80).collect::<String>())?;
    }

    let mut row = row.then(243).await?;
    for (from, to) in [
        (r#""agent":"rpcutil""#, r#""agent":"rpcutil","agent":"discovery""#),
        (r#""agent":"rpcutil""#, r#""agent":"rpcutil","Agent":"discovery""#),
        (r#""agent":["rpcutil"]"#, r#""agent":["rpcutil"],"Agent":[]"#),
    ] {
        let shot = Shot::edited(&alice, |text| text.replacen(from, to, 1))?;
        row.node_drops(&shot, "json_ambiguous").await.with_context(|| to.to_owned())?;
    }
    for body in [
        r#"{"agent":"rpcutil","action":"ping","action":"inventory","data":{}}"#,
        r#"{"agent":"rpcutil","action":"ping","Action":"inventory","data":{}}"#,
        r#"{"agent":"rpcutil","action":"get_fact","data":{"fact":"a","fact":"b"}}"#,
    ] {
        let shot = Shot::of(&alice, |request| request.message = body.as_bytes().to_vec())?;
        row.node_drops(&shot, "json_ambiguous").await.with_context(|| body.to_owned())?;
    }
    row.end().await
}

#[tokio::test]
async fn t_212_t_247_t_249_what_the_policy_and_the_node_keep_back() -> Result<()> {
    let mut row = Row::begin(212).await?;
    let denied = |reply: &choria_protocol::rpc::RpcReply| {
        reply.statuscode == StatusCode::Aborted && reply.statusmsg.contains("not authorized")
    };
    // the signer signed, by a policy of its own; the token's policy as the node reads it says no
    let (mut user, signer) = delegation(&row, "up=alice")?;
    let policy = "package io.choria.aaasvc\nimport rego.v1\nallow if input.action == \"inventory\"\n";
    let claims = forge::with(
        forge::client("up=alice", &user.key)?,
        json!({"permissions": {"signed_fleet_management": true}, "agents": null, "opa_policy": policy}),
    );
    user.token = forge::token(&claims, &row.stage.org);
    let ask = |user: &Caller, action: &str| Shot::calling(user, "rpcutil", action, &json!({}));
    let reply = row.node_answers(&ask(&user, "ping")?.delegated(&signer)).await?;
    ensure!(denied(&reply), "{reply:?}");
    let reply = row.node_answers(&ask(&user, "inventory")?.delegated(&signer)).await?;
    ensure!(reply.statuscode.is_ok(), "{reply:?}");

    let mut row = row.then(247).await?;
    for changes in [json!({"agents": null}), json!({"opa_policy": policy})] {
        let caller = row.stage.caller_with("up=bob", changes)?;
        let reply = row.node_answers(&ask(&caller, "inventory")?).await?;
        ensure!(denied(&reply), "{reply:?}");
    }

    let mut row = row.then(249).await?;
    let alice = row.stage.caller("up=alice")?;
    for item in ["plugin.nats.pass", "plugin.choria.some.token", "plugin.x.secret", "plugin.nats.PASSWORD"] {
        let data = json!({"item": item});
        let reply = row.node_answers(&Shot::calling(&alice, "rpcutil", "get_config_item", &data)?).await?;
        ensure!(reply.statuscode == StatusCode::Aborted, "{item}: {reply:?}");
        ensure!(!reply.data.to_string().contains(choria_tests::CONFIGURED_SECRET), "{reply:?}");
    }
    let everything = Shot::calling(&alice, "rpcutil", "inventory", &json!({}))?;
    let reply = row.node_answers(&everything).await?;
    ensure!(!serde_json::to_string(&reply.data)?.contains(choria_tests::CONFIGURED_SECRET), "{reply:?}");
    row.end().await
}

#[tokio::test]
async fn t_157_a_member_is_not_sent_back_by_anybody() -> Result<()> {
    let mut row = Row::begin(157).await?;
    let caller = row.stage.caller_with("up=bob", json!({"agents": ["rpcutil"]}))?;
    let data = json!({"token": PROVISIONING_TOKEN});
    for action in ["reprovision", "restart"] {
        let reply = row.node_answers(&Shot::calling(&caller, "choria_provision", action, &data)?).await?;
        ensure!(reply.statuscode == StatusCode::Aborted, "{reply:?}");
        ensure!(reply.statusmsg.contains("not authorized"), "{reply:?}");
    }
    row.end().await
}
