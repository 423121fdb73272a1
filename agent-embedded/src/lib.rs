//! The agent on a microcontroller: agent-core driven by embassy.
//!
//! ```text
//! image (baked)  ->  startup  ->  candidate | member  ->  connection: dial, TLS with pins, the machine, agents
//! board, store   ->
//! ```
//! No protocol logic lives here: what is said on the wire is decided by agent-core. Everything is static; there is no
//! allocator. A board implements [`board::Board`] and [`board::Store`] and hands over a network stack.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod agents;
pub mod board;
mod brokers;
mod connection;
#[cfg(feature = "flash")]
pub mod flash;
mod gate;
mod generator;
mod image;
#[cfg(feature = "dns")]
mod names;
mod policy;
mod provisioning;
mod run;
mod settings;
mod sntp;
mod socket;
mod space;
mod tls;
mod waiting;

pub use image::Image;
pub use run::run;
pub use space::{PROFILE, Profile, Space};
pub use waiting::within;

/// Version of the product, shown in inventories and events.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
