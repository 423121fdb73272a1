//! Links the whole of agent-core into an image that has no operating system and no allocator: connection, verification of
//! requests with trust chains, filters, dispatch, the provisioning machine and signed replies. What arrives is opaque to
//! the compiler, so nothing is folded away; the image is built for its size and never run.
#![no_std]
#![no_main]

use core::hint::black_box;

use agent_core::dispatch::{Accepted, Body, ClockRule, Gate, Inbox, ReplyCheck, Rules, Signer, Via};
use agent_core::ed25519::SigningKey;
use agent_core::filter::{Filter, NoExpressions, NoRegex, Node};
use agent_core::machine::{Buffers, Config, Core, Input, Now, Output};
use agent_core::nats::Limits;
use agent_core::provision::{Moment, Outcome, Provision, Settings};
use agent_core::replay::{ReplayCache, ReplaySlot};
use agent_core::rpc::{ReplyWriter, Status};
use agent_core::secure::{self, DelegatedCaller, Policy};
use agent_core::session::{AgentRow, Client, Credentials, SessionConfig};
use agent_core::token::{Issuer, Trust, Verifier};
use ed25519_compact as _;
use panic_halt as _;
use sha2 as _;

// The `small` profile of docs/spec/08 §6.4.
const RX: usize = 12 * 1024;
const TX: usize = 4 * 1024;
const SCRATCH: usize = 2 * 1024;

const AGENTS: &[AgentRow<'static>] = &[
    AgentRow { name: "choria_provision", service: false, active: true },
    AgentRow { name: "rpcutil", service: false, active: true },
];

/// Verifies every request against the organization's key, as a provisioned device does.
struct Verified<'k> {
    policy: Policy<'k>,
    scratch: [u8; SCRATCH],
}

impl Gate for Verified<'_> {
    fn accept(&mut self, buffer: &mut [u8], now: Option<i64>) -> Result<Accepted, &'static str> {
        let seconds = now.ok_or("clock_unknown")?.div_euclid(1_000_000_000);
        let envelope = secure::open(buffer).map_err(|error| error.reason())?;
        let verified = envelope
            .verify(buffer, &self.policy, seconds, &mut self.scratch)
            .map_err(|refusal| refusal.reason())?;
        Ok(Accepted {
            transport: *verified.transport(),
            request: *verified.request(),
            caller_token: verified.caller_token(),
            signer_token: verified.signer().map(|signer| signer.token),
            inbox: Inbox::of(verified.caller().claims().caller_id),
            issued: verified.caller().issued(),
        })
    }

    fn matches(&mut self, filter: &[u8]) -> bool {
        let agents: &[&str] = &["choria_provision", "rpcutil"];
        let classes: &[&str] = &[];
        let node = Node { identity: "probe.example.net", agents: &agents, classes: &classes, facts: b"{}" };
        Filter::parse(filter)
            .is_ok_and(|filter| filter.matches(&node, &NoRegex, &NoExpressions, &mut self.scratch))
    }
}

fn config() -> Config<'static> {
    Config {
        identity: "probe.example.net",
        session: SessionConfig {
            client: Client { name: "probe.example.net", lang: "rust", version: "0" },
            require_tls: true,
            servers: 1,
            connect_timeout_ms: 10_000,
            ping_interval_ms: 120_000,
            pings_out: 2,
            limits: Limits { info: 4096, payload: RX },
        },
        rules: Rules {
            collectives: &["choria"],
            ttl_cap_seconds: 60,
            reply_check: ReplyCheck::Caller,
            reply_targets: &[],
            federation: false,
            clock: ClockRule::Required,
        },
        component: "server",
        version: "0",
        legacy_events: false,
        node_subjects: true,
    }
}

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut RECEIVED: [u8; RX] = [0; RX];
    static mut SENT: [u8; TX] = [0; TX];
    static mut SLOTS: [ReplaySlot; 64] = [ReplaySlot::FREE; 64];

    let seed: [u8; 32] = black_box([7; 32]);
    let issuer = Issuer { organization: "choria", key: black_box([9; 32]) };
    let issuers = [issuer];
    let policy = Policy {
        verifier: Verifier::new(Trust::Issuers(&issuers)),
        delegated_caller: DelegatedCaller::Match,
        proven: None,
    };
    let mut gate = Verified { policy, scratch: [0; SCRATCH] };
    let mut provision = Provision::new(black_box(true));
    let mut core = Core::new(config(), ReplayCache::new(SLOTS, 0, black_box([1; 16])), black_box([2; 32]));
    let settings = Settings {
        token: black_box("secret"),
        active: true,
        jwt: Some(black_box("token")),
        directory: "/",
        config_path: "/config",
        allow_update: false,
        accept_private_key: false,
    };
    let mut reply = [0_u8; 1024];
    let mut arguments = [0_u8; 1024];
    let mut scratch = [0_u8; SCRATCH];
    let credentials =
        Credentials { token: Some(black_box("token")), seed: Some(&seed), ..Credentials::default() };

    loop {
        let now = black_box(Now { mono_ms: 1, wall_nanos: Some(1) });
        let wire: &[u8] = black_box(b"INFO {}\r\n");
        for input in [
            Input::Tick,
            Input::Dialed,
            Input::Secured,
            Input::Received(wire),
            Input::Credentials(&credentials),
        ] {
            let step =
                core.step(now, black_box(input), AGENTS, &mut gate, Buffers { rx: RECEIVED, tx: SENT });
            let answer = match step.output {
                Output::Call { call, to, .. } => {
                    let mut out = ReplyWriter::new(&mut reply);
                    let moment = Moment { now_ms: now.mono_ms, key_material: Some(seed), random: 7 };
                    black_box(&provision.start(&call, &settings, &moment, &mut out, &mut arguments));
                    black_box(&provision.resume(Outcome::Done, &call, &settings, &mut out));
                    black_box(&out.finish(Status::ok()));
                    Some(to)
                }
                Output::Pong { to } => Some(to),
                other => {
                    black_box(&other);
                    None
                }
            };
            if let (Some(to), Some(key)) = (answer, SigningKey::from_seed(&seed)) {
                let via =
                    Via { signer: Some(Signer { key: &key, token: "token" }), broker: "nats://broker:4222" };
                let mut line = [0_u8; 512];
                black_box(core.respond(now, &to, Body::Pong, via, &mut line, &mut scratch).is_ok());
            }
        }
    }
}
