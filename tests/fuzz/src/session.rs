//! A node's connection against a broker and a network that do as they like.

use agent_core::dispatch::{Accepted, Gate, Unverified};
use agent_core::machine::{Input, Output};
use agent_core::replay::ReplaySlot;
use agent_core::session::Credentials;

use crate::Target;
use crate::node::{Node, SEED, TOKEN, config, contains, shows_seed};
use crate::pieces::Script;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "session_sm",
    oracle: "no CONNECT before TLS where TLS is asked for, one per connection and only when asked; no secret elsewhere; it rests",
    run: session,
    seeds: || {
        let info = "INFO {\"tls_required\":true,\"nonce\":\"Z4T9x1kQmB2aVwE\"}\r\n";
        let plain = "INFO {\"max_payload\":100,\"nonce\":\"Z4T9x1kQmB2aVwE\"}\r\n";
        let play = |tls: u8, steps: &[(u8, &str)]| {
            let mut bytes = vec![tls];
            for (event, text) in steps {
                bytes.push(*event);
                if *event == RECEIVED {
                    bytes.extend_from_slice(text.as_bytes());
                    bytes.push(0);
                }
            }
            bytes
        };
        vec![
            play(
                1,
                &[
                    (0, ""),
                    (1, ""),
                    (RECEIVED, info),
                    (2, ""),
                    (4, ""),
                    (RECEIVED, "PONG\r\n"),
                    (0, ""),
                    (0, ""),
                    (0, ""),
                    (RECEIVED, "PING\r\nMSG a 1 2\r\nhi\r\n"),
                    (9, ""),
                ],
            ),
            play(
                0,
                &[
                    (0, ""),
                    (1, ""),
                    (RECEIVED, plain),
                    (4, ""),
                    (RECEIVED, "PONG\r\n"),
                    (0, ""),
                    (8, ""),
                    (7, ""),
                    (10, ""),
                ],
            ),
            play(1, &[(0, ""), (1, ""), (RECEIVED, plain), (4, ""), (2, ""), (4, "")]),
            play(
                1,
                &[(0, ""), (1, ""), (RECEIVED, "INFO {\"tls_required\":true}\r\nPING\r\n"), (2, ""), (4, "")],
            ),
            play(
                1,
                &[
                    (0, ""),
                    (3, ""),
                    (11, ""),
                    (0, ""),
                    (1, ""),
                    (RECEIVED, "-ERR 'Authorization Violation'\r\n"),
                    (11, ""),
                    (0, ""),
                ],
            ),
        ]
    },
    words: &[
        "INFO {\"tls_required\":true,\"nonce\":\"Z4T9x1kQmB2aVwE\"}\r\n",
        "INFO {\"tls_available\":true}\r\n",
        "PONG\r\n",
        "PING\r\n",
        "-ERR 'x'\r\n",
        "MSG a 1 2\r\nhi\r\n",
        "+OK\r\n",
    ],
    longest: 1024,
}];

const RECEIVED: u8 = 6;

struct Everybody;

impl Gate for Everybody {
    fn accept(&mut self, buffer: &mut [u8], _: Option<i64>) -> Result<Accepted, &'static str> {
        Unverified::read(buffer)
    }

    fn matches(&mut self, _: &[u8]) -> bool {
        true
    }
}

/// What happened on the present connection.
#[derive(Default)]
struct Connection {
    dialing: bool,
    tls_wanted: bool,
    tls: bool,
    asked_for_credentials: bool,
    connects: usize,
    over: bool,
}

fn session(input: &[u8]) {
    let mut script = Script::new(input);
    let require_tls = script.byte() & 1 == 1;
    let mut slots = [ReplaySlot::FREE; 8];
    let mut node = Node::new(config(require_tls), &mut slots, 1_800_000_000_000_000_000);
    let mut connection = Connection { over: true, ..Connection::default() };
    let credentials =
        Credentials { token: Some(TOKEN), seed: Some(&SEED), user: None, pass: None, repeat_token: false };
    while !script.is_over() {
        let event = script.byte() % 12;
        let mut bytes: &[u8] = b"";
        let input = match event {
            0 => Input::Tick,
            1 => {
                if std::mem::take(&mut connection.dialing) {
                    connection = Connection::default();
                }
                Input::Dialed
            }
            2 => {
                connection.tls = connection.tls_wanted;
                Input::Secured
            }
            3 => Input::DialFailed,
            4 => Input::Credentials(&credentials),
            5 => Input::NoCredentials,
            RECEIVED => {
                bytes = script.text();
                Input::Received(bytes)
            }
            7 => Input::Disconnected,
            8 => Input::AgentsChanged,
            9 => Input::Stop,
            10 => Input::TlsFailed,
            _ => {
                node.pass(u64::from(script.byte()) * 500);
                Input::Tick
            }
        };
        drive(&mut node, input, bytes, require_tls, &mut connection);
    }
}

/// Gives the core one event and goes on until it rests, as every shell does.
fn drive(
    node: &mut Node<'_>,
    input: Input<'_>,
    bytes: &[u8],
    require_tls: bool,
    connection: &mut Connection,
) {
    let mut rest = bytes;
    let mut next = input;
    for _ in 0..2000 {
        let mut idle = false;
        let consumed = node.step(next, &mut Everybody, &mut |_, output| match output {
            Output::Idle => idle = true,
            Output::Dial { .. } => {
                *connection = Connection { dialing: true, over: true, ..Connection::default() }
            }
            Output::UpgradeTls => connection.tls_wanted = true,
            Output::Authenticate => {
                connection.asked_for_credentials = true;
                // The shell answers in its own time, with another event.
                idle = true;
            }
            Output::Send(sent) => check_sent(sent, require_tls, connection),
            Output::Disconnect(_) => {
                connection.over = true;
                idle = true;
            }
            Output::Call { .. } | Output::Pong { .. } | Output::Answer { .. } | Output::Event(_) => {}
        });
        assert!(consumed <= rest.len());
        rest = &rest[consumed..];
        if idle && (rest.is_empty() || connection.over) {
            return;
        }
        next = if rest.is_empty() { Input::Tick } else { Input::Received(rest) };
    }
    panic!("the machine never rests");
}

fn check_sent(sent: &[u8], require_tls: bool, connection: &mut Connection) {
    assert!(!shows_seed(sent, &SEED), "the seed leaves the node");
    let connects = contains(sent, b"CONNECT ");
    if connects {
        connection.connects += 1;
        assert_eq!(connection.connects, 1, "two CONNECT on one connection");
        assert!(connection.asked_for_credentials, "CONNECT without being asked");
        assert!(connection.tls || !(require_tls || connection.tls_wanted), "CONNECT before TLS");
        assert_eq!(sent.split(|byte| *byte == b'\n').filter(|line| contains_token(line)).count(), 1);
    } else {
        assert!(!contains_token(sent), "the token leaves outside of CONNECT");
        assert!(connection.connects == 1, "sent before CONNECT: {:?}", String::from_utf8_lossy(sent));
    }
}

fn contains_token(bytes: &[u8]) -> bool {
    contains(bytes, TOKEN.as_bytes())
}
