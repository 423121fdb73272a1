//! Whatever comes in, parsers answer and do not panic; whatever is written can be read again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::let_underscore_must_use
)]

use choria_protocol::{
    FactFilter, Filter, Reply, Request, SecureReply, SecureRequest, Transport,
    ddl::Ddl,
    event::Event,
    parse_combined_filter, parse_fact_filter,
    rpc::{RpcReply, RpcRequest},
};
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    "[ -~\u{2028}<>&\"\\\\äπ\n]{1,20}"
}

fn filter() -> impl Strategy<Value = Filter> {
    (
        prop::collection::vec((text(), text(), text()), 0..3),
        prop::collection::vec(text(), 0..3),
        prop::collection::vec(text(), 0..3),
    )
        .prop_map(|(facts, classes, identities)| Filter {
            fact: facts
                .into_iter()
                .map(|(fact, operator, value)| FactFilter { fact, operator, value })
                .collect(),
            cf_class: classes,
            identity: identities,
            ..Filter::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_everything(&bytes);
    }

    #[test]
    fn json_like_text_never_panics(text in r#"[\[\]{}:," a-z0-9\\u.]{0,120}"#) {
        read_everything(text.as_bytes());
        let _ = parse_fact_filter(&text);
        let _ = parse_combined_filter(&text);
    }

    #[test]
    fn mutated_messages_never_panic(at in 0_usize..900, byte in any::<u8>()) {
        let request = example();
        let secure = SecureRequest { request: request.to_bytes().unwrap(), signature: vec![1; 64], caller: "t".into(), signer: None };
        let mut bytes = secure.to_bytes().unwrap();
        let length = bytes.len();
        bytes[at % length] = byte;
        if let Ok(parsed) = SecureRequest::parse(&bytes) {
            let _ = parsed.request();
        }
    }

    #[test]
    fn requests_survive(message in prop::collection::vec(any::<u8>(), 1..64), caller in text(), ttl in 1..i64::MAX, time in 1..i64::MAX, filter in filter()) {
        let request = Request { message, caller, ttl, time, filter, ..example() };
        let bytes = request.to_bytes().unwrap();
        prop_assert_eq!(&Request::parse(&bytes).unwrap(), &request);
        // peers' escapes and plain text are the same document
        let plain: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(Request::parse(&serde_json::to_vec(&plain).unwrap()).unwrap(), request);
    }

    #[test]
    fn fact_filters_split_at_the_operator(fact in "[a-z.]{1,10}", operator in "(==|!=|<|>|<=|>=|=~)", value in "[a-z0-9]{1,10}") {
        let parsed = parse_fact_filter(&format!("{fact} {operator}{value}")).unwrap();
        prop_assert_eq!(parsed, FactFilter { fact, operator, value });
    }
}

fn example() -> Request {
    Request {
        message: b"{}".to_vec(),
        id: "i".into(),
        sender: "s".into(),
        caller: "c".into(),
        collective: "choria".into(),
        agent: "rpcutil".into(),
        ttl: 60,
        time: 1,
        filter: Filter::default(),
    }
}

fn read_everything(bytes: &[u8]) {
    let _ = Transport::parse(bytes);
    let _ = SecureRequest::parse(bytes);
    let _ = Request::parse(bytes);
    let _ = SecureReply::parse(bytes);
    let _ = Reply::parse(bytes);
    let _ = RpcRequest::parse(bytes);
    let _ = RpcReply::parse(bytes);
    let _ = Ddl::parse(bytes);
    let _ = Event::parse(bytes);
}
