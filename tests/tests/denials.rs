//! Rows of docs/spec/10 §14 against a running broker, node and signer. Each test has its row's number. The answer on the
//! wire, the one line in the log with its reason, and a well-behaved peer that is served before, between and after.
//!
//! Every attacker has a loopback address of its own, because a broker thins its log out by address and reason.
#![allow(clippy::large_futures)] // one future for each test, not for each connection

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use choria_host::clock;
use choria_protocol::subjects;
use choria_tests::forge::{self, ChainIssuer, Key};
use choria_tests::request::{self, Caller};
use choria_tests::{Doing, NODE, Operator, PROVISIONER_PASSWORD, PROVISIONING_TOKEN, Row};
use serde_json::{Value, json};

/// What the rows below change is all that is wrong: without it everybody says yes.
#[tokio::test]
async fn an_honest_chain_is_accepted_by_all() -> Result<()> {
    let row = Row::begin(0).await?;
    let holder = Key::generate()?;
    let issuer = ChainIssuer::vouched_by(&row.stage.org, Key::generate()?)?;
    let token = issuer.issue(forge::client("up=t000", &holder)?);
    let caller = Caller::new("up=t000", &holder, token);
    let mut connection = row.stage.connected(&caller, Ipv4Addr::new(127, 7, 0, 1)).await?;
    connection.subscribe(&caller.inbox("choria")).await?;
    let wanted = request::request(&caller.id, "choria", "rpcutil", "ping", &json!({}))?;
    let secure = request::signed(&wanted, &caller)?;
    let node = subjects::node("choria", NODE);
    let limit = Duration::from_secs(10);
    let reply = request::ask(&mut connection, &node, &wanted, &secure, limit).await?.context("the node")?;
    ensure!(reply.statuscode.is_ok(), "{reply:?}");

    row.stage.signer()?;
    let wanted = wanted.to_bytes()?;
    let data = json!({
        "request": String::from_utf8(wanted.clone())?, "token": caller.token,
        "signature": hex::encode(caller.key.sign(&wanted)),
    });
    let signer = subjects::service("choria", "aaa_signer");
    for _ in 0..20 {
        let request = request::request(&caller.id, "choria", "aaa_signer", "sign", &data)?;
        let secure = request::insecure(&request, &caller.token)?;
        let limit = Duration::from_secs(3);
        if let Some(reply) = request::ask(&mut connection, &signer, &request, &secure, limit).await? {
            ensure!(reply.statuscode.is_ok() && reply.data.get("secure_request").is_some(), "{reply:?}");
            return row.end().await;
        }
    }
    bail!("the signer does not answer:\n{}", row.stage.log("aaa"))
}

// ---- tokens and keys ----

#[tokio::test]
async fn t_001_an_issuer_that_named_itself() -> Result<()> {
    let mut row = Row::begin(1).await?;
    let (own, holder) = (Key::generate()?, Key::generate()?);
    let issuer = ChainIssuer::vouched_by(&own, own.clone())?;
    let token = issuer.issue(forge::client("up=t001", &holder)?);
    row.refused_by_all(&Caller::new("up=t001", &holder, token), "chain_forged").await?;
    row.end().await
}

#[tokio::test]
async fn t_002_the_real_issuers_id_with_another_key() -> Result<()> {
    let mut row = Row::begin(2).await?;
    let holder = Key::generate()?;
    let mut issuer = ChainIssuer::vouched_by(&row.stage.org, Key::generate()?)?;
    issuer.key = Key::generate()?;
    let token = issuer.issue(forge::client("up=t002", &holder)?);
    row.refused_by_all(&Caller::new("up=t002", &holder, token), "chain_forged").await?;
    row.end().await
}

#[tokio::test]
async fn t_003_a_trust_chain_copied_from_another_user() -> Result<()> {
    let mut row = Row::begin(3).await?;
    let holder = Key::generate()?;
    let issuer = ChainIssuer::vouched_by(&row.stage.org, Key::generate()?)?;
    let victim = issuer.claims(forge::client("up=victim", &Key::generate()?)?);
    let own = issuer.claims(forge::client("up=t003", &holder)?);
    let stolen = forge::with(own, json!({"tcs": victim.get("tcs")}));
    let token = forge::token(&stolen, &issuer.key);
    row.refused_by_all(&Caller::new("up=t003", &holder, token), "chain_forged").await?;
    row.end().await
}

#[tokio::test]
async fn t_009_no_algorithm_and_no_signature() -> Result<()> {
    let mut row = Row::begin(9).await?;
    let holder = Key::generate()?;
    let token = forge::unsigned(&forge::client("up=t009", &holder)?);
    row.refused(&token, Some(&holder), "alg_refused").await?;
    row.end().await
}

#[tokio::test]
async fn t_013_a_token_of_another_kind() -> Result<()> {
    let mut row = Row::begin(13).await?;
    let holder = Key::generate()?;
    let server = forge::token(&forge::server("t013.example.net", &holder)?, &row.stage.org);
    let waiting = forge::token(&forge::provisioning("s", "nats://127.0.0.1:1")?, &row.stage.org);
    // user `provisioner` is read as a client
    let more = json!({"user": "provisioner", "pass": PROVISIONER_PASSWORD});
    for token in [&server, &waiting] {
        row.refused_with(token, Some(&holder), more.clone(), &["kind_mismatch"]).await?;
    }
    for token in [server, waiting] {
        let caller = Caller::new("up=t013", &holder, token);
        row.refused_by_signer(&caller, "kind_mismatch").await?;
        row.dropped_by_node(&caller, "kind_mismatch").await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_018_a_key_that_is_none() -> Result<()> {
    let mut row = Row::begin(18).await?;
    let holder = Key::generate()?;
    let good = holder.public();
    let claims = forge::client("up=t018", &holder)?;
    for (key, reason) in [
        (good.get(2..).unwrap_or_default().to_owned(), "claim_invalid"),
        (format!("{good}00"), "claim_invalid"),
        (good.repeat(2), "claim_invalid"),
        (good.get(1..).unwrap_or_default().to_owned(), "claim_invalid"),
        (String::new(), "key_missing"),
    ] {
        let token = forge::token(&forge::with(claims.clone(), json!({"public_key": key})), &row.stage.org);
        row.refused(&token, Some(&holder), reason).await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_021_times_that_are_over_or_none() -> Result<()> {
    let mut row = Row::begin(21).await?;
    let holder = Key::generate()?;
    let now = clock::unix_seconds();
    for (times, reason) in [
        (json!({"exp": now}), "token_expired"),
        (json!({"exp": now - 1}), "token_expired"),
        (json!({"exp": now as f64 - 0.5}), "token_expired"),
        (json!({"exp": -1}), "token_expired"),
        (json!({"exp": 1e300}), "token_malformed"),
        (json!({"exp": "x"}), "token_malformed"),
        (json!({"nbf": now + 60}), "token_early"),
    ] {
        let claims = forge::with(forge::client("up=t021", &holder)?, times.clone());
        let token = forge::token(&claims, &row.stage.org);
        row.refused(&token, Some(&holder), reason).await.with_context(|| times.to_string())?;
    }
    row.end().await
}

#[tokio::test]
async fn t_024_the_issuer_has_expired() -> Result<()> {
    let mut row = Row::begin(24).await?;
    let holder = Key::generate()?;
    let mut issuer = ChainIssuer::vouched_by(&row.stage.org, Key::generate()?)?;
    issuer.expires = clock::unix_seconds() - 1;
    let token = issuer.issue(forge::client("up=t024", &holder)?);
    row.refused_by_all(&Caller::new("up=t024", &holder, token), "issuer_expired").await?;
    row.end().await
}

#[tokio::test]
async fn t_025_a_provisioning_token_by_a_chain_issuer() -> Result<()> {
    let mut row = Row::begin(25).await?;
    let issuer = ChainIssuer::vouched_by(&row.stage.org, Key::generate()?)?;
    let token = issuer.issue(forge::provisioning(PROVISIONING_TOKEN, "nats://127.0.0.1:1")?);
    row.refused_with(&token, None, json!({}), &["sig_bad", "chain_forged"]).await?;
    row.end().await
}

// ---- admission ----

#[tokio::test]
async fn t_033_the_nonce_is_not_signed() -> Result<()> {
    let mut row = Row::begin(33).await?;
    let token = row.stage.caller("up=t033")?.token;
    row.refused(&token, None, "nonce_missing").await?;
    row.end().await
}

#[tokio::test]
async fn t_034_the_nonce_is_signed_by_another_key() -> Result<()> {
    let mut row = Row::begin(34).await?;
    let token = row.stage.caller("up=t034")?.token;
    row.refused(&token, Some(&Key::generate()?), "nonce_bad").await?;
    row.end().await
}

#[tokio::test]
async fn t_036_a_recorded_connect() -> Result<()> {
    let mut row = Row::begin(36).await?;
    let victim = row.stage.caller("up=t036")?;
    let (name, mut connection) = row.attacker().await?;
    let recorded = connection.hello(&name, &victim.token, Some(&victim.key));
    connection.connect(&recorded).await?;
    connection.is_admitted().await?;
    let (name, mut replay) = row.attacker().await?;
    ensure!(replay.nonce() != connection.nonce(), "a nonce was used twice");
    replay.connect(&forge::with(recorded, json!({"name": name}))).await?;
    replay.is_refused().await?;
    row.logged("broker", &name, &["nonce_bad"])?;
    row.end().await
}

#[tokio::test]
async fn t_048_no_credentials() -> Result<()> {
    let mut row = Row::begin(48).await?;
    row.refused("", None, "no_credentials").await?;
    row.end().await
}

#[tokio::test]
async fn t_050_no_organization_of_ours() -> Result<()> {
    let mut row = Row::begin(50).await?;
    let holder = Key::generate()?;
    for (org, reason) in [
        (json!("acme"), "ou_unknown"),
        (Value::Null, "ou_missing"),
        (json!(7), "ou_missing"),
        (json!(""), "ou_missing"),
    ] {
        let claims = forge::with(forge::client("up=t050", &holder)?, json!({"ou": org}));
        row.refused(&forge::token(&claims, &row.stage.org), Some(&holder), reason).await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_051_expired_or_not_yet_valid() -> Result<()> {
    let mut row = Row::begin(51).await?;
    let now = clock::unix_seconds();
    for (times, reason) in
        [(json!({"exp": now - 60}), "token_expired"), (json!({"nbf": now + 600}), "token_early")]
    {
        let late = row.stage.caller_with("up=t051", times)?;
        row.refused(&late.token, Some(&late.key), reason).await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_053_identities_that_are_patterns() -> Result<()> {
    let mut row = Row::begin(53).await?;
    let holder = Key::generate()?;
    let folder = tempfile::tempdir()?;
    let operator = Operator::new(&folder.path().join("client.conf"), folder.path());
    let seed = folder.path().join("issuer.seed");
    choria_host::private_file::write_private(&seed, row.stage.org.seed().as_bytes())?;
    let long = "a".repeat(256);
    for identity in ["*", "a.>", "a b", "", long.as_str()] {
        let token = forge::token(&forge::server(identity, &holder)?, &row.stage.org);
        row.refused(&token, Some(&holder), "claim_invalid").await.with_context(|| format!("{identity:?}"))?;
        let (token, seed) = (folder.path().join("t.jwt").display().to_string(), seed.display().to_string());
        let issued = operator.run(&["jwt", "server", &token, identity, &holder.public(), &seed])?;
        ensure!(issued.code != 0 && !folder.path().join("t.jwt").exists(), "issued for {identity:?}");
    }
    row.end().await
}

#[tokio::test]
async fn t_054_collectives_that_are_patterns() -> Result<()> {
    let mut row = Row::begin(54).await?;
    let holder = Key::generate()?;
    for collective in ["*", "a.b", ">", "$JS", "provisioning"] {
        let claims = forge::with(
            forge::server("t054.example.net", &holder)?,
            json!({"collectives": ["choria", collective]}),
        );
        let token = forge::token(&claims, &row.stage.org);
        row.refused(&token, Some(&holder), "claim_invalid").await.with_context(|| collective.to_owned())?;
    }
    row.end().await
}

// ---- permissions ----

#[tokio::test]
async fn t_087_the_replies_to_another_client() -> Result<()> {
    let mut row = Row::begin(87).await?;
    let own = row.stage.caller("up=t087")?;
    for hash in [
        choria_token::private_network_id("up=control"),
        choria_token::private_network_id_sha256("up=control"),
    ] {
        let subject = format!("choria.reply.{hash}.>");
        row.may_not(&own.token, Some(&own.key), Doing::Subscribe(&subject)).await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_088_replies_by_pattern() -> Result<()> {
    let mut row = Row::begin(88).await?;
    let own = row.stage.caller("up=t088")?;
    for subject in ["*.reply.>", "choria.reply.*.>", ">"] {
        row.may_not(&own.token, Some(&own.key), Doing::Subscribe(subject)).await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_090_a_server_that_commands() -> Result<()> {
    let mut row = Row::begin(90).await?;
    let key = Key::generate()?;
    let token = forge::token(&forge::server("t090.example.net", &key)?, &row.stage.org);
    for subject in ["choria.broadcast.agent.rpcutil", "choria.node.other", "choria.submission.in.x"] {
        row.may_not(&token, Some(&key), Doing::Publish(subject)).await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_091_a_client_that_listens_to_requests() -> Result<()> {
    let mut row = Row::begin(91).await?;
    let own = row.stage.caller("up=t091")?;
    for subject in ["*.node.>", "*.broadcast.>"] {
        row.may_not(&own.token, Some(&own.key), Doing::Subscribe(subject)).await?;
    }
    row.end().await
}

// ---- provisioning ----

#[tokio::test]
async fn t_123_provisioning_tokens_that_are_not_ours() -> Result<()> {
    let mut row = Row::begin(123).await?;
    let claims = forge::provisioning(PROVISIONING_TOKEN, "nats://127.0.0.1:1")?;
    let org = row.stage.org.clone();
    let rsa = forge::token_with(&json!({"alg": "RS256", "typ": "JWT"}), &claims, &org);
    let expired = json!({"exp": clock::unix_seconds() - 1});
    for (token, reason) in [
        (forge::token(&claims, &Key::generate()?), "sig_bad"),
        // no key of that family is configured, so the signature is not even looked at
        (rsa, "alg_refused"),
        (forge::token(&forge::with(claims.clone(), expired), &org), "token_expired"),
        (forge::token(&forge::with(claims.clone(), json!({"ou": "acme"})), &org), "ou_unknown"),
        (forge::token(&forge::with(claims.clone(), json!({"ou": null})), &org), "ou_missing"),
    ] {
        row.refused(&token, None, reason).await?;
    }
    row.end().await
}

#[tokio::test]
async fn t_124_a_candidate_that_listens_to_others() -> Result<()> {
    let mut row = Row::begin(124).await?;
    let claims = forge::provisioning(PROVISIONING_TOKEN, "nats://127.0.0.1:1")?;
    let token = forge::token(&claims, &row.stage.org);
    for subject in ["provisioning.node.>", "provisioning.node.*", "provisioning.>"] {
        row.may_not(&token, None, Doing::Subscribe(subject)).await?;
    }
    row.end().await
}
