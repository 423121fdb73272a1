//! The operator's side of the protocol: connect, sign, discover, request, collect replies.
//!
//! ```text
//! ClientConfig ── Connection::connect ──┬── discover()  which nodes
//!  (settings)     (one connection)      ├── call()      one action on them, replies one by one
//!                                       ├── ping()      who answers, how fast
//!                                       └── Service     answer requests instead of asking
//! login()  makes the token and seed that the above uses
//! ```
//!
//! The library never prints: what a person should see is returned, what an operator may want to read is logged.

mod backoff;
mod brokers;
mod call;
mod config;
pub mod config_files;
mod connection;
mod credentials;
pub mod ddl_store;
pub mod discovery;
mod error;
mod http;
mod inbox;
pub mod login;
mod outgoing;
mod reply_filter;
mod service;
mod signer;
pub mod targets;
mod token_pair;
mod verification;
mod version_constraint;

pub use brokers::BrokerSource;
pub use call::{Asking, NodeReply, RpcOptions, Summary, call};
pub use config::{ClientConfig, LimitMethod, SignerMode, TlsMode};
pub use connection::{ConnectOptions, Connection};
pub use credentials::{CredentialSource, Identity};
pub use discovery::{
    Answer, Discovered, DiscoveredNode, DiscoveryOptions, PingOptions, PingSummary, discover, ping,
};
pub use error::ClientError;
pub use http::ServerTrust;
pub use reply_filter::{FilteredReply, ReplyFilter, ReplyFilterError};
pub use service::{RequestPolicy, Service, ServiceOptions, ServiceRequest};
pub use targets::Amount;
pub use verification::{NoReply, Received, ReplyVerifier, Verification};

pub use async_nats;
