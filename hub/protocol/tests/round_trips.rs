//! Every message that is written is read again as it was, and whatever is read is written as it will be read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use choria_protocol::ddl::{AGENT_SCHEMA, Ddl};
use choria_protocol::event::{Event, LifecycleEvent};
use choria_protocol::rpc::{RpcReply, RpcRequest, StatusCode};
use choria_protocol::{Federation, Headers, Reply, SecureReply, SecureRequest, Transport};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn text() -> impl Strategy<Value = String> {
    "[ -~\u{2028}<>&\"\\\\äπ\n]{1,20}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..80)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_000_000..1_000_000).prop_map(|n: i32| Value::from(f64::from(n) / 8.0)),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn data() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map("[a-zA-Z_]{1,8}|\\PC{1,6}", value(), 0..5)
        .prop_map(|map| map.into_iter().collect())
}

fn headers() -> impl Strategy<Value = Headers> {
    let federation = prop::option::of((text(), text(), prop::collection::vec(text(), 0..3)));
    (text(), text(), prop::collection::vec((text(), text(), text()), 0..3), federation).prop_map(
        |(reply, sender, trace, federation)| Headers {
            reply,
            sender,
            trace: trace.into_iter().map(|(a, b, c)| [a, b, c]).collect(),
            federation: federation.map(|(request, reply, targets)| Federation { request, reply, targets }),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn transports(data in bytes(), headers in headers()) {
        let message = Transport { data, headers };
        prop_assert_eq!(Transport::parse(&message.to_bytes().unwrap()).unwrap(), message);
    }

    #[test]
    fn secure_requests(request in bytes(), signature in bytes(), caller in "[!-~]{1,40}", signer in prop::option::of("[!-~]{1,40}")) {
        let message = SecureRequest { request, signature, caller, signer };
        let read = SecureRequest::parse(&message.to_bytes().unwrap()).unwrap();
        prop_assert!(read == message);
    }

    #[test]
    fn secure_replies(reply in bytes(), signature in prop::option::of(bytes()), sender in prop::option::of("[!-~]{1,40}"), flip in any::<prop::sample::Index>()) {
        let message = SecureReply { reply, signature, sender };
        let written = message.to_bytes().unwrap();
        prop_assert!(SecureReply::parse(&written).unwrap() == message);
        // The hash guards the reply: another one in its place is refused.
        let mut other = message.reply.clone();
        let at = flip.index(other.len());
        other[at] ^= 1;
        let mut document: Value = serde_json::from_slice(&written).unwrap();
        let foreign = SecureReply { reply: other, signature: None, sender: None }.to_bytes().unwrap();
        document["reply"] = serde_json::from_slice::<Value>(&foreign).unwrap()["reply"].clone();
        prop_assert!(SecureReply::parse(&serde_json::to_vec(&document).unwrap()).is_err());
    }

    #[test]
    fn replies(message in bytes(), request in text(), sender in text(), agent in text(), time in 1..i64::MAX) {
        let reply = Reply { message, request, sender, agent, time };
        prop_assert_eq!(Reply::parse(&reply.to_bytes().unwrap()).unwrap(), reply);
    }

    #[test]
    fn rpc_calls_and_answers(agent in text(), action in text(), data in data(), code in any::<i64>(), said in "\\PC{0,20}") {
        let call = RpcRequest { agent, action: action.clone(), data: data.clone() };
        prop_assert_eq!(RpcRequest::parse(&call.to_bytes().unwrap()).unwrap(), call);
        let answer = RpcReply { action, statuscode: StatusCode::from(code), statusmsg: said, data: Value::Object(data) };
        prop_assert_eq!(RpcReply::parse(&answer.to_bytes().unwrap()).unwrap(), answer);
    }

    #[test]
    fn life_cycle_events(kind in "(startup|shutdown|provisioned|alive|upgraded|governor)", component in "[a-z_]{1,12}",
            identity in "[a-z0-9.]{1,20}", at in 1_i64..4_000_000_000, random in any::<[u8; 16]>(), version in "\\PC{1,10}") {
        let event = LifecycleEvent::new(&kind, &component, &identity, at, random).with("version", version);
        let bare = event.to_bare_bytes().unwrap();
        for written in [event.to_bytes().unwrap(), bare] {
            match Event::parse(&written).unwrap() {
                Event::Lifecycle(read) => prop_assert_eq!(&read, &event),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn ddls(agent in "[a-z_]{1,12}", actions in prop::collection::btree_map("[a-z_]{1,12}", ("\\PC{0,20}", "[a-z_]{1,8}", value()), 0..4)) {
        let actions: Vec<Value> = actions.into_iter().map(|(name, (description, input, default))| json!({
            "action": name, "description": description, "display": "always",
            "input": {input.clone(): {"prompt": "p", "description": description, "type": "string", "optional": true, "default": default}},
            "output": {input: {"description": description, "display_as": "O", "default": default}},
        })).collect();
        let document = json!({"$schema": AGENT_SCHEMA, "actions": actions, "metadata": {"name": agent, "description": "d",
            "author": "a", "license": "l", "version": "1.0.0", "url": "u", "timeout": 10}});
        let ddl = Ddl::parse(&serde_json::to_vec(&document).unwrap()).unwrap();
        prop_assert_eq!(ddl.name(), agent);
        prop_assert_eq!(ddl.actions.len(), actions.len());
        prop_assert_eq!(Ddl::parse(&serde_json::to_vec(&ddl).unwrap()).unwrap(), ddl);
    }
}
