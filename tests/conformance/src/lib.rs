//! One case after another through agent-core, in the buffers of a device (`docs/spec/08 §6.4`, profile `small`).
//!
//! ```text
//! case file: u32 length, kind, fields -> run -> one line per case: what came out, or the word of the refusal
//! ```
//! A host's test and the image of `agent-embedded/conformance` run this code over the same bytes; their lines must be equal.
//! Nothing here decides what is right: that is the test's, which made the cases.
#![no_std]
#![forbid(unsafe_code)]

mod case;
mod codec;
mod filters;
mod keys;
mod member;
mod messages;
/// The device's own, so that its decisions are part of what is compared.
#[path = "../../../agent-embedded/src/policy.rs"]
mod policy;
mod provisioning;
mod show;
mod tokens;

use core::fmt::Write;

use agent_core::replay::ReplaySlot;

pub use case::{Fault, Fields, Kind, NEVER};
pub use member::IDENTITY;

/// The largest message that a device reads.
pub const RX: usize = 12 * 1024;
/// The largest line or reply that it sends.
pub const TX: usize = 4 * 1024;
/// Claims of one token; body and document of a reply.
pub const SCRATCH: usize = 2816;
/// Data of one reply.
pub const REPLY: usize = 1152;
/// Requests remembered against repetition.
pub const REPLAY: usize = 64;
/// A case: a message that fills the receive buffer, and what goes with it.
pub const CASE: usize = RX + 1024;

/// The buffers of a run: those of a device, and one case.
#[derive(Debug)]
pub struct Space {
    pub(crate) case: [u8; CASE],
    pub(crate) rx: [u8; RX],
    pub(crate) tx: [u8; TX],
    pub(crate) scratch: [u8; SCRATCH],
    pub(crate) reply: [u8; REPLY],
    pub(crate) replay: [ReplaySlot; REPLAY],
}

impl Space {
    pub const fn new() -> Space {
        Space {
            case: [0; CASE],
            rx: [0; RX],
            tx: [0; TX],
            scratch: [0; SCRATCH],
            reply: [0; REPLY],
            replay: [ReplaySlot::FREE; REPLAY],
        }
    }
}

impl Default for Space {
    fn default() -> Space {
        Space::new()
    }
}

/// Where cases come from.
pub trait Source {
    /// Fills as much of `room` as there is left to read; how much.
    fn read(&mut self, room: &mut [u8]) -> usize;
}

impl Source for &[u8] {
    fn read(&mut self, room: &mut [u8]) -> usize {
        let (now, later) = self.split_at(room.len().min(self.len()));
        room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        *self = later;
        now.len()
    }
}

/// Runs all cases of `source` and writes a line for each; how many there were.
pub fn run(space: &mut Space, source: &mut dyn Source, out: &mut dyn Write) -> Result<u32, Fault> {
    let Space { case, rx, tx, scratch, reply, replay } = space;
    let mut provisioning = provisioning::Candidate::new();
    let mut buffers = Buffers { rx, tx, scratch, reply };
    let mut count = 0_u32;
    let mut length = case::next(source, case)?;
    while let Some(found) = length {
        let (kind, mut fields) = case::open(case, found)?;
        if kind == Kind::Start {
            // A member lives until the first case that is none of its own.
            let start = member::Start::read(&mut fields)?;
            length = member::life(start, replay, &mut buffers, source, case, out, &mut count)?;
            continue;
        }
        one(kind, &mut fields, &mut buffers, &mut provisioning, out)?;
        writeln!(out)?;
        count = count.saturating_add(1);
        length = case::next(source, case)?;
    }
    Ok(count)
}

/// What a device has for its work.
pub(crate) struct Buffers<'b> {
    pub(crate) rx: &'b mut [u8; RX],
    pub(crate) tx: &'b mut [u8; TX],
    pub(crate) scratch: &'b mut [u8; SCRATCH],
    pub(crate) reply: &'b mut [u8; REPLY],
}

fn one(
    kind: Kind,
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    candidate: &mut provisioning::Candidate,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    match kind {
        Kind::Token => tokens::verify(fields, buffers, out),
        Kind::Peek => tokens::peek(fields, buffers, out),
        Kind::Accept => tokens::accept(fields, buffers, out),
        Kind::Obey => tokens::obey(fields, buffers, out),
        Kind::Request => messages::request(fields, buffers, out),
        Kind::Document => messages::document(fields, buffers, out),
        Kind::Reply => messages::reply(fields, buffers, out),
        Kind::Transport => messages::transport(fields, buffers, out),
        Kind::Respond => messages::respond(fields, buffers, out),
        Kind::Nonce => keys::nonce(fields, out),
        Kind::Connect => keys::connect(fields, buffers, out),
        Kind::Signature => keys::signature(fields, out),
        Kind::Certificate => keys::certificate(fields, out),
        Kind::Proof => keys::proof(fields, out),
        Kind::Filter => filters::filter(fields, buffers, out),
        Kind::Facts => filters::facts(fields, buffers, out),
        Kind::Expression => filters::expression(fields, out),
        Kind::Encoding => codec::encoding(fields, buffers, out),
        Kind::Frames => codec::frames(fields, buffers, out),
        Kind::Json => codec::json(fields, out),
        Kind::Settings => provisioning::settings(fields, out),
        Kind::Candidate => candidate.begin(fields, out),
        Kind::Call => candidate.call(fields, buffers, out),
        // A message or a question to a member that was never started.
        Kind::Start | Kind::Message | Kind::Counters => Err(Fault::Case),
    }
}
