//! Agent `choria_util` of a device: how it is connected (docs/spec/03 §7.2). It runs no autonomous agents.

use agent_core::rpc::{AgentMeta, Call, ReplyWriter, Status};

use super::About;

pub(crate) const META: AgentMeta =
    super::meta("choria_util", "Node runtime and autonomous agent inspection", 10);

pub(crate) fn handle<B>(about: &About<'_, B>, call: &Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
    match call.action {
        "info" => info(about, out),
        "machine_states" => {
            for empty in ["machine_ids", "machine_names"] {
                out.array(empty);
                out.end();
            }
            out.object("states");
            out.end();
        }
        "machine_state" | "machine_transition" => return Status::aborted("No running machines"),
        other => return out.unknown_action(META.name, other),
    }
    Status::ok()
}

fn info<B>(about: &About<'_, B>, out: &mut ReplyWriter<'_>) {
    out.str("security", "choria");
    out.str("connector", "choria");
    out.str("client_version", crate::VERSION);
    out.str("client_flavour", "rust embedded");
    for empty in ["client_options", "client_stats"] {
        out.object(empty);
        out.end();
    }
    out.str("connected_server", about.broker);
    for absent in ["facter_domain", "facter_command", "srv_domain", "path"] {
        out.str(absent, "");
    }
    out.bool("using_srv", false);
    out.array("middleware_servers");
    out.str("", about.broker);
    out.end();
    out.text("choria_version", format_args!("choria {}", crate::VERSION));
    out.bool("secure_protocol", about.member);
    out.bool("connector_tls", true);
}
