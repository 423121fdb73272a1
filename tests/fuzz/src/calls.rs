//! Requests arriving at a connected node: genuine ones in any order, twice, late, changed; the node's clock stepping.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use agent_core::dispatch::{Accepted, Body, Gate, Inbox, Via};
use agent_core::machine::{Input, Output};
use agent_core::replay::ReplaySlot;
use agent_core::rpc::StatusText;
use agent_core::secure::{DelegatedCaller, Policy, open};
use agent_core::session::Credentials;
use agent_core::token::{Issuer, Trust, Verifier};
use choria_protocol::{Request, SecureRequest, Transport};

use crate::Target;
use crate::node::{Node, SEED, TOKEN, config, contains, shows_seed};
use crate::pieces::Script;
use crate::tokens::{NOW, public, texts_with};

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "rpc_sm",
    oracle: "an agent is called only for a signed request, once per id, within its validity; replies go where they may",
    run: calls,
    seeds: || {
        (0..6)
            .flat_map(|message| {
                [
                    vec![0, message],
                    vec![0, message, 0, message],
                    vec![1, message, 1, 0, 70, 0, message],
                    vec![2, 40, 0, message],
                    vec![5, 0, message, 0, message],
                ]
            })
            .collect()
    },
    words: &["\u{1}\0\0"],
    longest: 256,
}];

/// Genuine requests of the vectors: the wire message, and what was signed.
static MESSAGES: LazyLock<Vec<(Vec<u8>, Request)>> = LazyLock::new(|| {
    let all = texts_with("protocol/v2_messages.json", "v2.transport");
    let mut found: Vec<_> = all
        .into_iter()
        .filter_map(|text| {
            let secure = SecureRequest::parse(&Transport::parse(&text).ok()?.data).ok()?;
            Some((text, secure.request().ok()?))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.len() >= 2, "the vectors hold requests");
    found
});

struct Verifying {
    now: i64,
}

impl Gate for Verifying {
    fn accept(&mut self, buffer: &mut [u8], _: Option<i64>) -> Result<Accepted, &'static str> {
        let issuers = [Issuer { organization: "choria", key: public("org_issuer") }];
        let policy = Policy {
            verifier: Verifier::new(Trust::Issuers(&issuers)),
            delegated_caller: DelegatedCaller::Match,
            proven: None,
        };
        let mut scratch = vec![0; 8192];
        let envelope = open(buffer).map_err(|error| error.reason())?;
        let verified =
            envelope.verify(buffer, &policy, self.now, &mut scratch).map_err(|refusal| refusal.reason())?;
        Ok(Accepted {
            transport: *verified.transport(),
            request: *verified.request(),
            caller_token: verified.caller_token(),
            signer_token: verified.signer().map(|signer| signer.token),
            inbox: Inbox::of(verified.caller().claims().caller_id),
            issued: verified.caller().issued(),
        })
    }

    fn matches(&mut self, _: &[u8]) -> bool {
        true
    }
}

fn seconds(node: &Node<'_>) -> i64 {
    node.now.wall_nanos.unwrap_or(0) / 1_000_000_000
}

fn calls(input: &[u8]) {
    let mut script = Script::new(input);
    let mut slots = [ReplaySlot::FREE; 16];
    let mut node = Node::new(config(true), &mut slots, NOW * 1_000_000_000);
    let mut called: BTreeMap<String, u32> = BTreeMap::new();
    connect(&mut node);
    while !script.is_over() {
        match script.byte() % 7 {
            kind @ (0 | 1) => {
                let (wire, request) = script.choose(&MESSAGES[..]);
                let mut wire = wire.clone();
                if kind == 1 {
                    for _ in 0..=script.byte() % 3 {
                        let at = (usize::from(script.byte()) * 256 + usize::from(script.byte())) % wire.len();
                        wire[at] = script.byte();
                    }
                }
                deliver(&mut node, &subject(request), &wire, &mut called);
            }
            2 => node.pass(u64::from(script.byte()) * 5_000),
            3 => {
                let back = i64::from(script.byte()) * 60_000_000_000;
                node.now.wall_nanos = node.now.wall_nanos.map(|nanos| nanos - back);
            }
            4 => deliver(&mut node, "choria.broadcast.agent.rpcutil", script.text(), &mut called),
            5 => {
                feed(&mut node, b"-ERR 'x'\r\nPING\r\n", &mut BTreeMap::new());
                step(&mut node, Input::Disconnected, &mut BTreeMap::new());
                node.pass(60_000);
                connect(&mut node);
            }
            _ => deliver(&mut node, "choria.node.n1.example.net", &vec![b'x'; 13 * 1024], &mut called),
        }
    }
}

/// Where the sender of this request would publish it.
fn subject(request: &Request) -> String {
    if request.agent == "registry" {
        format!("{}.service.{}", request.collective, request.agent)
    } else {
        format!("{}.broadcast.agent.{}", request.collective, request.agent)
    }
}

fn deliver(node: &mut Node<'_>, subject: &str, payload: &[u8], called: &mut BTreeMap<String, u32>) {
    let mut line = format!("MSG {subject} 1 {}\r\n", payload.len()).into_bytes();
    line.extend_from_slice(payload);
    line.extend_from_slice(b"\r\n");
    feed(node, &line, called);
}

fn connect(node: &mut Node<'_>) {
    let nobody = &mut BTreeMap::new();
    for _ in 0..4 {
        step(node, Input::Tick, nobody);
        node.pass(30_000);
    }
    step(node, Input::Tick, nobody);
    step(node, Input::Dialed, nobody);
    let info = b"INFO {\"tls_required\":true,\"max_payload\":1048576,\"nonce\":\"Z4T9x1kQmB2aVwE\"}\r\n";
    step(node, Input::Received(info), nobody);
    step(node, Input::Secured, nobody);
    let credentials = Credentials { token: Some(TOKEN), seed: Some(&SEED), ..Credentials::default() };
    step(node, Input::Credentials(&credentials), nobody);
    feed(node, b"PONG\r\n", nobody);
    for _ in 0..8 {
        step(node, Input::Tick, nobody);
    }
}

fn feed(node: &mut Node<'_>, bytes: &[u8], called: &mut BTreeMap<String, u32>) {
    let mut rest = bytes;
    for _ in 0..64 {
        let consumed = step(node, Input::Received(rest), called);
        rest = &rest[consumed..];
        if rest.is_empty() {
            return;
        }
    }
    panic!("bytes of the broker are never taken");
}

fn step(node: &mut Node<'_>, input: Input<'_>, called: &mut BTreeMap<String, u32>) -> usize {
    let (now, second) = (node.now, seconds(node));
    let mut scratch = vec![0; 32 * 1024];
    let mut reply = vec![0; 32 * 1024];
    node.step(input, &mut Verifying { now: second }, &mut |core, output| {
        let (to, body) = match &output {
            Output::Call { call, to, .. } => {
                let genuine = MESSAGES.iter().find(|(_, request)| request.id == call.request_id);
                let (_, request) =
                    genuine.unwrap_or_else(|| panic!("a call for a request that nobody signed: {call:?}"));
                assert_eq!((call.caller, call.agent), (request.caller.as_str(), request.agent.as_str()));
                let age = second - request.time / 1_000_000_000;
                assert!(age <= request.ttl.min(600) + 1, "called {age} s after it was made");
                let times = called.entry(call.request_id.to_owned()).or_default();
                *times += 1;
                assert_eq!(*times, 1, "called twice for {}", call.request_id);
                (to, Body::Rpc { code: agent_core::rpc::StatusCode::Ok, text: "OK", data: b"{}" })
            }
            Output::Pong { to } => (to, Body::Pong),
            Output::Answer { to, status } => {
                let text = match status.text() {
                    StatusText::Fixed(text) => text,
                    StatusText::Written => "written",
                };
                (to, Body::Rpc { code: status.code(), text, data: b"{}" })
            }
            Output::Send(sent) => {
                assert!(!shows_seed(sent, &SEED), "the seed leaves the node");
                assert!(
                    contains(sent, b"CONNECT ") || !contains(sent, TOKEN.as_bytes()),
                    "the token leaves the node"
                );
                return;
            }
            _ => return,
        };
        assert!(to.subject.contains(".reply."), "an answer to {:?}", to.subject);
        if let Ok(bytes) = core.respond(now, to, body, Via::default(), &mut reply, &mut scratch) {
            let head = format!("PUB {} ", to.subject);
            assert!(bytes.starts_with(head.as_bytes()), "the reply goes elsewhere");
            assert!(!shows_seed(bytes, &SEED) && !contains(bytes, TOKEN.as_bytes()));
        }
    })
}
