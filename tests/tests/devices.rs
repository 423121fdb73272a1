//! Microcontrollers in QEMU against the real hub (docs/spec/08 §11).
#![allow(clippy::large_futures)] // a test has few of them

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_tests::device::{Device, DeviceTls, HOST, Personality};
use choria_tests::forge::{self, Key};
use choria_tests::{Network, Operator, Stage, free_port, wait_until};
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(90);
/// Steps in which an enrolment changes the storage of a device.
const STEPS: u32 = 12;

/// A hub with a listener for devices, and somebody at a terminal.
struct Site {
    stage: Arc<Stage>,
    tls: DeviceTls,
    port: u16,
    operator: Operator,
    folder: TempDir,
}

impl Site {
    fn start() -> Result<Site> {
        let folder = tempfile::tempdir()?;
        let (tls, port) = (DeviceTls::new(folder.path())?, free_port()?);
        let stage = Arc::new(Stage::with_broker_settings(&format!(
            "{}plugin.choria.network.client_port = {}",
            tls.listener(port),
            free_port()?
        ))?);
        stage.provisioner()?;
        let operator = stage.operator("operator", &stage.caller("up=operator")?)?;
        let ddl = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent-embedded/ddl");
        let mut config = std::fs::OpenOptions::new().append(true).open(stage.path("operator.conf"))?;
        writeln!(config, "libdir = {}", ddl.display())?;
        Ok(Site { stage, tls, port, operator, folder })
    }

    fn personality(&self, identity: &str) -> Result<Personality> {
        Ok(Personality {
            provisioning_jwt: self.stage.provisioning_token()?,
            issuer: self.stage.org.public(),
            ca: self.tls.ca.clone(),
            broker: format!("nats://{HOST}:{}", self.port),
            identity: identity.to_owned(),
        })
    }

    fn device(&self, identity: &str) -> Result<Device> {
        self.device_with(&self.personality(identity)?)
    }

    fn device_with(&self, personality: &Personality) -> Result<Device> {
        Device::new(&self.folder.path().join(&personality.identity), personality)
    }

    /// Asks one device something, with `--json`.
    fn asks(&self, identity: &str, request: &[&str]) -> Result<serde_json::Value> {
        let finished = self.operator.run(&[&["req"], request, &["-I", identity, "--json"]].concat())?;
        finished.json().with_context(|| format!("{request:?}: {finished:?}"))
    }
}

fn data<'v>(answer: &'v serde_json::Value, name: &str) -> Result<&'v serde_json::Value> {
    let reply = answer.get("replies").and_then(|replies| replies.get(0)).context("no reply")?;
    reply.get("data").and_then(|data| data.get(name)).with_context(|| format!("no {name} in {answer}"))
}

/// From a blank image to a member of the fleet, over a loss of power and of the hub, and back to a blank one.
#[test]
fn a_blank_image_becomes_a_member_and_stays_one() -> Result<()> {
    let site = Site::start()?;
    let identity = "d1.example.net";
    let mut device = site.device(identity)?;
    device.start()?;
    device.said("member=true")?;
    device.said_times("connected", 2)?;
    let seed = device.stored("seed").context("no seed")?;
    // docs/spec/08 §8: the most that is left beside static RAM
    ensure!(device.stack()? <= 20 * 1024, "the stack has held {} bytes", device.stack()?);

    site.operator.hears(&[identity.to_owned()])?;
    let pong = site.asks(identity, &["rpcutil", "ping"])?;
    ensure!(data(&pong, "pong")?.as_i64().is_some_and(|seconds| seconds > 1_700_000_000), "{pong}");
    let lit = site.asks(identity, &["blink", "on"])?;
    ensure!(*data(&lit, "lit")? == json!(true), "{lit}");
    let set = site.asks(identity, &["blink", "set", "lit=false"])?;
    ensure!(*data(&set, "lit")? == json!(false) && *data(&set, "changes")? == json!(2), "{set}");
    let inventory = site.operator.ok(&["inventory", identity])?;
    for expected in ["blink", "qemu-lm3s", "rx_limit"] {
        ensure!(inventory.contains(expected), "no {expected} in {inventory}");
    }

    // power
    device.cut()?;
    device.start()?;
    device.said("connected")?;
    ensure!(device.console().contains("member=true"), "{}", device.console());
    ensure!(device.stored("seed").as_ref() == Some(&seed), "it has another key");
    site.asks(identity, &["rpcutil", "ping"])?;

    // the hub
    site.stage.crash_broker()?;
    device.said_times("connected", 2)?;
    site.asks(identity, &["rpcutil", "ping"])?;

    // back to the beginning, with a new key
    site.stage.provisioner_is_back()?;
    let file = site.stage.path("access");
    choria_host::private_file::write_private(&file, choria_tests::PROVISIONING_TOKEN.as_bytes())?;
    site.asks(identity, &["choria_provision", "reprovision", &format!("token=@{}", file.display())])?;
    device.said("member=false")?;
    device.said_times("member=true", 2)?;
    device.said_times("connected", 4)?;
    ensure!(device.stored("seed").is_some_and(|fresh| fresh != seed), "it kept its key");
    wait_until("it answers again", PATIENCE, || {
        site.operator.answering().is_ok_and(|names| names.contains(&identity.to_owned()))
    })
}

/// The provisioner sends a device what it takes, and nothing that it could only drop (docs/spec/08 §7.1).
#[test]
fn the_provisioner_knows_what_a_device_takes() -> Result<()> {
    let site = Site::start()?;
    let helper = site.stage.path("helper.sh");
    let good = std::fs::read_to_string(&helper)?;
    // each of them is of the kind that devices keep
    let issuers: Vec<String> = (0..40)
        .map(|number| {
            format!(r#""plugin.security.issuer.more{number}.public":"{}","#, site.stage.org.public())
        })
        .collect();
    let mark = r#""rpcauthorization":"1","#;
    ensure!(good.contains(mark), "{good}");
    let large = good.replace(mark, &format!("{}{mark}", issuers.concat()));
    choria_host::private_file::write_atomic(&helper, large.as_bytes(), 0o700)?;
    let mut device = site.device("portion.example.net")?;
    device.start()?;
    let log = || site.stage.log("provisioner");
    wait_until("it is deferred", PATIENCE, || log().contains("reason=deferred"))
        .with_context(|| format!("{}\n{}", log(), device.console()))?;
    ensure!(log().contains("reads at most 11776 (fact agent_core.rx_limit)"), "{}", log());
    ensure!(!device.console().contains("dropped"), "it was sent: {}", device.console());

    choria_host::private_file::write_atomic(&helper, good.as_bytes(), 0o700)?;
    device.said("member=true")?;
    device.said_times("connected", 2)?;
    let log = log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("what a device does not take")).collect();
    ensure!(told.len() == 2, "once for each attempt: {told:?}");
    ensure!(told.iter().all(|line| line.contains("settings=5") && line.contains("policies=2")), "{told:?}");
    let kept = String::from_utf8(device.stored("config").context("no configuration")?)?;
    ensure!(kept.lines().count() == 6 && !kept.contains("token_file"), "{kept}");
    Ok(())
}

/// Whoever is not who the image expects hears nothing: not a token, not a CONNECT.
#[test]
fn t_290_t_311_t_317_t_318_t_319_a_device_talks_to_its_own_broker_only() -> Result<()> {
    let site = Site::start()?;
    let before = site.stage.log("broker");
    let other = tempfile::tempdir()?;
    let foreign = Personality { ca: DeviceTls::new(other.path())?.ca, ..site.personality("d2.example.net")? };
    let mut device = site.device_with(&foreign)?;
    device.start()?;
    device.said("tls refused reason=certificate_signature")?;
    device.said_times("connection ended reason=tls_failed", 2)?;
    device.cut()?;
    let log = site.stage.log("broker");
    let heard = log.strip_prefix(before.as_str()).unwrap_or_default();
    ensure!(!heard.contains("d2.example.net"), "the broker heard of it: {heard}");
    choria_rows::row(290, "a broker of a foreign CA, on the emulated device", "tls refused, no CONNECT");

    // tokens that are not the organization's, or over, are never presented
    let stranger = Key::generate()?;
    let claims = forge::provisioning("secret", "nats://192.0.2.1:4222")?;
    let stale = forge::with(claims.clone(), json!({"exp": 1_700_000_000}));
    for (name, jwt, reason) in [
        ("d3.example.net", forge::token(&claims, &stranger), "sig_bad"),
        ("d4.example.net", forge::token(&stale, &site.stage.org), "token_expired"),
    ] {
        let refused = Personality { provisioning_jwt: jwt.clone(), ..site.personality(name)? };
        let (code, said) = refused.personalise(&site.folder.path().join("refused"), &[])?;
        ensure!(code == 2 && said.contains(reason), "xtask image takes it: {code}: {said}");
        let mut device =
            site.device_with(&Personality { provisioning_jwt: jwt, ..site.personality(name)? })?;
        device.start()?;
        device.said(&format!("not starting: {reason}"))?;
        ensure!(!device.console().contains("connected"), "{}", device.console());
    }
    // of another kind: no image is made of it, whatever is said
    let token = site.stage.caller("up=x")?.token;
    let client = Personality { provisioning_jwt: token, ..site.personality("d5.example.net")? };
    let (code, said) = client.personalise(&site.folder.path().join("refused"), &["--force"])?;
    ensure!(code == 2 && said.contains("kind_mismatch"), "{code}: {said}");
    ensure!(!site.folder.path().join("refused/d5.example.net.elf").exists(), "an image was written");
    choria_rows::row(
        317,
        "an expired token: xtask image; a device that has it all the same",
        "exit 2, token_expired; it does not start",
    );
    choria_rows::row(
        318,
        "a token of another issuer, a client's token: xtask image",
        "exit 2, sig_bad and kind_mismatch",
    );

    // somebody else's image
    let (code, said) =
        site.personality("d6.example.net")?.personalise(&site.folder.path().join("twice"), &[])?;
    ensure!(code == 0, "{said}");
    let first = site.folder.path().join("twice/d6.example.net.elf").display().to_string();
    let again = site.personality("d7.example.net")?;
    let (code, said) = again.personalise(&site.folder.path().join("again"), &["--elf", &first])?;
    ensure!(code == 2 && said.contains("d6.example.net"), "{code}: {said}");
    let (code, said) = again.personalise(&site.folder.path().join("again"), &["--elf", &first, "--force"])?;
    ensure!(code == 0, "{code}: {said}");
    choria_rows::row(
        319,
        "an image of d6 personalised for d7, without and with --force",
        "exit 2, names d6; made",
    );

    // one bit of what it was given
    let mut broken = site.device("d8.example.net")?;
    broken.flip_a_bit()?;
    broken.start()?;
    broken.said("not starting: the personalised part of this image does not match its digest")?;
    ensure!(!broken.console().contains("address"), "it has a network: {}", broken.console());
    choria_rows::row(311, "one bit of the section flipped: boot", "says so, no network");
    Ok(())
}

/// A broker in the clear, or one that stops being one, gets nothing.
#[test]
fn t_291_a_broker_without_encryption_hears_nothing() -> Result<()> {
    let site = Site::start()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let broker = format!("nats://{HOST}:{}", listener.local_addr()?.port());
    let mut device = site.device_with(&Personality { broker, ..site.personality("d6.example.net")? })?;
    device.start()?;
    listener.set_nonblocking(true)?;
    let mut accepted = None;
    wait_until("the device dials", PATIENCE, || {
        accepted = listener.accept().ok();
        accepted.is_some()
    })?;
    let (mut connection, _) = accepted.context("no connection")?;
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection
        .write_all(b"INFO {\"server_id\":\"x\",\"nonce\":\"abcdefghijk\",\"max_payload\":1048576}\r\n")?;
    let mut heard = Vec::new();
    connection.read_to_end(&mut heard)?;
    ensure!(heard.is_empty(), "it said {}", String::from_utf8_lossy(&heard));
    device.said("connection ended reason=tls_required")?;
    choria_rows::row(291, "pin baked, INFO without TLS, on the emulated device", "disconnect, not one byte");
    Ok(())
}

/// What does not fit is counted and passed over; the connection lives.
#[tokio::test]
async fn t_304_t_312_a_message_that_is_too_large_and_a_policy_that_is_too_much() -> Result<()> {
    let site = Site::start()?;
    let identity = "d7.example.net";
    let mut device = site.device(identity)?;
    device.start()?;
    device.said_times("connected", 2)?;
    let caller = site.stage.caller("up=large")?;
    let mut connection = site.stage.connected(&caller, Ipv4Addr::new(127, 7, 7, 7)).await?;
    let refused = connection.publish(&format!("choria.node.{identity}"), &vec![b' '; 20 * 1024]).await?;
    ensure!(refused.is_none(), "{refused:?}");
    device.said("message dropped reason=oversize size=20480")?;
    site.asks(identity, &["rpcutil", "ping"])?;

    // a device evaluates no policy
    let policy = "package io.choria.aaasvc\ndefault allow = true\n";
    let caller = site.stage.caller_with("up=policy", json!({"agents": null, "opa_policy": policy}))?;
    let other = site.stage.operator("policy", &caller)?;
    let denied = other.run(&["req", "rpcutil", "ping", "-I", identity])?;
    ensure!(
        denied.stdout.contains("not authorized") || denied.stderr.contains("not authorized"),
        "{denied:?}"
    );
    device.said("request denied reason=denied why=device cannot evaluate rego")?;
    choria_rows::row(
        304,
        "a caller token with a policy, on the emulated device",
        "status 1, the reason is in its log",
    );
    choria_rows::row(
        312,
        "a message of 20 KiB, on the emulated device",
        "drained, counted, the next request is served",
    );
    Ok(())
}

/// Wherever the power fails, the next start finds a whole member or a blank device, never a mixture.
#[test]
fn t_307_the_power_fails_at_every_step_of_an_enrolment() -> Result<()> {
    let site = Site::start()?;
    let mut devices = Vec::new();
    // erase, seed, erase, token, settings, marker: each write has up to three steps
    for step in 0..STEPS {
        let mut device = site.device(&format!("cut{step}.example.net"))?;
        device.cut_at(step)?;
        device.start()?;
        devices.push(device);
    }
    for (step, device) in devices.iter_mut().enumerate() {
        wait_until("the power fails", PATIENCE, || !device.is_running())
            .with_context(|| format!("step {step} is never reached:\n{}", device.console()))?;
        let (seed, committed) = (device.stored("seed"), device.stored("committed"));
        ensure!(committed.is_none() || seed.is_some(), "step {step}: a marker without a seed");
        device.never_cut()?;
        device.start()?;
    }
    for (step, device) in devices.iter().enumerate() {
        wait_until("it is a member", Duration::from_secs(120), || {
            let console = device.console();
            console.rsplit_once("member=true").is_some_and(|(_, after)| after.contains("connected"))
        })
        .with_context(|| format!("step {step}:\n{}", device.console()))?;
    }
    site.operator.hears(&(0..STEPS).map(|step| format!("cut{step}.example.net")).collect::<Vec<_>>())?;
    choria_rows::row(
        307,
        format!("the power fails at each of {STEPS} steps of an enrolment, on the emulated device"),
        "blank or whole; all end as members",
    );
    Ok(())
}

/// Twenty devices and fifty Linux nodes, one hub: one ping lists all of them.
#[test]
fn devices_and_servers_side_by_side() -> Result<()> {
    let network = Network::lab_with(&["--devices", "--servers", "5", "--swarm", "45"])?;
    let outcome = side_by_side(&network);
    network.told(outcome)
}

fn side_by_side(network: &Network) -> Result<()> {
    let read = |name: &str| std::fs::read_to_string(network.lab_folder().join(name));
    let record: serde_json::Value = serde_json::from_str(&read("lab.json")?)?;
    let port = record.get("ports").and_then(|ports| ports.get("devices")).context("no port for devices")?;
    let mut devices = Vec::new();
    for number in 1..=20 {
        let personality = Personality {
            provisioning_jwt: read("nodes/provisioning.jwt")?,
            issuer: read("issuer/issuer.public")?.trim().to_owned(),
            ca: network.lab_folder().join("tls/devices-ca.pem"),
            broker: format!("nats://{HOST}:{port}"),
            identity: format!("device{number}.lab.choria.local"),
        };
        let mut device = Device::new(&network.folder().join(&personality.identity), &personality)?;
        device.start()?;
        devices.push(device);
    }
    for device in &devices {
        device.said("member=true")?;
        device.said_times("connected", 2)?;
    }
    let operator = network.operator("choria")?;
    // one ping, however long a busy machine takes to answer it
    let pinged = operator.run(&["ping", "--names", "--expect", "70", "--timeout", "60"])?;
    let names: Vec<&str> = pinged.stdout.lines().collect();
    let of = |kind: &str| names.iter().filter(|name| name.starts_with(kind)).count();
    ensure!((of("device"), of("node"), of("swarm")) == (20, 5, 45), "{names:?}");
    Ok(())
}
