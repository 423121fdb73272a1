//! Whether a request is meant for this node (`docs/spec/03 §3`).
//!
//! Order: identity, agent, class, fact, compound; all kinds present must pass. What this build cannot evaluate never
//! matches: regular expressions and compound expressions are the caller's to evaluate, a device lends refusals.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod expression;
mod fact;

pub use expression::{FactExpression, parse_fact_expression};
pub use fact::{FactFailure, fact_matches};

use crate::json::{Elements, Error, Fields, Object, Text, Value};

/// Most fact, class and compound filters in one request: each costs a walk through all facts or classes.
pub const MAX_EVALUATED: usize = 64;

/// Evaluates regular expressions in RE2 syntax, unanchored.
pub trait Matcher {
    /// Whether any expression can be evaluated; `false` lets the compiler drop what only serves them.
    const SUPPORTED: bool;

    /// Whether `pattern` occurs in `text`; `None` when the pattern is illegal or not supported.
    fn matches(&self, pattern: &str, ignore_case: bool, text: &str) -> Option<bool>;
}

/// A matcher for nodes without regular expressions: such filters do not match.
#[derive(Debug, Clone, Copy)]
pub struct NoRegex;

impl Matcher for NoRegex {
    const SUPPORTED: bool = false;

    fn matches(&self, _pattern: &str, _ignore_case: bool, _text: &str) -> Option<bool> {
        None
    }
}

/// Evaluates compound filters.
pub trait Expressions {
    /// Whether `expression` holds on this node; `None` on any error and when expressions are not supported.
    fn holds(&self, expression: &str, node: &Node<'_>) -> Option<bool>;
}

/// For nodes without compound filters: such filters do not match.
#[derive(Debug, Clone, Copy)]
pub struct NoExpressions;

impl Expressions for NoExpressions {
    fn holds(&self, _expression: &str, _node: &Node<'_>) -> Option<bool> {
        None
    }
}

/// A set of names: classes or agents.
pub trait Names {
    /// Whether `test` accepts any of the names.
    fn any(&self, test: &mut dyn FnMut(&str) -> bool) -> bool;
}

/// Vectors and borrowed slices of anything that is text.
impl<L, T> Names for L
where
    L: core::ops::Deref<Target = [T]>,
    T: AsRef<str>,
{
    fn any(&self, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.iter().any(|name| test(name.as_ref()))
    }
}

/// What filters are held against.
#[derive(Clone, Copy)]
pub struct Node<'n> {
    pub identity: &'n str,
    pub agents: &'n dyn Names,
    pub classes: &'n dyn Names,
    /// One JSON object; what is not JSON has no facts.
    pub facts: &'n [u8],
}

impl core::fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Node").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The `filter` member of a request, taken apart.
#[derive(Debug, Clone)]
pub struct Filter<'a> {
    fact: Elements<'a>,
    class: Elements<'a>,
    agent: Elements<'a>,
    identity: Elements<'a>,
    compound: Elements<'a>,
    /// A list we do not know is not empty.
    unknown: bool,
}

impl<'a> Filter<'a> {
    /// Every member must be a list; a repeated or case-variant member is an error, as in every layer.
    pub fn parse(filter: &'a [u8]) -> Result<Filter<'a>, Error> {
        let mut fields = Fields::new(&["fact", "cf_class", "agent", "identity", "compound"]);
        let mut lists = [const { Elements::NONE }; 5];
        let mut unknown = false;
        for (name, value) in Object::parse(filter)?.entries() {
            match fields.place(&name)?.and_then(|place| lists.get_mut(place)) {
                Some(slot) => *slot = value.elements().ok_or(Error::Type)?,
                None => unknown |= value.elements().is_none_or(|mut elements| elements.next().is_some()),
            }
        }
        let [fact, class, agent, identity, compound] = lists;
        Ok(Filter { fact, class, agent, identity, compound, unknown })
    }

    /// Whether the filter restricts more than the agent.
    pub fn is_restrictive(&self) -> bool {
        [&self.fact, &self.class, &self.identity, &self.compound].into_iter().any(|list| !is_empty(list))
    }

    /// Whether the node passes. `scratch` holds one unescaped text at a time beside its pattern; what does not fit does
    /// not match.
    pub fn matches<M: Matcher>(
        &self,
        node: &Node<'_>,
        matcher: &M,
        expressions: &dyn Expressions,
        scratch: &mut [u8],
    ) -> bool {
        !self.unknown
            && [&self.fact, &self.class, &self.compound]
                .into_iter()
                .all(|list| list.clone().nth(MAX_EVALUATED).is_none())
            && (is_empty(&self.identity)
                || !all(&self.identity, &mut |v| !identity_matches(v, node.identity, matcher, scratch)))
            && all(&self.agent, &mut |v| agent_matches(v, node.agents, matcher, scratch))
            && all(&self.class, &mut |v| class_matches(v, node.classes, matcher, scratch))
            && all(&self.fact, &mut |v| fact_filter_matches(v, node.facts, matcher, scratch).unwrap_or(false))
            && self.compound_matches(node, expressions, scratch)
    }

    /// Upstream does not combine several expressions by AND: each that holds counts for, each that does not against.
    fn compound_matches(&self, node: &Node<'_>, expressions: &dyn Expressions, scratch: &mut [u8]) -> bool {
        if is_empty(&self.compound) {
            return true;
        }
        let mut balance = 0_i32;
        for entry in self.compound.clone() {
            let Some(expression) = only_expression(&entry) else { return false };
            let Ok(expression) = expression.unescape(scratch) else { return false };
            match expressions.holds(expression, node) {
                Some(true) => balance = balance.saturating_add(1),
                Some(false) => balance = balance.saturating_sub(1),
                None => return false,
            }
        }
        balance > 0
    }
}

fn is_empty(list: &Elements<'_>) -> bool {
    list.clone().next().is_none()
}

fn all(list: &Elements<'_>, test: &mut dyn FnMut(&Value<'_>) -> bool) -> bool {
    list.clone().all(|value| test(&value))
}

/// The text of `[{"expr": "…"}]`, which is the only legal form of an entry.
fn only_expression<'a>(entry: &Value<'a>) -> Option<Text<'a>> {
    let mut objects = entry.elements()?;
    let object = objects.next()?.as_object()?;
    if objects.next().is_some() || object.entries().count() != 1 {
        return None;
    }
    object.get("expr").ok()??.as_text()
}

/// The pattern of a text in the form `/…/`, unescaped into `room`.
fn pattern<'r>(text: &Text<'_>, room: &'r mut [u8]) -> Option<&'r str> {
    let is_pattern = text.raw().len() > 2 && text.raw().starts_with('/') && text.raw().ends_with('/');
    if !is_pattern {
        return None;
    }
    text.unescape(room).ok()?.strip_prefix('/')?.strip_suffix('/').filter(|inside| !inside.is_empty())
}

fn identity_matches<M: Matcher>(wanted: &Value<'_>, identity: &str, matcher: &M, scratch: &mut [u8]) -> bool {
    let Some(wanted) = wanted.as_text() else { return false };
    wanted.is(identity)
        || pattern(&wanted, scratch).is_some_and(|p| matcher.matches(p, false, identity) == Some(true))
}

fn agent_matches<M: Matcher>(
    wanted: &Value<'_>,
    agents: &dyn Names,
    matcher: &M,
    scratch: &mut [u8],
) -> bool {
    let Some(wanted) = wanted.as_text() else { return false };
    match pattern(&wanted, scratch) {
        Some(p) => agents.any(&mut |agent| matcher.matches(p, false, agent) == Some(true)),
        None => agents.any(&mut |agent| wanted.is(agent)),
    }
}

/// Expressions ignore case; a plain name is lower-cased, the class is not, so that a class with capitals is only found by
/// an expression (upstream).
fn class_matches<M: Matcher>(
    wanted: &Value<'_>,
    classes: &dyn Names,
    matcher: &M,
    scratch: &mut [u8],
) -> bool {
    let Some(wanted) = wanted.as_text() else { return false };
    match pattern(&wanted, scratch) {
        Some(p) => classes.any(&mut |class| matcher.matches(p, true, class) == Some(true)),
        None => classes.any(&mut |class| crate::case::lower(wanted.chars()).eq(class.chars())),
    }
}

fn fact_filter_matches<M: Matcher>(
    filter: &Value<'_>,
    facts: &[u8],
    matcher: &M,
    scratch: &mut [u8],
) -> Result<bool, FactFailure> {
    let filter = filter.as_object().ok_or(FactFailure::Malformed)?;
    let text = |name| filter.get(name).ok().flatten().and_then(|v| v.as_text()).ok_or(FactFailure::Malformed);
    let (path, operator, value) = (text("fact")?, text("operator")?, text("value")?);
    let mut operator_room = [0; 8];
    let operator = operator.unescape(&mut operator_room).map_err(|_| FactFailure::Operator)?;
    let half = scratch.len() / 2;
    let (names, scratch) = scratch.split_at_mut(half);
    let path = path.unescape(names).map_err(|_| FactFailure::TooLong)?.len();
    let (path, rest) = names.split_at_mut_checked(path).ok_or(FactFailure::TooLong)?;
    let path = core::str::from_utf8(path).map_err(|_| FactFailure::Malformed)?;
    let value = value.unescape(rest).map_err(|_| FactFailure::TooLong)?;
    fact_matches(facts, path, operator, value, matcher, scratch)
}
