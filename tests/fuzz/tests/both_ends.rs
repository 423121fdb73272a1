//! What one end of a connection writes, the other end reads as it was meant: the agent's writers against the hub's readers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use agent_core::lifecycle::{self, Kind, Source};
use agent_core::nats::Outgoing;
use agent_core::session::{Client, Credentials, write_connect};
use choria_protocol::event::Event;
use nats_engine::ConnectOptions;
use nats_engine::parser::{Op, Parser, ParserLimits};
use proptest::prelude::*;

const LIMITS: ParserLimits = ParserLimits { control_line: 4096, connect_line: 65536, payload: 65536 };

/// The operations in these bytes, as text.
fn read(bytes: &[u8]) -> Vec<String> {
    let (mut parser, mut input, mut seen) = (Parser::new(LIMITS), bytes, Vec::new());
    while let Some(operation) = parser.next(&mut input).unwrap() {
        seen.push(format!("{operation:?}"));
    }
    assert!(input.is_empty());
    seen
}

fn subject() -> impl Strategy<Value = String> {
    "[a-z0-9_$=-]{1,8}(\\.[a-z0-9_=-]{1,8}){0,3}"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations(to in subject(), reply in prop::option::of(subject()), payload in prop::collection::vec(any::<u8>(), 0..200),
            group in prop::option::of("[a-z]{1,8}"), sid in any::<u32>()) {
        let mut room = vec![0; 4096];
        let mut out = Outgoing::new(&mut room);
        out.ping().unwrap();
        out.subscribe(&to, group.as_deref(), sid).unwrap();
        out.publish(&to, reply.as_deref(), &payload).unwrap();
        out.publish_with(&to, |place| {
            place[..payload.len()].copy_from_slice(&payload);
            Ok::<_, ()>(payload.len())
        })
        .unwrap();
        out.unsubscribe(sid).unwrap();
        out.pong().unwrap();
        let sid = sid.to_string();
        let expected = [
            Op::Ping,
            Op::Sub { subject: to.as_bytes(), queue: group.as_deref().unwrap_or_default().as_bytes(), sid: sid.as_bytes() },
            Op::Pub { subject: to.as_bytes(), reply: reply.as_deref().unwrap_or_default().as_bytes(), payload: &payload },
            Op::Pub { subject: to.as_bytes(), reply: b"", payload: &payload },
            Op::Unsub { sid: sid.as_bytes(), max: 0 },
            Op::Pong,
        ];
        prop_assert_eq!(read(out.finish()), expected.map(|operation| format!("{operation:?}")));
    }

    #[test]
    fn subjects_with_blanks_never_leave(to in "[a-z .\\r\\n\\t*>]{1,8}", payload in "[a-z]{0,4}") {
        let mut room = vec![0; 512];
        let mut out = Outgoing::new(&mut room);
        if out.publish(&to, None, payload.as_bytes()).is_ok() {
            let expected = Op::Pub { subject: to.as_bytes(), reply: b"", payload: payload.as_bytes() };
            prop_assert_eq!(read(out.finish()), [format!("{expected:?}")]);
        } else {
            prop_assert_eq!(out.len(), 0);
        }
    }

    #[test]
    fn connect(name in "\\PC{0,20}", token in prop::option::of("[A-Za-z0-9._-]{1,60}"), seed in any::<[u8; 32]>(),
            pass in prop::option::of("\\PC{0,20}|[\"\\\\\\n]{0,4}"), repeat in any::<bool>(), tls in any::<bool>()) {
        prop_assume!(seed != [0; 32]);
        let mut room = vec![0; 8192];
        let mut out = Outgoing::new(&mut room);
        let client = Client { name: &name, lang: "rust", version: "1" };
        let credentials = Credentials {
            token: token.as_deref(),
            seed: Some(&seed),
            user: pass.as_ref().map(|_| "someone"),
            pass: pass.as_deref(),
            repeat_token: repeat,
        };
        write_connect(&mut out, &client, &credentials, Some("Z4T9x1kQmB2aVwE"), tls).unwrap();
        let bytes = out.finish();
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap();
        let options = ConnectOptions::parse(line.strip_prefix(b"CONNECT ").unwrap().trim_ascii_end()).unwrap();
        prop_assert_eq!(options.name, name);
        prop_assert_eq!(&options.auth_token, token.as_deref().unwrap_or_default());
        prop_assert_eq!(options.jwt.is_empty(), token.is_none() || !repeat);
        prop_assert_eq!(options.sig.len(), if token.is_some() { 86 } else { 0 });
        prop_assert_eq!(options.pass, pass.unwrap_or_default());
        prop_assert_eq!(options.tls_required, tls);
        prop_assert!(!options.verbose && options.headers && options.no_responders);
    }

    #[test]
    fn life_cycle_events(identity in "[a-z0-9.-]{1,30}", id in any::<[u8; 16]>(), at in 1_i64..4_000_000_000, legacy in any::<bool>()) {
        let source = Source { identity: &identity, component: "server", version: "0.1.0", legacy };
        for kind in [Kind::Startup, Kind::Alive, Kind::Shutdown, Kind::Provisioned, Kind::Upgraded { new_version: "2" }] {
            let mut room = vec![0; 4096];
            let mut out = Outgoing::new(&mut room);
            lifecycle::publish(&mut out, kind, &source, id, at).unwrap();
            let (mut parser, mut input) = (Parser::new(LIMITS), out.finish());
            let Some(Op::Pub { payload, .. }) = parser.next(&mut input).unwrap() else { panic!("no publication") };
            let Event::Lifecycle(event) = Event::parse(payload).unwrap() else { panic!("no life-cycle event") };
            prop_assert_eq!((event.identity.as_str(), event.component.as_str(), event.timestamp), (identity.as_str(), "server", at));
        }
    }
}
