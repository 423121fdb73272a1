//! The provisioning agent as a provisioner meets it, with effects kept in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use agent_core::provision::{ACTIONS, After, Effect, Moment, Next, Outcome, Provision, Settings, State};
use agent_core::rpc::{Call, ReplyWriter, StatusCode};

/// What a node's storage would hold, and the order in which it came.
#[derive(Default)]
struct Store {
    seed: Option<[u8; 32]>,
    token: Option<String>,
    config: Vec<(String, String)>,
    trail: Vec<&'static str>,
    fail_at: Option<&'static str>,
    secret: Option<[u8; 32]>,
    announced: usize,
}

impl Store {
    fn apply(&mut self, effect: &Effect<'_>) -> Outcome<'static> {
        let name = match effect {
            Effect::EraseToken => "erase",
            Effect::StoreSeed(_) => "seed",
            Effect::MakeCsr(_) => return Outcome::Failed("no certificates here"),
            Effect::Configure(_) => "configure",
            Effect::CheckConfig => "check",
            Effect::Reprovision => "reprovision",
            Effect::Update { .. } => "update",
            Effect::AnnounceProvisioned => "announce",
        };
        self.trail.push(name);
        if self.fail_at == Some(name) {
            return Outcome::Failed("the disk is full");
        }
        match effect {
            Effect::EraseToken => self.token = None,
            Effect::StoreSeed(seed) => self.seed = Some(seed.0),
            Effect::Configure(new) => {
                self.config = new
                    .settings
                    .entries()
                    .map(|(key, value)| (key.chars().collect(), value.as_text().unwrap().chars().collect()))
                    .collect();
                self.token = Some(new.server_jwt.to_string());
                self.secret = new.shared_secret.map(|secret| secret.0);
                return Outcome::Lines(u32::try_from(self.config.len()).unwrap() + 1);
            }
            Effect::AnnounceProvisioned => self.announced += 1,
            _ => {}
        }
        Outcome::Done
    }
}

const JWT: &str = "eyJhbGciOiJFZERTQSJ9.e30.c2ln";

fn settings() -> Settings<'static> {
    Settings {
        token: "s3cret",
        active: true,
        jwt: Some(JWT),
        directory: "/etc/choria",
        config_path: "/etc/choria/server.conf",
        allow_update: false,
        accept_private_key: true,
    }
}

struct Node {
    machine: Provision,
    store: Store,
    settings: Settings<'static>,
    now_ms: u64,
    caller: &'static str,
    key: Option<[u8; 32]>,
}

impl Node {
    fn new(settings: Settings<'static>) -> Node {
        Node {
            machine: Provision::new(settings.active),
            store: Store::default(),
            settings,
            now_ms: 0,
            caller: "provisioner_signer",
            key: Some([7; 32]),
        }
    }

    fn call(&mut self, action: &str, data: &serde_json::Value) -> (StatusCode, String, serde_json::Value) {
        let data = data.to_string();
        let call = Call {
            agent: "choria_provision",
            action,
            data: data.as_bytes(),
            caller: self.caller,
            request_id: "req1",
            sender: "prov.example.net",
            collective: "provisioning",
            ttl_seconds: 60,
            time_nanos: 1,
            caller_token: "",
            signer_token: "",
        };
        let moment = Moment { now_ms: self.now_ms, key_material: self.key, random: 0 };
        let mut buffer = [0u8; 8192];
        let mut scratch = [0u8; 8192];
        let mut out = ReplyWriter::new(&mut buffer);
        let mut next = self.machine.start(&call, &self.settings, &moment, &mut out, &mut scratch);
        let status = loop {
            match next {
                Next::Effect(effect) => {
                    let outcome = self.store.apply(&effect);
                    next = self.machine.resume(outcome, &call, &self.settings, &mut out);
                }
                Next::Reply(status) => break status,
            }
        };
        let done = out.finish(status);
        (done.code, done.text.to_string(), serde_json::from_slice(done.data).unwrap())
    }
}

fn config() -> String {
    serde_json::json!({"identity":"n1.example.net","plugin.choria.server.provision":"false"}).to_string()
}

#[test]
fn a_node_is_born() {
    let mut node = Node::new(settings());
    let token = serde_json::json!("s3cret");
    assert_eq!(node.machine.state().name(), "unprovisioned");
    let (code, text, data) = node.call("jwt", &serde_json::json!({"token":token}));
    assert_eq!((code, text.as_str()), (StatusCode::Ok, "OK"));
    assert_eq!((data["jwt"].as_str(), data["ecdh_public"].as_str().map(str::len)), (Some(JWT), Some(64)));
    assert_eq!(node.machine.state().name(), "locked");

    let mut seed = [0u8; 32];
    seed.iter_mut().zip(0u8..).for_each(|(to, from)| *to = from);
    node.key = Some(seed);
    let nonce = "0f8fad5bd9cb469fa16570867728950e";
    let (_, _, data) = node.call("gen25519", &serde_json::json!({"token":token,"nonce":nonce}));
    assert_eq!(data["public_key"], "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8");
    assert_eq!(data["directory"], "/etc/choria");
    assert!(data["signature"].as_str().unwrap().starts_with("b4722817a5e77e2978cd13b005a8cd95"));
    assert_eq!(node.machine.state().name(), "keyed");

    let (_, text, data) = node.call(
        "configure",
        &serde_json::json!({"config":config(),"token":token,"ca":"","certificate":"","ssldir":"","key":"","ecdh_public":"",
            "action_policies":{},"opa_policies":{},"server_jwt":"aaa.bbb.ccc"}),
    );
    assert_eq!(text, "OK");
    assert_eq!(data["message"], "Wrote 3 lines to /etc/choria/server.conf");
    assert_eq!(node.machine.state().name(), "configured");

    let (_, _, data) = node.call("restart", &serde_json::json!({"token":token,"splay":1}));
    assert_eq!(data["message"], "Restarting Choria Server after 2s");
    assert_eq!(node.machine.take_after(), Some(After::Restart { delay_ms: 2000 }));
    assert_eq!(node.store.trail, ["erase", "seed", "configure", "announce", "check"]);
    assert_eq!(node.store.token.as_deref(), Some("aaa.bbb.ccc"));
    assert_eq!((node.store.seed, node.store.announced), (Some(seed), 1));
    let (code, ..) = node.call("restart", &serde_json::json!({"token":token}));
    assert_eq!((code, node.machine.take_after()), (StatusCode::Ok, None), "acknowledged and ignored");
}

#[test]
fn t_150_refusals() {
    let mut node = Node::new(settings());
    for action in ACTIONS {
        let (code, text, _) = node.call(action, &serde_json::json!({"token":"guess"}));
        assert_eq!(
            (code, text.as_str()),
            (StatusCode::Aborted, "Incorrect provision token supplied"),
            "{action}"
        );
        node.now_ms += 31_000;
    }
    let (code, text, _) = node.call("nonsense", &serde_json::json!({}));
    assert_eq!(
        (code, text.as_str()),
        (StatusCode::UnknownAction, "Unknown action nonsense for agent choria_provision")
    );
    assert_eq!(node.call("jwt", &serde_json::json!([])).0, StatusCode::InvalidData);
    assert!(node.store.trail.is_empty(), "nothing was touched");
    assert_eq!(node.machine.state(), State::Unprovisioned);

    let token = "s3cret";
    for nonce in ["", "short", "eyJ.x.y", "{\"a\":1}......"] {
        let (code, ..) = node.call("gen25519", &serde_json::json!({"token":token,"nonce":nonce}));
        assert_eq!(code, StatusCode::Aborted, "{nonce}");
    }
    node.key = None;
    let (_, text, _) = node.call("gen25519", &serde_json::json!({"token":token,"nonce":"0123456789abcdef"}));
    assert!(text.contains("random"), "{text}");
    assert_eq!(node.store.seed, None);
    choria_rows::row(
        150,
        "gen25519 with nonces that are empty, short, a JWT, JSON; no randomness, in the core",
        "status 1, nothing stored",
    );
}

#[test]
fn the_lock_keeps_a_second_provisioner_away() {
    let mut node = Node::new(settings());
    let args = serde_json::json!({"token":"s3cret"});
    assert_eq!(node.call("jwt", &args).0, StatusCode::Ok);
    node.caller = "other";
    assert_eq!(node.call("jwt", &args).1, "Could not obtain provisioning lock");
    node.now_ms = 119_999;
    assert_eq!(node.call("jwt", &args).0, StatusCode::Aborted);
    node.now_ms = 120_000;
    assert_eq!(node.call("jwt", &args).0, StatusCode::Ok);
}

#[test]
fn t_151_a_wrong_token_does_not_take_the_lock() {
    let mut node = Node::new(settings());
    node.caller = "other";
    node.call("jwt", &serde_json::json!({"token":"wrong"}));
    node.caller = "provisioner_signer";
    assert_eq!(node.call("jwt", &serde_json::json!({"token":"s3cret"})).0, StatusCode::Ok);
    choria_rows::row(
        151,
        "a caller with a bad token asks for the JWT first",
        "the lock is free for the provisioner",
    );
}

#[test]
fn a_failed_step_ends_the_action() {
    for (fail, action, trail) in [
        ("erase", "gen25519", vec!["erase"]),
        ("seed", "gen25519", vec!["erase", "seed"]),
        ("configure", "configure", vec!["configure"]),
        ("check", "restart", vec!["check"]),
    ] {
        let mut node = Node::new(settings());
        node.store.fail_at = Some(fail);
        let args = serde_json::json!({"token":"s3cret","nonce":"0123456789abcdef","config":config()});
        let (code, text, data) = node.call(action, &args);
        assert_eq!(
            (code, text.as_str(), data),
            (StatusCode::Aborted, "the disk is full", serde_json::json!({}))
        );
        assert_eq!(node.store.trail, trail);
        assert_eq!(node.machine.take_after(), None);
    }
    let mut node = Node::new(settings());
    node.store.fail_at = Some("announce");
    let (code, ..) = node.call("configure", &serde_json::json!({"token":"s3cret","config":config()}));
    assert_eq!(code, StatusCode::Ok, "an event that cannot be sent does not undo the configuration");
}

#[test]
fn t_159_private_keys_need_an_agreement() {
    let mut node = Node::new(settings());
    let mut private = [0u8; 32];
    private.iter_mut().zip(1u8..).for_each(|(to, from)| *to = from);
    node.key = Some(private);
    let (_, _, data) = node.call("jwt", &serde_json::json!({"token":"s3cret"}));
    assert_eq!(data["ecdh_public"], "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c");
    let mut args = serde_json::json!({"token":"s3cret","config":config(),"key":"-----BEGIN"});
    assert_eq!(node.call("configure", &args).1, "EDCH Public Key not supplied while providing a private key");
    args["ecdh_public"] = "0".repeat(64).into();
    assert_eq!(
        node.call("configure", &args).1,
        "Could not agree on a key with the provisioner",
        "low order point"
    );
    args["ecdh_public"] = "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466".into();
    assert_eq!(node.call("configure", &args).0, StatusCode::Ok);
    let secret = node.store.secret.map(hex::encode);
    assert_eq!(secret.as_deref(), Some("26c2c17fdb82161cb21ad16e721315355b64d1763119b10bfc962530dc7cc163"));

    let mut device = Node::new(Settings { accept_private_key: false, ..settings() });
    assert_eq!(device.call("configure", &args).1, "private keys are not accepted by this device");
    assert!(device.store.trail.is_empty());
    choria_rows::row(
        159,
        "configure with a key and ecdh_public of zeros, in the core",
        "refused, low order point",
    );
}

#[test]
fn t_160_a_member_only_restarts_and_returns() {
    let mut node = Node::new(Settings { active: false, ..settings() });
    let args = serde_json::json!({"token":"s3cret","nonce":"0123456789abcdef","config":config()});
    for action in ["jwt", "gen25519", "gencsr", "configure", "release_update"] {
        assert_eq!(node.call(action, &args).0, StatusCode::Aborted, "{action}");
    }
    assert!(node.store.trail.is_empty());
    let (_, _, data) = node.call("reprovision", &args);
    assert_eq!(data["message"], "Restarting after 2s");
    assert_eq!(node.machine.take_after(), Some(After::Restart { delay_ms: 2000 }));

    let mut candidate = Node::new(settings());
    assert_eq!(candidate.call("reprovision", &args).0, StatusCode::Aborted);
    let (_, _, data) = candidate.call("shutdown", &args);
    assert_eq!(data["message"], "Shutting Choria Server down after 0s");
    assert_eq!(candidate.machine.take_after(), Some(After::Shutdown { delay_ms: 0 }));
    choria_rows::row(
        160,
        "jwt, gen25519, configure with the right token on a member",
        "status 1, nothing touched",
    );
}

#[test]
fn t_145_t_146_t_147_injected_settings_are_refused_before_anything_is_written() {
    let mut node = Node::new(settings());
    for config in ["{}", "", "[1]", "{\"a\":1}", "{\"a\":\"b\\nrpcauthorization=0\"}", "{\"#\":\"x\"}"] {
        let (code, text, _) = node.call("configure", &serde_json::json!({"token":"s3cret","config":config}));
        assert_eq!(code, StatusCode::Aborted, "{config}: {text}");
    }
    let policies =
        serde_json::json!({"token":"s3cret","config":config(),"action_policies":{"../x.policy":"x"}});
    assert_eq!(node.call("configure", &policies).0, StatusCode::Aborted);
    assert!(node.store.trail.is_empty());
    choria_rows::row(
        145,
        "values with line ends, no objects, names that reach out, in the core",
        "status 1, nothing written",
    );
    choria_rows::row(
        146,
        "values with line ends, no objects, names that reach out, in the core",
        "status 1, nothing written",
    );
    choria_rows::row(
        147,
        "values with line ends, no objects, names that reach out, in the core",
        "status 1, nothing written",
    );
}
