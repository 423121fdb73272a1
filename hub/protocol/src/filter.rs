//! Which nodes a request is for (docs/spec/01 §4), and how people write that (docs/spec/07 §5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest fact expression accepted from a person, in bytes (docs/spec/10 N13).
pub const MAX_EXPRESSION: usize = 4096;

const OPERATOR_CHARACTERS: [char; 4] = ['<', '>', '=', '!'];

/// All kinds present must match; an empty filter matches every node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// All must match.
    pub fact: Vec<FactFilter>,
    /// Configuration management classes, or `/regex/`; all must match.
    pub cf_class: Vec<String>,
    /// Agents, or `/regex/`; all must match.
    #[serde(default)]
    pub agent: Vec<String>,
    /// Identities, or `/regex/`; one must match.
    pub identity: Vec<String>,
    /// Expressions, each as `[{"expr": …}]`.
    pub compound: Vec<Vec<BTreeMap<String, String>>>,
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.agent.is_empty() && self.is_empty_but_agent()
    }

    /// What `plugin.choria.require_client_filter` looks at: an agent filter alone narrows nothing.
    pub fn is_empty_but_agent(&self) -> bool {
        self.fact.is_empty()
            && self.cf_class.is_empty()
            && self.identity.is_empty()
            && self.compound.iter().all(Vec::is_empty)
    }

    /// Adds an identity once.
    pub fn add_identity(&mut self, identity: &str) {
        add_once(&mut self.identity, identity);
    }

    pub fn add_class(&mut self, class: &str) {
        add_once(&mut self.cf_class, class);
    }

    pub fn add_agent(&mut self, agent: &str) {
        if !agent.is_empty() {
            add_once(&mut self.agent, agent);
        }
    }

    pub fn add_fact(&mut self, fact: FactFilter) {
        self.fact.push(fact);
    }

    /// Adds an expression of the `-S` kind; empty text is ignored.
    pub fn add_compound(&mut self, expression: &str) {
        if !expression.is_empty() {
            self.compound.push(vec![BTreeMap::from([("expr".to_owned(), expression.to_owned())])]);
        }
    }

    /// The identities, when the filter consists of nothing else (agents allowed) and none is a `/regex/`:
    /// discovery then needs no network (docs/spec/01 §4).
    pub fn literal_identities(&self) -> Option<&[String]> {
        let only_identities = !self.identity.is_empty()
            && self.fact.is_empty()
            && self.cf_class.is_empty()
            && self.compound.is_empty()
            && !self.identity.iter().any(|identity| is_regex(identity));
        only_identities.then_some(self.identity.as_slice())
    }
}

fn add_once(list: &mut Vec<String>, entry: &str) {
    if !list.iter().any(|have| have == entry) {
        list.push(entry.to_owned());
    }
}

/// Whether text is written `/…/`.
pub fn is_regex(text: &str) -> bool {
    text.len() >= 2 && text.starts_with('/') && text.ends_with('/')
}

/// `fact operator value`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactFilter {
    /// A path into the facts, such as `os.family`.
    pub fact: String,
    /// One of `== != < > <= >= =~`.
    pub operator: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    #[error("could not parse fact {0} it does not appear to be in a valid format")]
    NotAFactFilter(String),
    #[error("a fact filter may be at most {MAX_EXPRESSION} bytes long, this one has {0}")]
    TooLong(usize),
}

/// Reads a fact filter as a person writes it: `os.family=RedHat`, `cpus>=2`, `kernel=~/^5/` (docs/spec/01 §4.1).
///
/// With several operators in the text the right-most one counts, so a path may hold operators itself.
pub fn parse_fact_filter(text: &str) -> Result<FactFilter, FilterError> {
    if text.len() > MAX_EXPRESSION {
        return Err(FilterError::TooLong(text.len()));
    }
    let invalid = || FilterError::NotAFactFilter(text.to_owned());

    let (before, operator, after) = rightmost_operator(text).ok_or_else(invalid)?;
    let (fact, value) = (before.trim(), after.trim());
    if fact.is_empty()
        || value.is_empty()
        || fact.starts_with(OPERATOR_CHARACTERS)
        || value.ends_with(['<', '>', '='])
    {
        return Err(invalid());
    }
    let operator = match operator {
        _ if is_regex(value) => "=~",
        "=" => "==",
        "=<" => "<=",
        "=>" => ">=",
        other => other,
    };
    Ok(FactFilter { fact: fact.to_owned(), operator: operator.to_owned(), value: value.to_owned() })
}

/// Splits at the last operator, reading operators from the left, the longest first.
fn rightmost_operator(text: &str) -> Option<(&str, &'static str, &str)> {
    const OPERATORS: [&str; 9] = ["<=", ">=", "=>", "=<", "<", ">", "!=", "=~", "=="];
    let mut found = None;
    let mut at = 0;
    while let Some((before, rest)) = text.split_at_checked(at) {
        let Some(next) = rest.chars().next() else { break };
        let operator = OPERATORS
            .iter()
            .copied()
            .find(|operator| rest.starts_with(operator))
            .or_else(|| rest.starts_with('=').then_some("="));
        match operator {
            Some(operator) => {
                at += operator.len();
                found = Some((before, operator, rest.strip_prefix(operator).unwrap_or_default()));
            }
            None => at += next.len_utf8(),
        }
    }
    found
}

/// What the words of a `-W` filter turned out to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CombinedFilter {
    pub facts: Vec<FactFilter>,
    pub classes: Vec<String>,
    /// Words taken as a class although they hold an operator, such as `a=`: worth a warning.
    pub suspicious: Vec<String>,
}

impl CombinedFilter {
    pub fn add_to(self, filter: &mut Filter) {
        for fact in self.facts {
            filter.add_fact(fact);
        }
        for class in &self.classes {
            filter.add_class(class);
        }
    }
}

/// Reads a combined filter: words with spaces between, each a fact filter if it parses as one, else a class.
pub fn parse_combined_filter(text: &str) -> CombinedFilter {
    let mut combined = CombinedFilter::default();
    for word in text.split_whitespace() {
        match parse_fact_filter(word) {
            Ok(fact) => combined.facts.push(fact),
            Err(_) => {
                if word.contains(OPERATOR_CHARACTERS) {
                    combined.suspicious.push(word.to_owned());
                }
                combined.classes.push(word.to_owned());
            }
        }
    }
    combined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combined_words() {
        let combined = parse_combined_filter("roles::web  os.family=Debian /apache/ a=");
        assert_eq!(combined.classes, ["roles::web", "/apache/", "a="]);
        assert_eq!(combined.suspicious, ["a="]);
        assert_eq!(combined.facts.len(), 1);
    }

    #[test]
    fn only_literal_identities_need_no_network() {
        let mut filter = Filter::default();
        assert_eq!(filter.literal_identities(), None);
        filter.add_identity("n1");
        filter.add_identity("n1");
        filter.add_agent("rpcutil");
        assert_eq!(filter.literal_identities(), Some(["n1".to_owned()].as_slice()));
        filter.add_identity("/n/");
        assert_eq!(filter.literal_identities(), None);
    }

    #[test]
    fn agent_alone_is_no_filter() {
        let mut filter = Filter::default();
        filter.add_agent("rpcutil");
        assert!(filter.is_empty_but_agent() && !filter.is_empty());
        filter.add_compound("fact('a') == 1");
        assert!(!filter.is_empty_but_agent());
    }
}
