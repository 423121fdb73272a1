//! The agent as one machine (`docs/spec/08 §6.5`): inputs in, at most one output per step.
//!
//! The shell owns sockets, clock, randomness, storage and buffers. It calls [`Core::step`] with what happened until the
//! step is idle, and does what each output says. The machine keeps no secrets: it asks for credentials when it needs
//! them and forgets them with the step.

mod core;

pub use self::core::{Config, Core};

use crate::dispatch::{Return, Verdict};
use crate::rpc::{Call, Status};
use crate::session::{Credentials, Reason};

/// The time of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never goes back.
    pub mono_ms: u64,
    /// Unix nanoseconds; `None` while a device has not learnt the time.
    pub wall_nanos: Option<i64>,
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub enum Input<'i> {
    /// Nothing but time; also the way to fetch what is still to be done.
    Tick,
    /// TCP is up.
    Dialed,
    DialFailed,
    /// The TLS handshake is done.
    Secured,
    TlsFailed,
    /// The answer to [`Output::Authenticate`].
    Credentials(&'i Credentials<'i>),
    NoCredentials,
    /// Bytes of the broker. [`Step::consumed`] tells how many were taken; come back with the rest.
    Received(&'i [u8]),
    /// The transport ended.
    Disconnected,
    /// The list of agents has changed.
    AgentsChanged,
    /// Say goodbye and end. Repeat until [`Output::Disconnect`] or [`Output::Idle`].
    Stop,
}

/// What is to be done. `'r` is the receive buffer, `'t` the send buffer.
#[derive(Debug)]
pub enum Output<'r, 't> {
    /// Nothing until [`Core::deadline`] or the next input.
    Idle,
    /// Open a TCP connection to the next broker, then [`Input::Dialed`].
    Dial {
        attempt: u32,
    },
    /// Make the TLS handshake, then [`Input::Secured`].
    UpgradeTls,
    /// Read token and seed anew, then [`Input::Credentials`].
    Authenticate,
    Send(&'t [u8]),
    /// Close the transport. The next attempt is scheduled.
    Disconnect(Reason),
    /// Run the call, then [`Core::respond`]. The filter is a JSON object or empty; policies look at it.
    Call {
        call: Call<'r>,
        to: Return<'r>,
        filter: &'r [u8],
    },
    /// Answer a discovery ping.
    Pong {
        to: Return<'r>,
    },
    /// Answer with this status; no agent is to run.
    Answer {
        to: Return<'r>,
        status: Status,
    },
    Event(Event<'r>),
}

/// What the shell may want to log or count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'r> {
    /// Connected, authenticated and subscribed.
    Ready,
    /// A message was dropped; `reason` is a word of `docs/spec/10 §8`.
    Refused { reason: &'static str, subject: &'r str },
    /// A message did not fit and was drained.
    TooLarge { subject: &'r str, size: u64 },
    /// The broker complained, e.g. about a permission.
    BrokerError(&'r str),
}

/// The outcome of one step.
#[derive(Debug)]
pub struct Step<'r, 't> {
    /// Bytes of [`Input::Received`] that were taken.
    pub consumed: usize,
    pub output: Output<'r, 't>,
}

/// The shell's buffers. `rx` bounds the largest request, `tx` the largest line or reply.
#[derive(Debug)]
pub struct Buffers<'r, 't> {
    pub rx: &'r mut [u8],
    pub tx: &'t mut [u8],
}

impl<'r> From<Verdict<'r>> for Output<'r, '_> {
    fn from(verdict: Verdict<'r>) -> Self {
        match verdict {
            Verdict::Ping(to) => Output::Pong { to },
            Verdict::Call(call, to, filter) => Output::Call { call, to, filter },
            Verdict::Answer(to, status) => Output::Answer { to, status },
        }
    }
}
