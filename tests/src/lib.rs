//! The harness of the whole-system tests: real processes, real TLS, one network per test in a folder of its own.
//!
//! A test reads as a story: `Network::lab(3)`, `network.operator()`, `operator.ok(&["ping"])`.
#![forbid(unsafe_code)]

mod network;
mod operator;
mod process;

pub use network::Network;
pub use operator::{Finished, Operator};
pub use process::{Running, binary, free_port, wait_until};
