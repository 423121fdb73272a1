//! The tokio side of agent-core: sockets, TLS, clocks, and agents running beside the connection.
//!
//! One task owns one connection and its [`agent_core::machine::Core`]; agents run as tasks of the same thread and hand
//! their answers back. Everything is single threaded: nothing here is `Send` on purpose.

mod buffers;
mod connection;
mod dial;
mod gate;
mod host;
mod queue;
mod srv;
mod tls_cache;

pub use buffers::Shared;
pub use connection::{Command, Connection, ConnectionConfig, Ended};
pub use gate::{NodeGate, Trusted};
pub use host::{After, AgentEntry, Answer, Called, Held, Host, Notice};
pub use queue::{Bounds, Queue};
pub use tls_cache::TlsCache;
