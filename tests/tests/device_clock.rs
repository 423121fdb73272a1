//! A microcontroller without a clock, and time servers that lie to it (docs/spec/08 §7.5, docs/spec/10 D3).
#![allow(clippy::large_futures)] // a test has few of them

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_host::clock::unix_nanos;
use choria_tests::device_range::Range;
use choria_tests::{Shot, TimeServer, wait_until};
use serde_json::json;

const DAY: i64 = 86_400;
/// The first second of 2001 and of 2100.
const LONG_AGO: i64 = 978_307_200;
const FAR_AHEAD: i64 = 4_102_444_800;

/// A device without a clock that asks `server`; it is a member already. Its image was made at `built`, Unix seconds.
async fn clockless(server: &TimeServer, built: i64) -> Result<Range> {
    let (asked, built) = (format!("10.0.2.2:{}", server.port()), built.to_string());
    Range::with(&["--time-server", &asked, "--built", &built], |device| device.without_clock()).await
}

/// The floor that it has stored, Unix seconds.
fn floor(range: &Range) -> Result<Option<i64>> {
    let Some(bytes) = range.device.stored("floor") else { return Ok(None) };
    Ok(Some(i64::from_le_bytes(bytes.try_into().ok().context("a floor has eight bytes")?)))
}

/// The floor once there is one.
fn wait_for_floor(range: &Range) -> Result<i64> {
    wait_until("a floor is stored", Duration::from_secs(20), || range.device.stored("floor").is_some())?;
    floor(range)?.context("no floor")
}

#[tokio::test]
async fn t_300_t_303_a_time_server_that_sets_the_time_far_ahead() -> Result<()> {
    let server = TimeServer::new()?;
    let built = unix_nanos() / 1_000_000_000 - 30 * DAY;
    let mut range = clockless(&server, built).await?;
    let alice = Arc::clone(&range.stage).caller("up=alice")?;
    let captured = Shot::of(&alice, |_| {})?;
    ensure!(range.answer(&captured).await?.is_some_and(|reply| reply.statuscode.is_ok()), "no answer");

    // the token that was issued just now is later than the image by a month
    let risen = wait_for_floor(&range)?;
    ensure!(risen > built + 29 * DAY, "the floor is {risen}");

    range.restart().await?;
    range.drops(&captured, "replayed").await?;
    choria_rows::row(
        303,
        "a captured request again after a restart, within its time, once the device has heard the time",
        "silence, replayed",
    );

    server.says(FAR_AHEAD);
    range.restart().await?;
    range.device.said(&format!("time {}", FAR_AHEAD / 1000))?;
    let shot = Shot::of(&alice, |_| {})?;
    range.send(&shot).await?;
    range.device.said("request dropped reason=token_expired ")?;
    let now = unix_nanos() / 1_000_000_000;
    ensure!(floor(&range)?.is_some_and(|floor| floor <= now + DAY), "the floor is {:?}", floor(&range)?);

    server.is_wrong_by(0);
    range.restart().await?;
    let shot = Shot::of(&alice, |_| {})?;
    ensure!(range.answer(&shot).await?.is_some_and(|reply| reply.statuscode.is_ok()), "it stays in 2100");
    ensure!(floor(&range)? == Some(risen), "the floor is {:?} instead of {risen}", floor(&range)?);

    // what was learnt outlives a server that sets the time back: a token of an hour ago is over
    server.says(LONG_AGO);
    range.restart().await?;
    let over = json!({"iat": risen - DAY, "exp": risen - 1, "permissions": {"fleet_management": true}});
    let over = range.stage.caller_with("up=alice", over)?;
    range.send(&Shot::of(&over, |_| {})?).await?;
    range.device.said("request dropped reason=token_expired ")?;
    choria_rows::row(
        300,
        "the time server says 2100, then the truth after a restart",
        "tokens are over, then valid again; the stored floor is that of the newest token, also against a server that says 2001",
    );
    Ok(())
}

#[tokio::test]
async fn t_301_a_time_server_that_sets_the_time_back() -> Result<()> {
    let server = TimeServer::new()?;
    server.says(LONG_AGO);
    // everything that it is shown while it enrols is younger than its image
    let built = unix_nanos() / 1_000_000_000 - 60;
    let mut range = clockless(&server, built).await?;
    range.device.said(&format!("time {}", LONG_AGO / 1000))?;
    range.device.said("no time is known")?;
    let stage = Arc::clone(&range.stage);
    let over = built - 1;
    let claims = json!({"iat": over - DAY, "exp": over, "permissions": {"fleet_management": true}});
    let expired = stage.caller_with("up=alice", claims)?;
    range.send(&Shot::of(&expired, |_| {})?).await?;
    range.device.said("request dropped reason=token_expired ")?;
    let alice = stage.caller("up=alice")?;
    // what it answers behind this is rpcutil#ping
    range.drops(&Shot::calling(&alice, "rpcutil", "daemon_stats", &json!({}))?, "clock_unknown").await?;
    choria_rows::row(
        301,
        "the time server says 2001: enrolment; a token that was over before the image was made; an action, a ping",
        "a member all the same; silence, token_expired; silence, clock_unknown; answered",
    );
    Ok(())
}

#[tokio::test]
async fn t_302_a_device_that_nobody_tells_the_time() -> Result<()> {
    let server = TimeServer::new()?;
    server.is_silent();
    let mut range = clockless(&server, unix_nanos() / 1_000_000_000).await?;
    range.device.said("no time is known")?;
    let alice = Arc::clone(&range.stage).caller("up=alice")?;
    // what it answers behind this is rpcutil#ping
    range.drops(&Shot::calling(&alice, "rpcutil", "daemon_stats", &json!({}))?, "clock_unknown").await?;
    choria_rows::row(
        302,
        "no time server answers: enrolment, an action, a ping",
        "a member all the same; silence, clock_unknown; answered",
    );
    Ok(())
}

/// A crystal loses seconds between two answers: who has just logged in is served all the same, and nobody from the future.
#[tokio::test]
async fn a_clock_that_is_a_little_behind_serves_tokens_of_this_moment() -> Result<()> {
    let server = TimeServer::new()?;
    server.is_wrong_by(-2);
    let built = unix_nanos() / 1_000_000_000 - DAY;
    let mut range = clockless(&server, built).await?;
    let stage = Arc::clone(&range.stage);
    let fresh = stage.caller("up=fresh")?;
    let answer = range.answer(&Shot::calling(&fresh, "rpcutil", "daemon_stats", &json!({}))?).await?;
    ensure!(answer.is_some_and(|reply| reply.statuscode.is_ok()), "{}", range.device.console());

    let now = unix_nanos() / 1_000_000_000;
    let claims = json!({"nbf": now + 10, "exp": now + 600, "permissions": {"fleet_management": true}});
    let early = stage.caller_with("up=early", claims)?;
    range.drops(&Shot::of(&early, |_| {})?, "token_early").await
}
