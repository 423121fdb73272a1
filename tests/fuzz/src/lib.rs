//! Fuzz targets (docs/spec/10 §12): bytes go into a part that reads what a stranger sent, and an oracle says whether what
//! came out is right. A target panics when its oracle does not hold.
//!
//! Two drivers call them: `cargo test -p choria-fuzz` replays every kept input and a few thousand changed ones with the
//! project's own compiler, and `cargo xtask fuzz` searches for new inputs with libFuzzer (`harness/`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "an oracle that does not hold has to panic: that is what the drivers look for"
)]

pub mod corpus;
mod effort;
mod oracle;
mod pieces;
pub mod replay;

// What a device has of it, too.
mod baked;
mod broker;
mod calls;
mod certificates;
mod device;
mod facts;
mod json;
mod node;
mod provisioning;
mod session;
mod signatures;
mod tokens;
mod wire;

// What only hosts have.
#[cfg(feature = "hosts")]
mod admission;
#[cfg(feature = "hosts")]
mod control;
#[cfg(feature = "hosts")]
mod files;
#[cfg(feature = "hosts")]
mod filters;
#[cfg(feature = "hosts")]
mod helper;
#[cfg(feature = "hosts")]
mod rego;
#[cfg(feature = "hosts")]
mod signing;
#[cfg(feature = "hosts")]
mod subjects;
#[cfg(feature = "hosts")]
mod terminal;
mod time;

/// One part under test with what must hold for it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    /// What must hold, for the table of a run.
    pub oracle: &'static str,
    /// Panics when the oracle does not hold for this input.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the input's language that random changes would not find.
    pub words: &'static [&'static str],
    /// Longest input worth a try, bytes.
    pub longest: usize,
}

/// The targets of what devices and hosts have.
const CORE: &[&[Target]] = &[
    broker::TARGETS,
    json::TARGETS,
    facts::TARGETS,
    tokens::TARGETS,
    signatures::TARGETS,
    certificates::TARGETS,
    wire::TARGETS,
    session::TARGETS,
    calls::TARGETS,
    provisioning::TARGETS,
    baked::TARGETS,
    device::TARGETS,
    time::TARGETS,
];

/// The targets of what only hosts have.
#[cfg(feature = "hosts")]
const HOSTS: &[&[Target]] = &[
    control::TARGETS,
    subjects::TARGETS,
    filters::TARGETS,
    files::TARGETS,
    rego::TARGETS,
    terminal::TARGETS,
    helper::TARGETS,
    admission::TARGETS,
    signing::TARGETS,
];
#[cfg(not(feature = "hosts"))]
const HOSTS: &[&[Target]] = &[];

/// The targets one by one.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    CORE.iter().chain(HOSTS).copied().flatten()
}

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    targets().find(|target| target.name == name)
}
