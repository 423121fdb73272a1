//! What a broker reads of its clients: the NATS protocol, CONNECT and header blocks.

use nats_engine::ConnectOptions;
use nats_engine::parser::{ParseError, Parser, ParserLimits};
use serde_json::Value;

use crate::Target;
use crate::corpus::texts;
use crate::oracle::members;
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
        name: "connect_json",
        oracle: "reads what serde_json reads; a known name twice, deep nesting and other types refused",
        run: connect_json,
        seeds: connect_seeds,
        words: CONNECT_WORDS,
        longest: 4096,
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
