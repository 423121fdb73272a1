//! Byte for byte against the vectors in `tests/fixtures` (see the READMEs there).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::path::PathBuf;

use choria_protocol::{
    DISCOVERY_BODY, INSECURE_SIGNATURE, Reply, Request, SecureReply, SecureRequest, Transport,
    parse_fact_filter, subjects,
};
use serde_json::Value;

fn fixture(path: &str) -> Value {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path);
    serde_json::from_slice(&std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())))
        .unwrap()
}

fn messages() -> serde_json::Map<String, Value> {
    fixture("protocol/v2_messages.json")["messages"].as_object().unwrap().clone()
}

#[test]
fn every_layer_is_written_byte_identical() {
    let mut seen = 0;
    for (name, message) in messages() {
        for (field, value) in message.as_object().unwrap() {
            let Some(text) = value.as_str().filter(|_| field.contains("_json")) else { continue };
            let bytes = text.as_bytes();
            let again = if field.starts_with("request_json") {
                Request::parse(bytes).unwrap().to_bytes().unwrap()
            } else if field.starts_with("secure_request_json") {
                SecureRequest::parse(bytes).unwrap().to_bytes().unwrap()
            } else if field.starts_with("reply_json") {
                Reply::parse(bytes).unwrap().to_bytes().unwrap()
            } else if field.starts_with("secure_reply_json") {
                SecureReply::parse(bytes).unwrap().to_bytes().unwrap()
            } else if field.ends_with("transport_json") || field.starts_with("after_federation") {
                Transport::parse(bytes).unwrap().to_bytes().unwrap()
            } else {
                panic!("{name}.{field}: which layer is this?");
            };
            assert_eq!(String::from_utf8(again).unwrap(), text, "{name}.{field}");
            seen += 1;
        }
    }
    assert!(seen > 15, "only {seen} messages in the vectors");
}

#[test]
fn layers_nest() {
    let messages = messages();
    let transport =
        Transport::parse(messages["request_direct"]["transport_json"].as_str().unwrap().as_bytes()).unwrap();
    let secure = SecureRequest::parse(&transport.data).unwrap();
    assert_eq!(secure.request, messages["request_direct"]["request_json"].as_str().unwrap().as_bytes());
    let request = secure.request().unwrap();
    assert_eq!(request.message, messages["request_direct"]["body_utf8"].as_str().unwrap().as_bytes());
    assert_eq!(transport.headers.reply, subjects::reply("choria", &request.caller, &request.id));
    assert_eq!(messages["request_direct"]["subject"], subjects::broadcast("choria", "rpcutil"));
    assert_eq!(messages["request_direct"]["directed_subject"], subjects::node("choria", "n1.example.net"));

    let discovery =
        Request::parse(messages["request_discovery"]["request_json"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(discovery.message, DISCOVERY_BODY);
    assert_eq!(discovery.discovery_body(), b"ping");

    let signer = &messages["request_to_signer_service"];
    let secure = SecureRequest::parse(signer["secure_request_json"].as_str().unwrap().as_bytes()).unwrap();
    assert!(secure.is_insecure() && secure.signature == INSECURE_SIGNATURE);
    assert_eq!(signer["subject"], subjects::service("choria", "aaa_signer"));

    let reply =
        SecureReply::parse(messages["reply_signed"]["secure_reply_json"].as_str().unwrap().as_bytes())
            .unwrap();
    assert!(reply.signature.is_some() && reply.sender.is_some());
    let unsigned =
        SecureReply::parse(messages["reply_unsigned"]["secure_reply_json"].as_str().unwrap().as_bytes())
            .unwrap();
    assert!(unsigned.signature.is_none() && unsigned.sender.is_none());
    assert_eq!(reply.reply().unwrap().sender, "n1.example.net");
}

#[test]
fn an_altered_reply_is_refused() {
    let text = messages()["reply_unsigned"]["secure_reply_json"].as_str().unwrap().to_owned();
    let mut wire: Value = serde_json::from_str(&text).unwrap();
    wire["hash"] = "AAAA".into();
    let error = SecureReply::parse(&serde_json::to_vec(&wire).unwrap()).unwrap_err();
    assert_eq!(error.reason(), "sig_bad");
}

#[test]
fn missing_null_and_ambiguous_fields_are_refused() {
    let text = messages()["request_direct"]["request_json"].as_str().unwrap().to_owned();
    let valid: Value = serde_json::from_str(&text).unwrap();
    for field in ["protocol", "message", "id", "sender", "caller", "collective", "agent", "ttl", "time"] {
        for bad in [None, Some(Value::Null), Some("".into()), Some(0.into())] {
            let mut request = valid.clone();
            match bad {
                None => request.as_object_mut().unwrap().remove(field),
                Some(bad) => request.as_object_mut().unwrap().insert(field.to_owned(), bad),
            };
            assert!(Request::parse(&serde_json::to_vec(&request).unwrap()).is_err(), "{field}");
        }
    }
    for (from, to) in [
        ("\"agent\":", "\"Agent\":\"x\",\"agent\":"),
        ("\"ttl\":", "\"ttl\":1,\"ttl\":"),
        ("\"operator\":", "\"Operator\":\"!=\",\"operator\":"),
    ] {
        let error = Request::parse(text.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(error.reason(), "json_ambiguous", "{to}");
    }
    // without a filter: the same as an empty one
    let mut request = valid.clone();
    request.as_object_mut().unwrap().remove("filter");
    assert!(Request::parse(&serde_json::to_vec(&request).unwrap()).unwrap().filter.is_empty());
    request["filter"] = Value::Null;
    assert!(Request::parse(&serde_json::to_vec(&request).unwrap()).is_err());
}

#[test]
fn ttl_is_strict_on_both_sides_and_never_overflows() {
    let text = messages()["request_direct"]["request_json"].as_str().unwrap().to_owned();
    let mut request = Request::parse(text.as_bytes()).unwrap();
    let ttl = 60 * 1_000_000_000;
    assert!(request.is_current(request.time + ttl - 1) && request.is_current(request.time - ttl + 1));
    assert!(!request.is_current(request.time + ttl) && !request.is_current(request.time - ttl));
    request.ttl = i64::MAX;
    assert!(request.is_current(request.time));
}

#[test]
fn reply_subjects() {
    for case in fixture("connect/reply_subjects.json")["cases"].as_array().unwrap() {
        let (collective, id) = (case["collective"].as_str().unwrap(), case["id"].as_str().unwrap());
        assert_eq!(case["md5"], subjects::private_network_id(id));
        assert_eq!(case["inbox_prefix"], subjects::inbox_prefix(collective, id));
        assert_eq!(case["reply_for_request_abc123"], subjects::reply(collective, id, "abc123"));
    }
}

#[test]
fn fact_filters() {
    for case in fixture("filters/filters.json")["parse_fact_filter"].as_array().unwrap() {
        let parsed = parse_fact_filter(case["input"].as_str().unwrap());
        if case["error"] == true {
            assert!(parsed.is_err(), "{case}: {parsed:?}");
        } else {
            let parsed = parsed.unwrap_or_else(|e| panic!("{case}: {e}"));
            assert_eq!(
                (&case["fact"], &case["operator"], &case["value"]),
                (
                    &parsed.fact.as_str().into(),
                    &parsed.operator.as_str().into(),
                    &parsed.value.as_str().into()
                ),
                "{case}"
            );
        }
    }
}
