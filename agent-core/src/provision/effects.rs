//! What the machine asks of the shell, and what the shell answers.

use crate::json::Object;
use crate::rpc::Status;

/// What [`super::Provision`] wants next.
#[derive(Debug)]
pub enum Next<'a> {
    /// Do this, then call [`super::Provision::resume`].
    Effect(Effect<'a>),
    /// The call is over. Look at [`super::Provision::take_after`] once the reply is on the wire.
    Reply(Status),
}

/// Work outside the machine. Every effect is durable before its outcome is reported.
#[derive(Debug)]
pub enum Effect<'a> {
    /// Remove the server token: a new seed makes it worthless.
    EraseToken,
    /// Store the seed of the server, for its owner only.
    StoreSeed(Seed),
    /// Make a key and a certificate request; its outputs are written by the shell. Answer
    /// [`Outcome::Failed`] where certificates are not supported.
    MakeCsr(Csr<'a>),
    /// Store everything of a `configure` request, all or nothing, the configuration last. Answer [`Outcome::Lines`].
    Configure(Configuration<'a>),
    /// Tell whether the stored configuration can be read and does not enable provisioning.
    CheckConfig,
    /// Replace the configuration by one that enables provisioning.
    Reprovision,
    /// Replace the program.
    Update { repository: &'a str, version: &'a str },
    /// Publish the `provisioned` life-cycle event. A failure is only logged.
    AnnounceProvisioned,
}

/// A seed on its way to storage. Not printed.
#[derive(Clone, Copy)]
pub struct Seed(pub [u8; 32]);

impl core::fmt::Debug for Seed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("*****")
    }
}

/// Subject of a certificate request; empty members are absent.
#[derive(Debug, Clone, Copy)]
pub struct Csr<'a> {
    pub args: Object<'a>,
}

/// A checked `configure` request.
#[derive(Debug, Clone, Copy)]
pub struct Configuration<'a> {
    /// Setting to value, all strings without line breaks.
    pub settings: Object<'a>,
    /// All arguments: `certificate`, `ca`, `ssldir`, `key` are read from here by servers.
    pub args: Object<'a>,
    /// Empty when none came.
    pub server_jwt: &'a str,
    /// Agreed with the provisioner when a private key comes along.
    pub shared_secret: Option<Seed>,
    /// File name to text, names checked.
    pub action_policies: Option<Object<'a>>,
    pub opa_policies: Option<Object<'a>>,
    /// For the comment at the head of the configuration.
    pub request_id: &'a str,
    pub caller: &'a str,
    pub sender: &'a str,
}

/// What came of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'o> {
    Done,
    /// Lines of the configuration that were written, with its comment.
    Lines(u32),
    /// One sentence for the caller.
    Failed(&'o str),
}

/// What happens after the reply has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Publish `shutdown`, wait, start anew with the stored configuration.
    Restart { delay_ms: u32 },
    /// Wait, stop, publish `shutdown`, end without error.
    Shutdown { delay_ms: u32 },
}
