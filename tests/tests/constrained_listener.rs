//! The broker's listener for devices (docs/spec/08 §4.3, decision D5): what goes over the wire, which keys it takes, and that
//! the ordinary listener knows nothing of it.
#![allow(clippy::large_futures)] // a test has few of them

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_host::private_file::write_private;
use choria_tests::device::DeviceTls;
use choria_tests::{Liar, Operator, RECORD_OVERHEAD, Stage, Tap, certificates, free_port, wait_until};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);
const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Content of a record: application data.
const DATA: u8 = 23;

/// A stage with a listener for devices.
struct Site {
    stage: Stage,
    tls: DeviceTls,
    devices: SocketAddr,
    folder: tempfile::TempDir,
}

impl Site {
    fn start(more: &str) -> Result<Site> {
        let folder = tempfile::tempdir()?;
        let (tls, port) = (DeviceTls::new(folder.path())?, free_port()?);
        let stage = Stage::with_broker_settings(&format!("{}{more}", tls.listener(port)))?;
        Ok(Site { stage, tls, devices: SocketAddr::from((HOME, port)), folder })
    }

    /// Lengths of the records that carry a message of 20 KB to somebody behind this listener.
    async fn records_of_a_message(&self, listener: SocketAddr, ca: &Path) -> Result<Vec<usize>> {
        let tap = Tap::before(listener).await?;
        let mut receiver = Liar::dial(tap.address, HOME, ca).await?;
        let claims = json!({"permissions": {"org_admin": true, "fleet_management": true}});
        let caller = self.stage.caller_with("up=receiver", claims)?;
        let hello = receiver.hello(&caller.id, &caller.token, Some(&caller.key));
        receiver.connect(&hello).await?;
        receiver.is_admitted().await?;
        ensure!(receiver.subscribe("choria.node.>").await?.is_none(), "it may not listen");
        let before = tap.records()?.len();

        let mut sender = self.stage.connected(&self.stage.caller("up=sender")?, HOME).await?;
        let message: Vec<u8> = (0..20_480_u32).map(|at| at.to_le_bytes()[0]).collect();
        ensure!(sender.publish("choria.node.d1", &message).await?.is_none(), "it may not send");
        let arrived = receiver.message(PATIENCE).await?.context("the message does not arrive")?;
        ensure!(arrived.payload == message, "another message arrived");
        let records = tap.records()?;
        // what came before belongs to the handshake and to CONNECT; no record of it was larger either
        let all = records.iter().map(|(_, length)| *length).max().unwrap_or_default();
        let data: Vec<usize> = records
            .iter()
            .skip(before)
            .filter(|(kind, _)| *kind == DATA)
            .map(|(_, length)| *length)
            .collect();
        let largest = data.iter().copied().max().unwrap_or_default();
        ensure!(all == largest, "a record of the handshake holds {all} bytes");
        ensure!(data.iter().sum::<usize>() > message.len(), "the message is in other records: {records:?}");
        Ok(data)
    }
}

#[tokio::test]
async fn records_for_devices_are_small_and_for_others_are_not() -> Result<()> {
    let site = Site::start("")?;
    let small = site.records_of_a_message(site.devices, &site.tls.ca).await?;
    let largest = small.iter().max().copied().unwrap_or_default();
    ensure!(largest <= 4096 + RECORD_OVERHEAD, "a device's buffer overflows: {small:?}");
    ensure!(largest > 3584 && small.len() >= 5, "records are cut for no reason: {small:?}");

    let ordinary = site.records_of_a_message(site.stage.broker, &site.stage.ca).await?;
    let largest = ordinary.iter().max().copied().unwrap_or_default();
    ensure!(largest > 4096 + 256, "the ordinary listener makes small records as well: {ordinary:?}");
    Ok(())
}

/// `tiny` has room for 2,048 bytes.
#[tokio::test]
async fn smaller_records_where_the_setting_says_so() -> Result<()> {
    let site = Site::start("plugin.choria.network.constrained.max_fragment = 2048\n")?;
    let small = site.records_of_a_message(site.devices, &site.tls.ca).await?;
    let largest = small.iter().max().copied().unwrap_or_default();
    ensure!(largest <= 2048 + RECORD_OVERHEAD && largest > 1792, "{small:?}");
    Ok(())
}

/// Keys that devices do not verify: P-384, RSA.
fn keys_of_other_kinds(folder: &Path) -> Result<[std::path::PathBuf; 2]> {
    let files = [folder.join("p384.key"), folder.join("rsa.key")];
    let [p384, rsa] = &files;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
    write_private(p384, key.serialize_pem().as_bytes())?;
    let made = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
        .arg(rsa)
        .output()
        .context("openssl: install it with `apt-get install openssl`")?;
    ensure!(made.status.success(), "openssl genpkey: {made:?}");
    Ok(files)
}

#[test]
fn a_key_that_devices_do_not_verify_is_refused_with_the_way_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    certificates(folder.path(), &["broker"])?;
    let tls = DeviceTls::new(folder.path())?;
    let operator = Operator::new(&folder.path().join("client.conf"), folder.path());
    for key in keys_of_other_kinds(folder.path())? {
        let listener =
            DeviceTls { key: key.clone(), certificate: tls.certificate.clone(), ca: tls.ca.clone() };
        let config = folder.path().join("broker.conf");
        let text = format!(
            "identity = broker.example.net\nplugin.choria.broker_network = true\nplugin.choria.use_srv = false\n\
             plugin.choria.network.listen_address = 127.0.0.1\nplugin.choria.network.client_port = 0\n\
             plugin.security.provider = choria\nplugin.security.choria.certificate = {0}/broker.pem\n\
             plugin.security.choria.key = {0}/broker.key\n{1}",
            folder.path().display(),
            listener.listener(free_port()?)
        );
        write_private(&config, text.as_bytes())?;
        let ended = operator.run(&["broker", "run", "--config", &config.display().to_string()])?;
        ensure!(ended.code == 1, "{ended:?}");
        let key = key.display().to_string();
        let way_out = format!("openssl genpkey -algorithm ed25519 -out {key}");
        for part in [key.as_str(), "plugin.choria.network.constrained.key", "Ed25519", "P-256", &way_out] {
            ensure!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_certificate_for_devices_is_read_again() -> Result<()> {
    let site = Site::start("")?;
    let caller = site.stage.caller("up=steady")?;
    let mut steady = Liar::dial(site.devices, HOME, &site.tls.ca).await?;
    let hello = steady.hello(&caller.id, &caller.token, Some(&caller.key));
    steady.connect(&hello).await?;
    steady.is_admitted().await?;

    let told = |text: &str| -> Result<()> {
        let before = site.stage.log("broker").len();
        site.stage.hang_up("broker")?;
        wait_until(text, PATIENCE, || {
            site.stage.log("broker").get(before..).is_some_and(|since| since.contains(text))
        })
        .with_context(|| site.stage.log("broker"))
    };
    let other = tempfile::tempdir()?;
    let fresh = DeviceTls::new(other.path())?;
    for (from, to) in [(&fresh.certificate, &site.tls.certificate), (&fresh.key, &site.tls.key)] {
        write_private(to, &std::fs::read(from)?)?;
    }
    told("Settings were read again")?;
    Liar::dial(site.devices, HOME, &fresh.ca).await.context("the new certificate is not shown")?;
    ensure!(
        Liar::dial(site.devices, HOME, &site.tls.ca).await.is_err(),
        "the old certificate is still shown"
    );

    // a key that devices do not verify changes nothing
    let [p384, _] = keys_of_other_kinds(site.folder.path())?;
    write_private(&site.tls.key, &std::fs::read(p384)?)?;
    told("the old ones stay")?;
    ensure!(site.stage.log("broker").contains("neither Ed25519 nor P-256"), "{}", site.stage.log("broker"));
    Liar::dial(site.devices, HOME, &fresh.ca).await.context("it stays with the good one")?;
    Liar::dial(site.stage.broker, HOME, &site.stage.ca).await.context("the ordinary listener")?;
    steady.say("PING\r\n").await?;
    ensure!(steady.settled().await?.is_none(), "a connection from before is cut");
    Ok(())
}
