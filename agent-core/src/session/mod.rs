//! One connection to one broker at a time: from the dial to the subscriptions, and back after a loss.

mod connect;
mod info;
mod machine;
mod subscriptions;

pub use connect::{Client, ConnectError, Credentials, write_connect};
pub use info::Info;
pub use machine::{Reason, Session, SessionConfig, SessionEvent, State};
pub use subscriptions::{AgentRow, Arrival, MAX_AGENTS, Roster};
