//! Admission to the broker: from a connection's credentials to an account and a permission set.
//!
//! [`Policy::admit`] is the whole decision, a function of what a connection presents, the configuration and the time.
//! The rest of the crate reads the configuration and runs the engine with it.

mod accounts;
pub mod admission;
mod allow_list;
mod config;
mod doorkeeper;
mod explain;
mod nonce;
pub mod permissions;
mod reread;
mod run;
mod stats;
mod token_cache;
mod waiting_limits;

pub use admission::{Denial, Placement, Policy, Presented, Transport};
pub use allow_list::AllowList;
pub use config::{BrokerConfig, ConfigError, Constrained, SessionExpiry, TlsFiles};
pub use explain::{Explanation, Nonce, Password, Question, explain};
pub use nonce::Proof;
pub use run::{Broker, BrokerError, check, run, run_with};
pub use stats::Metrics;
pub use waiting_limits::WaitingLimits;
