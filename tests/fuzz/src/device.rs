//! What a device keeps of the configuration that a provisioner sends: from `configure` to the settings of a member.
//!
//! The two files are the device's own; its crate is of another workspace, and no dependency of it is needed here.

#[allow(dead_code, reason = "a device uses the rest of it")]
#[path = "../../../agent-embedded/src/brokers.rs"]
mod brokers;
#[allow(dead_code, reason = "a device uses the rest of it")]
#[path = "../../../agent-embedded/src/settings.rs"]
mod settings;

use agent_core::config::Config;
use agent_core::json::Object;
use agent_core::provision::{Effect, Moment, Next, Provision, Settings};
use agent_core::rpc::{Call, ReplyWriter};
use serde_json::{Value, json};

use self::settings::{Membership, Unfit};
use crate::Target;
use crate::corpus::texts;
use crate::oracle::{Case, Reading, read};
use crate::pieces::Script;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "device_settings",
    oracle: "what a device uses reads back as it was sent or nothing is taken; no other line; the image's issuer wins",
    run,
    seeds: || {
        texts(&[
            "\0\u{20}{\"identity\":\"d1.example.net\",\"collectives\":\"choria, fleet\",\"main_collective\":\"fleet\",\"plugin.choria.middleware_hosts\":\"nats://192.0.2.1:4222,tls://192.0.2.2/\",\"plugin.yaml\":\"/x\"}",
            "\u{1}\u{20}{\"plugin.security.issuer.choria.public\":\"0707070707070707070707070707070707070707070707070707070707070707\"}",
            "\u{1}\u{20}{\"plugin.security.issuer.choria.public\":\"2b\",\"plugin.security.issuer.names\":\"choria\"}",
            "\0\u{2}{\"loglevel\":\"in\\u0066o\",\"plugin.security.choria.sign_replies\":\"no\",\"identity\":\" a \\t\"}",
            "\0\u{20}{\"identity\":\"a = b\",\"main_collective\":\"\",\"collectives\":\"a,b,c,d,e,f\"}",
        ])
    },
    words: &[
        "\"identity\":\"",
        "\"collectives\":\"",
        "\"main_collective\":\"",
        "\"plugin.choria.middleware_hosts\":\"",
        "\"plugin.security.issuer.names\":\"",
        "\"plugin.security.issuer.x.public\":\"",
        "\"plugin.security.choria.sign_replies\":\"",
        "nats://192.0.2.1:4222",
        "\\u0020",
        " = ",
        "0707070707070707070707070707070707070707070707070707070707070707",
    ],
    longest: 2048,
}];

/// docs/spec/08 §7.1
const USED: [&str; 13] = [
    "identity",
    "collectives",
    "main_collective",
    "plugin.choria.middleware_hosts",
    "plugin.choria.server.provision",
    "plugin.security.issuer.names",
    "plugin.security.choria.sign_replies",
    "rpcauthorization",
    "rpcauthprovider",
    "registration",
    "registerinterval",
    "loglevel",
    "plugin.choria.network.client_port",
];

const ISSUER: [u8; 32] = [7; 32];

fn is_issuer(name: &str) -> bool {
    name.starts_with("plugin.security.issuer.") && name.ends_with(".public")
}

fn is_used(name: &str) -> bool {
    USED.contains(&name) || is_issuer(name)
}

fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let issuers: &[[u8; 32]] = if script.byte() & 1 == 1 { &[ISSUER] } else { &[] };
    let mut room = vec![0; usize::from(script.byte()) * 32];
    let Ok(document) = std::str::from_utf8(script.rest()) else { return };
    let data = json!({"token": "s3cret", "config": document, "server_jwt": "a.b.c"}).to_string();
    sent(&data, |object| packed(document, object, issuers, &mut room));
}

/// Sends it to the machine that a device has, which takes away what could become another line.
fn sent(data: &str, configured: impl FnOnce(&Object<'_>)) {
    let settings = Settings {
        token: "s3cret",
        active: true,
        jwt: Some("x.y.z"),
        directory: "/",
        config_path: "flash",
        allow_update: false,
        accept_private_key: false,
    };
    let call = Call {
        agent: "choria_provision",
        action: "configure",
        data: data.as_bytes(),
        caller: "provisioner",
        request_id: "1",
        sender: "p.example.net",
        collective: "provisioning",
        ttl_seconds: 60,
        time_nanos: 1,
        caller_token: "",
        signer_token: "",
    };
    let moment = Moment { now_ms: 1, key_material: None, random: 0 };
    let (mut reply, mut scratch) = ([0; 2048], [0; 8192]);
    let mut out = ReplyWriter::new(&mut reply);
    let mut machine = Provision::new(true);
    if let Next::Effect(Effect::Configure(new)) =
        machine.start(&call, &settings, &moment, &mut out, &mut scratch)
    {
        configured(&new.settings);
    }
}

fn packed(document: &str, object: &Object<'_>, issuers: &[[u8; 32]], room: &mut [u8]) {
    let packed = settings::pack(object, issuers, room);
    let Reading::One(Value::Object(members)) = read(document.as_bytes(), Case::Exact, 64) else {
        // A name twice: the last one counts, on a device as elsewhere.
        return assert!(object.entries().count() > 1, "configured by what has no reading");
    };
    let used: Vec<(&str, &str)> = members
        .iter()
        .filter(|(name, _)| is_used(name))
        .map(|(name, value)| (name.as_str(), value.as_str().expect("checked by the machine")))
        .collect();
    let foreign = |text: &str| hex::decode(text.trim_ascii()).map_or(true, |key| key != ISSUER);
    let size: usize = used.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let fits = size <= room.len() && used.iter().all(|(_, value)| value.len() <= 256);
    // Longer names are nobody's.
    let readable = members.keys().all(|name| name.len() <= 128);
    let is_refused = !issuers.is_empty() && used.iter().any(|(name, text)| is_issuer(name) && foreign(text));
    let (length, lines, left_out) = match packed {
        Ok(packed) => packed,
        Err(Unfit::OtherIssuer) => return assert!(is_refused),
        Err(Unfit::TooLarge) => return assert!(!fits, "{size} bytes in {}", room.len()),
        Err(Unfit::Unreadable) => return assert!(!readable),
    };
    assert!(fits && readable && !is_refused);
    assert_eq!((length, lines as usize), (size, used.len()));
    assert_eq!(left_out as usize, members.len() - used.len());
    let text = std::str::from_utf8(&room[..length]).expect("settings are text");
    let config = Config::new(text);
    for (name, value) in &used {
        let value = value.trim_ascii();
        assert_eq!(config.get(name), (!value.is_empty()).then_some(value), "{name}");
    }
    for line in config.lines() {
        assert!(used.iter().any(|(name, _)| *name == line.key), "a line that nobody sent: {text:?}");
    }
    member(text, &config);
}

/// A member is who its settings say, and of a size that a device has.
fn member(text: &str, config: &Config<'_>) {
    let member = Membership::read(text, "image.example.net");
    let identity = config.get("identity").unwrap_or("image.example.net");
    let kept = if identity.len() <= settings::IDENTITY { identity } else { "" };
    assert_eq!(member.identity, kept);
    let listed: Vec<&str> = config.list("collectives").collect();
    let main = config.get("main_collective");
    for name in &member.collectives {
        let name = name.as_str();
        assert!(
            listed.contains(&name) || main == Some(name) || (listed.is_empty() && name == "choria"),
            "{name:?}"
        );
    }
    if let Some(main) = main.filter(|main| main.len() <= 32) {
        assert_eq!(member.collectives.first().map(|first| first.as_str()), Some(main));
    }
    assert!(member.collectives.len() <= settings::COLLECTIVES);
    let hosts = config.get("plugin.choria.middleware_hosts").unwrap_or_default();
    for broker in &member.brokers {
        let host = broker.host.to_string();
        assert!(hosts.to_ascii_lowercase().contains(&host) && host.len() <= 128, "{broker:?} in {hosts:?}");
        assert!(host.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c)), "{broker:?}");
        let number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
        assert_eq!(number, host.parse::<std::net::Ipv4Addr>().is_ok(), "{broker:?}");
    }
    let named = config.list("plugin.security.issuer.names").next().unwrap_or("choria");
    assert_eq!(member.organization, if named.len() <= 32 { named } else { "" });
    let no = |text: &str| !["1", "yes", "true", "y", "t"].iter().any(|yes| yes.eq_ignore_ascii_case(text));
    assert_eq!(member.sign_replies, !config.get("plugin.security.choria.sign_replies").is_some_and(no));
}
