//! The story of one node, told by a node that lives in this file.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail where it stands

use std::collections::BTreeMap;

use choria_host::Secret;
use choria_provisioner::config::{Features, KnownNames};
use choria_provisioner::enrolment::{Answer, Enrolment, Moment, Outcome, Rules, Step, Surroundings};
use choria_provisioner::helper::{HelperReply, HelperRequest};
use choria_token::claims::ProvisioningClaims;
use choria_token::{Issuer, Key, Seed, Verifier};
use serde_json::{Value, json};

const NOW: i64 = 1_790_000_000;
const CHT: &str = "s3cret";
const URLS: &str = "nats://hub.example.net:4222";

fn issuer() -> (Issuer, choria_token::PublicKey) {
    let seed = Seed::from_bytes(&[9; 32]);
    let public = seed.public();
    (Issuer::Org(seed), public)
}

fn rules() -> Rules {
    Rules {
        features: Features { jwt: true, ed25519: true, pki: false, upgrades: true },
        token: Some(std::sync::Arc::new(Secret::new(CHT.into()))),
        previous_token: None,
        verifier: Some(Verifier::single(Key::Ed25519(issuer().1))),
        upgrades_repository: "https://repo.example.net".into(),
        upgrades_optional: false,
        known_names: KnownNames::Helper,
    }
}

/// A node, honest unless a field says otherwise.
struct Node {
    jwt: String,
    seed: Seed,
    upgradable: bool,
    /// Action -> how many times it gives no answer first.
    silent: BTreeMap<&'static str, u32>,
    gone: bool,
    refuse: Option<(&'static str, &'static str)>,
    sign: fn(&Seed, &str) -> Vec<u8>,
    asked: Vec<String>,
    configured: Option<Value>,
}

impl Node {
    fn new() -> Node {
        let claims = ProvisioningClaims {
            token: CHT.into(),
            urls: URLS.into(),
            default: true,
            v2: true,
            ..Default::default()
        };
        Node {
            jwt: issue(claims),
            seed: Seed::from_bytes(&[7; 32]),
            upgradable: false,
            silent: BTreeMap::new(),
            gone: false,
            refuse: None,
            sign: |seed, nonce| seed.sign(nonce.as_bytes()).to_vec(),
            asked: Vec::new(),
            configured: None,
        }
    }

    fn answer(&mut self, action: &'static str, data: &Value) -> Answer {
        self.asked.push(action.to_string());
        if self.gone {
            return Answer::Silent { reason: "nobody".into(), gone: true };
        }
        if let Some(left) = self.silent.get_mut(action).filter(|left| **left > 0) {
            *left -= 1;
            return Answer::Silent { reason: "silence".into(), gone: false };
        }
        if let Some((_, message)) = self.refuse.filter(|(refused, _)| *refused == action) {
            return Answer::Refused { message: message.into(), code: 1 };
        }
        if action != "inventory" {
            assert_eq!(data["token"], CHT, "{action}");
        }
        Answer::Replied(match action {
            "jwt" => {
                json!({ "jwt": self.jwt, "ecdh_public": "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466" })
            }
            "gen25519" => json!({ "public_key": self.seed.public().to_hex(), "directory": "/etc/choria",
                "signature": hex::encode((self.sign)(&self.seed, data["nonce"].as_str().unwrap())) }),
            "inventory" => {
                json!({ "facts": {"role": "db"}, "version": "0.99.0", "upgradable": self.upgradable })
            }
            "configure" => {
                self.configured = Some(data.clone());
                json!({ "message": "Wrote 3 lines to /etc/choria/server.conf" })
            }
            _ => json!({ "message": "ok" }),
        })
    }
}

fn issue(claims: ProvisioningClaims) -> String {
    issuer().0.issue_provisioning(claims, std::time::Duration::from_secs(86_400), NOW).unwrap()
}

fn good_reply() -> HelperReply {
    HelperReply::parse(br#"{"configuration":{"identity":"n1","plugin.choria.server.provision":"false"}}"#)
        .unwrap()
}

/// Tells the story to its end; `helper` decides.
fn tell(
    rules: &Rules,
    surroundings: Surroundings,
    node: &mut Node,
    known: (Option<&str>, bool),
    helper: impl Fn(&HelperRequest) -> HelperReply,
) -> Outcome {
    let mut story = Enrolment::new(rules, "n1", surroundings);
    let mut answer = Answer::Begin;
    for turn in 0..64u8 {
        answer = match story.advance(answer, Moment { now_unix: NOW + 60, random: [turn; 48] }) {
            Step::Finished(outcome) => return outcome,
            Step::Ask { action, data, .. } => node.answer(action, &data),
            Step::LookUp { public_key } => {
                assert_eq!(public_key, node.seed.public().to_hex());
                Answer::Known { key_of_other: known.0.map(String::from), known: known.1 }
            }
            Step::Decide(request) => Answer::Decided(Box::new(helper(&request))),
            Step::Issue { org, reply, .. } => {
                assert_eq!(org.as_deref(), Some("choria"));
                Answer::Issued { token: "server.jwt".into(), reply }
            }
        };
    }
    panic!("the story does not end: {:?}", node.asked);
}

fn plain(node: &mut Node) -> Outcome {
    tell(&rules(), Surroundings::default(), node, (None, false), |_| good_reply())
}

fn failure(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(reason) | Outcome::Deferred(reason) | Outcome::Unreachable(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_is_born() {
    let mut node = Node::new();
    let outcome = tell(&rules(), Surroundings::default(), &mut node, (None, false), |request| {
        assert_eq!(request.identity, "n1");
        assert_eq!(request.jwt.as_ref().unwrap()["cht"], CHT);
        assert_eq!(serde_json::from_str::<Value>(&request.inventory).unwrap()["facts"]["role"], "db");
        assert_eq!(request.ed25519_pubkey.as_ref().unwrap().directory, "/etc/choria");
        good_reply()
    });
    assert_eq!(outcome, Outcome::Provisioned { public_key: Some(node.seed.public().to_hex()) });
    assert_eq!(node.asked, ["jwt", "gen25519", "inventory", "configure", "restart"]);
    let sent = node.configured.unwrap();
    assert_eq!(sent["server_jwt"], "server.jwt");
    let config: BTreeMap<String, String> = serde_json::from_str(sent["config"].as_str().unwrap()).unwrap();
    assert_eq!(config["plugin.choria.server.provision"], "false");
    for optional in ["certificate", "ca", "ssldir", "key", "ecdh_public"] {
        assert_eq!(sent[optional], "", "{optional} is sent although unused");
    }
    assert_eq!(sent["action_policies"], json!({}));
}

#[test]
fn t_133_silence_is_repeated_and_then_given_up() {
    let mut node = Node::new();
    node.silent =
        BTreeMap::from([("jwt", 2), ("gen25519", 4), ("inventory", 4), ("configure", 4), ("restart", 2)]);
    assert!(matches!(plain(&mut node), Outcome::Provisioned { .. }));

    let mut node = Node::new();
    node.silent = BTreeMap::from([("jwt", 3)]);
    assert!(matches!(plain(&mut node), Outcome::Unreachable(_)));
    assert_eq!(node.asked.len(), 3);

    let mut node = Node::new();
    node.silent = BTreeMap::from([("inventory", 5)]);
    assert!(failure(plain(&mut node)).contains("rpcutil#inventory: maximum tries reached after 5"));

    let mut node = Node::new();
    node.gone = true;
    assert!(matches!(plain(&mut node), Outcome::Unreachable(_)));
    assert_eq!(node.asked.len(), 1, "a name nobody listens on is asked once");
    choria_rows::row(
        133,
        "nobody answers: jwt, inventory",
        "asked 3 and 5 times, then given up with the reason",
    );
}

#[test]
fn t_136_the_provisioning_token_must_be_ours() {
    let other = Issuer::Org(Seed::from_bytes(&[8; 32]));
    let claims =
        |token: &str| ProvisioningClaims { token: token.into(), urls: URLS.into(), ..Default::default() };
    let day = std::time::Duration::from_secs(86_400);
    for (jwt, part) in [
        (other.issue_provisioning(claims(CHT), day, NOW).unwrap(), "refused"),
        (issue(claims("other")), "`cht`"),
        (issuer().0.issue_provisioning(claims(CHT), day, NOW - 90_000).unwrap(), "refused"),
        ("nonsense".to_string(), "refused"),
    ] {
        let mut node = Node::new();
        node.jwt = jwt;
        let reason = failure(plain(&mut node));
        assert!(reason.contains(part), "{reason}");
        assert!(!reason.contains(CHT));
        assert_eq!(node.asked, ["jwt"]);
    }
    choria_rows::row(
        136,
        "token of another organization, another cht, expired, nonsense",
        "failed with the reason, cht not in it",
    );
}

#[test]
fn t_135_the_provisioning_token_must_be_the_one_it_connected_with() {
    let mut node = Node::new();
    let surroundings = Surroundings {
        online: Some(false),
        address: Some("192.0.2.1".into()),
        admitted_token_sha256: Some("00".repeat(32)),
    };
    let outcome = tell(&rules(), surroundings, &mut node, (None, false), |_| good_reply());
    assert!(failure(outcome).contains("connected with"));
    choria_rows::row(
        135,
        "the agent returns another valid token than the connection's",
        "failed, it is not the one the node connected with",
    );
}

#[test]
fn t_137_a_key_must_be_proven_over_our_nonce() {
    for sign in [
        |_: &Seed, _: &str| Vec::new(),
        |seed: &Seed, _: &str| seed.sign(b"another nonce").to_vec(),
        |_: &Seed, nonce: &str| Seed::from_bytes(&[1; 32]).sign(nonce.as_bytes()).to_vec(),
    ] {
        let mut node = Node::new();
        node.sign = sign;
        assert!(failure(plain(&mut node)).contains("did not prove its key"));
        assert_eq!(node.asked, ["jwt", "gen25519"], "nothing is issued");
    }
    choria_rows::row(
        137,
        "no signature, over another nonce, by another key",
        "did not prove its key; nothing is issued",
    );
}

#[test]
fn each_try_has_a_nonce_of_its_own() {
    let mut story_nonces = Vec::new();
    let rules = rules();
    let mut story = Enrolment::new(&rules, "n1", Surroundings::default());
    let moment = |fill| Moment { now_unix: NOW + 60, random: [fill; 48] };
    story.advance(Answer::Begin, moment(0));
    let mut answer = Answer::Replied(json!({ "jwt": Node::new().jwt }));
    for fill in 1..4 {
        let Step::Ask { action: "gen25519", data, pause, .. } = story.advance(answer, moment(fill)) else {
            panic!()
        };
        assert_eq!(pause.is_zero(), fill == 1);
        story_nonces.push(data["nonce"].as_str().unwrap().to_string());
        answer = Answer::Silent { reason: String::new(), gone: false };
    }
    story_nonces.dedup();
    assert_eq!(story_nonces.len(), 3);
    assert!(story_nonces.iter().all(|nonce| nonce.len() == 32));
}

#[test]
fn t_138_t_132_t_131_one_key_has_one_name_and_one_name_one_node() {
    let mut node = Node::new();
    let outcome = tell(&rules(), Surroundings::default(), &mut node, (Some("n2"), false), |_| good_reply());
    assert!(failure(outcome).contains("under the name n2"));

    let surroundings = Surroundings { online: Some(true), ..Surroundings::default() };
    let mut node = Node::new();
    let outcome = tell(&rules(), surroundings, &mut node, (None, false), |_| good_reply());
    assert!(matches!(outcome, Outcome::Deferred(reason) if reason.contains("identity in use")));
    assert!(node.asked.is_empty());

    let outcome = tell(&rules(), Surroundings::default(), &mut Node::new(), (None, true), |request| {
        assert!(request.known);
        HelperReply { defer: true, msg: "who are you".into(), ..HelperReply::default() }
    });
    assert_eq!(outcome, Outcome::Deferred("who are you".into()));

    let strict = Rules { known_names: KnownNames::Refuse, ..rules() };
    let outcome = tell(&strict, Surroundings::default(), &mut Node::new(), (None, true), |_| good_reply());
    assert!(matches!(outcome, Outcome::Deferred(_)));
    choria_rows::row(
        138,
        "a key under two names; a known name with a new key; a name that is online",
        "refused; helper sees known and defers; deferred, identity in use",
    );
    choria_rows::row(
        132,
        "a key under two names; a known name with a new key; a name that is online",
        "refused; helper sees known and defers; deferred, identity in use",
    );
    choria_rows::row(
        131,
        "a key under two names; a known name with a new key; a name that is online",
        "refused; helper sees known and defers; deferred, identity in use",
    );
}

#[test]
fn a_locked_node_is_left_to_its_owner() {
    let mut node = Node::new();
    node.refuse = Some(("jwt", "Could not obtain provisioning lock"));
    assert_eq!(plain(&mut node), Outcome::OwnedByAnother);
    assert_eq!(node.asked.len(), 1);

    let mut node = Node::new();
    node.refuse = Some(("configure", "disk full"));
    assert!(failure(plain(&mut node)).contains("invalid response from n1: disk full (1)"));
}

#[test]
fn the_helper_may_shut_a_node_down() {
    let mut node = Node::new();
    let outcome = tell(&rules(), Surroundings::default(), &mut node, (None, false), |_| HelperReply {
        shutdown: true,
        msg: "retired".into(),
        ..HelperReply::default()
    });
    assert_eq!(outcome, Outcome::ShutDown("retired".into()));
    assert_eq!(node.asked.last().unwrap(), "shutdown");
}

#[test]
fn a_configuration_that_would_loop_is_refused() {
    let outcome = tell(&rules(), Surroundings::default(), &mut Node::new(), (None, false), |_| {
        HelperReply::parse(br#"{"configuration":{"identity":"n1"}}"#).unwrap()
    });
    assert!(failure(outcome).contains("plugin.choria.server.provision"));
}

#[test]
fn a_private_key_travels_encrypted() {
    let mut node = Node::new();
    let pem = "-----BEGIN RSA PRIVATE KEY-----\nAAAABBBBCCCC\n-----END RSA PRIVATE KEY-----\n";
    let outcome = tell(&rules(), Surroundings::default(), &mut node, (None, false), |_| HelperReply {
        key: Some(Secret::new(pem.into())),
        ..good_reply()
    });
    assert!(matches!(outcome, Outcome::Provisioned { .. }));
    let sent = node.configured.unwrap();
    assert!(sent["key"].as_str().unwrap().contains("ENCRYPTED"));
    assert!(!sent.to_string().contains("AAAABBBBCCCC"));
    assert_eq!(sent["ecdh_public"].as_str().unwrap().len(), 64);
}

#[test]
fn upgrades() {
    let upgrade = |_: &HelperRequest| HelperReply { upgrade: "1.0.0".into(), ..good_reply() };
    let mut node = Node::new();
    node.upgradable = true;
    let outcome = tell(&rules(), Surroundings::default(), &mut node, (None, false), upgrade);
    assert_eq!(outcome, Outcome::Upgraded("1.0.0".into()));
    assert_eq!(node.asked.last().unwrap(), "release_update");

    // it already runs that version, or cannot change it
    let same = |_: &HelperRequest| HelperReply { upgrade: "0.99.0".into(), ..good_reply() };
    node = Node::new();
    node.upgradable = true;
    assert!(matches!(
        tell(&rules(), Surroundings::default(), &mut node, (None, false), same),
        Outcome::Provisioned { .. }
    ));
    assert!(matches!(
        tell(&rules(), Surroundings::default(), &mut Node::new(), (None, false), upgrade),
        Outcome::Provisioned { .. }
    ));

    // a failed one is the end, unless it is optional
    for optional in [false, true] {
        let rules = Rules { upgrades_optional: optional, ..rules() };
        let mut node = Node::new();
        node.upgradable = true;
        node.refuse = Some(("release_update", "no such release"));
        let outcome = tell(&rules, Surroundings::default(), &mut node, (None, false), upgrade);
        assert_eq!(matches!(outcome, Outcome::Provisioned { .. }), optional, "{outcome:?}");
    }
}

#[test]
fn answers_of_any_shape_end_the_story() {
    for data in [Value::Null, json!([]), json!("x"), json!({"jwt": 1}), json!({"public_key": "zz"})] {
        let rules = rules();
        let mut story = Enrolment::new(&rules, "n1", Surroundings::default());
        let moment = Moment { now_unix: NOW, random: [1; 48] };
        story.advance(Answer::Begin, moment);
        assert!(matches!(story.advance(Answer::Replied(data), moment), Step::Finished(Outcome::Failed(_))));
    }
}
