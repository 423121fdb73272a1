//! An agent without a shell: the core with buffers, for targets that play broker and operating system.

use agent_core::dispatch::{ClockRule, Gate, ReplyCheck, Rules};
use agent_core::machine::{Buffers, Config, Core, Input, Now, Output};
use agent_core::nats::Limits;
use agent_core::replay::{ReplayCache, ReplaySlot};
use agent_core::session::{AgentRow, Client, SessionConfig};

pub(crate) const AGENTS: &[AgentRow<'static>] = &[
    AgentRow { name: "discovery", service: false, active: true },
    AgentRow { name: "rpcutil", service: false, active: true },
    AgentRow { name: "registry", service: true, active: true },
];

/// The node's token: must leave only in CONNECT.
pub(crate) const TOKEN: &str = "the.server.token-SECRET";
/// The node's seed: must not leave at all.
pub(crate) const SEED: [u8; 32] = *b"seed-SECRET-seed-SECRET-seed-SEC";

pub(crate) fn config(require_tls: bool) -> Config<'static> {
    Config {
        identity: "n1.example.net",
        session: SessionConfig {
            client: Client { name: "n1.example.net", lang: "rust", version: "0" },
            require_tls,
            servers: 2,
            connect_timeout_ms: 2000,
            ping_interval_ms: 120_000,
            pings_out: 2,
            limits: Limits { info: 4096, payload: 12 * 1024 },
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

/// The core and what a shell lends it.
pub(crate) struct Node<'c> {
    pub(crate) core: Core<'c>,
    rx: Vec<u8>,
    pub(crate) tx: Vec<u8>,
    pub(crate) now: Now,
}

impl<'c> Node<'c> {
    pub(crate) fn new(config: Config<'c>, slots: &'c mut [ReplaySlot], start_nanos: i64) -> Node<'c> {
        Node {
            core: Core::new(config, ReplayCache::new(slots, 0, [3; 16]), [9; 32]),
            rx: vec![0; 16 * 1024],
            tx: vec![0; 32 * 1024],
            now: Now { mono_ms: 0, wall_nanos: Some(start_nanos) },
        }
    }

    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.now.mono_ms += milliseconds;
        self.now.wall_nanos = self.now.wall_nanos.map(|nanos| {
            nanos.saturating_add(i64::try_from(milliseconds).unwrap_or(i64::MAX).saturating_mul(1_000_000))
        });
    }

    /// One step; `seen` gets what it put out.
    pub(crate) fn step(
        &mut self,
        input: Input<'_>,
        gate: &mut dyn Gate,
        seen: &mut dyn FnMut(&mut Core<'c>, Output<'_, '_>),
    ) -> usize {
        let buffers = Buffers { rx: &mut self.rx, tx: &mut self.tx };
        let step = self.core.step(self.now, input, AGENTS, gate, buffers);
        let consumed = step.consumed;
        seen(&mut self.core, step.output);
        consumed
    }
}

/// Whether any spelling of the seed stands in these bytes.
pub(crate) fn shows_seed(bytes: &[u8], seed: &[u8; 32]) -> bool {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let spellings = [
        seed.to_vec(),
        hex::encode(seed).into_bytes(),
        hex::encode_upper(seed).into_bytes(),
        STANDARD_NO_PAD.encode(seed).into_bytes(),
        URL_SAFE_NO_PAD.encode(seed).into_bytes(),
    ];
    spellings.iter().any(|spelling| contains(bytes, spelling))
}

pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
