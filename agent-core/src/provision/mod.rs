//! The logic of agent `choria_provision`, shared by servers and devices (`docs/spec/04 §7`).
//!
//! The machine decides and answers; what has to happen outside comes out as an [`Effect`], so that a server writes files
//! and a device writes flash. The order of effects is the order of `docs/spec/04 §7` with the repairs of
//! `docs/spec/10 §5.4`: token check first, then the lock, then anything else.
//!
//! ```text
//! unprovisioned --jwt, gencsr--> locked --gen25519--> keyed --configure--> configured --restart--> leaving
//! ```

mod configure;
mod effects;
mod guard;
mod machine;

pub use configure::{ConfigReject, check_config, check_policies};
pub use effects::{After, Configuration, Csr, Effect, Next, Outcome, Seed};
pub use guard::{Lock, TokenGuard};
pub use machine::{Moment, Provision, Settings, State};

use crate::rpc::AgentMeta;

/// What the inventory says about the agent.
pub const META: AgentMeta = AgentMeta {
    name: "choria_provision",
    description: "Brings a node into the fleet: keys, token, configuration and restart",
    author: "The project's authors",
    license: "Apache-2.0",
    version: env!("CARGO_PKG_VERSION"),
    url: "https://choria.io",
    timeout_seconds: 20,
    service: false,
};

/// The actions, sorted.
pub const ACTIONS: [&str; 8] =
    ["configure", "gen25519", "gencsr", "jwt", "release_update", "reprovision", "restart", "shutdown"];
