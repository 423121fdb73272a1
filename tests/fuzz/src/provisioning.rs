//! The provisioning agent against provisioners of every kind and a disk that may refuse.

use agent_core::provision::{Effect, Moment, Next, Outcome, Provision, Settings};
use agent_core::rpc::{Call, ReplyWriter};
use serde_json::json;

use crate::Target;
use crate::node::{contains, shows_seed};
use crate::pieces::Script;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "provision_sm",
    oracle: "nothing without the token; a stored token always belongs to the stored seed; no secret in a reply; restart only when checked",
    run: provision,
    seeds: || {
        vec![
            vec![7, 0, 0, 1, 1, 0, 1, 2, 0, 1, 3, 0, 1],
            vec![7, 1, 0, 1, 2, 0, 1, 1, 0, 1, 2, 2, 1],
            vec![6, 3, 0, 1, 4, 0, 1, 5, 0, 1],
            vec![7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 255, 0, 0, 1],
            [&[7, 8, 0, 1][..], b"configure\0{\"token\":\"s3cret-SECRET\",\"config\":\"{\\\"a\\\":\\\"b\\\"}\",\"server_jwt\":\"a.b.c\"}\0"].concat(),
        ]
    },
    words: &[
        "configure\0",
        "gen25519\0",
        "jwt\0",
        "gencsr\0",
        "restart\0",
        "release_update\0",
        "\"token\":\"s3cret-SECRET\"",
        "\"config\":\"{",
        "\"nonce\":\"0123456789abcdef\"",
        "\"server_jwt\":\"",
        "\"action_policies\":{",
        "\"key\":\"",
        "\"ecdh_public\":\"",
        "\\u0022",
    ],
    longest: 1024,
}];

const TOKEN: &str = "s3cret-SECRET";
const JWT: &str = "eyJhbGciOiJFZERTQSJ9.e30.c2ln";

/// What the disk holds. `token_of` is the seed that was stored when the token came.
#[derive(Default)]
struct Disk {
    seed: Option<[u8; 32]>,
    token_of: Option<Option<[u8; 32]>>,
    configured: bool,
    checked: bool,
    reprovisioned: bool,
    updated: bool,
    effects: usize,
}

impl Disk {
    fn apply(&mut self, effect: &Effect<'_>, fails: bool, accept_key: bool) -> Outcome<'static> {
        self.effects += 1;
        if fails {
            return Outcome::Failed("the disk is full");
        }
        match effect {
            Effect::EraseToken => self.token_of = None,
            Effect::StoreSeed(seed) => {
                assert!(self.token_of.is_none(), "a new seed while the token of the old one is stored");
                self.seed = Some(seed.0);
            }
            Effect::Configure(new) => {
                assert!(new.settings.entries().count() > 0, "an empty configuration");
                for (key, value) in new.settings.entries() {
                    let key: String = key.chars().collect();
                    let value: String = value.as_text().expect("a text").chars().collect();
                    assert!(
                        !key.is_empty() && !key.contains(['=', '\n', '\r', ' ']) && !key.starts_with('#'),
                        "{key:?}"
                    );
                    assert!(!value.contains(['\n', '\r', '\0']), "{value:?} becomes another line");
                }
                for policies in [new.action_policies, new.opa_policies].into_iter().flatten() {
                    for (name, _) in policies.entries() {
                        let name: String = name.chars().collect();
                        assert!(
                            !name.contains(['/', '\\']) && !name.contains("..") && !name.starts_with('.'),
                            "{name:?}"
                        );
                    }
                }
                assert!(accept_key || new.shared_secret.is_none(), "a private key on a device");
                self.token_of = (!new.server_jwt.is_empty()).then_some(self.seed);
                self.configured = true;
                return Outcome::Lines(2);
            }
            Effect::CheckConfig => self.checked = true,
            Effect::Reprovision => self.reprovisioned = true,
            Effect::Update { repository, version } => {
                assert!(repository.len() + version.len() < 8192);
                self.updated = true;
            }
            Effect::MakeCsr(_) => return Outcome::Failed("no certificates here"),
            Effect::AnnounceProvisioned => assert!(self.configured, "announced before it was stored"),
        }
        Outcome::Done
    }

    fn check(&self) {
        // Old, new, or keyed without a token: never a token beside a seed it was not issued for.
        if let Some(of) = self.token_of {
            assert_eq!(of, self.seed, "a stored token belongs to another seed");
        }
    }
}

fn provision(input: &[u8]) {
    let mut script = Script::new(input);
    let shape = script.byte();
    let settings = Settings {
        token: if shape & 8 == 0 { TOKEN } else { "" },
        active: shape & 1 == 1,
        jwt: (shape & 2 == 2).then_some(JWT),
        directory: "/etc/choria",
        config_path: "/etc/choria/server.conf",
        allow_update: shape & 16 == 16,
        accept_private_key: shape & 4 == 4,
    };
    let mut machine = Provision::new(settings.active);
    let mut disk = Disk::default();
    let mut now_ms = 0;
    let mut round = 0_u8;
    while !script.is_over() {
        round = round.wrapping_add(1);
        let what = script.byte();
        if what % 11 == 9 {
            now_ms += u64::from(script.byte()) * 1000;
            continue;
        }
        let (fault, who) = (script.byte(), script.byte());
        let given = if who & 1 == 1 { TOKEN } else { "guess" };
        let (action, data) = request(what, given, &mut script);
        let key: [u8; 32] = std::array::from_fn(|at| 0x5a ^ round ^ u8::try_from(at).unwrap_or(0));
        let call = Call {
            agent: "choria_provision",
            action: &action,
            data: &data,
            caller: if who & 2 == 2 { "other" } else { "provisioner" },
            request_id: "req1",
            sender: "prov.example.net",
            collective: "provisioning",
            ttl_seconds: 60,
            time_nanos: 1,
            caller_token: "",
            signer_token: "",
        };
        let moment =
            Moment { now_ms, key_material: (fault & 64 == 0).then_some(key), random: u32::from(who) << 24 };
        let entitled = settings.token == TOKEN && contains(&data, TOKEN.as_bytes());
        let before = disk.effects;
        disk.checked = false;
        let (mut buffer, mut scratch) = (vec![0; 8192], vec![0; 8192]);
        let mut out = ReplyWriter::new(&mut buffer);
        let mut next = machine.start(&call, &settings, &moment, &mut out, &mut scratch);
        let mut steps = 0;
        let status = loop {
            match next {
                Next::Reply(status) => break status,
                Next::Effect(effect) => {
                    assert!(entitled, "{effect:?} without the token");
                    let fails = fault & (1 << (steps % 4)) != 0;
                    let outcome = disk.apply(&effect, fails, settings.accept_private_key);
                    disk.check();
                    steps += 1;
                    assert!(steps < 8, "effects without end");
                    next = machine.resume(outcome, &call, &settings, &mut out);
                }
            }
        };
        let done = out.finish(status);
        for text in [done.text.as_bytes(), done.data] {
            // A caller may read its own words again.
            let own_words = |secret: &[u8; 32]| shows_seed(action.as_bytes(), secret);
            assert!(
                action.contains(TOKEN) || !contains(text, TOKEN.as_bytes()),
                "the access token is in a reply"
            );
            for secret in [Some(key), disk.seed].into_iter().flatten() {
                assert!(own_words(&secret) || !shows_seed(text, &secret), "a private key is in a reply");
            }
        }
        if !settings.active {
            assert!(!disk.configured && disk.seed.is_none(), "a member was provisioned");
        }
        let after = machine.take_after();
        if after.is_some() {
            assert!(entitled, "{after:?} without the token");
            assert!(
                disk.checked || disk.reprovisioned || disk.updated || action == "shutdown",
                "{after:?} unchecked"
            );
        }
        assert!(entitled || disk.effects == before);
        let _json: serde_json::Value = serde_json::from_slice(done.data).expect("a reply is JSON");
    }
}

/// One of the calls a provisioner makes, or anything.
fn request(what: u8, token: &str, script: &mut Script<'_>) -> (String, Vec<u8>) {
    let config = r#"{"identity":"n1.example.net","plugin.choria.server.provision":"false"}"#;
    let (action, data) = match what % 11 {
        0 => ("jwt", json!({"token": token})),
        1 => ("gen25519", json!({"token": token, "nonce": "0f8fad5bd9cb469fa16570867728950e"})),
        2 => (
            "configure",
            json!({"token": token, "config": config, "server_jwt": "aaa.bbb.ccc", "action_policies": {"rpcutil.policy": "x"}}),
        ),
        3 => ("restart", json!({"token": token, "splay": 1})),
        4 => ("reprovision", json!({"token": token})),
        5 => ("shutdown", json!({"token": token})),
        6 => ("gencsr", json!({"token": token, "cn": "n1"})),
        7 => ("release_update", json!({"token": token, "repository": "https://repo", "version": "1"})),
        _ => {
            let action = String::from_utf8_lossy(script.text()).into_owned();
            return (action, script.text().to_vec());
        }
    };
    (action.to_owned(), data.to_string().into_bytes())
}
