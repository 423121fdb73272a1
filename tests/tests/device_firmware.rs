//! What boards of real hardware share, on a board of QEMU: start, records of mishaps, rest, store on NOR flash, kept lines.
#![allow(clippy::large_futures)] // a test has few of them

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_protocol::rpc::RpcReply;
use choria_tests::device::{Device, firmware_of};
use choria_tests::device_range::Range;
use choria_tests::{Shot, TimeServer};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

const BOARD: &str = "qemu-mps2";
const MACHINE: &str = "mps2-an385";
/// Of a file of frames without one.
const PCAP_HEADER: u64 = 24;

/// A member of this board; `time` tells it the time.
async fn member(time: &TimeServer) -> Result<Range> {
    let firmware = firmware_of(BOARD)?.display().to_string();
    let server = format!("10.0.2.2:{}", time.port());
    Range::with(&["--elf", &firmware, "--time-server", &server], |device| {
        device.machine(MACHINE);
        Ok(())
    })
    .await
}

async fn ask(range: &mut Range, agent: &str, action: &str, data: &Value) -> Result<RpcReply> {
    let alice = Arc::clone(&range.stage).caller("up=alice")?;
    let answer = range.answer(&Shot::calling(&alice, agent, action, data)?).await?;
    answer.with_context(|| format!("{agent}#{action}: no answer\n{}", range.device.console()))
}

/// Ends its run by this action of its agent `ruin`, and waits until it is a member again.
async fn ruin(range: &mut Range, action: &str) -> Result<()> {
    let alice = Arc::clone(&range.stage).caller("up=alice")?;
    // its answer comes behind what it said of its last start
    ask(range, "blink", "status", &json!({})).await?;
    range.send(&Shot::calling(&alice, "ruin", action, &json!({}))?).await?;
    range.starts().await
}

/// As `device_firmware` shows the place of a panic.
fn place_of(file: &str, line: usize) -> String {
    let hash = file.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
    format!("panic in file {hash:08x}, line {line}")
}

#[tokio::test]
async fn a_board_of_shared_firmware_is_a_member_and_keeps_its_key_on_flash() -> Result<()> {
    let time = TimeServer::new()?;
    let mut range = member(&time).await?;
    let lit = ask(&mut range, "blink", "on", &json!({})).await?;
    ensure!(lit.data.get("lit") == Some(&json!(true)), "{lit:?}");
    let led = ask(&mut range, "rpcutil", "get_fact", &json!({"fact": "led"})).await?;
    ensure!(led.data.get("value") == Some(&json!(true)), "the pin is low: {led:?}");

    let log = ask(&mut range, "device_log", "last", &json!({"count": 2})).await?;
    let lines: Vec<String> = serde_json::from_value(log.data.get("lines").cloned().unwrap_or_default())?;
    ensure!(lines.len() == 2, "{log:?}");
    let console = range.device.console();
    ensure!(lines.iter().all(|line| console.contains(line.as_str())), "{lines:?} in {console}");

    range.restart().await?;
    ensure!(range.device.console().contains("member=true"), "{}", range.device.console());
    ensure!(!range.device.console().contains("member=false"), "{}", range.device.console());
    ensure!(!range.device.console().contains("the last run ended"), "{}", range.device.console());
    Ok(())
}

#[tokio::test]
async fn what_ended_a_run_is_said_in_the_next() -> Result<()> {
    let time = TimeServer::new()?;
    let mut range = member(&time).await?;

    ruin(&mut range, "panic").await?;
    let source = include_str!("../../agent-embedded/boards/qemu-mps2/src/ruin.rs");
    let line = source.lines().position(|line| line.contains("panic!(")).context("no panic in it")? + 1;
    range.device.said(&format!("the last run ended: {} (1 in a row)", place_of("src/ruin.rs", line)))?;
    let log = ask(&mut range, "device_log", "last", &json!({})).await?;
    ensure!(log.data.to_string().contains("the last run ended: panic"), "{log:?}");

    ruin(&mut range, "fault").await?;
    range.device.said("the last run ended: fault at 000")?;
    range.device.said(" (2 in a row)")?;

    ruin(&mut range, "hang").await?;
    range.device.said("the last run ended: watchdog (3 in a row)")?;

    // a restart that somebody asks for is no mishap, and the row of them ends
    range.stage.provisioner_is_back()?;
    let members = range.device.console().matches("member=true").count();
    let token = json!({"token": choria_tests::PROVISIONING_TOKEN});
    let alice = Arc::clone(&range.stage).caller("up=alice")?;
    range.send(&Shot::calling(&alice, "choria_provision", "reprovision", &token)?).await?;
    range.device.said("member=false")?;
    range.device.said_times("member=true", members + 1)?;
    let console = range.device.console();
    ensure!(console.matches("the last run ended").count() == 3, "{console}");
    Ok(())
}

/// The keys of the tokens in these bytes.
fn keys(flash: &[u8]) -> Vec<String> {
    let starts = flash.windows(3).enumerate().filter(|(_, start)| *start == b"eyJ").map(|(at, _)| at);
    let tokens = starts.map(|at| {
        let rest = flash.get(at..).unwrap_or_default().iter();
        rest.take_while(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b)).copied().collect::<Vec<u8>>()
    });
    let claims = tokens.filter_map(|token| {
        let payload = URL_SAFE_NO_PAD.decode(token.split(|b| *b == b'.').nth(1)?).ok()?;
        serde_json::from_slice::<Value>(&payload).ok()
    });
    claims.filter_map(|claims| Some(claims.get("public_key")?.as_str()?.to_owned())).collect()
}

/// How often the seed of this key stands in these bytes.
fn seeds(flash: &[u8], public: &str) -> usize {
    // most of a flash is erased, and a seed does not end in so many equal bytes
    let windows = flash.windows(32).filter(|seed| !seed.ends_with(&[0xff; 8]));
    let key = |seed: &[u8]| Some(SigningKey::from_bytes(seed.try_into().ok()?).verifying_key().to_bytes());
    windows.filter_map(key).filter(|key| hex::encode(key) == public).count()
}

#[tokio::test]
async fn a_board_that_is_sent_back_leaves_no_seed_on_its_flash() -> Result<()> {
    let time = TimeServer::new()?;
    let mut range = member(&time).await?;
    let before = range.device.file("flash.nor")?;
    let [public] = keys(&before).try_into().map_err(|keys| anyhow!("one token and not {keys:?}"))?;
    ensure!(seeds(&before, &public) == 1, "its seed is not found where it is");

    let alice = Arc::clone(&range.stage).caller("up=alice")?;
    range.stage.provisioner_is_back()?;
    let token = json!({"token": choria_tests::PROVISIONING_TOKEN});
    range.send(&Shot::calling(&alice, "choria_provision", "reprovision", &token)?).await?;
    range.device.said("member=false")?;
    range.device.said_times("member=true", 2)?;
    let after = range.device.file("flash.nor")?;
    ensure!(seeds(&after, &public) == 0, "its old seed is still there");
    let fresh = keys(&after);
    ensure!(!fresh.is_empty() && !fresh.contains(&public), "{public}, then {fresh:?}");
    Ok(())
}

/// In the board's own time, which passes at once where it waits.
#[test]
fn t_315_a_board_that_hangs_again_and_again_keeps_off_the_network() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let frames = folder.path().join("frames.pcap");
    let dump = format!("filter-dump,id=frames,netdev=net,file={}", frames.display());
    let mut device = Device::unpersonalised(folder.path(), BOARD)?;
    device.machine(MACHINE);
    device.network(["-nic", "user,id=net,ipv6=off", "-object", &dump].map(str::to_owned).to_vec());
    let hang = folder.path().join("hang");
    std::fs::write(&hang, b"")?;
    device.waits_for_nothing();
    device.start()?;
    device.said("the last run ended: watchdog (6 in a row)")?;
    device.cut()?;
    let console = device.console();
    let said: Vec<&str> = console.lines().filter(|line| !line.contains("Slirp")).collect();
    let mut expected = vec!["0 hanging".to_owned()];
    for number in 1..=4 {
        expected.push(format!("0 the last run ended: watchdog ({number} in a row)"));
        expected.push("0 hanging".to_owned());
    }
    expected.push("0 the last run ended: watchdog (5 in a row)".to_owned());
    expected.push("0 resting 300 s".to_owned());
    expected.push("300000 hanging".to_owned());
    expected.push("0 the last run ended: watchdog (6 in a row)".to_owned());
    ensure!(said.join("\n").starts_with(&expected.join("\n")), "{console}");
    let silence = std::fs::metadata(&frames)?.len();
    ensure!(silence == PCAP_HEADER, "{silence} bytes of frames");

    // power off and on: nothing is remembered, and the same wire carries its frames
    std::fs::remove_file(hang)?;
    device.start()?;
    device.said("not starting")?;
    choria_tests::wait_until("a frame", std::time::Duration::from_secs(30), || {
        std::fs::metadata(&frames).is_ok_and(|file| file.len() > PCAP_HEADER)
    })?;
    ensure!(!device.console().contains("the last run ended"), "{}", device.console());
    choria_rows::row(
        315,
        "a board hangs six times in a row before its network is up",
        "its watchdog bites each time; after the fifth it says `resting 300 s`, not a frame leaves it, and it goes on 300.000 s later",
    );
    Ok(())
}
