//! Finds nodes that wait for enrolment and makes them members of the fleet (`docs/spec/04 §10`).
//!
//! A node is found by its startup event or by discovery, waits in the [`backlog`], and is then taken through an
//! [`enrolment`]: its provisioning token is verified, it makes a key and proves it, a [`helper`] decides, a server
//! token is signed within the [`claims`] limits, and the node is configured and restarted. One connection and one
//! subscription serve all nodes; thousands are on their way at once.
//!
//! It shares nothing with the broker but the connection. A hub that runs both may lend a [`presence::Presence`].

pub mod backlog;
pub mod builtin;
pub mod claims;
mod command_line;
pub mod config;
pub mod device;
pub mod enrolled;
pub mod enrolment;
pub mod helper;
pub mod issuing;
mod ladder;
pub mod metrics;
pub mod node_calls;
pub mod presence;
pub mod private_key;
pub mod program;
mod rpm_version;
mod run;
mod service;

pub use config::{ConfigError, ProvisionerConfig};
pub use run::{Control, ProvisionerError, Surround, run, run_with};
