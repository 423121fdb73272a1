//! The fleet agent as a deterministic machine: bytes in, events out.
//!
//! Nothing here opens a socket, reads a clock, draws a random number, allocates or panics on input: every buffer,
//! every instant and every random byte is an argument.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

// Wire formats, tokens and filters.
mod append;
pub mod baked;
mod case;
pub mod config;
mod decimal;
pub mod ed25519;
pub mod encoding;
pub mod filter;
pub mod ids;
pub mod json;
pub mod secure;
pub mod time;
pub mod token;
pub mod wire;
pub mod x509pin;

// The machine: what happens with what was read.
pub mod backoff;
pub mod clock;
pub mod dispatch;
pub mod entropy;
pub mod lifecycle;
pub mod machine;
pub mod nats;
pub mod nonce;
pub mod provision;
pub mod replay;
pub mod rpc;
pub mod session;
pub mod sntp;
pub mod ttl;
