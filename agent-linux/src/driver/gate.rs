//! Verifying callers and evaluating filters on a server.

use std::collections::{BTreeMap, HashSet};

use agent_core::dispatch::gate::{self, Accepted, Gate, Unverified};
use agent_core::filter::{self, Filter, NoExpressions};
use agent_core::json::{Scanner, Token};
use agent_core::secure::{DelegatedCaller, Policy};
use agent_core::token::{Issuer, Trust, Verifier};
use choria_host::clock;

use crate::config::Signers;
use crate::node::Node;
use crate::regexes::OfOneFilter;

/// Room for the claims of one token, without its policy.
const CLAIMS: usize = 64 * 1024;
/// Room for one unescaped text of a filter beside its pattern.
const FILTER: usize = 64 * 1024;

/// Whose requests are obeyed, with keys decoded.
#[derive(Debug, Clone)]
pub enum Trusted {
    Issuers(Vec<(String, [u8; 32])>),
    Signers(Vec<[u8; 32]>),
    /// Provisioning without a known issuer.
    Nobody,
}

impl Trusted {
    /// Decodes the keys of a configuration.
    ///
    /// # Errors
    /// The key that is not 64 hex digits.
    pub fn of(signers: &Signers) -> Result<Trusted, String> {
        let key = |text: &String| {
            let mut key = [0u8; 32];
            hex::decode_to_slice(text.trim(), &mut key).map(|()| key).map_err(|_| text.clone())
        };
        Ok(match signers {
            Signers::Unchecked => Trusted::Nobody,
            Signers::Trusted(keys) => Trusted::Signers(keys.iter().map(key).collect::<Result<_, _>>()?),
            Signers::Issuers(issuers) => Trusted::Issuers(decode(issuers, key)?),
        })
    }
}

fn decode(
    issuers: &BTreeMap<String, Vec<String>>,
    key: impl Fn(&String) -> Result<[u8; 32], String>,
) -> Result<Vec<(String, [u8; 32])>, String> {
    let mut all = Vec::new();
    for (organization, keys) in issuers {
        for text in keys {
            all.push((organization.clone(), key(text)?));
        }
    }
    Ok(all)
}

/// The gate of one node.
#[derive(Debug)]
pub struct NodeGate<'n> {
    node: &'n Node,
    agents: Vec<String>,
    scratch: Vec<u8>,
}

impl<'n> NodeGate<'n> {
    #[must_use]
    pub fn new(node: &'n Node) -> NodeGate<'n> {
        let agents = node.agents().iter().map(|agent| agent.name.to_owned()).collect();
        NodeGate { node, agents, scratch: Vec::new() }
    }
}

impl Gate for NodeGate<'_> {
    fn accept(&mut self, buffer: &mut [u8], _now: Option<i64>) -> Result<Accepted, &'static str> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(CLAIMS, 0);
        // asked for each request: a HUP may have replaced them
        let rules = self.node.rules();
        let issuers: Vec<Issuer<'_>> = match &rules.trusted {
            Trusted::Issuers(issuers) => {
                issuers.iter().map(|(organization, key)| Issuer { organization, key: *key }).collect()
            }
            _ => Vec::new(),
        };
        let trust = match &rules.trusted {
            Trusted::Issuers(_) => Some(Trust::Issuers(&issuers)),
            Trusted::Signers(keys) => Some(Trust::Signers(keys)),
            Trusted::Nobody => None,
        };
        let accepted = match trust {
            None => Unverified::read(buffer),
            Some(trust) => {
                let verifier = Verifier::new(trust);
                if self.node.is_provisioning() {
                    let accepted = gate::candidate(buffer, &verifier, clock::unix_seconds(), &mut scratch);
                    self.scratch = scratch;
                    return accepted;
                }
                let delegated_caller =
                    if rules.match_delegated_caller { DelegatedCaller::Match } else { DelegatedCaller::Any };
                gate::member(
                    buffer,
                    &Policy { verifier, delegated_caller, proven: None },
                    clock::unix_seconds(),
                    &mut scratch,
                )
            }
        };
        self.scratch = scratch;
        accepted
    }

    fn matches(&mut self, filter: &[u8]) -> bool {
        let Ok(filter) = Filter::parse(filter) else { return false };
        let (facts, classes) = (self.node.facts(), self.node.classes());
        let classes: &[String] = &classes;
        let node = filter::Node {
            identity: &self.node.config.identity,
            agents: &self.agents.as_slice(),
            classes: &classes,
            facts: &facts,
        };
        let mut scratch = vec![0u8; FILTER];
        filter.matches(&node, &OfOneFilter::default(), &NoExpressions, &mut scratch)
    }

    fn is_unambiguous(&mut self, data: &[u8]) -> bool {
        is_unambiguous(data)
    }
}

/// In time that grows with the document, however many names one of its objects has.
fn is_unambiguous(data: &[u8]) -> bool {
    let mut scanner = Scanner::new(data);
    let mut open: Vec<HashSet<String>> = Vec::new();
    loop {
        match scanner.pull() {
            Ok(Token::ObjectStart | Token::ArrayStart) => open.push(HashSet::new()),
            Ok(Token::ObjectEnd | Token::ArrayEnd) => drop(open.pop()),
            Ok(Token::Key(name)) => {
                let fresh = open.last_mut().is_some_and(|names| names.insert(name.folded().collect()));
                if !fresh {
                    return false;
                }
            }
            Ok(Token::End) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_within_their_object_however_many() {
        let many: Vec<String> = (0..5000).map(|n| format!(r#""n{n}":{{"a":1}}"#)).collect();
        let document = |last: &str| format!("{{{},{last}}}", many.join(","));
        assert!(is_unambiguous(document(r#""a":[{"a":1},{"a":2}]"#).as_bytes()));
        assert!(!is_unambiguous(document(r#""N17":1"#).as_bytes()));
        assert!(!is_unambiguous(document(r#""x":{"a":1,"\u0061":2}"#).as_bytes()));
        assert!(!is_unambiguous(b"{"));
    }
}
