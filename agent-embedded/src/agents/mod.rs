//! Agents on a device: the built-in ones, and a user's own.
//!
//! ```
//! use agent_core::rpc::{Agent, AgentMeta, Call, ReplyWriter, Status};
//!
//! struct Blink;
//!
//! impl Agent for Blink {
//!     const META: AgentMeta = agent_embedded::agents::meta("blink", "A light", 2);
//!     async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
//!         match call.action {
//!             "on" => out.bool("on", true),
//!             other => return out.unknown_action("blink", other),
//!         }
//!         Status::ok()
//!     }
//! }
//!
//! agent_embedded::agents! {
//!     struct Mine { blink: Blink }
//! }
//! ```

pub(crate) mod choria_util;
pub(crate) mod rpcutil;

use agent_core::rpc::{AgentMeta, Call, ReplyWriter, Status};

/// The agents a device has beside the built-in ones; made by [`agents!`](crate::agents).
pub trait Agents {
    /// In the order in which they are announced.
    const METAS: &'static [AgentMeta];

    /// Runs a call of one of them.
    #[allow(async_fn_in_trait, reason = "one executor, no Send bound")]
    async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status;
}

/// No agents but the built-in ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAgents;

impl Agents for NoAgents {
    const METAS: &'static [AgentMeta] = &[];

    async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
        out.unknown_action(call.agent, call.action)
    }
}

/// A set of agents as one type: `agents! { struct Mine { blink: Blink, door: Door } }`.
#[macro_export]
macro_rules! agents {
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident { $($field:ident: $agent:ty),+ $(,)? }) => {
        $(#[$attribute])*
        $visibility struct $name { $(pub $field: $agent),+ }

        impl $crate::agents::Agents for $name {
            const METAS: &'static [::agent_core::rpc::AgentMeta] =
                &[$(<$agent as ::agent_core::rpc::Agent>::META),+];

            async fn handle(
                &mut self,
                call: ::agent_core::rpc::Call<'_>,
                out: &mut ::agent_core::rpc::ReplyWriter<'_>,
            ) -> ::agent_core::rpc::Status {
                $(if call.agent == <$agent as ::agent_core::rpc::Agent>::META.name {
                    return ::agent_core::rpc::Agent::handle(&mut self.$field, call, out).await;
                })+
                out.unknown_action(call.agent, call.action)
            }
        }
    };
}

/// Metadata of an agent of this project, to be copied with a name of one's own.
pub const fn meta(name: &'static str, description: &'static str, timeout_seconds: u32) -> AgentMeta {
    AgentMeta {
        name,
        description,
        author: "The project's authors",
        license: "Apache-2.0",
        version: crate::VERSION,
        url: "https://choria.io",
        timeout_seconds,
        service: false,
    }
}

/// `discovery` is answered by the connection itself.
pub(crate) const DISCOVERY: AgentMeta = meta("discovery", "Answers who is there", 2);

/// What the built-in agents show of the device.
pub(crate) struct About<'a, B> {
    pub(crate) board: &'a B,
    pub(crate) collectives: &'a [&'a str],
    pub(crate) main_collective: &'a str,
    /// A user's own agents.
    pub(crate) own: &'static [AgentMeta],
    pub(crate) counters: agent_core::dispatch::Counters,
    pub(crate) member: bool,
    pub(crate) broker: &'a str,
    /// Seconds since the start.
    pub(crate) uptime: u64,
    /// Unix nanoseconds, `None` without a clock.
    pub(crate) wall_nanos: Option<i64>,
}

/// The agents that every device has, `discovery` first.
pub(crate) const BUILT_IN: [AgentMeta; 4] =
    [DISCOVERY, rpcutil::META, choria_util::META, agent_core::provision::META];

impl<B> About<'_, B> {
    /// The agents on air. A candidate shows what its provisioner needs; a user's come with membership.
    pub(crate) fn metas(&self) -> impl Iterator<Item = &'static AgentMeta> {
        let own = if self.member { self.own } else { &[] };
        BUILT_IN.iter().chain(own)
    }
}
