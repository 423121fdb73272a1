//! The harness of the whole-system tests: real processes, real TLS, one network per test in a folder of its own.
//!
//! A test reads as a story: `Network::lab(3)`, `network.operator()`, `operator.ok(&["ping"])`. Tests that attack use
//! [`Stage`], a network made by hand, [`Liar`], a raw connection, and [`forge`], which signs anything.
#![forbid(unsafe_code)]
#![allow(clippy::large_futures)] // a test has few of them

mod authority;
mod canaries;
pub mod device;
pub mod device_range;
pub mod faces;
mod false_broker;
mod false_node;
pub mod forge;
pub mod guide;
mod keeper;
mod length;
mod levels;
mod liar;
pub mod misbehaving;
pub mod name_server;
mod network;
mod operator;
mod process;
pub mod request;
mod row;
mod shot;
mod stage;
mod tap;
mod time_server;

pub use authority::certificates;
pub use canaries::none_written_down;
pub use false_broker::{Act, FalseBroker, INFO, Then};
pub use false_node::{Asked, FalseNode};
pub use keeper::Keeper;
pub use length::test_length;
pub use liar::{Liar, Message};
pub use network::Network;
pub use operator::{Finished, GHOST, Operator, sorted};
pub use process::{Running, binary, free_port, is_alive, wait_until};
pub use row::{Doing, Row};
pub use shot::Shot;
pub use stage::{CONFIGURED_SECRET, Control, NODE, PROVISIONER_PASSWORD, PROVISIONING_TOKEN, Stage};
pub use tap::{RECORD_OVERHEAD, Tap};
pub use time_server::TimeServer;
