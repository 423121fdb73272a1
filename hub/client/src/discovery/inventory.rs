//! Nodes from an inventory file, matched here with the code that nodes use (docs/spec/07 §6.2).

use std::path::Path;

use agent_core::filter::{self as core_filter, Matcher, NoExpressions};
use choria_protocol::{Filter, parse_fact_filter};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Discovered;
use super::flatfile::{read, unreadable};
use crate::ClientError;

const SCHEMA: &str = "https://choria.io/schemas/choria/discovery/v1/inventory_file.json";

/// Room to unescape filter texts in.
const SCRATCH: usize = 16 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inventory {
    #[serde(rename = "$schema")]
    schema: String,
    #[serde(default)]
    groups: Vec<Group>,
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    #[serde(default)]
    filter: GroupFilter,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GroupFilter {
    agents: Vec<String>,
    classes: Vec<String>,
    facts: Vec<String>,
    identities: Vec<String>,
    compound: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    name: String,
    collectives: Vec<String>,
    facts: Map<String, Value>,
    classes: Vec<String>,
    agents: Vec<String>,
}

/// Reads an inventory (YAML, of which JSON is a part) and finds the nodes of a collective that match.
///
/// `group:NAME` as an identity selects a group of the file; several groups unite, and nothing else may be mixed in.
pub fn from_file(file: &Path, collective: &str, filter: &Filter) -> Result<Discovered, ClientError> {
    from_text(&read(file)?, collective, filter)
}

fn from_text(text: &str, collective: &str, filter: &Filter) -> Result<Discovered, ClientError> {
    let inventory: Inventory = serde_saphyr::from_str(text).map_err(|e| unreadable(&e))?;
    if inventory.schema != SCHEMA {
        return Err(ClientError::Discovery(format!("the inventory must have $schema {SCHEMA}")));
    }
    if let Some(bad) = inventory.nodes.iter().find(|node| !choria_token::names::valid_identity(&node.name)) {
        return Err(ClientError::Discovery(format!(
            "invalid identity string \"{}\"",
            bad.name.escape_default()
        )));
    }
    let groups: Vec<&str> = filter.identity.iter().filter_map(|name| name.strip_prefix("group:")).collect();
    let filters = if groups.is_empty() {
        vec![filter.clone()]
    } else {
        let only_groups = groups.len() == filter.identity.len()
            && filter.fact.is_empty()
            && filter.cf_class.is_empty()
            && filter.compound.is_empty();
        if !only_groups {
            return Err(ClientError::Discovery(
                "groups of an inventory cannot be mixed with other filters".to_owned(),
            ));
        }
        groups.iter().map(|name| inventory.group(name, &filter.agent)).collect::<Result<Vec<_>, _>>()?
    };
    let filters = filters.iter().map(Prepared::new).collect::<Result<Vec<_>, _>>()?;
    let mut scratch = vec![0; SCRATCH];
    let mut found = Vec::new();
    for node in inventory.nodes.iter().filter(|node| node.collectives.iter().any(|name| name == collective)) {
        let facts = serde_json::to_vec(&node.facts).map_err(|e| unreadable(&e))?;
        let (agents, classes) = (node.agents.as_slice(), node.classes.as_slice());
        let view =
            core_filter::Node { identity: &node.name, agents: &agents, classes: &classes, facts: &facts };
        if filters.iter().any(|filter| filter.matches(&view, &mut scratch)) {
            found.push(node.name.clone());
        }
    }
    Ok(Discovered::unasked(found))
}

impl Inventory {
    fn group(&self, name: &str, agents: &[String]) -> Result<Filter, ClientError> {
        let group = self
            .groups
            .iter()
            .find(|group| group.name == name)
            .ok_or_else(|| ClientError::Discovery(format!("the inventory has no group '{name}'")))?;
        let mut filter = Filter::default();
        for fact in &group.filter.facts {
            filter.add_fact(parse_fact_filter(fact)?);
        }
        group.filter.classes.iter().for_each(|class| filter.add_class(class));
        group.filter.agents.iter().chain(agents).for_each(|agent| filter.add_agent(agent));
        group.filter.identities.iter().for_each(|identity| filter.add_identity(identity));
        filter.add_compound(&group.filter.compound);
        Ok(filter)
    }
}

/// A filter in the form that the nodes' code reads.
struct Prepared(Vec<u8>);

impl Prepared {
    fn new(filter: &Filter) -> Result<Self, ClientError> {
        if !filter.compound.is_empty() {
            return Err(ClientError::Discovery(
                "expressions (-S) are evaluated by nodes; use the broadcast method with them".to_owned(),
            ));
        }
        serde_json::to_vec(filter).map(Self).map_err(|e| unreadable(&e))
    }

    fn matches(&self, node: &core_filter::Node<'_>, scratch: &mut [u8]) -> bool {
        core_filter::Filter::parse(&self.0)
            .is_ok_and(|filter| filter.matches(node, &Re2, &NoExpressions, scratch))
    }
}

struct Re2;

impl Matcher for Re2 {
    const SUPPORTED: bool = true;

    fn matches(&self, pattern: &str, ignore_case: bool, text: &str) -> Option<bool> {
        let regex = regex::RegexBuilder::new(pattern)
            .case_insensitive(ignore_case)
            .size_limit(64 * 1024)
            .build()
            .ok()?;
        Some(regex.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
$schema: https://choria.io/schemas/choria/discovery/v1/inventory_file.json
groups:
  - name: web
    filter: {classes: [role::web], facts: ["cpus>=4"]}
  - name: named
    filter: {identities: [db1.example.net]}
nodes:
  - {name: web1.example.net, collectives: [choria], facts: {cpus: 8, os: {family: Debian}}, classes: [role::web], agents: [rpcutil]}
  - {name: web2.example.net, collectives: [choria], facts: {cpus: 2, os: {family: Debian}}, classes: [role::web], agents: [rpcutil]}
  - {name: db1.example.net, collectives: [choria], facts: {cpus: 16, os: {family: RedHat}}, classes: [role::db], agents: [rpcutil]}
  - {name: other.example.net, collectives: [edge], facts: {cpus: 16}, classes: [role::web], agents: [rpcutil]}
"#;

    fn find(change: impl FnOnce(&mut Filter)) -> Result<Vec<String>, ClientError> {
        let mut filter = Filter::default();
        change(&mut filter);
        from_text(FILE, "choria", &filter).map(|found| found.identities())
    }

    #[test]
    fn filters_match_as_on_nodes() {
        assert_eq!(find(|_| {}).unwrap().len(), 3);
        assert_eq!(find(|f| f.add_class("/WEB/")).unwrap(), ["web1.example.net", "web2.example.net"]);
        assert_eq!(
            find(|f| f.add_fact(parse_fact_filter("os.family=redhat").unwrap())).unwrap(),
            ["db1.example.net"]
        );
        assert_eq!(find(|f| f.add_identity("/^db/")).unwrap(), ["db1.example.net"]);
        assert_eq!(find(|f| f.add_agent("absent")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn groups_unite_and_do_not_mix() {
        assert_eq!(find(|f| f.add_identity("group:web")).unwrap(), ["web1.example.net"]);
        let both = |f: &mut Filter| {
            f.add_identity("group:web");
            f.add_identity("group:named");
        };
        assert_eq!(find(both).unwrap(), ["web1.example.net", "db1.example.net"]);
        assert!(find(|f| f.add_identity("group:nope")).is_err());
        assert!(
            find(|f| {
                f.add_identity("group:web");
                f.add_class("x");
            })
            .is_err()
        );
        assert!(find(|f| f.add_compound("true")).is_err());
    }

    #[test]
    fn other_documents_are_refused() {
        for bad in ["", "[]", "nodes: []", "$schema: x\nnodes: []", "$schema: x\nnodes: []\nextra: 1"] {
            assert!(from_text(bad, "choria", &Filter::default()).is_err(), "{bad}");
        }
    }
}
