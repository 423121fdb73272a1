//! The fleet agent as a deterministic machine: bytes in, events out.
#![no_std]

#[cfg(test)]
extern crate std;

// The machine: what happens with what was read.
pub mod rpc;
