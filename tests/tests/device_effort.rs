//! What a microcontroller's work costs in instructions (docs/spec/08 §8). QEMU counts: 16 ns of the device's time are one
//! instruction (`-icount shift=4`). Time in which the device only waits for this machine counts as well, so the numbers are
//! upper bounds and mean something on a quiet machine only: run with
//! `cargo test -p choria-tests --test device_effort -- --ignored --nocapture`.
#![allow(clippy::large_futures)] // a test has few of them

use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use choria_tests::Shot;
use choria_tests::device_range::Range;
use serde_json::json;

/// Instructions in a millisecond of the device.
const PER_MS: u64 = 62_500;
/// Requests of one measurement.
const REQUESTS: u64 = 400;

/// The device's millisecond at the line that ends like this, the `n`th of its kind.
fn at(console: &str, text: &str, n: usize) -> Result<u64> {
    let line = console.lines().filter(|line| line.contains(text)).nth(n).context("no such line")?;
    Ok(line.split(' ').next().unwrap_or_default().parse()?)
}

async fn seconds(range: &mut Range) -> Result<u64> {
    let fact = json!({"fact": "uptime"});
    let asked = Shot::calling(&range.stage.caller("up=asker")?, "rpcutil", "get_fact", &fact)?;
    let answer = range.answer(&asked).await?.context("no answer")?;
    answer.data.get("value").and_then(serde_json::Value::as_u64).context("no number")
}

#[tokio::test]
#[ignore = "numbers of a quiet machine"]
async fn what_connecting_enrolling_and_one_request_cost() -> Result<()> {
    let mut range = Range::with(&[], |device| device.counts_instructions()).await?;
    let console = range.device.console();
    let candidate = at(&console, "connected", 0)? * PER_MS;
    let enrolled = at(&console, "restarting in", 0)?;
    let member = at(&console, "connected", 1)? * PER_MS;
    let whole = enrolled * PER_MS + member;

    let alice = Arc::clone(&range.stage).caller("up=alice")?;
    let before = seconds(&mut range).await?;
    for _ in 0..REQUESTS {
        range.send(&Shot::of(&alice, |_| {})?).await?;
    }
    let after = seconds(&mut range).await?;
    let request = (after - before + 1) * 1000 * PER_MS / REQUESTS;

    let mut out = std::io::stdout();
    writeln!(out, "boot to PONG          candidate {candidate}, member {member} (must be 30 M)")?;
    writeln!(out, "blank to server       {whole} (must be 120 M)")?;
    writeln!(out, "one request           {request} (must be 8 M)")?;
    ensure!(candidate.max(member) <= 30_000_000, "boot to PONG: {candidate}, {member}");
    ensure!(whole <= 120_000_000, "blank to connected server: {whole}");
    ensure!(request <= 8_000_000, "one request: {request}");
    Ok(())
}
