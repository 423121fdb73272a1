//! Protocol messages against the golden vectors: every message is taken apart in one small buffer and written again to the
//! same bytes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "a test may fail")]

use agent_core::json::SliceSink;
use agent_core::wire::transport::{FederationHeaders, Headers};
use agent_core::wire::{Span, reply, request, secure_reply, secure_request, transport};
use proptest::prelude::*;
use serde_json::Value;

/// The receive buffer of the smallest device that serves requests.
const DEVICE: usize = 12 * 1024;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/fixtures/protocol/v2_messages.json")).unwrap()
}

fn written(emit: impl FnOnce(&mut SliceSink<'_>) -> Result<(), agent_core::json::Error>) -> String {
    let mut buffer = vec![0; DEVICE];
    let mut sink = SliceSink::new(&mut buffer);
    emit(&mut sink).unwrap();
    String::from_utf8(sink.finish().unwrap().to_vec()).unwrap()
}

/// Writes a transport with the headers that `like` has, around `data`.
fn transport_like(like: &str, data: &[u8]) -> String {
    let like: Value = serde_json::from_str(like).unwrap();
    let headers = &like["headers"];
    let trace: Vec<[&str; 3]> = headers["trace"]
        .as_array()
        .map(|hops| hops.iter().map(|hop| [0, 1, 2].map(|n| hop[n].as_str().unwrap())).collect())
        .unwrap_or_default();
    let federation = &headers["federation"];
    let targets = federation["targets"].as_array().map(|targets| serde_json::to_vec(targets).unwrap());
    let headers = Headers {
        reply: headers["reply"].as_str(),
        sender: headers["sender"].as_str(),
        trace: &trace,
        federation: federation.is_object().then(|| FederationHeaders {
            request: federation["request"].as_str(),
            reply: federation["reply"].as_str(),
            targets: targets.as_deref(),
        }),
    };
    written(|sink| transport::emit(sink, &headers, &mut |inner| inner.put(data)))
}

#[test]
fn requests_are_read_in_place_and_written_again() {
    for (name, message) in vectors()["messages"].as_object().unwrap() {
        let text = |key: &str| message[key].as_str();
        let Some(secure_text) = text("secure_request_json") else { continue };
        let Some(request_text) = text("request_json").or(text("request_json_signed")) else { continue };
        let wire = match text("transport_json") {
            Some(wire) => {
                assert_eq!(transport_like(wire, secure_text.as_bytes()), wire, "{name}");
                wire.to_owned()
            }
            None => transport_like("{\"headers\":{}}", secure_text.as_bytes()),
        };

        let mut device = [0_u8; DEVICE];
        let buffer = &mut device[..wire.len()];
        buffer.copy_from_slice(wire.as_bytes());
        let outer = transport::parse(buffer).unwrap();
        assert_eq!(outer.data.of(buffer), secure_text.as_bytes(), "{name}");
        let secure = secure_request::parse(buffer, outer.data).unwrap();
        assert_eq!(secure.request.of(buffer), request_text.as_bytes(), "{name}");
        let again = written(|sink| {
            secure_request::emit(
                sink,
                secure.request.of(buffer),
                secure.signature.of(buffer),
                secure.caller.text(buffer),
                secure.signer.map(|signer| signer.text(buffer)),
            )
        });
        assert_eq!(again, secure_text, "{name}");

        let inner = request::parse(buffer, secure.request).unwrap();
        if let Some(body) = text("body_utf8") {
            assert_eq!(inner.message.text(buffer), body, "{name}");
        }
        let again = written(|sink| {
            request::emit(
                sink,
                &request::Fields {
                    message: inner.message.of(buffer),
                    id: inner.id.text(buffer),
                    sender: inner.sender.text(buffer),
                    caller: inner.caller.text(buffer),
                    collective: inner.collective.text(buffer),
                    agent: inner.agent.text(buffer),
                    ttl: inner.ttl,
                    time: inner.time,
                    filter: inner.filter.unwrap().of(buffer),
                },
            )
        });
        assert_eq!(again, request_text, "{name}");
    }
}

#[test]
fn federation_headers_survive() {
    let vectors = vectors();
    let wire = vectors["messages"]["request_federated"]["after_federation_broker_json"].as_str().unwrap();
    let mut buffer = wire.as_bytes().to_vec();
    let parsed = transport::parse(&mut buffer).unwrap();
    let federation = parsed.federation.unwrap().headers(&buffer);
    assert_eq!(federation.request, Some("3OGEejHfgFrmUWU32uyu6DSNmhS"));
    assert_eq!(
        federation.reply,
        Some("choria.reply.88119837fa4868ab21a586da9a06e79e.3OGEejHfgFrmUWU32uyu6DSNmhS")
    );
    assert_eq!(transport_like(wire, parsed.data.of(&buffer)), wire);
}

#[test]
fn replies_are_written_and_read_again() {
    let vectors = vectors();
    for name in ["reply_signed", "reply_unsigned"] {
        let message = &vectors["messages"][name];
        let signed = &vectors["messages"]["reply_signed"];
        let reply_text = signed["reply_json"].as_str().unwrap();
        let secure_text = message["secure_reply_json"].as_str().unwrap();
        let mut buffer = secure_text.as_bytes().to_vec();
        let whole = Span::whole(&buffer);
        let secure = secure_reply::parse(&mut buffer, whole).unwrap();
        assert_eq!(secure.reply.text(&buffer), reply_text);
        assert_eq!(secure.signature.is_some(), name == "reply_signed");
        let signed_by = secure.signature.map(|signature| secure_reply::Signed {
            signature: signature.of(&buffer),
            token: secure.sender.unwrap().text(&buffer),
        });
        let again = written(|sink| secure_reply::emit(sink, secure.reply.of(&buffer), signed_by));
        assert_eq!(again, secure_text);
        if let Some(wire) = message["transport_json"].as_str() {
            let headers = Headers {
                sender: Some("n1.example.net"),
                trace: &[[
                    "nats://broker.example.net:4222",
                    "n1.example.net",
                    "nats://broker.example.net:4222",
                ]],
                ..Headers::default()
            };
            let again = written(|sink| {
                secure_reply::emit_in_transport(sink, &headers, secure.reply.of(&buffer), signed_by)
            });
            assert_eq!(again, wire);
        }

        let inner = reply::parse(&mut buffer, secure.reply).unwrap();
        assert_eq!(inner.message.text(&buffer), signed["body_utf8"]);
        let again = written(|sink| {
            reply::emit(
                sink,
                &reply::Fields {
                    message: inner.message.of(&buffer),
                    request: inner.request.text(&buffer),
                    sender: inner.sender.text(&buffer),
                    agent: inner.agent.text(&buffer),
                    time: inner.time,
                },
            )
        });
        assert_eq!(again, reply_text);
    }
}

#[test]
fn a_changed_reply_fails_its_hash() {
    let text = vectors()["messages"]["reply_unsigned"]["secure_reply_json"].as_str().unwrap().to_owned();
    let mut buffer = text.replace("\"reply\":\"eyJw", "\"reply\":\"eyJx").into_bytes();
    let whole = Span::whole(&buffer);
    assert_eq!(secure_reply::parse(&mut buffer, whole).unwrap_err().reason(), "secure_bad");
}

#[test]
fn doubtful_requests_are_refused() {
    let vectors = vectors();
    let good = vectors["messages"]["request_direct"]["request_json"].as_str().unwrap();
    let parse = |text: String| {
        let mut buffer = text.into_bytes();
        let whole = Span::whole(&buffer);
        request::parse(&mut buffer, whole).map(|_| ()).map_err(|error| error.reason())
    };
    assert_eq!(parse(good.to_owned()), Ok(()));
    for ttl in ["0", "-5", "9223372036854775808", "\"60\"", "null", "1.5", "[]"] {
        assert_eq!(parse(good.replace("\"ttl\":60", &format!("\"ttl\":{ttl}"))), Err("secure_bad"), "{ttl}");
    }
    assert_eq!(parse(good.replace("\"ttl\":60", "\"ttl\":60,\"TTL\":61")), Err("json_ambiguous"));
    assert_eq!(parse(good.replace("\"ttl\":60", "\"ttl\":60,\"unknown\":{}")), Ok(()));
    assert_eq!(
        parse(good.replace("\"agent\":\"rpcutil\",\"ttl\"", "\"agent\":\"\",\"ttl\"")),
        Err("secure_bad")
    );
    assert_eq!(parse(good.replace("v2.request", "v2.reply")), Err("secure_bad"));
    assert_eq!(parse(good[..good.len() - 1].to_owned()), Err("secure_bad"));
}

#[test]
fn a_line_end_behind_a_token_is_not_part_of_it() {
    for end in ["", "\\n", "\\r\\n"] {
        let text = format!(
            "{{\"protocol\":\"io.choria.protocol.v2.secure_request\",\"request\":\"e30=\",\"signature\":\"\",\"caller\":\"a.b.c{end}\"}}"
        );
        let mut buffer = text.into_bytes();
        let whole = Span::whole(&buffer);
        let parsed = secure_request::parse(&mut buffer, whole).unwrap();
        assert_eq!(parsed.caller.text(&buffer), "a.b.c");
        assert!(parsed.signature.is_empty());
    }
}

fn parse_everything(buffer: &mut [u8]) {
    let whole = Span::whole(buffer);
    if let Ok(outer) = transport::parse(buffer) {
        let mut copy = buffer.to_vec();
        secure_reply::parse(&mut copy, outer.data).ok();
        if let Ok(secure) = secure_request::parse(buffer, outer.data) {
            request::parse(buffer, secure.request).ok();
        }
    }
    request::parse(buffer, whole).ok();
    reply::parse(buffer, whole).ok();
}

proptest! {
    #[test]
    fn mutated_messages_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let vectors = vectors();
        for name in ["request_direct", "reply_signed"] {
            let mut buffer = vectors["messages"][name]["transport_json"].as_str().unwrap().as_bytes().to_vec();
            let place = at.index(buffer.len());
            buffer[place] = byte;
            parse_everything(&mut buffer.clone());
            let cut = cut.index(buffer.len());
            parse_everything(&mut buffer[..cut]);
        }
    }

    #[test]
    fn requests_survive_the_way(message in prop::collection::vec(any::<u8>(), 1..60), id in "\\PC{1,10}", caller in "\\PC{1,10}", ttl in 1..i64::MAX, time in 1..i64::MAX) {
        let fields = request::Fields { message: &message, id: &id, sender: "s", caller: &caller, collective: "c", agent: "a", ttl, time, filter: request::EMPTY_FILTER };
        let mut buffer = written(|sink| request::emit(sink, &fields)).into_bytes();
        let whole = Span::whole(&buffer);
        let parsed = request::parse(&mut buffer, whole).unwrap();
        prop_assert_eq!(parsed.message.of(&buffer), &message[..]);
        prop_assert_eq!(parsed.id.text(&buffer), id);
        prop_assert_eq!(parsed.caller.text(&buffer), caller);
        prop_assert_eq!((parsed.ttl, parsed.time), (ttl, time));
    }

    #[test]
    fn replies_survive_the_way(message in prop::collection::vec(any::<u8>(), 1..60), request in "\\PC{1,10}", sender in "\\PC{1,10}", time in 1..i64::MAX, token in prop::option::of("[!-~]{1,20}")) {
        let fields = reply::Fields { message: &message, request: &request, sender: &sender, agent: "a", time };
        let document = written(|sink| reply::emit(sink, &fields));
        let signed = token.as_deref().map(|token| secure_reply::Signed { signature: &[7; 64], token });
        let mut buffer = written(|sink| secure_reply::emit(sink, document.as_bytes(), signed)).into_bytes();
        let whole = Span::whole(&buffer);
        let secure = secure_reply::parse(&mut buffer, whole).unwrap();
        prop_assert_eq!(secure.sender.map(|span| span.text(&buffer).to_owned()), token);
        let parsed = reply::parse(&mut buffer, secure.reply).unwrap();
        prop_assert_eq!(parsed.message.of(&buffer), &message[..]);
        prop_assert_eq!((parsed.request.text(&buffer), parsed.sender.text(&buffer), parsed.time), (&*request, &*sender, time));
    }
}
