//! Drives agent-core on tokio and rustls: the server that runs on a fleet node.
//!
//! Read it in the order of a node's life: [`startup`] decides whether to provision, [`config`] says what that
//! means, and the agents, [`authorization`], [`audit`], [`facts`] and [`status`] are what the connected node
//! is made of.

pub mod agents;
pub mod audit;
pub mod authorization;
pub mod broker_target;
pub mod config;
pub mod driver;
pub mod facts;
pub mod identity;
pub mod metrics;
pub mod node;
pub mod node_token;
pub mod provision_files;
pub mod redaction;
pub mod regexes;
pub mod rules;
pub mod run;
pub mod seed;
pub mod startup;
pub mod status;
pub mod swarm;

pub use run::{ExitReason, RunOptions, run};

/// Version of the product, shown in inventories and events.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Log lines of one refusal reason in a minute. A node knows no address of its peers, so this is for all of them.
const LINES_PER_REASON: u64 = 200;
