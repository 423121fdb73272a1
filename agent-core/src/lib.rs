//! The fleet agent as a deterministic machine: bytes in, events out.
#![no_std]
