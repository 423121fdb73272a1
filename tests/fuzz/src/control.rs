//! The NATS protocol from both ends: the broker's parser of clients, the agent's parser of brokers, CONNECT, INFO and
//! header blocks.

use agent_core::nats::parser as client_side;
use agent_core::session::Info;
use nats_engine::ConnectOptions;
use nats_engine::parser::{ParseError, Parser, ParserLimits};
use serde_json::Value;

use crate::Target;
use crate::oracle::{Case, Reading, read};
use crate::pieces::cuts;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "nats_server_parser",
        oracle: "equal operations and error for every cut; bounded memory",
        run: server_parser,
        seeds: || {
            texts(&[
                "CONNECT {\"verbose\":false,\"jwt\":\"a.b.c\"}\r\nPING\r\n",
                "SUB a.> q 1\r\nPUB a.b r.1 5\r\nhello\r\nUNSUB 1 2\r\n",
                "HPUB a.b 12 14\r\nNATS/1.0\r\n\r\nhi\r\n+OK\r\n-ERR 'x'\r\nINFO {}\r\nPONG\r\n",
                "pub a 0\n\r\nsub\ta  q   2\n",
            ])
        },
        words: &[
            "CONNECT ",
            "PUB ",
            "HPUB ",
            "SUB ",
            "UNSUB ",
            "PING\r\n",
            "PONG\r\n",
            "+OK\r\n",
            "-ERR ",
            "INFO ",
            "NATS/1.0\r\n",
        ],
        longest: 8192,
    },
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
        name: "connect_json",
        oracle: "reads what serde_json reads; a known name twice, deep nesting and other types refused",
        run: connect_json,
        seeds: connect_seeds,
        words: CONNECT_WORDS,
        longest: 4096,
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
    Target {
        name: "headers",
        oracle: "a header that is taken is one line, and the block reads back as what was set",
        run: headers,
        seeds: || {
            texts(&[
                "404\0No Messages\0Nats-Msg-Id\0one",
                "200\0\0Key\0value with spaces\0Other\0",
                "503\0a\r\nB: c\0K\0v\r\n\r\nx",
            ])
        },
        words: &["\r\n", "NATS/1.0", ": ", "Status"],
        longest: 1024,
    },
];

pub(crate) fn texts(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const LIMITS: ParserLimits = ParserLimits { control_line: 256, connect_line: 1024, payload: 2048 };

fn operations(pieces: &[&[u8]]) -> (Vec<String>, Option<ParseError>) {
    let mut parser = Parser::new(LIMITS);
    let mut seen = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            let before = input.len();
            match parser.next(&mut input) {
                Ok(Some(operation)) => {
                    assert!(input.len() < before, "an operation took no input: this would never end");
                    seen.push(format!("{operation:?}"));
                }
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
        assert!(input.is_empty(), "input was left over");
        // A line, a payload, and the steps in which their buffers grow.
        assert!(parser.held() <= 1024 + 2048 + 64 * 1024 + 4096, "{} bytes are held", parser.held());
    }
    (seen, None)
}

fn server_parser(input: &[u8]) {
    let [whole, bytes, cut] = cuts(input);
    let expected = operations(&whole);
    assert_eq!(operations(&bytes), expected, "byte by byte");
    assert_eq!(
        operations(&cut),
        expected,
        "cut at {:?}",
        cut.iter().map(|piece| piece.len()).collect::<Vec<_>>()
    );
}

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

const CONNECT_WORDS: &[&str] = &[
    "\"verbose\":",
    "\"pedantic\":",
    "\"tls_required\":",
    "\"auth_token\":",
    "\"user\":",
    "\"pass\":",
    "\"jwt\":",
    "\"sig\":",
    "\"nkey\":",
    "\"name\":",
    "\"protocol\":",
    "\"headers\":",
    "\"JWT\":",
    "true",
    "false",
    "null",
    "\\u006a",
];

fn connect_seeds() -> Vec<Vec<u8>> {
    let vectors = crate::corpus::fixture("connect/nats_connect.json");
    let mut seeds = texts(&[
        r#"{"verbose":false,"pedantic":true,"jwt":"a.b.c","sig":"x","name":"n","protocol":1,"headers":true}"#,
        r#"{"user":"u","pass":"p","echo":null,"account":"a","new_account":true,"remote_account":1,"hub":0}"#,
        r#"{"jwt":"a","jwt":"b"}"#,
        r#"{"a":[[[[[[[[1]]]]]]]]}"#,
    ]);
    seeds.extend(crate::corpus::documents(&vectors));
    seeds
}

fn connect_json(input: &[u8]) {
    const TEXTS: [&str; 10] =
        ["auth_token", "user", "pass", "jwt", "sig", "nkey", "name", "lang", "version", "account"];
    const FLAGS: [&str; 7] =
        ["verbose", "pedantic", "echo", "tls_required", "headers", "no_responders", "new_account"];
    let options = match ConnectOptions::parse(input) {
        Ok(options) => options,
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 200, "a refusal repeats its input: {said}");
            return;
        }
    };
    let names: Vec<&str> = TEXTS.into_iter().chain(FLAGS).chain(["protocol"]).collect();
    let Some(members) = members(input, &names) else { panic!("CONNECT was read from what is no object") };
    let text = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let found = [
        &options.auth_token,
        &options.user,
        &options.pass,
        &options.jwt,
        &options.sig,
        &options.nkey,
        &options.name,
        &options.lang,
        &options.version,
        &options.account,
    ];
    for (name, found) in TEXTS.into_iter().zip(found) {
        let expected = text(name);
        let kept = matches!(name, "name" | "lang" | "version");
        assert!(
            *found == expected || kept && expected.starts_with(found.as_str()) && found.len() > 200,
            "{name}"
        );
    }
    for (name, found, absent) in [
        ("verbose", options.verbose, true),
        ("pedantic", options.pedantic, true),
        ("echo", options.echo, true),
        ("tls_required", options.tls_required, false),
        ("headers", options.headers, false),
        ("no_responders", options.no_responders, false),
        ("new_account", options.new_account, false),
    ] {
        assert_eq!(found, members.get(name).and_then(Value::as_bool).unwrap_or(absent), "{name}");
    }
    assert_eq!(options.protocol, members.get("protocol").and_then(Value::as_i64).unwrap_or(0));
    let shown = format!("{options:?}");
    for secret in [&options.pass, &options.jwt, &options.sig, &options.auth_token] {
        let said_openly = [&options.name, &options.user, &options.lang, &options.version];
        if secret.len() > 40 && said_openly.iter().all(|text| !text.contains(secret.as_str())) {
            assert!(!shown.contains(secret.as_str()), "a credential is shown");
        }
    }
}

/// The members of these names in the outermost object, when none is there twice. Nobody looks into the others.
fn members(document: &[u8], names: &[&str]) -> Option<serde_json::Map<String, Value>> {
    struct Named<'n>(&'n [&'n str]);
    impl<'de> serde::de::Visitor<'de> for Named<'_> {
        type Value = serde_json::Map<String, Value>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = serde_json::Map::new();
            while let Some(name) = map.next_key::<String>()? {
                if !self.0.contains(&name.as_str()) {
                    map.next_value::<serde::de::IgnoredAny>()?;
                } else if members.insert(name, map.next_value()?).is_some() {
                    return Err(serde::de::Error::custom("twice"));
                }
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let members = serde::Deserializer::deserialize_any(&mut deserializer, Named(names)).ok()?;
    deserializer.end().ok().map(|()| members)
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

fn headers(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut parts = text.split('\0');
    let code = parts.next().and_then(|code| code.parse::<u16>().ok());
    let description = parts.next().unwrap_or_default();
    let mut set = match code {
        Some(code) => match nats_engine::Headers::with_status(code, description) {
            Ok(headers) => headers,
            Err(_) => return assert!(description.chars().any(char::is_control)),
        },
        None => nats_engine::Headers::new(),
    };
    let mut expected = Vec::new();
    while let Some(key) = parts.next() {
        let value = parts.next().unwrap_or_default();
        let clean = !value.chars().any(char::is_control)
            && !key.is_empty()
            && !key.contains([':', ' '])
            && !key.chars().any(char::is_control);
        assert_eq!(set.set(key, value).is_ok(), clean, "{key:?}: {value:?}");
        if clean {
            expected.push((key, value));
        }
    }
    let block = set.to_bytes();
    let message = nats_engine::InMessage {
        subject: Default::default(),
        reply: Default::default(),
        header: block.clone().into(),
        payload: Default::default(),
        publisher: nats_engine::Publisher::InProcess,
    };
    let block = std::str::from_utf8(&block).expect("a block is text");
    let lines: Vec<&str> =
        block.strip_suffix("\r\n\r\n").expect("a block ends in an empty line").split("\r\n").collect();
    assert!(lines[0].starts_with("NATS/1.0") && !lines[0].contains('\n'));
    assert_eq!(lines.len(), 1 + expected.len(), "{block:?}");
    for (line, (key, value)) in lines[1..].iter().zip(&expected) {
        assert_eq!(line.split_once(": "), Some((*key, *value)));
        let first =
            expected.iter().find(|(other, _)| other == key).map(|(_, value)| value.trim_ascii_start());
        assert_eq!(message.header_value(key), first, "{key}");
    }
    if let Some(code) = code {
        assert_eq!(message.status(), Some(code));
    }
}
