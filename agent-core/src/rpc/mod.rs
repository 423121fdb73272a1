//! What an agent sees of a request and how it answers: one trait for servers and microcontrollers.
//!
//! The bodies on the wire are those of `docs/spec/03 §4`. Everything in a [`Call`] except its arguments comes from the
//! verified envelope, never from the body, so an agent may rely on it.

mod call;
mod reply;
mod status;

pub use call::Call;
pub use reply::{Finished, ReplyWriter, TOO_LARGE};
pub use status::{NOT_AUTHORIZED, Status, StatusCode, StatusText};

/// What the inventory actions tell about an agent (`docs/spec/03 §5`, `metadata`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentMeta {
    /// `^[a-z0-9_]*$`; the last token of the agent's broadcast subject.
    pub name: &'static str,
    pub description: &'static str,
    pub author: &'static str,
    pub license: &'static str,
    pub version: &'static str,
    pub url: &'static str,
    /// Deadline of one call in seconds, at least 1.
    pub timeout_seconds: u32,
    /// `metadata.service`: the agent is asked on `<collective>.broadcast.service.<name>`, in a queue group.
    pub service: bool,
}

/// A set of actions under one name.
///
/// The future is driven by the shell (tokio on a server, embassy on a device). The shell drops it at
/// `min(agent timeout, request ttl)` and answers in its place, so an implementation must be cancel safe.
/// No `Send` bound: both shells run agents on the thread that owns the connection.
pub trait Agent {
    const META: AgentMeta;

    /// Runs the action named by `call`. Output goes to `out`; the result carries the status code and text.
    /// An action that is not known answers [`ReplyWriter::unknown_action`].
    #[allow(
        async_fn_in_trait,
        reason = "both shells are single threaded; a Send bound would exclude embassy"
    )]
    async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status;
}
