//! The golden vectors and hostile cases of docs/spec/10 §14 on the device of the tests: agent-core in an image without an
//! operating system, in QEMU, against the same code on this machine in the same buffers (docs/spec/08 §11).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod bench;
mod certificates;
mod damaged;
#[path = "../../../../agent-core/tests/forge/mod.rs"]
mod forge;
mod golden_connect;
mod golden_filters;
mod golden_messages;
mod golden_tokens;
mod rows_filters;
mod rows_messages;
mod rows_provisioning;
mod rows_requests;
mod rows_tokens;
mod shot;
