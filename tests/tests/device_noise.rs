//! Noise in place of a broker, at each depth that a device reads to: row T-314 of docs/spec/10 §14. `CHORIA_TEST_SECONDS` says
//! how long all of it lasts.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use choria_tests::device::{Device, DeviceTls, HOST, Personality};
use choria_tests::faces::FRAGMENT;
use choria_tests::{Act, FalseBroker, INFO, Stage, Then, free_port, test_length, wait_until};

/// docs/spec/08 §8
const STACK: u32 = 20 * 1024;

#[test]
fn t_314_noise_over_tcp_within_tls_and_after_connect() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (files, port) = (DeviceTls::new(folder.path())?, free_port()?);
    let stage = Stage::with_broker_settings(&files.listener(port))?;
    stage.provisioner()?;
    let tls = choria_host::tls::constrained_server_config(&files.certificate, &files.key, FRAGMENT)?;
    let face = |then| Act::Face { info: INFO.to_owned(), tls: tls.clone(), then };
    let broker = FalseBroker::start(vec![Act::Noise(b"")])?;
    let personality = Personality {
        provisioning_jwt: stage.provisioning_token()?,
        issuer: stage.org.public(),
        ca: files.ca.clone(),
        broker: format!("nats://{HOST}:{}", broker.port),
        identity: "noise.example.net".to_owned(),
    };
    let mut device = Device::new(&folder.path().join("device"), &personality)?;
    device.start()?;

    let depths: [(&str, Vec<Act>); 3] = [
        (
            "over TCP",
            vec![
                Act::Noise(b""),
                Act::Noise(b"INFO {\"server_id\":"),
                Act::Noise(b"INFO {\"server_id\":\"x\",\"nonce\":\"abcdefghijk\",\"tls_required\":true}\r\n"),
            ],
        ),
        ("within TLS", vec![face(Then::NoisyRecords), face(Then::NoisyData)]),
        ("after CONNECT", vec![face(Then::NoisyProtocol)]),
    ];
    let mut told = Vec::new();
    for (depth, acts) in depths {
        let (began, before) = (Instant::now(), broker.calls());
        let long = acts.iter().cycle().take(500).cloned().collect();
        broker.goes_on_with(long);
        wait_until("noise at this depth", Duration::from_secs(300), || {
            began.elapsed() >= test_length() / 3
                && broker.calls() > before + u32::try_from(acts.len()).unwrap_or(3)
        })?;
        ensure!(device.is_running(), "it is gone: {}", device.console());
        told.push(format!("{} connections {depth}", broker.calls() - before));
    }
    ensure!(broker.handshakes() > 0, "the noise never was within TLS");
    ensure!(broker.heard().contains("CONNECT {"), "the device was never let in");
    let console = device.console();
    ensure!(
        console.matches("baked").count() == 1 && !console.contains("fault"),
        "it started anew: {console}"
    );

    broker.turns_to(Act::Forward(port));
    device.said("member=true")?;
    let stack = device.stack()?;
    ensure!(stack <= STACK, "its stack has held {stack} bytes");
    let calls = broker.calls();
    wait_until("it is a member", Duration::from_secs(60), || {
        device.console().rsplit_once("member=true").is_some_and(|(_, after)| after.contains("connected"))
    })?;
    ensure!(broker.calls() >= calls, "it went elsewhere");
    choria_rows::row(
        314,
        format!("random bytes for {:?}: {}; on the emulated device", test_length(), told.join(", ")),
        format!("no fault, no restart; then it enrols; stack {stack} of {STACK} bytes"),
    );
    Ok(())
}
