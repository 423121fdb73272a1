//! A node against a broker in memory and in simulated time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use agent_core::dispatch::{
    Accepted, Body, ClockRule, Gate, Inbox, ReplyCheck, Rules, Signer, Unverified, Via,
};
use agent_core::ed25519::SigningKey;
use agent_core::json::SliceSink;
use agent_core::machine::{Buffers, Config, Core, Event, Input, Now, Output};
use agent_core::nats::Limits;
use agent_core::replay::{ReplayCache, ReplaySlot};
use agent_core::rpc::{ReplyWriter, StatusCode, StatusText};
use agent_core::session::{AgentRow, Client, Credentials, Reason, SessionConfig};
use agent_core::wire::{reply, request, secure_reply, secure_request, transport};
use proptest::prelude::*;

const START: i64 = 1_800_000_000_000_000_000;
const AGENTS: &[AgentRow<'static>] = &[
    AgentRow { name: "discovery", service: false, active: true },
    AgentRow { name: "rpcutil", service: false, active: true },
    AgentRow { name: "registry", service: true, active: true },
];

struct Open;

impl Gate for Open {
    fn accept(&mut self, buffer: &mut [u8], _: Option<i64>) -> Result<Accepted, &'static str> {
        Unverified::read(buffer)
    }
    fn matches(&mut self, filter: &[u8]) -> bool {
        !filter.windows(7).any(|part| part == b"nowhere")
    }
}

fn config(tls: bool) -> Config<'static> {
    Config {
        identity: "n1.example.net",
        session: SessionConfig {
            client: Client { name: "n1.example.net", lang: "rust", version: "0" },
            require_tls: tls,
            servers: 1,
            connect_timeout_ms: 2000,
            ping_interval_ms: 120_000,
            pings_out: 2,
            limits: Limits { info: 4096, payload: 1 << 20 },
        },
        rules: Rules {
            collectives: &["choria", "edge"],
            ttl_cap_seconds: 600,
            reply_check: ReplyCheck::Caller,
            reply_targets: &[],
            federation: false,
            clock: ClockRule::Required,
        },
        component: "server",
        version: "0.1.0",
        legacy_events: false,
        node_subjects: true,
    }
}

fn emitted(write: impl FnOnce(&mut SliceSink<'_>)) -> Vec<u8> {
    let mut buffer = vec![0u8; 32 * 1024];
    let mut sink = SliceSink::new(&mut buffer);
    write(&mut sink);
    sink.finish().unwrap().to_vec()
}

#[derive(Clone, Copy)]
struct Ask<'a> {
    id: &'a str,
    agent: &'a str,
    collective: &'a str,
    body: &'a [u8],
    time: i64,
    ttl: i64,
    reply: &'a str,
    filter: &'a [u8],
}

fn own_inbox(id: &str) -> String {
    format!("choria.reply.{}.{id}", Inbox::of("up=alice").md5.as_str())
}

fn ask<'a>(id: &'a str, reply: &'a str) -> Ask<'a> {
    Ask {
        id,
        agent: "rpcutil",
        collective: "choria",
        body: br#"{"agent":"rpcutil","action":"echo","data":{"text":"hi"}}"#,
        time: START,
        ttl: 60,
        reply,
        filter: request::EMPTY_FILTER,
    }
}

fn wire(ask: &Ask<'_>) -> Vec<u8> {
    let document = emitted(|sink| {
        let fields = request::Fields {
            message: ask.body,
            id: ask.id,
            sender: "ws1.example.net",
            caller: "up=alice",
            collective: ask.collective,
            agent: ask.agent,
            ttl: ask.ttl,
            time: ask.time,
            filter: ask.filter,
        };
        request::emit(sink, &fields).unwrap();
    });
    emitted(|sink| {
        let headers =
            transport::Headers { reply: Some(ask.reply), sender: Some("ws1"), ..Default::default() };
        transport::emit(sink, &headers, &mut |inner| {
            secure_request::emit(inner, &document, secure_request::INSECURE, "token", None)
        })
        .unwrap();
    })
}

fn message(subject: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("MSG {subject} 1 {}\r\n", payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// One node with its buffers; `seen` collects what its shell would see.
struct Node<'c> {
    core: Core<'c>,
    rx: Vec<u8>,
    tx: Vec<u8>,
    scratch: Vec<u8>,
    now_ms: u64,
    wall: bool,
    seen: Vec<String>,
    sent: Vec<u8>,
    key: SigningKey,
}

impl<'c> Node<'c> {
    fn new(config: Config<'c>, slots: &'c mut [ReplaySlot], rx: usize) -> Node<'c> {
        Node {
            core: Core::new(config, ReplayCache::new(slots, 0, [3; 16]), [9; 32]),
            rx: vec![0; rx],
            tx: vec![0; 32 * 1024],
            scratch: vec![0; 32 * 1024],
            now_ms: 0,
            wall: true,
            seen: Vec::new(),
            sent: Vec::new(),
            key: SigningKey::from_seed(&[5; 32]).unwrap(),
        }
    }

    fn now(&self) -> Now {
        let nanos = START + i64::try_from(self.now_ms).unwrap() * 1_000_000;
        Now { mono_ms: self.now_ms, wall_nanos: self.wall.then_some(nanos) }
    }

    /// Steps until idle, answering what the machine asks for.
    fn drive(&mut self, input: Input<'_>) {
        let seed = [5u8; 32];
        let credentials =
            Credentials { token: Some("the.server.token"), seed: Some(&seed), ..Default::default() };
        let mut rest: &[u8] = if let Input::Received(bytes) = input { bytes } else { &[] };
        let mut next = input;
        for _ in 0..100_000 {
            let now = self.now();
            let step =
                self.core.step(now, next, AGENTS, &mut Open, Buffers { rx: &mut self.rx, tx: &mut self.tx });
            rest = &rest[step.consumed..];
            next = Input::Received(rest);
            match step.output {
                Output::Idle if rest.is_empty() => return,
                Output::Idle => {}
                Output::Dial { attempt } => self.seen.push(format!("dial {attempt}")),
                Output::UpgradeTls => self.seen.push("tls".into()),
                Output::Authenticate => next = Input::Credentials(&credentials),
                Output::Send(bytes) => self.sent.extend_from_slice(bytes),
                Output::Disconnect(reason) => {
                    self.seen.push(format!("disconnect {}", reason.reason()));
                    return;
                }
                Output::Call { call, to, .. } => {
                    self.seen.push(format!("call {}#{} by {}", call.agent, call.action, call.caller));
                    let mut space = [0u8; 4096];
                    let mut out = ReplyWriter::new(&mut space);
                    let status = if call.action == "echo" {
                        out.raw("echo", call.data);
                        agent_core::rpc::Status::ok()
                    } else {
                        out.unknown_action(call.agent, call.action)
                    };
                    let done = out.finish(status);
                    let body = Body::Rpc { code: done.code, text: done.text, data: done.data };
                    let signer = Some(Signer { key: &self.key, token: "the.server.token" });
                    let via = Via { signer, broker: "nats://b:4222" };
                    let bytes = self.core.respond(now, &to, body, via, &mut self.tx, &mut self.scratch);
                    self.sent.extend_from_slice(bytes.unwrap());
                }
                Output::Pong { to } => {
                    self.seen.push("pong".into());
                    let bytes = self.core.respond(
                        now,
                        &to,
                        Body::Pong,
                        Via::default(),
                        &mut self.tx,
                        &mut self.scratch,
                    );
                    self.sent.extend_from_slice(bytes.unwrap());
                }
                Output::Answer { to, status } => {
                    let StatusText::Fixed(text) = status.text() else { panic!("written text") };
                    self.seen.push(format!("answer {}", status.code().number()));
                    let body = Body::Rpc { code: status.code(), text, data: b"{}" };
                    let bytes =
                        self.core.respond(now, &to, body, Via::default(), &mut self.tx, &mut self.scratch);
                    self.sent.extend_from_slice(bytes.unwrap());
                }
                Output::Event(event) => self.seen.push(match event {
                    Event::Ready => "ready".into(),
                    Event::Refused { reason, .. } => format!("refused {reason}"),
                    Event::TooLarge { subject, size } => format!("large {subject} {size}"),
                    Event::BrokerError(text) => format!("broker says {text}"),
                }),
            }
        }
        panic!("the machine never rests: {:?}", self.seen);
    }

    fn take_sent(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.sent)).unwrap()
    }

    fn take_seen(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen)
    }

    fn connect(&mut self) {
        self.drive(Input::Tick);
        self.drive(Input::Dialed);
        self.drive(Input::Received(INFO));
        self.drive(Input::Secured);
        self.drive(Input::Received(b"PONG\r\n"));
    }
}

const INFO: &[u8] = b"INFO {\"server_id\":\"b\",\"max_payload\":1048576,\"tls_required\":true,\"nonce\":\"Z4T9x1kQmB2aVwE\"}\r\n";

/// Splits what a node sent into operations: `PUB subject` bodies and other lines.
fn publications(sent: &str) -> Vec<(String, Vec<u8>)> {
    let mut rest = sent.as_bytes();
    let mut found = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let line = String::from_utf8(rest[..end].to_vec()).unwrap();
        rest = &rest[end + 2..];
        if let Some(args) = line.strip_prefix("PUB ") {
            let words: Vec<&str> = args.split_whitespace().collect();
            let size: usize = words.last().unwrap().parse().unwrap();
            found.push((words[0].to_string(), rest[..size].to_vec()));
            rest = &rest[size + 2..];
        }
    }
    assert!(rest.is_empty(), "half an operation");
    found
}

/// Reads a reply as a client would: transport, hash, signature, body.
fn open_reply(mut bytes: Vec<u8>, key: Option<&SigningKey>) -> (String, Vec<u8>) {
    let transport = transport::parse(&mut bytes).unwrap();
    assert_eq!(transport.sender.unwrap().text(&bytes), "n1.example.net");
    let secure = secure_reply::parse(&mut bytes, transport.data).unwrap();
    if let Some(key) = key {
        let signature = secure.signature.unwrap().of(&bytes).to_vec();
        assert!(agent_core::ed25519::verify(&key.public(), &[secure.reply.of(&bytes)], &signature));
        assert_eq!(secure.sender.unwrap().text(&bytes), "the.server.token");
    }
    let reply = reply::parse(&mut bytes, secure.reply).unwrap();
    (reply.request.text(&bytes).to_string(), reply.message.of(&bytes).to_vec())
}

#[test]
fn from_dial_to_reply() {
    let mut slots = [ReplaySlot::FREE; 64];
    let mut node = Node::new(config(true), &mut slots, 16 * 1024);
    node.drive(Input::Tick);
    node.drive(Input::Dialed);
    assert_eq!(node.take_sent(), "", "nothing is said before INFO");
    node.drive(Input::Received(INFO));
    assert_eq!(node.take_sent(), "", "nothing is said before TLS");
    node.drive(Input::Secured);
    let connect = node.take_sent();
    assert!(connect.starts_with("CONNECT {\"verbose\":false,\"pedantic\":false,\"sig\":\""), "{connect}");
    assert!(
        connect.contains(
            "\"auth_token\":\"the.server.token\",\"tls_required\":true,\"name\":\"n1.example.net\""
        )
    );
    assert!(connect.ends_with("}\r\nPING\r\n"));
    node.drive(Input::Received(b"PONG\r\n"));
    let sent = node.take_sent();
    for line in [
        "SUB choria.node.n1.example.net 1\r\n",
        "SUB edge.broadcast.agent.rpcutil ",
        "SUB choria.broadcast.service.registry registry ",
        "PUB choria.lifecycle.event.startup.server ",
    ] {
        assert!(sent.contains(line), "{line} in {sent}");
    }
    assert!(sent.find("SUB edge.broadcast.service").unwrap() < sent.find("PUB choria.lifecycle").unwrap());
    assert_eq!(node.take_seen(), ["dial 1", "tls", "ready"]);

    let inbox = own_inbox("req1");
    node.drive(Input::Received(&message("choria.broadcast.agent.rpcutil", &wire(&ask("req1", &inbox)))));
    let sent = node.take_sent();
    let [(subject, payload)] = &publications(&sent)[..] else { panic!("{sent}") };
    assert_eq!(subject, &inbox);
    let (id, body) = open_reply(payload.clone(), Some(&node.key));
    assert_eq!(id, "req1");
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({"action":"echo","statuscode":0,"statusmsg":"OK","data":{"echo":{"text":"hi"}}})
    );

    let inbox = own_inbox("req2");
    let ping = Ask { agent: "discovery", body: b"cGluZw==", ..ask("req2", &inbox) };
    node.drive(Input::Received(&message("choria.node.n1.example.net", &wire(&ping))));
    let sent = node.take_sent();
    let [(_, payload)] = &publications(&sent)[..] else { panic!("{sent}") };
    assert_eq!(open_reply(payload.clone(), None).1, b"pong");
}

#[test]
fn t_106_t_231_t_232_t_233_t_234_t_235_t_237_t_238_t_239_t_240_t_244_t_245_doubtful_messages_get_no_answer() {
    let inbox = own_inbox("r");
    let base = ask("r", &inbox);
    let foreign = format!("choria.reply.{}.r", Inbox::of("up=bob").md5.as_str());
    let broadcast = "choria.broadcast.agent.rpcutil";
    let s = 1_000_000_000;
    let cases: &[(&str, Ask<'_>, &str)] = &[
        ("choria.broadcast.agent.discovery", base, "refused subject_mismatch"),
        ("edge.broadcast.agent.rpcutil", base, "refused subject_mismatch"),
        ("choria.broadcast.service.rpcutil", base, "refused subject_mismatch"),
        ("choria.somewhere", base, "refused subject_mismatch"),
        (broadcast, Ask { filter: br#"{"identity":["nowhere"]}"#, ..base }, "refused filtered"),
        ("choria.node.n1.example.net", Ask { collective: "mars", ..base }, "refused collective_unknown"),
        (broadcast, Ask { time: START - 60 * s, ..base }, "refused ttl_expired"),
        (broadcast, Ask { time: START + 60 * s, ..base }, "refused ttl_expired"),
        (broadcast, Ask { ttl: 3600, time: START - 601 * s, ..base }, "refused ttl_cap"),
        (broadcast, Ask { reply: &foreign, ..base }, "refused reply_refused"),
        (broadcast, Ask { reply: "choria.node.n2", ..base }, "refused reply_refused"),
        (broadcast, Ask { reply: "", ..base }, "refused reply_refused"),
        (broadcast, Ask { reply: "choria.reply.x\r\nPUB a 1\r\nb", ..base }, "refused reply_refused"),
        ("choria.node.n1.example.net", Ask { agent: "unknown", ..base }, "refused agent_unknown"),
        ("choria.node.n1.example.net", Ask { agent: "registry", ..base }, "refused subject_mismatch"),
        (
            broadcast,
            Ask { body: br#"{"agent":"rpcutil","action":"a","Action":"b"}"#, ..base },
            "refused json_ambiguous",
        ),
        (broadcast, Ask { body: br#"{"agent":"other","action":"a"}"#, ..base }, "answer 4"),
        (broadcast, Ask { body: b"eyJhZ2VudCI6InJwY3V0aWwifQ==", ..base }, "answer 4"),
        (broadcast, Ask { body: br#"{"agent":"rpcutil","action":"a","data":[]}"#, ..base }, "answer 4"),
        (broadcast, base, "call rpcutil#echo by up=alice"),
    ];
    for (subject, ask, expected) in cases {
        let mut slots = [ReplaySlot::FREE; 64];
        let mut node = Node::new(config(true), &mut slots, 16 * 1024);
        node.connect();
        node.take_seen();
        node.take_sent();
        node.drive(Input::Received(&message(subject, &wire(ask))));
        assert_eq!(node.take_seen(), [*expected], "{subject}");
        assert_eq!(node.take_sent().is_empty(), expected.starts_with("refused"), "{subject}");
    }
    for row in [106, 231, 232, 233, 234, 235, 237, 238, 239, 240] {
        choria_rows::row(
            row,
            "against the machine alone",
            "dropped with its reason, not one byte sent, no call",
        );
    }
    for row in [244, 245] {
        choria_rows::row(row, "against the machine alone", "status 4, no call");
    }
}

#[test]
fn t_226_t_242_t_256_messages_that_repeat_break_or_do_not_fit() {
    let inbox = own_inbox("r");
    let base = ask("r", &inbox);
    let broadcast = "choria.broadcast.agent.rpcutil";
    let mut slots = [ReplaySlot::FREE; 64];
    let mut node = Node::new(config(true), &mut slots, 16 * 1024);
    node.connect();
    node.take_seen();
    node.drive(Input::Received(&message(broadcast, &wire(&base))));
    node.drive(Input::Received(&message(
        broadcast,
        &wire(&Ask { body: br#"{"agent":"rpcutil","action":"b"}"#, ..base }),
    )));
    node.drive(Input::Received(&message(broadcast, b"{}")));
    node.drive(Input::Received(&message(broadcast, b"\xff\xfe")));
    node.drive(Input::Received(&message("big.one", &vec![b'x'; 20_000])));
    node.drive(Input::Received(b"-ERR 'Permissions Violation for Subscription to \"x\"'\r\n"));
    assert_eq!(
        node.take_seen(),
        [
            "call rpcutil#echo by up=alice",
            "refused replayed",
            "refused transport_bad",
            "refused transport_bad",
            "large big.one 20000",
            "broker says Permissions Violation for Subscription to \"x\"",
        ]
    );
    let counters = node.core.counters();
    assert_eq!((counters.total, counters.validated, counters.unvalidated, counters.replayed), (5, 2, 3, 1));
    choria_rows::row(226, "the same id with another body", "called once, replayed once");
    choria_rows::row(242, "an empty object, no UTF-8", "transport_bad, counted, nothing sent");
    choria_rows::row(
        256,
        "20 000 bytes for a buffer of 16 KiB",
        "drained and reported, the next line is read",
    );
}

#[test]
fn without_a_clock_only_pings() {
    let mut slots = [ReplaySlot::FREE; 64];
    let mut node = Node::new(config(true), &mut slots, 16 * 1024);
    node.wall = false;
    node.connect();
    node.take_seen();
    let inbox = own_inbox("r");
    let broadcast = "choria.broadcast.agent.rpcutil";
    node.drive(Input::Received(&message(broadcast, &wire(&ask("r", &inbox)))));
    let ping = Ask { body: br#"{"agent":"rpcutil","action":"ping"}"#, ..ask("r", &inbox) };
    node.drive(Input::Received(&message(broadcast, &wire(&ping))));
    assert_eq!(node.take_seen(), ["refused clock_unknown", "call rpcutil#ping by up=alice"]);
}

#[test]
fn t_267_t_268_t_272_t_142_t_273_brokers_that_are_not_trusted() {
    let refused = |pieces: &[&[u8]]| {
        let mut slots = [ReplaySlot::FREE; 8];
        let mut node = Node::new(config(true), &mut slots, 8192);
        node.drive(Input::Tick);
        node.drive(Input::Dialed);
        for piece in pieces {
            node.drive(Input::Received(piece));
        }
        assert_eq!(node.take_sent(), "", "no byte for {pieces:?}");
        node.take_seen().last().cloned().unwrap()
    };
    assert_eq!(refused(&[b"INFO {\"nonce\":\"Z4T9x1kQmB2aVwE\"}\r\n"]), "disconnect tls_required");
    let mut injected = INFO.to_vec();
    injected.extend_from_slice(b"MSG a 1 0\r\n\r\n");
    assert_eq!(refused(&[&injected]), "disconnect plaintext_before_tls");
    assert_eq!(refused(&[INFO, b"x"]), "disconnect plaintext_before_tls");
    assert_eq!(
        refused(&[b"INFO {\"tls_required\":true,\"nonce\":\"{\\\"protocol\\\":\\\"x\\\"}\"}\r\n"]),
        "disconnect nonce_bad"
    );
    for nonce in [
        "eyJhbGciOiJFZERTQSJ9.eyJ4IjoxfQ",
        "37dGao6a6GXEqNFFtVGRsaNa2iI.00112233445566778899aabbccddeeff",
        "with spaces in it",
        "cGFkZGVkbm9uY2U=",
        "1798761600:alice:secret",
        &"a".repeat(65),
        "short",
    ] {
        let info = format!("INFO {{\"tls_required\":true,\"nonce\":\"{nonce}\"}}\r\n");
        assert_eq!(refused(&[info.as_bytes()]), "disconnect nonce_bad", "{nonce}");
    }
    assert_eq!(refused(&[b"MSG a 1 0\r\n\r\n"]), "disconnect info_bad");
    assert_eq!(refused(&[b"HTTP/1.1 200 OK\r\n"]), "disconnect protocol");
    assert_eq!(refused(&[b"INFO nonsense\r\n"]), "disconnect info_bad");

    let mut slots = [ReplaySlot::FREE; 8];
    let mut node = Node::new(config(true), &mut slots, 8192);
    node.drive(Input::Tick);
    node.drive(Input::Dialed);
    node.drive(Input::Received(INFO));
    node.drive(Input::Secured);
    node.drive(Input::Received(b"-ERR 'Authorization Violation'\r\n"));
    assert_eq!(node.take_seen().last().unwrap(), "disconnect authorization_violation");
    assert!(node.core.deadline().is_some(), "and tries again");
    choria_rows::row(
        267,
        "the server's core: nonces that are JSON, a JWT, chain data, padded, a login text, 65 characters, short",
        "disconnect nonce_bad, no byte sent",
    );
    choria_rows::row(
        268,
        "the server's core: nonces that are JSON, a JWT, chain data, padded, a login text, 65 characters, short",
        "disconnect nonce_bad, no byte sent",
    );
    choria_rows::row(
        272,
        "the server's core: INFO without tls_required",
        "disconnect tls_required, no byte sent",
    );
    choria_rows::row(
        142,
        "the server's core: INFO without tls_required",
        "disconnect tls_required, no byte sent",
    );
    choria_rows::row(
        273,
        "the server's core: MSG or a byte between INFO and the handshake",
        "disconnect plaintext_before_tls, no byte sent",
    );
}

/// What a node shows must not depend on how the network cuts the broker's bytes.
#[test]
fn byte_by_byte_and_split_everywhere() {
    let (one, two) = (own_inbox("req1"), own_inbox("req2"));
    let mut stream = b"PONG\r\nPING\r\n".to_vec();
    stream.extend(message("choria.broadcast.agent.rpcutil", &wire(&ask("req1", &one))));
    stream.extend(message("big", &[b'x'; 9000]));
    stream.extend(message("choria.node.n1.example.net", &wire(&ask("req2", &two))));
    let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut slots = [ReplaySlot::FREE; 8];
        let mut node = Node::new(config(true), &mut slots, 4096);
        node.drive(Input::Tick);
        node.drive(Input::Dialed);
        node.drive(Input::Received(INFO));
        node.drive(Input::Secured);
        for piece in pieces {
            node.drive(Input::Received(piece));
        }
        let sent = publications(&node.take_sent()).into_iter().map(|(to, _)| to).collect::<Vec<_>>();
        (node.take_seen(), sent)
    };
    let whole = run(&mut std::iter::once(stream.as_slice()));
    assert_eq!(whole.0.len(), 6, "{:?}", whole.0);
    assert_eq!(run(&mut stream.chunks(1)), whole);
    for at in 0..stream.len() {
        let (left, right) = stream.split_at(at);
        // The big message in the middle is uniform: every seventh split of it tells as much as all of them.
        if at % 7 == 0 || !(1500..10_000).contains(&at) {
            assert_eq!(run(&mut [left, right].into_iter()), whole, "{at}");
        }
    }
}

/// A week of a node whose broker restarts every five hours and stops answering once a day.
#[test]
fn a_week_in_simulated_time() {
    let mut slots = vec![ReplaySlot::FREE; 64];
    let mut node = Node::new(config(true), &mut slots, 16 * 1024);
    let hour = 3_600_000u64;
    let (mut up, mut silent, mut next_restart, mut next_silence) = (false, false, 5 * hour, 24 * hour);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut alive = 0;
    let mut waited = 0;
    while node.now_ms < 7 * 24 * hour {
        node.drive(Input::Tick);
        let seen = node.take_seen();
        for line in &seen {
            *counts.entry(line.clone()).or_default() += 1;
        }
        if seen.iter().any(|line| line.starts_with("dial")) {
            node.drive(Input::Dialed);
            node.drive(Input::Received(INFO));
            node.drive(Input::Secured);
            node.drive(Input::Received(b"PONG\r\n"));
            up = true;
            silent = false;
            for line in node.take_seen() {
                *counts.entry(line).or_default() += 1;
            }
        }
        if seen.iter().any(|line| line.starts_with("disconnect")) {
            up = false;
        }
        let sent = node.take_sent();
        alive += sent.matches("choria.lifecycle.event.alive.server").count();
        if up && !silent && sent.contains("PING\r\n") {
            node.drive(Input::Received(b"PONG\r\nPING\r\n"));
            assert!(node.take_sent().contains("PONG\r\n"));
        }
        let before = node.now_ms;
        let due = node.core.deadline().unwrap_or(u64::MAX);
        node.now_ms = due.min(next_restart).min(next_silence).max(before + 1);
        waited += 1;
        if node.now_ms >= next_silence {
            silent = true;
            next_silence += 24 * hour;
        }
        if node.now_ms >= next_restart {
            node.drive(Input::Disconnected);
            up = false;
            next_restart += 5 * hour;
        }
    }
    let get = |name: &str| counts.get(name).copied().unwrap_or(0);
    assert!((330..=337).contains(&alive), "{alive} alive events");
    assert_eq!(get("dial 1"), get("ready"), "{counts:?}");
    assert!(get("ready") >= 33 + 6, "{counts:?}");
    assert!(get("disconnect stale") >= 5, "{counts:?}");
    assert!(waited < 20_000, "the machine sleeps between events: {waited}");
    node.drive(Input::Stop);
    assert!(node.take_sent().contains("choria.lifecycle.event.shutdown.server"));
    node.drive(Input::Stop);
    assert!(node.core.deadline().is_none());
    assert_eq!(Reason::Stopped.reason(), "stopped");
    assert_eq!(StatusCode::Ok.number(), 0);
}

/// Reconnecting after a broker that stays away: waits grow to the table's end, in the jitter window.
#[test]
fn waits_grow_while_the_broker_is_away() {
    let mut slots = [ReplaySlot::FREE; 8];
    let mut node = Node::new(config(true), &mut slots, 8192);
    node.connect();
    node.drive(Input::Disconnected);
    let mut waits = Vec::new();
    for _ in 0..60 {
        let due = node.core.deadline().unwrap();
        waits.push(due - node.now_ms);
        node.now_ms = due;
        node.drive(Input::Tick);
        node.drive(Input::DialFailed);
    }
    assert!(waits[0] >= 375 && waits[0] < 1125, "{waits:?}");
    assert!(waits[50..].iter().all(|wait| (10_000..30_000).contains(wait)), "{waits:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// No bytes of a broker, however cut, make the machine panic or spin.
    #[test]
    fn any_bytes_after_connect(input in proptest::collection::vec(any::<u8>(), 0..2000), cut in 0usize..2000) {
        let mut slots = [ReplaySlot::FREE; 8];
        let mut node = Node::new(config(true), &mut slots, 1024);
        node.connect();
        let (left, right) = input.split_at(cut.min(input.len()));
        node.drive(Input::Received(left));
        node.drive(Input::Received(right));
    }

    /// Nor does a damaged request.
    #[test]
    fn damaged_requests(at in 0usize..2000, value in any::<u8>()) {
        let mut slots = [ReplaySlot::FREE; 8];
        let mut node = Node::new(config(true), &mut slots, 8192);
        node.connect();
        let inbox = own_inbox("r");
        let mut payload = wire(&ask("r", &inbox));
        let at = at % payload.len();
        payload[at] = value;
        node.drive(Input::Received(&message("choria.broadcast.agent.rpcutil", &payload)));
    }
}
