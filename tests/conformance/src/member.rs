//! A connected device: what it does with each message that its broker brings.

use core::fmt::Write;

use agent_core::dispatch::{
    Accepted, Body, ClockRule, Gate, ReplyCheck, Return, Rules, Unverified, Via, gate,
};
use agent_core::filter::{Filter, NoExpressions, NoRegex, Node};
use agent_core::ids::sha256;
use agent_core::machine::{Buffers as CoreBuffers, Config, Core, Event, Input, Now, Output};
use agent_core::nats::Limits;
use agent_core::replay::{ReplayCache, ReplaySlot};
use agent_core::rpc::{Call, ReplyWriter, Status, StatusText};
use agent_core::secure::{DelegatedCaller, Policy};
use agent_core::session::{AgentRow, Client, Credentials, SessionConfig};
use agent_core::token::{Issuer, Trust, Verifier};

use crate::case::{self, Fault, Fields, Kind};
use crate::show::{Digest, Hex};
use crate::tokens::{Trusted, delegated};
use crate::{Buffers, CASE, RX, SCRATCH, Source};

pub const IDENTITY: &str = "n1.example.net";
/// Bytes that come at once, as a device's TCP hands them over.
const PIECE: usize = 1460;
const NAMES: [&str; 2] = ["rpcutil", "choria_provision"];
const AGENTS: &[AgentRow<'static>] = &[
    AgentRow { name: "discovery", service: false, active: true },
    AgentRow { name: NAMES[0], service: false, active: true },
    AgentRow { name: NAMES[1], service: false, active: true },
];
const FACTS: &[u8] = br#"{"board":"conformance","ram_kib":64}"#;

/// How a member begins.
pub(crate) struct Start {
    member: bool,
    issuers: heapless::Vec<(heapless::String<32>, [u8; 32]), 4>,
    delegated_caller: DelegatedCaller,
    policies: Policies,
    not_before: i64,
    info: heapless::Vec<u8, 512>,
}

impl Start {
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Start, Fault> {
        let member = fields.flag()?;
        let mut issuers = heapless::Vec::new();
        for issuer in Trusted::read(fields)?.issuers() {
            let organization = heapless::String::try_from(issuer.organization).map_err(|_| Fault::Case)?;
            issuers.push((organization, issuer.key)).map_err(|_| Fault::Case)?;
        }
        let (delegated_caller, policies) = (delegated(fields)?, Policies::read(fields)?);
        let not_before = fields.number()?;
        let info = heapless::Vec::from_slice(fields.bytes()?).map_err(|_| Fault::Case)?;
        Ok(Start { member, issuers, delegated_caller, policies, not_before, info })
    }
}

/// Who judges what a caller's token says about actions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policies {
    /// The case is about something else.
    Nobody,
    /// Lists of actions by the device, policies by nobody.
    Device,
    /// Policies by the signer, as the image says.
    Signer,
}

impl Policies {
    fn read(fields: &mut Fields<'_>) -> Result<Policies, Fault> {
        match fields.text()? {
            "nobody" => Ok(Policies::Nobody),
            "device" => Ok(Policies::Device),
            "signer" => Ok(Policies::Signer),
            _ => Err(Fault::Case),
        }
    }
}

fn config(start: &Start) -> Config<'static> {
    Config {
        identity: IDENTITY,
        session: SessionConfig {
            client: Client { name: IDENTITY, lang: "rust", version: "0" },
            require_tls: true,
            servers: 1,
            connect_timeout_ms: 20_000,
            ping_interval_ms: 30_000,
            pings_out: 2,
            limits: Limits { info: 4096, payload: RX - 512 },
        },
        rules: Rules {
            collectives: if start.member { &["choria", "mt_collective"] } else { &["provisioning"] },
            ttl_cap_seconds: 60,
            reply_check: ReplyCheck::Caller,
            reply_targets: &[],
            federation: false,
            clock: if start.member { ClockRule::Required } else { ClockRule::Optional },
        },
        component: if start.member { "server" } else { "provision_mode_server" },
        version: "0",
        legacy_events: false,
        node_subjects: true,
    }
}

/// From here to the first case that is not this member's; that case lies in `case` then.
pub(crate) fn life(
    start: Start,
    replay: &mut [ReplaySlot],
    buffers: &mut Buffers<'_>,
    source: &mut dyn Source,
    case: &mut [u8; CASE],
    out: &mut dyn Write,
    count: &mut u32,
) -> Result<Option<usize>, Fault> {
    let mut issuers = heapless::Vec::<Issuer<'_>, 4>::new();
    for (organization, key) in &start.issuers {
        issuers.push(Issuer { organization, key: *key }).map_err(|_| Fault::Case)?;
    }
    let Buffers { rx, tx, scratch, reply } = buffers;
    let mut device = Device {
        core: Core::new(config(&start), ReplayCache::new(replay, start.not_before, [1; 16]), [2; 32]),
        gate: Obeys {
            member: start.member,
            issuers: &issuers,
            delegated_caller: start.delegated_caller,
            scratch,
        },
        rx: rx.as_mut_slice(),
        tx: tx.as_mut_slice(),
        reply: reply.as_mut_slice(),
        policies: start.policies,
    };
    device.connect(&start.info, out)?;
    loop {
        writeln!(out)?;
        *count = count.saturating_add(1);
        let Some(length) = case::next(source, case)? else { return Ok(None) };
        let (kind, mut fields) = case::open(case, length)?;
        match kind {
            Kind::Message => device.message(&mut fields, out)?,
            Kind::Counters => write!(out, "{:?}", device.core.counters())?,
            _ => return Ok(Some(length)),
        }
    }
}

/// The gate of a device (`agent-embedded/src/gate.rs`), with facts that stay.
struct Obeys<'g> {
    member: bool,
    issuers: &'g [Issuer<'g>],
    delegated_caller: DelegatedCaller,
    scratch: &'g mut [u8; SCRATCH],
}

impl Gate for Obeys<'_> {
    fn accept(&mut self, buffer: &mut [u8], now: Option<i64>) -> Result<Accepted, &'static str> {
        let seconds = now.unwrap_or(0).div_euclid(1_000_000_000);
        let verifier = Verifier::new(Trust::Issuers(self.issuers));
        match (self.member, self.issuers.is_empty()) {
            (true, _) => {
                let policy = Policy { verifier, delegated_caller: self.delegated_caller, proven: None };
                gate::member(buffer, &policy, seconds, self.scratch)
            }
            (false, false) => gate::candidate(buffer, &verifier, seconds, self.scratch),
            (false, true) => Unverified::read(buffer),
        }
    }

    fn matches(&mut self, filter: &[u8]) -> bool {
        let Ok(filter) = Filter::parse(filter) else { return false };
        let (agents, classes): (&[&str], &[&str]) = (&NAMES, &[]);
        let node = Node { identity: IDENTITY, agents: &agents, classes: &classes, facts: FACTS };
        filter.matches(&node, &NoRegex, &NoExpressions, self.scratch)
    }
}

struct Device<'d> {
    core: Core<'d>,
    gate: Obeys<'d>,
    rx: &'d mut [u8],
    tx: &'d mut [u8],
    reply: &'d mut [u8],
    policies: Policies,
}

impl Device<'_> {
    fn connect(&mut self, info: &[u8], out: &mut dyn Write) -> Result<(), Fault> {
        let now = Now { mono_ms: 0, wall_nanos: Some(1) };
        for input in
            [Input::Tick, Input::Dialed, Input::Received(info), Input::Secured, Input::Received(b"PONG\r\n")]
        {
            self.drive(now, input, out)?;
        }
        Ok(())
    }

    fn message(&mut self, fields: &mut Fields<'_>, out: &mut dyn Write) -> Result<(), Fault> {
        let (mono_ms, wall_nanos) = (fields.number()?.unsigned_abs(), fields.time()?);
        let (subject, message, blanks) = (fields.text()?, fields.bytes()?, fields.size()?);
        let now = Now { mono_ms, wall_nanos };
        let mut head = heapless::String::<256>::new();
        write!(head, "MSG {subject} 1 {}\r\n", message.len().saturating_add(blanks))?;
        for piece in core::iter::once(head.as_bytes()).chain(message.chunks(PIECE)) {
            self.drive(now, Input::Received(piece), out)?;
        }
        let mut left = blanks;
        while left > 0 {
            let piece = left.min(PIECE);
            self.drive(now, Input::Received([b' '; PIECE].get(..piece).unwrap_or_default()), out)?;
            left = left.saturating_sub(piece);
        }
        self.drive(now, Input::Received(b"\r\n"), out)?;
        Ok(write!(out, "{}", self.core.state().name())?)
    }

    /// Steps until there is nothing to do, and says what there was.
    fn drive(&mut self, now: Now, input: Input<'_>, out: &mut dyn Write) -> Result<(), Fault> {
        let seed = [5; 32];
        let credentials =
            Credentials { token: Some("the.server.token"), seed: Some(&seed), ..Credentials::default() };
        let mut rest: &[u8] = if let Input::Received(bytes) = input { bytes } else { &[] };
        let mut next = input;
        // More steps than any case has; a machine that never rests is a line of its own.
        for _ in 0..10_000 {
            let buffers = CoreBuffers { rx: &mut *self.rx, tx: &mut *self.tx };
            let step = self.core.step(now, next, AGENTS, &mut self.gate, buffers);
            rest = rest.get(step.consumed..).unwrap_or_default();
            next = Input::Received(rest);
            let answer = match step.output {
                Output::Idle if rest.is_empty() => return Ok(()),
                Output::Idle => None,
                Output::Dial { attempt } => {
                    write!(out, "dial={attempt} ")?;
                    None
                }
                Output::UpgradeTls => {
                    write!(out, "tls ")?;
                    None
                }
                Output::Authenticate => {
                    next = Input::Credentials(&credentials);
                    None
                }
                Output::Send(bytes) => {
                    write!(out, "sent={} ", Digest(bytes))?;
                    None
                }
                Output::Disconnect(reason) => {
                    write!(out, "disconnect={} ", reason.reason())?;
                    return Ok(());
                }
                Output::Event(event) => {
                    match event {
                        Event::Ready => write!(out, "ready ")?,
                        Event::Refused { reason, .. } => write!(out, "dropped {reason} ")?,
                        Event::TooLarge { subject, size } => write!(out, "oversize {subject} {size} ")?,
                        Event::BrokerError(text) => write!(out, "broker={} ", Hex(&sha256(text.as_bytes())))?,
                    }
                    None
                }
                Output::Pong { to } => Some((to, None)),
                Output::Answer { to, status } => Some((to, Some(Answer::Without(status)))),
                Output::Call { call, to, .. } => Some((to, Some(Answer::By(call)))),
            };
            if let Some((to, answer)) = answer {
                let room = Room { reply: self.reply, tx: self.tx, scratch: self.gate.scratch };
                answered(&mut self.core, now, &to, answer, self.policies, room, out)?;
            }
        }
        Ok(write!(out, "restless ")?)
    }
}

enum Answer<'a> {
    /// No agent runs.
    Without(Status),
    By(Call<'a>),
}

struct Room<'r> {
    reply: &'r mut [u8],
    tx: &'r mut [u8],
    scratch: &'r mut [u8],
}

fn answered(
    core: &mut Core<'_>,
    now: Now,
    to: &Return<'_>,
    answer: Option<Answer<'_>>,
    policies: Policies,
    room: Room<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let Room { reply, tx, scratch } = room;
    let body = match answer {
        None => {
            write!(out, "pong ")?;
            Body::Pong
        }
        Some(Answer::Without(status)) => {
            let StatusText::Fixed(text) = status.text() else { return Err(Fault::Case) };
            write!(out, "answer status={} {text:?} ", status.code().number())?;
            Body::Rpc { code: status.code(), text, data: b"{}" }
        }
        Some(Answer::By(call)) => {
            write!(out, "call {}#{} by {} ", call.agent, call.action, call.caller)?;
            let mut writer = ReplyWriter::new(reply);
            let decided = match policies {
                Policies::Nobody => Ok(()),
                Policies::Device => crate::policy::decide(&call, false, scratch),
                Policies::Signer => crate::policy::decide(&call, true, scratch),
            };
            let status = match (decided, call.agent, call.action) {
                (Err(why), ..) => {
                    write!(out, "denied {why:?} ")?;
                    Status::not_authorized()
                }
                (Ok(()), "rpcutil", "ping") => {
                    writer.int("pong", now.wall_nanos.unwrap_or_default() / 1_000_000_000);
                    Status::ok()
                }
                (Ok(()), agent, action) => writer.unknown_action(agent, action),
            };
            let done = writer.finish(status);
            write!(out, "status={} {:?} ", done.code.number(), done.text)?;
            Body::Rpc { code: done.code, text: done.text, data: done.data }
        }
    };
    match core.respond(now, to, body, Via::default(), tx, scratch) {
        Ok(bytes) => Ok(write!(out, "to={} sent={} ", to.subject, Digest(bytes))?),
        Err(_) => Ok(write!(out, "no answer ")?),
    }
}
