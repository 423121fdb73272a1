//! What boards of real hardware share, on a board of QEMU: start, records of mishaps, rest, store on NOR flash, kept lines.
#![allow(clippy::large_futures)] // a test has few of them

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
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
    member_with(time, |_| {}).await
}

/// The same with something to be done to it before its first start.
async fn member_with(time: &TimeServer, prepare: impl FnOnce(&mut Device)) -> Result<Range> {
    let firmware = firmware_of(BOARD)?.display().to_string();
    let server = format!("10.0.2.2:{}", time.port());
    Range::with(&["--elf", &firmware, "--time-server", &server], |device| {
        device.machine(MACHINE);
        prepare(device);
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

/// Sends it back, and waits until it is a member with another key.
async fn send_back(range: &mut Range) -> Result<()> {
    let alice = Arc::clone(&range.stage).caller("up=alice")?;
    let members = range.device.console().matches("member=true").count();
    range.stage.provisioner_is_back()?;
    let token = json!({"token": choria_tests::PROVISIONING_TOKEN});
    range.send(&Shot::calling(&alice, "choria_provision", "reprovision", &token)?).await?;
    range.device.said("member=false")?;
    range.device.said_times("member=true", members + 1)
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

    // a restart that somebody asks for is no mishap
    send_back(&mut range).await?;
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
    let public = keys(&before).pop().context("there is no token on it")?;
    ensure!(seeds(&before, &public) == 1, "its seed is not found where it is");

    send_back(&mut range).await?;
    let after = range.device.file("flash.nor")?;
    ensure!(seeds(&after, &public) == 0, "its old seed is still there");
    let fresh = keys(&after);
    ensure!(!fresh.is_empty() && !fresh.contains(&public), "{public}, then {fresh:?}");
    Ok(())
}

/// In the board's own time, which passes at once where it waits.
#[tokio::test]
async fn t_315_a_board_that_hangs_again_and_again_keeps_off_the_network() -> Result<()> {
    let time = TimeServer::new()?;
    let folder = tempfile::tempdir()?;
    let frames = folder.path().join("frames.pcap");
    let size = || Ok::<u64, std::io::Error>(std::fs::metadata(&frames)?.len());
    let dump = format!("filter-dump,id=frames,netdev=net,file={}", frames.display());
    let network = ["-nic", "user,id=net,ipv6=off", "-object", &dump].map(str::to_owned).to_vec();
    let mut range = member_with(&time, |device| device.network(network)).await?;
    ensure!(size()? > PCAP_HEADER, "no frames are kept");
    range.device.cut()?;

    range.device.hangs()?;
    range.device.waits_for_nothing();
    range.device.start()?;
    range.device.said("the last run ended: watchdog (6 in a row)")?;
    range.device.cut()?;
    let silence = size()?;
    ensure!(silence == PCAP_HEADER, "{silence} bytes of frames");

    let console = range.device.console();
    let lines = console.lines().filter_map(|line| line.split_once(' '));
    let said: Vec<(&str, &str)> =
        lines.filter(|(at, text)| at.parse::<u64>().is_ok() && !text.starts_with("baked")).collect();
    let mut expected = vec!["hanging".to_owned()];
    for number in 1..=4 {
        expected.push(format!("the last run ended: watchdog ({number} in a row)"));
        expected.push("hanging".to_owned());
    }
    expected.push("the last run ended: watchdog (5 in a row)".to_owned());
    expected.push("resting 300 s".to_owned());
    expected.push("hanging".to_owned());
    expected.push("the last run ended: watchdog (6 in a row)".to_owned());
    let texts: Vec<&str> = said.iter().map(|(_, text)| *text).collect();
    ensure!(texts.join("\n").starts_with(&expected.join("\n")), "{console}");
    let resumed: u64 = said.get(11).context("it went no further")?.0.parse()?;
    ensure!((300_000..301_000).contains(&resumed), "it went on after {resumed} ms");
    choria_rows::row(
        315,
        "a member hangs six times in a row before its network is up",
        "its watchdog bites each time; after the fifth it says `resting 300 s`, not a frame leaves it, and it goes on 300 s later",
    );
    Ok(())
}

/// In the board's own time. Its watchdog would bite earlier, and a bite would be a mishap.
#[tokio::test]
async fn a_board_whose_hardware_fails_pauses_before_it_starts_anew() -> Result<()> {
    let time = TimeServer::new()?;
    let mut range = member(&time).await?;
    range.device.cut()?;
    range.device.breaks_its_flash()?;
    range.device.waits_for_nothing();
    range.device.start()?;
    let told = "the store is no whole pages of flash";
    range.device.said_times(told, 2)?;
    range.device.cut()?;

    let console = range.device.console();
    ensure!(!console.contains("the last run ended"), "{console}");
    let at = |text: &str| -> Result<u64> {
        let line = console.lines().find(|line| line.contains(text)).context(text.to_owned())?;
        Ok(line.split(' ').next().unwrap_or_default().parse()?)
    };
    let (before, after) = (at(told)?, at("stack ")?);
    ensure!((before + 10_000..before + 11_000).contains(&after), "{before} ms, then {after} ms: {console}");
    Ok(())
}

/// Its network is never touched: a damaged section may name anybody as its broker.
#[test]
fn a_board_that_nobody_has_personalised_sends_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let frames = folder.path().join("frames.pcap");
    let dump = format!("filter-dump,id=frames,netdev=net,file={}", frames.display());
    let mut device = Device::unpersonalised(folder.path(), BOARD)?;
    device.machine(MACHINE);
    device.network(["-nic", "user,id=net,ipv6=off", "-object", &dump].map(str::to_owned).to_vec());
    device.waits_for_nothing();
    device.start()?;
    device.said("not starting: this image is not personalised")?;
    let silence = std::fs::metadata(&frames)?.len();
    ensure!(silence == PCAP_HEADER, "{silence} bytes of frames");
    ensure!(device.is_running(), "it is to wait for another image");
    Ok(())
}
