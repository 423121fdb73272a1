//! What a connection asks of the node behind it.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use agent_core::dispatch::{Counters, Gate};
use agent_core::ed25519::SigningKey;
pub use agent_core::provision::After;
use agent_core::rpc::{Call, StatusCode};
use choria_host::Secret;

/// One agent on air.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentEntry {
    pub name: String,
    pub service: bool,
    pub timeout: Duration,
}

/// What proves the node on one connection. Read anew for each, so that a renewed token is used without a restart.
pub struct Held {
    /// The node's token, or the provisioning token.
    pub token: Option<Secret>,
    /// Seed of the node; absent while provisioning.
    pub seed: Option<zeroize::Zeroizing<[u8; 32]>>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub sign_replies: bool,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("seed", &self.seed.is_some()).finish_non_exhaustive()
    }
}

impl Held {
    /// The key that signs replies, when they are to be signed.
    pub(super) fn signing_key(&self) -> Option<SigningKey> {
        let seed = self.seed.as_ref().filter(|_| self.sign_replies)?;
        SigningKey::from_seed(seed)
    }
}

/// A verified request, owned, on its way to an agent.
#[derive(Debug, Clone)]
pub struct Called {
    pub agent: String,
    pub action: String,
    /// One JSON object.
    pub data: Vec<u8>,
    pub caller: String,
    pub request_id: String,
    pub sender: String,
    pub collective: String,
    pub ttl_seconds: u32,
    pub time_nanos: i64,
    pub caller_token: String,
    pub signer_token: String,
    /// The request's filter, a JSON object, or empty.
    pub filter: Vec<u8>,
}

impl Called {
    pub(super) fn of(call: &Call<'_>, filter: &[u8]) -> Called {
        Called {
            agent: call.agent.to_owned(),
            action: call.action.to_owned(),
            data: call.data.to_vec(),
            caller: call.caller.to_owned(),
            request_id: call.request_id.to_owned(),
            sender: call.sender.to_owned(),
            collective: call.collective.to_owned(),
            ttl_seconds: call.ttl_seconds,
            time_nanos: call.time_nanos,
            caller_token: call.caller_token.to_owned(),
            signer_token: call.signer_token.to_owned(),
            filter: filter.to_vec(),
        }
    }

    /// As agents take it.
    #[must_use]
    pub fn as_call(&self) -> Call<'_> {
        Call {
            agent: &self.agent,
            action: &self.action,
            data: &self.data,
            caller: &self.caller,
            request_id: &self.request_id,
            sender: &self.sender,
            collective: &self.collective,
            ttl_seconds: self.ttl_seconds,
            time_nanos: self.time_nanos,
            caller_token: &self.caller_token,
            signer_token: &self.signer_token,
        }
    }
}

/// What an agent answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: StatusCode,
    pub text: String,
    /// One JSON object.
    pub data: Vec<u8>,
    /// Nothing may be sent.
    pub silent: bool,
    /// Publish the `provisioned` life-cycle event.
    pub announce_provisioned: bool,
    /// To be done once the reply is on the wire.
    pub after: Option<After>,
}

impl Answer {
    #[must_use]
    pub fn status(code: StatusCode, text: impl Into<String>) -> Answer {
        Answer {
            code,
            text: text.into(),
            data: b"{}".to_vec(),
            silent: false,
            announce_provisioned: false,
            after: None,
        }
    }
}

/// What happened on the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice<'n> {
    /// Connected, authenticated and subscribed.
    Connected {
        broker: &'n str,
    },
    Disconnected {
        reason: &'static str,
    },
    /// A message was dropped.
    Refused {
        reason: &'static str,
    },
    /// After each batch of work.
    Counted {
        counters: &'n Counters,
        sent_bytes: u64,
        received_bytes: u64,
    },
}

/// The node behind a connection.
pub trait Host {
    /// The agents on air, `discovery` among them. New ones come at the end; see [`super::Command::AgentsChanged`].
    fn agents(&self) -> Vec<AgentEntry>;

    /// Verifies callers and evaluates filters. Asked once.
    fn gate(&self) -> Box<dyn Gate + '_>;

    /// Reads token and seed. The error is one sentence for the log.
    fn credentials(&self) -> Result<Held, String>;

    /// Authorizes, records and runs a request.
    fn call(self: Rc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answer>>>;

    fn notice(&self, notice: Notice<'_>);
}
