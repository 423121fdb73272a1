//! What a microcontroller is sent, and what is not even tried.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail where it stands

use choria_provisioner::config::{Features, KnownNames};
use choria_provisioner::enrolment::{Answer, Enrolment, Moment, Outcome, Rules, Step, Surroundings};
use choria_provisioner::helper::HelperReply;
use serde_json::{Value, json};

const MOMENT: Moment = Moment { now_unix: 1_790_000_000, random: [7; 48] };

fn rules() -> Rules {
    Rules {
        features: Features::default(),
        token: None,
        previous_token: None,
        verifier: None,
        upgrades_repository: String::new(),
        upgrades_optional: false,
        known_names: KnownNames::Helper,
    }
}

fn facts(device: bool) -> Value {
    if device {
        json!({"agent_core": {"rx_limit": 11_776, "profile": "small"}})
    } else {
        json!({"role": "db"})
    }
}

fn reply() -> HelperReply {
    HelperReply::parse(
        br#"{"configuration":{"identity":"n1","plugin.choria.server.provision":"false","plugin.yaml":"/facts.yaml"},
             "certificate":"PEM","ca":"PEM","ssldir":"/ssl",
             "action_policies":{"rpcutil.policy":"policy default allow"},"opa_policies":{"main.rego":"package x"}}"#,
    )
    .unwrap()
}

/// The data of `configure` and the limit that goes with it.
fn configure(story: &mut Enrolment<'_>, device: bool, reply: HelperReply) -> (Value, Option<usize>) {
    let Step::Ask { action: "inventory", limit: None, .. } = story.advance(Answer::Begin, MOMENT) else {
        panic!("the inventory comes first")
    };
    let inventory = json!({"facts": facts(device), "version": "0.1.0"});
    let Step::Decide(_) = story.advance(Answer::Replied(inventory), MOMENT) else { panic!("no decision") };
    match story.advance(Answer::Decided(Box::new(reply)), MOMENT) {
        Step::Ask { action: "configure", data, limit, .. } => (data, limit),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_is_sent_what_it_takes_and_a_server_everything() {
    let rules = rules();
    let mut story = Enrolment::new(&rules, "n1", Surroundings::default());
    let (data, limit) = configure(&mut story, true, reply());
    assert_eq!(limit, Some(11_776));
    let names: Vec<&str> = data.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["config", "server_jwt", "token"], "nothing but what is used");
    let config: Value = serde_json::from_str(data["config"].as_str().unwrap()).unwrap();
    assert_eq!(config, json!({"identity": "n1", "plugin.choria.server.provision": "false"}));
    // a repetition has the same limit
    let again = story.advance(Answer::Silent { reason: "silence".into(), gone: false }, MOMENT);
    assert!(matches!(again, Step::Ask { action: "configure", limit: Some(11_776), .. }), "{again:?}");

    let mut story = Enrolment::new(&rules, "n1", Surroundings::default());
    let (data, limit) = configure(&mut story, false, reply());
    assert_eq!((limit, data["ca"].as_str(), data["ssldir"].as_str()), (None, Some("PEM"), Some("/ssl")));
    assert_eq!(data["action_policies"]["rpcutil.policy"], "policy default allow");
    assert!(data["config"].as_str().unwrap().contains("plugin.yaml"));
}

#[test]
fn a_private_key_for_a_device_is_not_even_sealed() {
    let with_key = || HelperReply { key: Some(choria_host::Secret::new("PEM".into())), ..reply() };
    let rules = rules();
    let mut story = Enrolment::new(&rules, "n1", Surroundings::default());
    let (data, _) = configure(&mut story, true, with_key());
    assert!(data.get("key").is_none() && data.get("ecdh_public").is_none(), "{data}");
}

#[test]
fn what_a_device_could_only_drop_is_a_deferral_with_the_reason() {
    let rules = rules();
    let mut story = Enrolment::new(&rules, "n1", Surroundings::default());
    configure(&mut story, true, reply());
    match story.advance(Answer::TooLarge { size: 12_001, limit: 11_776 }, MOMENT) {
        Step::Finished(Outcome::Deferred(reason)) => {
            for part in ["12001", "11776", "agent_core.rx_limit", "fewer or shorter settings"] {
                assert!(reason.contains(part), "no {part} in {reason}");
            }
        }
        other => panic!("{other:?}"),
    }
}
