//! What an agent reads of its broker: the NATS protocol and INFO.

use agent_core::nats::parser as client_side;
use agent_core::session::Info;
use serde_json::Value;

use crate::Target;
use crate::corpus::texts;
use crate::oracle::{Case, Reading, members, read};
use crate::pieces::cuts;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "nats_client_parser",
        oracle: "equal frames and error for every cut; spans inside the lent buffer",
        run: client_parser,
        seeds: || {
            texts(&[
                "INFO {\"server_id\":\"x\",\"max_payload\":1048576,\"tls_required\":true,\"nonce\":\"Z4T9x1kQmB2aVwE\"}\r\nPING\r\n",
                "MSG a.b 1 5\r\nhello\r\nMSG a.b 2 r.1 2\r\nhi\r\n+OK\r\n",
                "HMSG a.b 1 r.1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n-ERR 'Authorization Violation'\r\nPONG\r\n",
                "MSG big 1 4000\r\nMSG huge 1 99999999\r\n",
            ])
        },
        words: &["INFO ", "MSG ", "HMSG ", "PING\r\n", "PONG\r\n", "+OK\r\n", "-ERR '", "NATS/1.0\r\n\r\n"],
        longest: 8192,
    },
    Target {
        name: "info_json",
        oracle: "reads what serde_json reads, believes only a nonce that may be signed; ambiguity refused",
        run: info_json,
        seeds: || {
            texts(&[
                r#"{"server_id":"x","max_payload":1048576,"tls_required":true,"nonce":"Z4T9x1kQmB2aVwE"}"#,
                r#"{"tls_available":true,"connect_urls":["a:1"],"nonce":"{\"protocol\":\"x\"}"}"#,
                r#"{"nonce":"\u0041bc","max_payload":-1,"Nonce":null}"#,
            ])
        },
        words: &[
            "\"nonce\":",
            "\"Nonce\":",
            "\"tls_required\":",
            "\"tls_available\":",
            "\"max_payload\":",
            "true",
            "null",
            "\\u0041",
        ],
        longest: 2048,
    },
];

fn frames(pieces: &[&[u8]]) -> (Vec<String>, Option<client_side::ProtocolError>) {
    use client_side::{Frame, Limits, Parser, Span};
    let mut parser = Parser::new(Limits { info: 1024, payload: 1024 });
    let mut buffer = vec![0; 6000];
    let mut seen = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let (taken, frame) = match parser.feed(rest, &mut buffer) {
                Ok(result) => result,
                Err(error) => return (seen, Some(error)),
            };
            assert!(taken > 0 && taken <= rest.len(), "took {taken} of {}", rest.len());
            assert!(frame.is_some() || taken == rest.len(), "input was left over without an operation");
            rest = &rest[taken..];
            let text = |span: Span| {
                assert!(
                    span.start <= span.end && span.end <= buffer.len(),
                    "{span:?} is outside of the buffer"
                );
                span.of(&buffer).to_vec()
            };
            if let Some(frame) = frame {
                seen.push(match frame {
                    Frame::Info(json) => format!("INFO {:?}", text(json)),
                    Frame::Message { subject, sid, reply, headers, payload } => format!(
                        "MSG {:?} {sid} {:?} {:?} {:?}",
                        text(subject),
                        text(reply),
                        text(headers),
                        text(payload)
                    ),
                    Frame::TooLarge { subject, sid, size } => {
                        format!("TOO LARGE {:?} {sid} {size}", text(subject))
                    }
                    Frame::Error(reason) => format!("ERR {:?}", text(reason)),
                    Frame::Ping | Frame::Pong | Frame::Ok => format!("{frame:?}"),
                });
            }
        }
    }
    (seen, None)
}

fn client_parser(input: &[u8]) {
    let [whole, bytes, cut] = cuts(input);
    let expected = frames(&whole);
    assert_eq!(frames(&bytes), expected, "byte by byte");
    assert_eq!(
        frames(&cut),
        expected,
        "cut at {:?}",
        cut.iter().map(|piece| piece.len()).collect::<Vec<_>>()
    );
}

fn info_json(input: &[u8]) {
    const NAMES: [&str; 4] = ["tls_required", "tls_available", "max_payload", "nonce"];
    let Ok(info) = Info::parse(input) else { return };
    let value = match read(input, Case::Exact, 64) {
        Reading::Unrepresentable => return,
        // A foreign name may repeat; one of ours may not.
        Reading::Ambiguous => return assert!(members(input, &NAMES).is_some(), "a name was there twice"),
        Reading::One(value) => value,
        other => panic!("INFO was read from {other:?}"),
    };
    let members = value.as_object().expect("INFO is an object");
    for name in members.keys() {
        let variant = NAMES.iter().any(|known| known.eq_ignore_ascii_case(name) && known != name);
        assert!(!variant, "a case variant {name} was passed over");
    }
    let flag = |name: &str| members.get(name).and_then(Value::as_bool).unwrap_or(false);
    assert_eq!(info.tls_required, flag("tls_required"));
    assert_eq!(info.tls_available, flag("tls_available"));
    let nonce = members.get("nonce").and_then(Value::as_str).unwrap_or_default();
    match info.nonce() {
        Some(believed) => {
            assert_eq!(believed, nonce);
            assert!((8..=64).contains(&believed.len()), "{believed:?}");
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            assert!(believed.bytes().all(plain), "{believed:?} could be more than a nonce");
        }
        None => assert!(nonce.is_empty() || info.nonce_refused, "{nonce:?}"),
    }
}
