//! The built-in agents (docs/spec/03 §7). Each is a thin view of the [`Node`] that answers one call.

mod choria_util;
mod provision;
mod rpcutil;

use agent_core::rpc::AgentMeta;

use crate::VERSION;

pub use choria_util::ChoriaUtil;
pub use provision::ProvisionAgent;
pub use rpcutil::RpcUtil;

const AUTHOR: &str = "The project's authors";
const LICENSE: &str = "Apache-2.0";
const URL: &str = "https://choria.io";

const fn meta(name: &'static str, description: &'static str, timeout_seconds: u32) -> AgentMeta {
    AgentMeta {
        name,
        description,
        author: AUTHOR,
        license: LICENSE,
        version: VERSION,
        url: URL,
        timeout_seconds,
        service: false,
    }
}

/// `discovery` is no RPC agent: a payload with `ping` is answered with `pong`, by the connection itself.
pub const DISCOVERY: AgentMeta = meta("discovery", "Answers who is there", 2);

/// The built-in agents on air, sorted by name. `choria_provision` is there whenever a provisioning token is at
/// hand, also on a provisioned node (docs/spec/04 §3).
pub fn on_air(provisioning_supported: bool) -> Vec<AgentMeta> {
    use agent_core::rpc::Agent;
    let mut agents = vec![ChoriaUtil::META, DISCOVERY, RpcUtil::META];
    if provisioning_supported {
        agents.push(agent_core::provision::META);
    }
    agents.sort_by_key(|agent| agent.name);
    agents
}
