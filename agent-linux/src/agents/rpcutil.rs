//! Agent `rpcutil`: inspection and inventory (docs/spec/03 §7.1).

use agent_core::json::path::{Found, lookup};
use agent_core::json::{Kind, Object};
use agent_core::rpc::{Agent, AgentMeta, Call, ReplyWriter, Status, StatusCode};

use crate::VERSION;
use crate::node::Node;
use crate::redaction;

/// Most facts of one `get_facts`.
const MAX_FACTS: usize = 100;

/// One call's view of the node.
#[derive(Debug)]
pub struct RpcUtil<'n> {
    pub node: &'n Node,
}

const BAD_DATA: Status =
    Status::fixed(StatusCode::InvalidData, "Validation failed: the inputs cannot be read");

impl Agent for RpcUtil<'_> {
    const META: AgentMeta = super::meta("rpcutil", "Node inspection and inventory", 2);

    async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
        let Ok(args) = Object::parse(call.data) else { return BAD_DATA };
        match call.action {
            "ping" => out.int("pong", choria_host::clock::unix_seconds()),
            "get_fact" => return self.get_fact(&args, out),
            "get_facts" => return self.get_facts(&args, out),
            "get_config_item" => return self.get_config_item(&args, out),
            "get_data" => return self.get_data(&args, out),
            "agent_inventory" => self.agent_inventory(out),
            "collective_info" => self.collectives(out),
            "daemon_stats" => self.daemon_stats(out),
            "inventory" => self.inventory(out),
            other => return out.unknown_action(Self::META.name, other),
        }
        Status::ok()
    }
}

/// A required text input of at most `limit` characters, or the status that refuses the call.
fn required<'s>(
    args: &Object<'s>,
    name: &'static str,
    limit: usize,
    scratch: &'s mut [u8],
    out: &mut ReplyWriter<'_>,
) -> Result<&'s str, Status> {
    match args.str(name, scratch) {
        Ok(Some(text)) if !text.is_empty() && text.chars().count() <= limit => Ok(text),
        Ok(Some(text)) if !text.is_empty() => Err(out.fail(
            StatusCode::InvalidData,
            format_args!("Validation failed: input '{name}' is longer than {limit} characters"),
        )),
        Ok(_) => {
            Err(out
                .fail(StatusCode::InvalidData, format_args!("Validation failed: input '{name}' is required")))
        }
        Err(_) => Err(BAD_DATA),
    }
}

impl RpcUtil<'_> {
    fn get_fact(&self, args: &Object<'_>, out: &mut ReplyWriter<'_>) -> Status {
        let mut scratch = [0u8; 2048];
        let fact = match required(args, "fact", 512, &mut scratch, out) {
            Ok(fact) => fact,
            Err(status) => return status,
        };
        let facts = self.node.facts();
        out.str("fact", fact);
        write_fact(out, "value", &facts, fact);
        Status::ok()
    }

    fn get_facts(&self, args: &Object<'_>, out: &mut ReplyWriter<'_>) -> Status {
        let mut scratch = [0u8; 1024];
        let names = match required(args, "facts", 200, &mut scratch, out) {
            Ok(names) => names,
            Err(status) => return status,
        };
        let facts = self.node.facts();
        let mut seen: Vec<&str> = Vec::new();
        out.object("values");
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()).take(MAX_FACTS) {
            if !seen.contains(&name) {
                write_fact(out, name, &facts, name);
                seen.push(name);
            }
        }
        out.end();
        Status::ok()
    }

    fn get_config_item(&self, args: &Object<'_>, out: &mut ReplyWriter<'_>) -> Status {
        let mut scratch = [0u8; 1024];
        let item = match required(args, "item", 120, &mut scratch, out) {
            Ok(item) => item,
            Err(status) => return status,
        };
        // A secret reads as absent here and everywhere else (docs/spec/10 N12).
        let value = self.node.config.settings.get(item).filter(|_| !redaction::is_secret_name(item));
        let Some(value) = value else { return Status::aborted("Unknown key") };
        out.str("item", item);
        out.str("value", value);
        Status::ok()
    }

    fn get_data(&self, args: &Object<'_>, out: &mut ReplyWriter<'_>) -> Status {
        let mut scratch = [0u8; 512];
        let source = match required(args, "source", 50, &mut scratch, out) {
            Ok(source) => source,
            Err(status) => return status,
        };
        if self.node.is_provisioning() {
            return Status::aborted("Could not load data sources");
        }
        let mut scratch = [0u8; 1024];
        let query = match args.str("query", &mut scratch) {
            Ok(query) => query.unwrap_or_default(),
            Err(_) => return BAD_DATA,
        };
        match source {
            "config_item" => {
                let value =
                    self.node.config.settings.get(query).filter(|_| !redaction::is_secret_name(query));
                out.bool("present", value.is_some());
                match value {
                    Some(value) => out.str("value", value),
                    None => out.null("value"),
                }
            }
            "choria" => self.choria_data(out),
            _ => return Status::aborted("Unknown data plugin"),
        }
        Status::ok()
    }

    fn choria_data(&self, out: &mut ReplyWriter<'_>) {
        let live = self.node.live();
        self.agent_names(out);
        out.uint("agents_count", self.node.agents().len() as u64);
        self.classes(out);
        out.uint("classes_count", self.node.classes().len() as u64);
        out.text("configfile", format_args!("{}", self.node.config.path.display()));
        out.str("connected_broker", &live.connected_server);
        out.uint("filtered", live.counters.filtered);
        out.str("license", "Apache-2.0");
        out.array("machines");
        out.end();
        out.uint("machines_count", 0);
        out.uint("passed", live.counters.passed);
        out.uint("pid", u64::from(std::process::id()));
        out.bool("provisioning", self.node.is_provisioning());
        out.uint("replies", live.counters.replies);
        out.uint("total", live.counters.total);
        out.uint("ttlexpired", live.counters.ttlexpired);
        out.uint("events", live.counters.events);
        out.uint("unvalidated", live.counters.invalid);
        out.uint("uptime", self.node.uptime_seconds());
        out.uint("validated", live.counters.valid);
        out.str("version", VERSION);
    }

    fn agent_inventory(&self, out: &mut ReplyWriter<'_>) {
        out.array("agents");
        for agent in self.node.agents() {
            out.object("");
            out.str("agent", agent.name);
            out.str("license", agent.license);
            out.str("author", agent.author);
            out.uint("timeout", u64::from(agent.timeout_seconds));
            out.str("name", agent.name);
            out.str("version", agent.version);
            out.str("url", agent.url);
            out.str("description", agent.description);
            if agent.service {
                out.bool("service", true);
            }
            out.end();
        }
        out.end();
    }

    fn collectives(&self, out: &mut ReplyWriter<'_>) {
        out.str("main_collective", &self.node.config.main_collective);
        out.array("collectives");
        for collective in &self.node.config.collectives {
            out.str("", collective);
        }
        out.end();
    }

    fn agent_names(&self, out: &mut ReplyWriter<'_>) {
        out.array("agents");
        for agent in self.node.agents() {
            out.str("", agent.name);
        }
        out.end();
    }

    fn classes(&self, out: &mut ReplyWriter<'_>) {
        out.array("classes");
        for class in self.node.classes().iter() {
            out.str("", class);
        }
        out.end();
    }

    fn daemon_stats(&self, out: &mut ReplyWriter<'_>) {
        let live = self.node.live();
        out.array("threads");
        out.end();
        self.agent_names(out);
        out.uint("pid", u64::from(std::process::id()));
        out.object("times");
        for name in ["cstime", "cutime", "stime", "utime"] {
            out.uint(name, 0);
        }
        out.end();
        out.uint("validated", live.counters.valid);
        out.uint("unvalidated", live.counters.invalid);
        out.uint("passed", live.counters.passed);
        out.uint("filtered", live.counters.filtered);
        out.int("starttime", self.node.started);
        out.uint("total", live.counters.total);
        out.uint("replies", live.counters.replies);
        out.text("configfile", format_args!("{}", self.node.config.path.display()));
        out.str("version", VERSION);
        out.uint("ttlexpired", live.counters.ttlexpired);
        out.uint("events", live.counters.events);
    }

    fn inventory(&self, out: &mut ReplyWriter<'_>) {
        self.agent_names(out);
        self.classes(out);
        self.collectives(out);
        out.array("data_plugins");
        if !self.node.is_provisioning() {
            out.str("", "choria");
            out.str("", "config_item");
        }
        out.end();
        out.raw("facts", &self.node.facts());
        out.array("machines");
        out.end();
        out.str("version", VERSION);
        out.bool("upgradable", false);
    }
}

/// The value of a fact path, `null` where it leads nowhere.
fn write_fact(out: &mut ReplyWriter<'_>, name: &str, facts: &[u8], path: &str) {
    match lookup(facts, path) {
        Some(Found::Value(value)) if value.kind() != Kind::Null => out.raw(name, value.raw()),
        Some(Found::Count(count)) => out.uint(name, count),
        _ => out.null(name),
    }
}
