//! From a message on a subject to a call of an agent, and from its outcome to a reply on the wire.
//!
//! The order of checks is that of `docs/spec/03 §2`; a message that fails one is dropped without an answer, counted, and
//! reported with the word of `docs/spec/10 §8`.

mod counters;
pub mod gate;
mod judge;
mod reply_subject;
mod respond;

pub use counters::Counters;
pub use gate::{Accepted, Gate, Inbox, Unverified};
pub use judge::{ClockRule, DISCOVERY, Judge, Refusal, Return, Rules, Verdict};
pub use reply_subject::ReplyCheck;
pub use respond::{Body, Context, RespondError, Signer, Via, respond};
