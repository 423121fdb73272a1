//! Agent `choria_util`: how this node is connected, and its autonomous agents (docs/spec/03 §7.2).
//!
//! This build runs no autonomous agents, so every question about them finds none.

use agent_core::json::Object;
use agent_core::rpc::{Agent, AgentMeta, Call, ReplyWriter, Status, StatusCode};

use crate::VERSION;
use crate::broker_target::Targets;
use crate::node::Node;

/// One call's view of the node.
#[derive(Debug)]
pub struct ChoriaUtil<'n> {
    pub node: &'n Node,
}

impl Agent for ChoriaUtil<'_> {
    const META: AgentMeta = super::meta("choria_util", "Node runtime and autonomous agent inspection", 10);

    async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
        match call.action {
            "info" => self.info(out),
            "machine_states" => {
                out.array("machine_ids");
                out.end();
                out.array("machine_names");
                out.end();
                out.object("states");
                out.end();
            }
            "machine_state" => return no_machine(&call, &["instance", "name", "path"]),
            "machine_transition" => {
                out.bool("success", false);
                return no_machine(&call, &["instance", "version", "name", "path"]);
            }
            other => return out.unknown_action(Self::META.name, other),
        }
        Status::ok()
    }
}

fn no_machine(call: &Call<'_>, criteria: &[&str]) -> Status {
    let Ok(args) = Object::parse(call.data) else {
        return Status::fixed(StatusCode::InvalidData, "Validation failed: the inputs cannot be read");
    };
    let given = |name: &&str| {
        let text = args.get(name).ok().flatten().and_then(|value| value.as_text());
        text.is_some_and(|text| !text.raw().is_empty())
    };
    if criteria.iter().any(given) {
        Status::aborted("No running machines")
    } else {
        Status::aborted("No search criteria given")
    }
}

impl ChoriaUtil<'_> {
    fn info(&self, out: &mut ReplyWriter<'_>) {
        let config = &self.node.config;
        let live = self.node.live();
        let (servers, srv) = match &config.targets {
            Targets::Brokers(brokers) => (brokers.as_slice(), false),
            Targets::Srv { .. } => (&[][..], true),
        };
        out.str("security", "choria");
        out.str("connector", "choria");
        out.str("client_version", VERSION);
        out.str("client_flavour", "rust");
        out.object("client_options");
        out.array("servers");
        for broker in servers {
            out.text("", format_args!("{broker}"));
        }
        out.end();
        out.bool("dont_randomize_servers", false);
        out.str("name", &config.identity);
        out.bool("pedantic", false);
        out.bool("secure", true);
        out.bool("allow_reconnect", true);
        out.int("max_reconnect_attempts", -1);
        out.uint("reconnect_time_wait", 0);
        out.uint("connect_timeout", config.connect_timeout.as_secs());
        out.uint("ping_interval", 120);
        out.uint("max_outstanding_pings", 2);
        out.end();
        out.object("client_stats");
        out.uint("in_msgs", live.traffic.in_messages);
        out.uint("out_msgs", live.traffic.out_messages);
        out.uint("in_bytes", live.traffic.in_bytes);
        out.uint("out_bytes", live.traffic.out_bytes);
        out.uint("reconnects", live.traffic.reconnects);
        out.end();
        out.str("connected_server", &live.connected_server);
        out.str("facter_domain", "");
        out.str("facter_command", "");
        out.str("srv_domain", config.settings.get("plugin.choria.srv_domain").unwrap_or_default());
        out.bool("using_srv", srv);
        out.array("middleware_servers");
        for broker in servers {
            out.text("", format_args!("{}:{}", broker.host, broker.port));
        }
        out.end();
        out.str("path", &std::env::var("PATH").unwrap_or_default());
        out.text("choria_version", format_args!("choria {VERSION}"));
        out.bool("secure_protocol", !self.node.is_provisioning());
        out.bool("connector_tls", true);
    }
}
