//! Agent `rpcutil` of a device: who it is and what it has (docs/spec/03 §7.1).

use agent_core::json::path::{Found, lookup};
use agent_core::json::{Kind, Object};
use agent_core::rpc::{AgentMeta, Call, ReplyWriter, Status, StatusCode};

use super::About;
use crate::board::Board;

pub(crate) const META: AgentMeta = super::meta("rpcutil", "Node inspection and inventory", 2);

const BAD_DATA: Status =
    Status::fixed(StatusCode::InvalidData, "Validation failed: the inputs cannot be read");
/// Room for the facts.
const FACTS: usize = 384;

pub(crate) fn handle<B: Board>(about: &About<'_, B>, call: &Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
    match call.action {
        "ping" => out.int("pong", about.wall_nanos.unwrap_or(0).div_euclid(1_000_000_000)),
        "get_fact" => return get_fact(about, call, out),
        "agent_inventory" => agent_inventory(about, out),
        "collective_info" => collectives(about, out),
        "daemon_stats" => daemon_stats(about, out),
        "inventory" => inventory(about, out),
        other => return out.unknown_action(META.name, other),
    }
    Status::ok()
}

fn get_fact<B: Board>(about: &About<'_, B>, call: &Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
    let Ok(args) = Object::parse(call.data) else { return BAD_DATA };
    let mut room = [0_u8; 128];
    let fact = match args.str("fact", &mut room) {
        Ok(Some(fact)) if !fact.is_empty() => fact,
        Ok(_) => {
            return Status::fixed(StatusCode::InvalidData, "Validation failed: input 'fact' is required");
        }
        Err(_) => return BAD_DATA,
    };
    let mut facts = [0_u8; FACTS];
    let mut writer = ReplyWriter::new(&mut facts);
    about.board.facts(&mut writer);
    let facts = writer.finish(Status::ok()).data;
    out.str("fact", fact);
    match lookup(facts, fact) {
        Some(Found::Value(value)) if value.kind() != Kind::Null => out.raw("value", value.raw()),
        Some(Found::Count(count)) => out.uint("value", count),
        _ => out.null("value"),
    }
    Status::ok()
}

fn agent_inventory<B>(about: &About<'_, B>, out: &mut ReplyWriter<'_>) {
    out.array("agents");
    for agent in about.metas() {
        out.object("");
        for name in ["agent", "name"] {
            out.str(name, agent.name);
        }
        out.str("license", agent.license);
        out.str("author", agent.author);
        out.uint("timeout", u64::from(agent.timeout_seconds));
        out.str("version", agent.version);
        out.str("url", agent.url);
        out.str("description", agent.description);
        out.end();
    }
    out.end();
}

fn agent_names<B>(about: &About<'_, B>, out: &mut ReplyWriter<'_>) {
    out.array("agents");
    for agent in about.metas() {
        out.str("", agent.name);
    }
    out.end();
}

fn collectives<B>(about: &About<'_, B>, out: &mut ReplyWriter<'_>) {
    out.str("main_collective", about.main_collective);
    out.array("collectives");
    for collective in about.collectives {
        out.str("", collective);
    }
    out.end();
}

fn daemon_stats<B: Board>(about: &About<'_, B>, out: &mut ReplyWriter<'_>) {
    out.array("threads");
    out.end();
    agent_names(about, out);
    out.uint("pid", 0);
    out.object("times");
    out.end();
    let counters = &about.counters;
    out.uint("validated", counters.validated);
    out.uint("unvalidated", counters.unvalidated);
    out.uint("passed", counters.passed);
    out.uint("filtered", counters.filtered);
    let now = about.wall_nanos.unwrap_or(0).div_euclid(1_000_000_000);
    out.int("starttime", now.saturating_sub(i64::try_from(about.uptime).unwrap_or(0)));
    out.uint("total", counters.total);
    out.uint("replies", counters.replies);
    out.str("configfile", "flash");
    out.str("version", crate::VERSION);
    out.uint("ttlexpired", counters.ttl_expired);
    out.uint("events", counters.events);
}

fn inventory<B: Board>(about: &About<'_, B>, out: &mut ReplyWriter<'_>) {
    agent_names(about, out);
    for empty in ["classes", "data_plugins", "machines"] {
        out.array(empty);
        out.end();
    }
    collectives(about, out);
    out.object("facts");
    about.board.facts(out);
    out.object("agent_core");
    out.uint("rx_limit", crate::PROFILE.payload() as u64);
    out.str("profile", crate::PROFILE.name);
    out.end();
    out.end();
    out.str("version", crate::VERSION);
    out.bool("upgradable", false);
}
