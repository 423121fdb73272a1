//! The builtin helper: rules in the configuration instead of a program (decision D10).
//!
//! ```yaml
//! helper: builtin
//! builtin:
//!   configuration:
//!     plugin.choria.middleware_hosts: nats://hub.example.net:4222
//!   server_claims:
//!     validity: 90d
//!   match:
//!     - identity: "db*.example.net"
//!       fact: { role: database }
//!       configuration: { collectives: "choria,db" }
//!     - identity: "*.example.net"
//! ```
//!
//! The first rule whose conditions all hold decides; a node that meets none is deferred. Facts, and the name itself,
//! are what the node says about itself: a rule on them sorts nodes, it does not authenticate them.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::helper::{HelperReply, HelperRequest, RequestedClaims, check_line};

/// Longest text that a placeholder may insert.
const MAX_INSERTED: usize = 256;

/// Longest fact path and most steps in one, as everywhere in this project.
const MAX_PATH: (usize, usize) = (1024, 64);

/// The section `builtin` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuiltinFile {
    configuration: BTreeMap<String, String>,
    server_claims: RequestedClaims,
    #[serde(rename = "match")]
    rules: Vec<RuleFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleFile {
    identity: Option<String>,
    ou: Option<String>,
    fact: BTreeMap<String, String>,
    configuration: BTreeMap<String, String>,
    server_claims: RequestedClaims,
    defer: bool,
    shutdown: bool,
    msg: String,
}

/// Why the section was refused.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    #[error(
        "`match` is empty, so no node would ever be accepted; a rule `- identity: \"*\"` accepts every name"
    )]
    NoRules,
    #[error("rule {0} of `match` has no condition; give it `identity`, `ou` or `fact`")]
    NoCondition(usize),
    #[error("rule {rule} of `match`: `{text}` is not a pattern: {source}")]
    Pattern { rule: usize, text: String, source: regex::Error },
    #[error(
        "`{key}`: `{{{name}}}` is not a placeholder; there are {{identity}}, {{ou}}, {{directory}} and {{fact:path}}, and `{{{{` is a brace"
    )]
    Placeholder { key: String, name: String },
    #[error("`{0}` has a `{{` that is never closed; write `{{{{` for a brace")]
    Unclosed(String),
    #[error("{0}")]
    Line(#[from] crate::helper::LineError),
}

/// The rules, ready to decide.
#[derive(Debug)]
pub struct Builtin {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    identity: Option<Regex>,
    ou: Option<Regex>,
    facts: Vec<(String, Regex)>,
    configuration: BTreeMap<String, Vec<Piece>>,
    claims: RequestedClaims,
    defer: bool,
    shutdown: bool,
    msg: String,
}

/// A configuration value, taken apart at its placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Identity,
    Organization,
    Directory,
    Fact(String),
}

impl Builtin {
    /// Checks the section: patterns compile, placeholders exist, every rule has a condition.
    pub fn build(file: BuiltinFile) -> Result<Builtin, BuiltinError> {
        if file.rules.is_empty() {
            return Err(BuiltinError::NoRules);
        }
        let mut base = defaults();
        base.extend(pieces(&file.configuration)?);
        let mut rules = Vec::with_capacity(file.rules.len());
        for (index, rule) in file.rules.into_iter().enumerate() {
            rules.push(Rule::build(index + 1, rule, &base, &file.server_claims)?);
        }
        Ok(Builtin { rules })
    }

    /// What becomes of a node. Never fails: what cannot be decided is a deferral with its reason in `msg`.
    pub fn decide(&self, request: &HelperRequest) -> HelperReply {
        let inventory: Value = serde_json::from_str(&request.inventory).unwrap_or(Value::Null);
        let node = Node {
            identity: &request.identity,
            ou: request
                .jwt
                .as_ref()
                .and_then(|claims| claims.get("ou"))
                .and_then(Value::as_str)
                .unwrap_or("choria"),
            directory: request.ed25519_pubkey.as_ref().map(|key| key.directory.as_str()),
            facts: inventory.get("facts").unwrap_or(&Value::Null),
        };
        match self.rules.iter().find(|rule| rule.matches(&node)) {
            None => deferred("no rule of `builtin.match` accepts this node".to_string()),
            Some(rule) => rule.apply(&node),
        }
    }
}

/// What every node needs to come back as a member; the configuration may override each.
fn defaults() -> BTreeMap<String, Vec<Piece>> {
    let text = |text: &str| Piece::Text(text.to_string());
    BTreeMap::from([
        ("identity".to_string(), vec![Piece::Identity]),
        ("plugin.choria.server.provision".to_string(), vec![text("false")]),
        ("plugin.security.provider".to_string(), vec![text("choria")]),
        ("plugin.security.choria.seed_file".to_string(), vec![Piece::Directory, text("/server.seed")]),
        ("plugin.security.choria.token_file".to_string(), vec![Piece::Directory, text("/server.jwt")]),
    ])
}

struct Node<'a> {
    identity: &'a str,
    ou: &'a str,
    directory: Option<&'a str>,
    facts: &'a Value,
}

impl Rule {
    fn build(
        number: usize,
        file: RuleFile,
        base: &BTreeMap<String, Vec<Piece>>,
        claims: &RequestedClaims,
    ) -> Result<Rule, BuiltinError> {
        if file.identity.is_none() && file.ou.is_none() && file.fact.is_empty() {
            return Err(BuiltinError::NoCondition(number));
        }
        let compile = |text: &String| {
            crate::config::pattern(text).map_err(|source| BuiltinError::Pattern {
                rule: number,
                text: text.clone(),
                source,
            })
        };
        let mut configuration = base.clone();
        configuration.extend(pieces(&file.configuration)?);
        Ok(Rule {
            identity: file.identity.as_ref().map(compile).transpose()?,
            ou: file.ou.as_ref().map(compile).transpose()?,
            facts: file
                .fact
                .iter()
                .map(|(path, text)| Ok((path.clone(), compile(text)?)))
                .collect::<Result<_, BuiltinError>>()?,
            configuration,
            claims: merge(claims, file.server_claims),
            defer: file.defer,
            shutdown: file.shutdown,
            msg: file.msg,
        })
    }

    fn matches(&self, node: &Node<'_>) -> bool {
        self.identity.as_ref().is_none_or(|pattern| pattern.is_match(node.identity))
            && self.ou.as_ref().is_none_or(|pattern| pattern.is_match(node.ou))
            && self.facts.iter().all(|(path, pattern)| match fact(node.facts, path) {
                Some(Value::Array(values)) => {
                    values.iter().filter_map(scalar).any(|text| pattern.is_match(&text))
                }
                Some(value) => scalar(value).is_some_and(|text| pattern.is_match(&text)),
                None => false,
            })
    }

    fn apply(&self, node: &Node<'_>) -> HelperReply {
        let mut reply = HelperReply {
            defer: self.defer,
            shutdown: self.shutdown,
            msg: self.msg.clone(),
            server_claims: self.claims.clone(),
            ..HelperReply::default()
        };
        if self.defer || self.shutdown {
            return reply;
        }
        for (key, pieces) in &self.configuration {
            let value = match render(pieces, node) {
                Ok(value) => value,
                Err(missing) => return deferred(format!("`{key}` cannot be written: {missing}")),
            };
            // an inserted fact may hold anything the node likes
            if let Err(error) = check_line(key, &value) {
                return deferred(error.to_string());
            }
            reply.configuration.insert(key.clone(), value);
        }
        reply
    }
}

fn deferred(msg: String) -> HelperReply {
    HelperReply { defer: true, msg, ..HelperReply::default() }
}

/// The rule's own wishes over the general ones, claim by claim.
fn merge(general: &RequestedClaims, own: RequestedClaims) -> RequestedClaims {
    let pick = |own: Vec<String>, general: &Vec<String>| if own.is_empty() { general.clone() } else { own };
    let time_given = own.validity.is_some() || own.exp.is_some();
    RequestedClaims {
        org: if own.org.is_empty() { general.org.clone() } else { own.org },
        exp: if time_given { own.exp } else { general.exp },
        validity: if time_given { own.validity } else { general.validity.clone() },
        collectives: pick(own.collectives, &general.collectives),
        pub_subjects: pick(own.pub_subjects, &general.pub_subjects),
        permissions: if own.permissions.is_empty() { general.permissions.clone() } else { own.permissions },
    }
}

fn pieces(values: &BTreeMap<String, String>) -> Result<BTreeMap<String, Vec<Piece>>, BuiltinError> {
    values
        .iter()
        .map(|(key, value)| {
            check_line(key, value)?;
            Ok((key.clone(), take_apart(key, value)?))
        })
        .collect()
}

/// `{name}` with a lower-case first letter is a placeholder, `{{` a brace; any other brace is itself, so that JSON
/// values need no escaping.
fn take_apart(key: &str, value: &str) -> Result<Vec<Piece>, BuiltinError> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        if let Some(after_pair) = after.strip_prefix('{') {
            text.push('{');
            rest = after_pair;
            continue;
        }
        if !after.starts_with(|c: char| c.is_ascii_lowercase()) {
            text.push('{');
            rest = after;
            continue;
        }
        let Some((name, tail)) = after.split_once('}') else {
            return Err(BuiltinError::Unclosed(key.to_string()));
        };
        let piece = match name {
            "identity" => Piece::Identity,
            "ou" => Piece::Organization,
            "directory" => Piece::Directory,
            _ => match name.strip_prefix("fact:").filter(|path| !path.is_empty()) {
                Some(path) => Piece::Fact(path.to_string()),
                None => {
                    return Err(BuiltinError::Placeholder { key: key.to_string(), name: name.to_string() });
                }
            },
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(piece);
        rest = tail;
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

fn render(pieces: &[Piece], node: &Node<'_>) -> Result<String, String> {
    let mut value = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => value.push_str(text),
            Piece::Identity => value.push_str(node.identity),
            Piece::Organization => value.push_str(node.ou),
            Piece::Directory => {
                value.push_str(
                    node.directory.ok_or("the node told no directory (is `features.ed25519` off?)")?,
                );
            }
            Piece::Fact(path) => {
                let text = fact(node.facts, path)
                    .and_then(scalar)
                    .ok_or_else(|| format!("the node has no fact `{path}` with one value"))?;
                if text.len() > MAX_INSERTED {
                    return Err(format!("the fact `{path}` is longer than {MAX_INSERTED} bytes"));
                }
                value.push_str(&text);
            }
        }
    }
    Ok(value)
}

/// A fact by its path: keys and array positions joined by dots, `\.` for a dot within a key.
fn fact<'v>(facts: &'v Value, path: &str) -> Option<&'v Value> {
    if path.len() > MAX_PATH.0 {
        return None;
    }
    let mut current = facts;
    for (steps, step) in steps(path).into_iter().enumerate() {
        if steps >= MAX_PATH.1 {
            return None;
        }
        current = match current {
            Value::Object(map) => map.get(&step)?,
            Value::Array(list) => list.get(step.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(current)
}

fn steps(path: &str) -> Vec<String> {
    let mut steps = vec![String::new()];
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '.' => steps.push(String::new()),
            other => {
                let literal = if other == '\\' { characters.next().unwrap_or('\\') } else { other };
                if let Some(last) = steps.last_mut() {
                    last.push(literal);
                }
            }
        }
    }
    steps
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::KeyProof;

    const RULES: &str = r#"
configuration:
  plugin.choria.middleware_hosts: nats://hub.example.net:4222
  plugin.registration: '{"json": "{fact:site}"}'
  brace: "{{identity}"
server_claims: { validity: 30d, permissions: { submission: true } }
match:
  - { identity: "old*", shutdown: true, msg: retired }
  - { fact: { role: database }, configuration: { collectives: "choria,{fact:nets.0.name}" }, server_claims: { validity: 1d } }
  - { ou: other, identity: "*", defer: true, msg: "not our tenant" }
  - { identity: "/^web\\d+[.]/" }
"#;

    fn decide(identity: &str, ou: &str, facts: Value) -> HelperReply {
        Builtin::build(serde_saphyr::from_str(RULES).unwrap()).unwrap().decide(&HelperRequest {
            identity: identity.into(),
            csr: None,
            ed25519_pubkey: Some(KeyProof {
                public_key: String::new(),
                directory: "/etc/choria".into(),
                signature: String::new(),
            }),
            inventory: serde_json::json!({ "facts": facts }).to_string(),
            jwt: Some(serde_json::json!({ "ou": ou })),
            known: false,
            online: None,
            address: None,
        })
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        let old = decide("old1", "choria", serde_json::json!({"role": "database"}));
        assert!(old.shutdown && old.msg == "retired");

        let db = decide(
            "db1",
            "choria",
            serde_json::json!({"role": ["x", "database"], "site": "lon", "nets": [{"name": "blue"}]}),
        );
        assert!(!db.defer, "{}", db.msg);
        assert_eq!(db.configuration["collectives"], "choria,blue");
        assert_eq!(db.server_claims.validity.as_deref(), Some("1d"));
        assert!(db.server_claims.permissions.contains_key("submission"));

        assert_eq!(decide("web1.x", "other", serde_json::json!({})).msg, "not our tenant");

        let web = decide("web1.x", "choria", serde_json::json!({"site": 7}));
        assert_eq!(web.configuration["plugin.registration"], r#"{"json": "7"}"#);
        assert_eq!(web.configuration["brace"], "{identity}");
        assert_eq!(web.configuration["identity"], "web1.x");
        assert_eq!(web.configuration["plugin.security.choria.seed_file"], "/etc/choria/server.seed");
        assert!(web.leaves_provisioning());
        web.check().unwrap();
    }

    #[test]
    fn what_cannot_be_decided_is_deferred_with_its_reason() {
        assert!(decide("x", "choria", serde_json::json!({})).msg.contains("no rule"));
        assert!(decide("web1.x", "choria", serde_json::json!({})).msg.contains("no fact `site`"));
        let evil = decide("web1.x", "choria", serde_json::json!({"site": "x\nrpcauthorization=0"}));
        assert!(evil.defer && evil.msg.contains("spans lines"));
        assert!(decide("web1.x", "choria", serde_json::json!({"site": "x".repeat(300)})).defer);
    }

    #[test]
    fn mistakes_are_found_when_loading() {
        for (yaml, part) in [
            ("match: []", "no node would ever be accepted"),
            ("match: [{}]", "no condition"),
            ("match: [{identity: '/(/'}]", "not a pattern"),
            ("{match: [{identity: a}], configuration: {a: '{indentity}'}}", "not a placeholder"),
            ("{match: [{identity: a}], configuration: {a: '{identity'}}", "never closed"),
            ("{match: [{identity: a}], configuration: {'#a': b}}", "comment"),
        ] {
            let error = Builtin::build(serde_saphyr::from_str(yaml).unwrap()).unwrap_err().to_string();
            assert!(error.contains(part), "{yaml}: {error}");
        }
        assert!(serde_saphyr::from_str::<BuiltinFile>("{match: [{identty: a}]}").is_err());
    }

    proptest::proptest! {
        #[test]
        fn paths_and_values_never_panic(path in "\\PC{0,64}", value in "\\PC{0,64}") {
            let facts = serde_json::json!({"a": {"b": [1, {"c": null}]}});
            let _ = fact(&facts, &path);
            drop(take_apart("k", &value));
        }
    }
}
