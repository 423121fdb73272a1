//! Hostile requests to a microcontroller in QEMU: rows of docs/spec/10 §14 that are marked `+D`, against the same core in a
//! device's buffers.
#![allow(clippy::large_futures)] // a test has few of them

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_protocol::subjects;
use choria_tests::device_range::{IDENTITY, Range};
use choria_tests::forge::{self, Key};
use choria_tests::request::Caller;
use choria_tests::{Shot, Stage, test_length};
use serde_json::json;

/// Somebody whose requests need a signer's, and that signer.
fn delegation(stage: &Stage) -> Result<(Caller, Caller)> {
    let alice = stage.caller_with("up=alice", json!({"permissions": {"signed_fleet_management": true}}))?;
    let signer = json!({"permissions": {"authentication_delegator": true}, "agents": null});
    Ok((alice, stage.caller_with("aaa_signer", signer)?))
}

#[tokio::test]
async fn t_217_t_218_t_226_t_313_what_a_device_drops_and_what_it_serves() -> Result<()> {
    let mut range = Range::new(&[]).await?;
    let stage = Arc::clone(&range.stage);
    let alice = stage.caller("up=alice")?;
    for (from, to) in [(r#""ttl":60"#, r#""ttl":61"#), (r#""agent":"rpcutil""#, r#""agent":"rpcutik""#)] {
        let shot = Shot::of(&alice, |_| {})?;
        let text = String::from_utf8(shot.document.clone())?.replace(from, to);
        range.drops(&shot.with(|shot| shot.document = text.into_bytes()), "sig_bad").await?;
    }
    choria_rows::row(217, "the document changed after signing, on the emulated device", "silence, sig_bad");

    let shot = Shot::of(&alice, |_| {})?;
    ensure!(range.answer(&shot).await?.is_some_and(|reply| reply.statuscode.is_ok()), "no answer");
    range.drops(&shot, "replayed").await?;
    choria_rows::row(
        226,
        "the same request again, on the emulated device",
        "answered once; silence, replayed",
    );

    range.drops(&Shot::of(&alice, |request| request.time -= 3600 * 1_000_000_000)?, "ttl_expired").await?;

    let (delegating, signer) = delegation(&stage)?;
    range.drops(&Shot::of(&delegating, |_| {})?, "delegation_missing").await?;
    let answer = range.answer(&Shot::of(&delegating, |_| {})?.delegated(&signer)).await?;
    ensure!(answer.is_some_and(|reply| reply.statuscode.is_ok()), "a delegated request is not served");
    range.drops(&Shot::of(&delegating, |_| {})?.delegated(&alice), "delegator_refused").await?;
    choria_rows::row(
        218,
        "a caller who needs a signer: without one, with one, with somebody else; on the emulated device",
        "delegation_missing; served; delegator_refused",
    );

    let stranger = Key::generate()?;
    let forged =
        Caller::new("up=eve", &stranger, forge::token(&forge::client("up=eve", &stranger)?, &stranger));
    range.drops(&Shot::of(&forged, |_| {})?, "sig_bad").await?;

    // deep JSON where nobody looks: a recursive reader would run out of stack
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let shot = Shot::edited(&alice, |text| text.replacen('{', &format!("{{\"ignored\":{deep},"), 1))?;
    ensure!(range.answer(&shot).await?.is_none(), "2000 brackets were taken");
    ensure!(range.device.is_running(), "it is gone: {}", range.device.console());
    choria_rows::row(
        313,
        "2,000 brackets in a field that nobody reads",
        "dropped, the next request is served",
    );
    Ok(())
}

#[tokio::test]
async fn t_305_t_306_a_device_that_trusts_the_signer_with_policies() -> Result<()> {
    let mut range = Range::new(&["--trust-signer"]).await?;
    let stage = Arc::clone(&range.stage);
    let policy = "package io.choria.aaasvc\ndefault allow = true\n";
    let (_, signer) = delegation(&stage)?;
    let claims = json!({
        "permissions": {"signed_fleet_management": true}, "agents": null, "opa_policy": policy,
    });
    let alice = stage.caller_with("up=alice", claims)?;
    let allowed = range.answer(&Shot::of(&alice, |_| {})?.delegated(&signer)).await?;
    ensure!(allowed.is_some_and(|reply| reply.statuscode.is_ok()), "the signer's word does not count");
    range.drops(&Shot::of(&alice, |_| {})?, "delegation_missing").await?;
    // one who may sign for itself has asked nobody
    let own = stage.caller_with("up=own", json!({"agents": null, "opa_policy": policy}))?;
    let denied = range.answer(&Shot::of(&own, |_| {})?).await?.context("no answer")?;
    ensure!(!denied.statuscode.is_ok() && denied.statusmsg.contains("not authorized"), "{denied:?}");
    let plain = stage.caller("up=plain")?;
    range.drops(&Shot::of(&alice, |_| {})?.delegated(&plain), "delegator_refused").await?;
    choria_rows::row(
        305,
        "trust-signer: a delegator's signature; none; the caller's own; one without the flag",
        "served; delegation_missing; not authorized; delegator_refused",
    );

    // what the signer vouched for was asked by somebody else
    let claims = json!({
        "permissions": {"signed_fleet_management": true}, "agents": null, "opa_policy": policy,
    });
    let mallory = stage.caller_with("up=mallory", claims)?;
    let swapped = Shot::of(&alice, |_| {})?.delegated(&signer);
    range.drops(&swapped.with(|shot| shot.caller = mallory.token), "caller_mismatch").await?;
    choria_rows::row(
        306,
        "trust-signer: the caller's token replaced by somebody else's, on the emulated device",
        "silence, caller_mismatch",
    );
    Ok(())
}

/// Requests of one caller in a second.
const RATE: u32 = 33;

#[tokio::test]
async fn t_316_one_caller_asks_without_end() -> Result<()> {
    let mut range = Range::new(&[]).await?;
    let stage = Arc::clone(&range.stage);
    let flooder = stage.caller("up=flooder")?;
    let mut other = stage.control().await?;
    let stack = range.stack().await?;
    let subject = subjects::node("choria", IDENTITY);
    let length = test_length();

    let (mut sent, mut worst, mut asked) = (0_u32, Duration::ZERO, 0_u32);
    let began = tokio::time::Instant::now();
    let mut flood = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut replies = std::collections::BTreeMap::new();
    let connection = &mut range.connection;
    let flooding = async {
        while began.elapsed() < length {
            flood.tick().await;
            let shot = Shot::of(&flooder, |_| {})?;
            let refused = connection.publish(&subject, &shot.to_bytes()?).await?;
            ensure!(refused.is_none(), "the broker refused it: {refused:?}");
            replies.insert(shot.reply, 0_u32);
            sent += 1;
            // what has come meanwhile, the requests themselves among it
            while let Some(message) = connection.message(Duration::ZERO).await? {
                replies.entry(message.subject).and_modify(|count| *count += 1);
            }
        }
        anyhow::Ok(())
    };
    let asking = async {
        while began.elapsed() < length {
            let start = tokio::time::Instant::now();
            let answered = other.is_answered_by(IDENTITY, Duration::from_secs(20)).await?;
            ensure!(answered, "somebody else is not served after {asked} answers");
            worst = worst.max(start.elapsed());
            asked += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(flooding, asking)?;
    while let Some(message) = range.connection.message(Duration::from_secs(5)).await? {
        replies.entry(message.subject).and_modify(|count| *count += 1);
    }
    let answered = replies.values().filter(|count| **count == 1).count();
    ensure!(replies.values().all(|count| *count <= 1), "a request was answered twice");
    ensure!(sent >= RATE * u32::try_from(length.as_secs())? / 2, "only {sent} were sent");

    // it is the same start of the same device, and it holds no more than before
    let after = range.stack().await?;
    let console = range.device.console();
    ensure!(console.matches("connected").count() == 2, "it lost its connection: {console}");
    ensure!(console.matches("baked").count() == 2 && range.device.is_running(), "{console}");
    ensure!(after <= 20 * 1024, "its stack has held {after} bytes, {stack} before");
    choria_rows::row(
        316,
        format!("{sent} requests of one caller in {length:?}, on the emulated device"),
        format!(
            "{answered} answered, none twice; {asked} of {asked} of somebody else's, each within {worst:?}; same connection, stack {stack} and {after} bytes"
        ),
    );
    Ok(())
}
