//! Who may enrol a microcontroller in QEMU, and with what: rows T-297 to T-299 of docs/spec/10 §14. The broker is the test
//! itself, so that requests arrive which a real one would not let through.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_protocol::rpc::{RpcReply, StatusCode};
use choria_protocol::subjects;
use choria_tests::device::{Device, DeviceTls, HOST, Personality};
use choria_tests::faces::FRAGMENT;
use choria_tests::forge::{self, Key};
use choria_tests::request::{self, Caller};
use choria_tests::{Act, FalseBroker, INFO, PROVISIONING_TOKEN, Shot, Then, wait_until};
use serde_json::{Value, json};

const IDENTITY: &str = "waiting.example.net";
const PATIENCE: Duration = Duration::from_secs(60);

/// A device that waits to be enrolled.
struct Candidate {
    org: Key,
    provisioner: Caller,
    broker: FalseBroker,
    device: Device,
    _folder: tempfile::TempDir,
}

impl Candidate {
    fn new() -> Result<Candidate> {
        let (folder, org) = (tempfile::tempdir()?, Key::generate()?);
        let files = DeviceTls::new(folder.path())?;
        let tls = choria_host::tls::constrained_server_config(&files.certificate, &files.key, FRAGMENT)?;
        let broker = FalseBroker::start(vec![Act::Face { info: INFO.to_owned(), tls, then: Then::Obey }])?;
        let url = format!("nats://{HOST}:{}", broker.port);
        let personality = Personality {
            provisioning_jwt: forge::token(&forge::provisioning(PROVISIONING_TOKEN, &url)?, &org),
            issuer: org.public(),
            ca: files.ca,
            broker: url,
            identity: IDENTITY.to_owned(),
        };
        let mut device = Device::new(&folder.path().join("device"), &personality)?;
        device.start()?;
        device.said("connected")?;
        let provisioner = caller("provisioner_signer", &org, json!({"provisioner": true}))?;
        let candidate = Candidate { org, provisioner, broker, device, _folder: folder };
        let subject = subjects::node("provisioning", IDENTITY);
        wait_until("it listens", PATIENCE, || candidate.broker.is_heard_on(&subject))?;
        Ok(candidate)
    }

    fn send(&self, shot: &Shot) -> Result<()> {
        self.broker.deliver(&subjects::node("provisioning", IDENTITY), &shot.to_bytes()?)
    }

    /// The answer to this; `None` when there is none before that to a good request behind it.
    fn answer(&self, shot: &Shot) -> Result<Option<RpcReply>> {
        self.send(shot)?;
        let good = self.asks("rpcutil", "daemon_stats", json!({}))?;
        self.send(&good)?;
        wait_until("a good request is served", PATIENCE, || !self.broker.published(&good.reply).is_empty())
            .with_context(|| self.device.console())?;
        match self.broker.published(&shot.reply).as_slice() {
            [] => Ok(None),
            [reply] => Ok(Some(request::read_reply(reply)?)),
            more => anyhow::bail!("{} answers", more.len()),
        }
    }

    /// Not a word to anybody and one line with the reason.
    fn drops(&self, shot: &Shot, reason: &str) -> Result<()> {
        let line = format!("request dropped reason={reason} ");
        let before = self.device.console().matches(&line).count();
        ensure!(self.answer(shot)?.is_none(), "it answered what it should drop for {reason}");
        let after = self.device.console().matches(&line).count();
        ensure!(after == before + 1, "not {reason}: {}", self.device.console());
        Ok(())
    }

    /// A request of the provisioner.
    fn asks(&self, agent: &str, action: &str, data: Value) -> Result<Shot> {
        asked_by(&self.provisioner, agent, action, &data)
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let answer =
            self.answer(&self.asks("rpcutil", "daemon_stats", json!({}))?)?.context("no counters")?;
        answer.data.get(name).and_then(Value::as_u64).with_context(|| format!("no {name} in {answer:?}"))
    }

    fn stores_nothing_but(&self, names: &[&str]) -> Result<()> {
        for name in ["seed", "jwt", "config", "committed"] {
            let stored = self.device.stored(name).is_some();
            ensure!(stored == names.contains(&name), "{name}: stored is {stored}");
        }
        Ok(())
    }
}

fn caller(id: &str, issuer: &Key, permissions: Value) -> Result<Caller> {
    let key = Key::generate()?;
    let claims = forge::with(forge::client(id, &key)?, json!({"permissions": permissions}));
    Ok(Caller::new(id, &key, forge::token(&claims, issuer)))
}

fn asked_by(caller: &Caller, agent: &str, action: &str, data: &Value) -> Result<Shot> {
    let request = request::request(&caller.id, "provisioning", agent, action, data)?;
    let reply = subjects::reply("provisioning", &caller.id, &request.id);
    Ok(Shot::signed(&request, caller)?.with(|shot| shot.reply = reply))
}

fn configuration(settings: &Value) -> Value {
    json!({"token": PROVISIONING_TOKEN, "config": settings.to_string(), "server_jwt": "eyJh.eyJh.c2ln"})
}

/// What a provisioner would send.
fn good_settings() -> Value {
    json!({"identity": IDENTITY, "plugin.choria.server.provision": "false", "collectives": "choria"})
}

#[test]
fn t_308_no_key_is_made_of_bad_random_numbers() -> Result<()> {
    let candidate = Candidate::new()?;
    let make = || {
        candidate.asks(
            "choria_provision",
            "gen25519",
            json!({"token": PROVISIONING_TOKEN, "nonce": "abcdefghijk"}),
        )
    };
    candidate.device.has_entropy(false)?;
    let refused = candidate.answer(&make()?)?.context("no answer")?;
    ensure!(refused.statuscode == StatusCode::Aborted, "{refused:?}");
    ensure!(refused.statusmsg.contains("random numbers"), "{refused:?}");
    candidate.stores_nothing_but(&[])?;
    candidate.device.has_entropy(true)?;
    let made = candidate.answer(&make()?)?.context("no answer")?;
    ensure!(made.statuscode.is_ok(), "{made:?}");
    candidate.stores_nothing_but(&["seed"])?;
    choria_rows::row(
        308,
        "gen25519 while the source of random numbers fails, then works; on the emulated device",
        "Aborted with the reason, no seed stored; a key",
    );
    Ok(())
}

#[test]
fn t_297_only_a_provisioner_of_its_organization_enrols_a_device() -> Result<()> {
    let candidate = Candidate::new()?;
    let before = candidate.counter("unvalidated")?;
    let fleet = caller("up=alice", &candidate.org, json!({"fleet_management": true, "org_admin": true}))?;
    let foreign = caller("provisioner_signer", &Key::generate()?, json!({"provisioner": true}))?;
    let calls = [
        ("gen25519", json!({"token": PROVISIONING_TOKEN, "nonce": "abcdefghijk"})),
        ("configure", configuration(&good_settings())),
    ];
    let mut dropped = 0;
    for (action, data) in &calls {
        candidate.drops(&asked_by(&fleet, "choria_provision", action, data)?, "permission_missing")?;
        candidate.drops(&asked_by(&foreign, "choria_provision", action, data)?, "sig_bad")?;
        let damaged = asked_by(&candidate.provisioner, "choria_provision", action, data)?.with(|shot| {
            if let Some(byte) = shot.signature.first_mut() {
                *byte ^= 1;
            }
        });
        candidate.drops(&damaged, "sig_bad")?;
        let unsigned = asked_by(&candidate.provisioner, "choria_provision", action, data)?.unsigned();
        candidate.drops(&unsigned, "sig_bad")?;
        dropped += 4;
    }
    candidate.stores_nothing_but(&[])?;
    let counted = candidate.counter("unvalidated")? - before;
    ensure!(counted == dropped, "{counted} counted of {dropped}");

    // the control: the same calls of the provisioner
    for (action, data) in &calls {
        let answer = candidate.answer(&candidate.asks("choria_provision", action, data.clone())?)?;
        let answer = answer.with_context(|| format!("{action} is not answered"))?;
        ensure!(answer.statuscode.is_ok(), "{action}: {answer:?}");
    }
    candidate.stores_nothing_but(&["seed", "jwt", "config", "committed"])?;
    choria_rows::row(
        297,
        "gen25519 and configure by a member without `provisioner`, by a foreign organization, with a bad and with no signature; on the emulated device",
        format!("silence, {dropped} of {dropped} counted, nothing stored; the provisioner is served"),
    );
    Ok(())
}

#[test]
fn t_298_a_private_key_is_not_accepted() -> Result<()> {
    let candidate = Candidate::new()?;
    let mut data = configuration(&good_settings());
    if let Some(fields) = data.as_object_mut() {
        fields.insert("key".into(), "-----BEGIN ENCRYPTED PRIVATE KEY-----".into());
        fields.insert("ecdh_public".into(), "09".repeat(32).into());
    }
    let answer = candidate.answer(&candidate.asks("choria_provision", "configure", data)?)?;
    let answer = answer.context("no answer")?;
    ensure!(answer.statuscode == StatusCode::Aborted, "{answer:?}");
    ensure!(answer.statusmsg.contains("private keys are not accepted by this device"), "{answer:?}");
    candidate.stores_nothing_but(&[])?;
    choria_rows::row(
        298,
        "configure with a private key, on the emulated device",
        "Aborted with the reason; nothing stored",
    );
    Ok(())
}

#[test]
fn t_299_a_configuration_is_taken_whole_or_not_at_all() -> Result<()> {
    let candidate = Candidate::new()?;
    let with = |count: u32, length: usize| -> Value {
        let unknown: serde_json::Map<String, Value> =
            (0..count).map(|number| (format!("u{number}"), "x".repeat(length).into())).collect();
        forge::with(good_settings(), Value::Object(unknown))
    };
    // as much as no device reads
    let large = candidate.asks("choria_provision", "configure", configuration(&with(200, 40)))?;
    let size = large.to_bytes()?.len();
    ensure!(size > 20 * 1024, "{size} bytes are not large");
    ensure!(candidate.answer(&large)?.is_none(), "it was answered");
    candidate.device.said(&format!("message dropped reason=oversize size={size}"))?;
    candidate.stores_nothing_but(&[])?;

    // a value that is used and does not fit
    let long = forge::with(good_settings(), json!({"registration": "x".repeat(300)}));
    let answer =
        candidate.answer(&candidate.asks("choria_provision", "configure", configuration(&long))?)?;
    let answer = answer.context("no answer")?;
    ensure!(answer.statuscode == StatusCode::Aborted, "{answer:?}");
    ensure!(answer.statusmsg.contains("too large for this device"), "{answer:?}");
    candidate.stores_nothing_but(&[])?;

    // 200 that it does not know beside those that it does
    let nonce = json!({"token": PROVISIONING_TOKEN, "nonce": "abcdefghijk"});
    candidate.answer(&candidate.asks("choria_provision", "gen25519", nonce)?)?.context("no key")?;
    let many = candidate.asks("choria_provision", "configure", configuration(&with(200, 1)))?;
    let answer = candidate.answer(&many)?.context("no answer")?;
    ensure!(answer.statuscode.is_ok(), "{answer:?}");
    ensure!(answer.data.get("ignored_settings") == Some(&json!(200)), "{answer:?}");
    let stored = String::from_utf8(candidate.device.stored("config").context("no configuration")?)?;
    let mut lines: Vec<&str> = stored.lines().collect();
    lines.sort_unstable();
    ensure!(
        lines
            == [
                "collectives = choria",
                "identity = waiting.example.net",
                "plugin.choria.server.provision = false"
            ],
        "{lines:?}"
    );
    choria_rows::row(
        299,
        format!(
            "200 unknown settings: in {size} bytes, and in as many as it reads; a value of 300 bytes; on the emulated device"
        ),
        "dropped unread; known ones stored, 200 counted; Aborted, nothing stored",
    );
    Ok(())
}
