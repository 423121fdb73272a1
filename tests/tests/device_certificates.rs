//! What a microcontroller in QEMU does in front of certificates and greetings that are not its broker's: rows T-292 to T-296 of
//! docs/spec/10 §14.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_tests::device::{Device, HOST, Personality};
use choria_tests::faces::{FRAGMENT, Faces, critical_and_unknown};
use choria_tests::{Act, FalseBroker, INFO, Stage, Then, free_port, wait_until};
use rcgen::{ExtendedKeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

const PATIENCE: Duration = Duration::from_secs(120);
/// docs/spec/08 §8
const STACK: u32 = 20 * 1024;

/// A hub whose listener for devices has a certificate of the authority that also makes the wrong ones.
struct Site {
    stage: Stage,
    faces: Faces,
    port: u16,
    folder: tempfile::TempDir,
}

impl Site {
    fn start() -> Result<Site> {
        let folder = tempfile::tempdir()?;
        let faces = Faces::new(folder.path(), &PKCS_ED25519)?;
        let port = free_port()?;
        let stage = Stage::with_broker_settings(&faces.listener(folder.path())?.listener(port))?;
        stage.provisioner()?;
        Ok(Site { stage, faces, port, folder })
    }

    fn device(&self, identity: &str, broker: &FalseBroker, ca: &Path) -> Result<Device> {
        let personality = Personality {
            provisioning_jwt: self.stage.provisioning_token()?,
            issuer: self.stage.org.public(),
            ca: ca.to_path_buf(),
            broker: format!("nats://{HOST}:{}", broker.port),
            identity: identity.to_owned(),
        };
        Device::new(&self.folder.path().join(identity), &personality)
    }
}

/// A certificate that the device is shown, and what it says of it.
struct Shown {
    what: &'static str,
    act: Act,
    reason: &'static str,
}

/// One element of DER whose length needs two bytes.
fn element(tag: u8, content: &[u8]) -> Result<Vec<u8>> {
    let [high, low] = u16::try_from(content.len())?.to_be_bytes();
    Ok([&[tag, 0x82, high, low], content].concat())
}

fn hostile(faces: &Faces) -> Result<Vec<Shown>> {
    let mut all = Vec::new();
    let mut show = |what, chain: &[&[u8]], key, fragment, reason| -> Result<()> {
        let tls = faces.showing(chain, key, fragment)?;
        let act = Act::Face { info: INFO.to_owned(), tls, then: Then::Obey };
        all.push(Shown { what, act, reason });
        Ok(())
    };
    let small = Some(FRAGMENT);

    let elsewhere = faces.leaf(|params| {
        params.subject_alt_names = vec![rcgen::SanType::IpAddress([192, 0, 2, 1].into())];
    })?;
    show("T-292 other host", &[&elsewhere.der], &elsewhere.key, small, "certificate_name")?;
    let over = faces.leaf(|params| {
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(2025, 1, 1);
    })?;
    show("T-292 expired", &[&over.der], &over.key, small, "certificate_expired")?;

    let leaf = faces.leaf(|_| {})?;
    let below = leaf.signs()?;
    show("T-293 signed by a leaf", &[&below.der, &leaf.der], &below.key, small, "certificate_constraints")?;

    let unknown = faces.leaf(|params| params.custom_extensions.push(critical_and_unknown()))?;
    let reason = "certificate_critical_extension";
    show("T-294 unknown critical extension", &[&unknown.der], &unknown.key, small, reason)?;
    let client =
        faces.leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])?;
    show("T-294 for clients", &[&client.der], &client.key, small, "certificate_purpose")?;

    let malformed = "certificate_malformed";
    let mut nested = vec![5, 0];
    for _ in 0..900 {
        nested = element(0x30, &nested)?;
    }
    show("T-295 900 levels", &[&nested], &leaf.key, small, malformed)?;
    let indefinite = [&[0x30, 0x80][..], leaf.der.get(4..).context("a certificate")?, &[0, 0]].concat();
    show("T-295 indefinite length", &[&indefinite], &leaf.key, small, malformed)?;
    let half = leaf.der.get(..leaf.der.len() / 2).context("a half")?;
    show("T-295 truncated", &[half], &leaf.key, small, malformed)?;
    let long =
        [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..], leaf.der.get(4..).context("a certificate")?].concat();
    show("T-295 4 GiB announced", &[&long], &leaf.key, small, malformed)?;
    let more = element(0x30, &vec![0; 8 * 1024])?;
    let chain: [&[u8]; 3] = [&leaf.der, &more, &more];
    show("T-295 16 KiB in records of 4 KiB", &chain, &leaf.key, small, "handshake")?;
    show("T-295 16 KiB in one record", &chain, &leaf.key, None, "handshake")?;
    Ok(all)
}

#[test]
fn t_292_t_293_t_294_t_295_certificates_that_are_refused() -> Result<()> {
    let site = Site::start()?;
    let shown = hostile(&site.faces)?;
    let mut acts: Vec<Act> = shown.iter().map(|shown| shown.act.clone()).collect();
    acts.push(Act::Forward(site.port));
    let broker = FalseBroker::start(acts)?;
    let mut device = site.device("faces.example.net", &broker, &site.faces.ca)?;
    device.start()?;
    let verdicts = || -> Vec<String> {
        let console = device.console();
        let reasons = console.lines().filter_map(|line| line.split_once("tls refused reason="));
        reasons.map(|(_, reason)| reason.trim().to_owned()).collect()
    };
    wait_until("all are refused", PATIENCE, || verdicts().len() == shown.len())
        .with_context(|| device.console())?;
    for (shown, verdict) in shown.iter().zip(verdicts()) {
        ensure!(verdict == shown.reason, "{}: {verdict} instead of {}", shown.what, shown.reason);
    }
    ensure!(broker.heard().is_empty(), "it spoke to them: {}", broker.heard());
    ensure!(broker.handshakes() == 0, "{} handshakes were completed", broker.handshakes());

    // the same start of the same device then meets its broker
    device.said("member=true")?;
    device.said_times("connected", 2)?;
    let stack = device.stack()?;
    ensure!(stack <= STACK, "the stack has held {stack} bytes");
    ensure!(device.console().matches("baked").count() == 2, "it started anew: {}", device.console());
    for (row, tried, saw) in [
        (
            292,
            "of the right authority for another host, over since 2025",
            "certificate_name, certificate_expired",
        ),
        (293, "signed by a leaf of the right authority, which comes along", "certificate_constraints"),
        (294, "an unknown critical extension; one for clients", "certificate_critical_extension, _purpose"),
        (
            295,
            "900 levels; indefinite length; half a certificate; 4 GiB announced; 16 KiB in small and in one record",
            "certificate_malformed and handshake",
        ),
    ] {
        choria_rows::row(
            row,
            format!("certificates: {tried}; on the emulated device"),
            format!("{saw}; no CONNECT; then it enrols, stack {stack} of {STACK} bytes"),
        );
    }
    Ok(())
}

#[test]
fn t_294_an_ed25519_certificate_for_a_device_that_pins_p256() -> Result<()> {
    let site = Site::start()?;
    let other = site.folder.path().join("p256");
    std::fs::create_dir(&other)?;
    let pinned = Faces::new(&other, &PKCS_ECDSA_P256_SHA256)?;
    let leaf = site.faces.leaf(|_| {})?;
    let tls = site.faces.showing(&[&leaf.der], &leaf.key, Some(FRAGMENT))?;
    let broker = FalseBroker::start(vec![Act::Face { info: INFO.to_owned(), tls, then: Then::Obey }])?;
    let mut device = site.device("p256.example.net", &broker, &pinned.ca)?;
    device.start()?;
    device.said_times("tls refused reason=certificate_not_pinned", 3)?;
    ensure!(broker.heard().is_empty(), "it spoke: {}", broker.heard());
    ensure!(device.is_running() && !device.console().contains("panic"), "{}", device.console());
    choria_rows::row(
        294,
        "a P-256 pin and an Ed25519 certificate, three times, on the emulated device",
        "certificate_not_pinned, no CONNECT, no panic",
    );
    Ok(())
}

const NONCE_BAD: &str = "connection ended reason=nonce_bad";

#[test]
fn t_296_a_greeting_that_asks_for_a_signature_over_a_request() -> Result<()> {
    let site = Site::start()?;
    let broker = FalseBroker::start(vec![Act::Forward(site.port)])?;
    let identity = "nonce.example.net";
    let mut device = site.device(identity, &broker, &site.faces.ca)?;
    device.start()?;
    device.said("member=true")?;
    device.said_times("connected", 2)?;
    let leaf = site.faces.leaf(|_| {})?;
    let tls = site.faces.showing(&[&leaf.der], &leaf.key, Some(FRAGMENT))?;
    let request = r#"{"protocol":"io.choria.protocol.v2.request","agent":"rpcutil"}"#;
    let login = "1798761600:alice:password";
    // a dial that is under way when the face changes still meets the one before
    for (times, nonce) in [(1, request), (3, login)] {
        let info = serde_json::json!({"server_id": "x", "nonce": nonce, "tls_required": true, "max_payload": 1_048_576});
        broker.turns_to(Act::Face { info: info.to_string(), tls: tls.clone(), then: Then::Obey });
        let before = device.console().matches(NONCE_BAD).count();
        device.said_times(NONCE_BAD, before + times)?;
    }
    ensure!(broker.heard().is_empty(), "it spoke: {}", broker.heard());
    // the control: the same face with a nonce that is one is spoken to
    broker.turns_to(Act::Face { info: INFO.to_owned(), tls, then: Then::Obey });
    device.said_times("connected", 3)?;
    ensure!(broker.heard().contains("\"sig\":"), "no signature over a nonce: {}", broker.heard());
    broker.turns_to(Act::Forward(site.port));
    device.said_times("connected", 4)?;
    choria_rows::row(
        296,
        "INFO with a request, and with a login, as the nonce, to a member on the emulated device",
        "nonce_bad, no CONNECT, no signature; an ordinary nonce is signed",
    );
    Ok(())
}
