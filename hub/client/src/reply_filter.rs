//! An expression that says which replies are of interest (docs/spec/07 §5.4). Replies are what nodes say: the expression
//! is bounded before it is parsed, and one that fails on a reply leaves that reply out and is counted.

use std::sync::atomic::{AtomicBool, Ordering};

use agent_core::json::path::{Found, lookup};
use choria_protocol::rpc::StatusCode;
use expr::{Context, ContextProvider, Environment, Program, Value};
use serde_json::Map;
use thiserror::Error;

use crate::version_constraint;

/// Longest expression in bytes.
const MAX_EXPRESSION: usize = 4_096;
/// Brackets within brackets: the parser's tree is built without a guard of its own.
const MAX_DEPTH: usize = 64;
/// Operators and brackets, each of which may be a level of that tree; twice as many fit a stack of 2 MiB.
const MAX_OPERATORS: usize = 512;

/// Why an expression cannot be used, before anybody was asked anything.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplyFilterError {
    #[error("is longer than {MAX_EXPRESSION} bytes")]
    TooLong,
    #[error("is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("has more than {MAX_OPERATORS} operators and brackets")]
    TooManyOperators,
    /// The text of the parser, which shows the place.
    #[error("is no expression")]
    Syntax(String),
    #[error("cannot be evaluated: {0}")]
    Fails(String),
    #[error("is {0}, not true or false")]
    NotBoolean(&'static str),
}

/// What an expression can look at.
#[derive(Debug, Clone, Copy)]
pub struct FilteredReply<'a> {
    pub sender: &'a str,
    pub status: StatusCode,
    pub message: &'a str,
    pub data: &'a Map<String, serde_json::Value>,
    /// Unix seconds by the node's clock.
    pub time: i64,
}

/// A compiled expression, and how often it could not decide.
#[derive(Debug)]
pub struct ReplyFilter {
    program: Program,
    undecided: usize,
    reason: Option<String>,
}

impl ReplyFilter {
    /// Compiles an expression and tries it on an empty reply.
    ///
    /// # Errors
    /// Whatever will be wrong on every reply: bounds, syntax, names that do not exist, a result that is never boolean.
    pub fn new(text: &str) -> Result<Self, ReplyFilterError> {
        check_bounds(text)?;
        let program = expr::compile(text).map_err(|error| ReplyFilterError::Syntax(error.to_string()))?;
        let empty = Map::new();
        let reply =
            FilteredReply { sender: "", status: StatusCode::Ok, message: "OK", data: &empty, time: 0 };
        let trial = Trial::default();
        match evaluate(&program, reply, &trial) {
            // other data may give another type
            Ok(Value::Bool(_)) => {}
            Ok(_) if trial.data.load(Ordering::Relaxed) => {}
            Ok(other) => return Err(ReplyFilterError::NotBoolean(kind(&other))),
            Err(reason) if trial.is_anothers_fault(&reason) => {}
            Err(reason) => return Err(ReplyFilterError::Fails(reason)),
        }
        Ok(ReplyFilter { program, undecided: 0, reason: None })
    }

    /// Whether a reply is of interest.
    pub fn passes(&mut self, reply: FilteredReply<'_>) -> bool {
        let reason = match evaluate(&self.program, reply, &Trial::default()) {
            Ok(Value::Bool(passes)) => return passes,
            Ok(other) => format!("it is {}, not true or false", kind(&other)),
            Err(reason) => reason,
        };
        self.undecided += 1;
        self.reason.get_or_insert_with(|| format!("{}: {reason}", reply.sender));
        false
    }

    /// How many replies were left out because the expression gave neither true nor false, and why the first was.
    pub fn undecided(&self) -> Option<(usize, &str)> {
        Some((self.undecided, self.reason.as_deref()?))
    }
}

/// What a trial has looked at.
#[derive(Debug, Default)]
struct Trial {
    /// The reply's data, which may be anything.
    data: AtomicBool,
    /// Its texts.
    text: AtomicBool,
}

impl Trial {
    /// Whether a failure may be the empty reply's and not the expression's.
    fn is_anothers_fault(&self, reason: &str) -> bool {
        let unknown = ["unknown variable", "Unknown function"].iter().any(|start| reason.starts_with(start));
        !unknown && (self.data.load(Ordering::Relaxed) || self.text.load(Ordering::Relaxed))
    }
}

/// Counts what stands outside of texts.
fn check_bounds(text: &str) -> Result<(), ReplyFilterError> {
    if text.len() > MAX_EXPRESSION {
        return Err(ReplyFilterError::TooLong);
    }
    let (mut depth, mut deepest, mut operators) = (0_usize, 0, 0);
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some('"' | '\''), '\\') => drop(characters.next()),
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(character),
            (None, '(' | '[' | '{') => {
                depth += 1;
                deepest = deepest.max(depth);
                operators += 1;
            }
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            // separators make lists longer and nothing deeper
            (None, ',' | '_') => {}
            (None, other) => operators += usize::from(other.is_ascii_punctuation()),
        }
    }
    if deepest > MAX_DEPTH {
        return Err(ReplyFilterError::TooDeep);
    }
    if operators > MAX_OPERATORS { Err(ReplyFilterError::TooManyOperators) } else { Ok(()) }
}

struct Fields<'a> {
    message: Value,
    code: Value,
    trial: &'a Trial,
}

impl ContextProvider for Fields<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        match key {
            "msg" => {
                self.trial.text.store(true, Ordering::Relaxed);
                Some(&self.message)
            }
            "code" => Some(&self.code),
            _ => None,
        }
    }

    fn to_context(&self) -> Context {
        Context::from_iter([("msg", self.message.clone()), ("code", self.code.clone())])
    }
}

fn evaluate(program: &Program, reply: FilteredReply<'_>, trial: &Trial) -> Result<Value, String> {
    let mut environment = Environment::new();
    for (name, status) in [
        ("ok", StatusCode::Ok),
        ("aborted", StatusCode::Aborted),
        ("unknown_action", StatusCode::UnknownAction),
        ("missing_data", StatusCode::MissingData),
        ("invalid_data", StatusCode::InvalidData),
        ("unknown_error", StatusCode::UnknownError),
    ] {
        environment.add_function(name, move |call| {
            let [] = call.args.as_slice() else { return failed(format!("{name}() takes nothing")) };
            Ok(Value::Bool(reply.status == status))
        });
    }
    environment.add_function("sender", |call| {
        trial.text.store(true, Ordering::Relaxed);
        let [] = call.args.as_slice() else { return failed("sender() takes nothing") };
        Ok(Value::from(reply.sender))
    });
    environment.add_function("time", |call| {
        let [] = call.args.as_slice() else { return failed("time() takes nothing") };
        Ok(Value::from(choria_host::clock::rfc3339_seconds(reply.time)))
    });
    environment.add_function("data", |call| {
        let [Value::String(path)] = call.args.as_slice() else {
            return failed("data() takes a path, such as data(\"memory.size\")");
        };
        trial.data.store(true, Ordering::Relaxed);
        data(reply.data, path)
    });
    environment.add_function("include", |call| match call.args.as_slice() {
        [Value::Array(list), item] => Ok(Value::Bool(list.iter().any(|value| equal(value, item)))),
        [other, _] => failed(format!("include() looks into lists, not into {}", kind(other))),
        _ => failed("include() takes a list and an item"),
    });
    environment.add_function("semver", |call| match call.args.as_slice() {
        [Value::String(version), Value::String(constraint)] => {
            match version_constraint::meets(version, constraint) {
                Some(meets) => Ok(Value::Bool(meets)),
                None => failed(format!("semver() cannot compare {version:?} with {constraint:?}")),
            }
        }
        _ => failed("semver() takes a version and a constraint, both texts"),
    });
    let fields =
        Fields { message: Value::from(reply.message), code: Value::Integer(i64::from(reply.status)), trial };
    environment.run(program, &fields).map_err(|error| error.to_string())
}

fn failed(reason: impl Into<String>) -> expr::Result<Value> {
    Err(expr::Error::ExprError(reason.into()))
}

/// The value at a path; nil where there is none. Numbers are floats, as they are for peers.
fn data(data: &Map<String, serde_json::Value>, path: &str) -> expr::Result<Value> {
    // most paths are a name at the top
    if !path.contains(['.', '|', '#', '*', '?', '\\', '@', '{', '[', '!']) {
        return Ok(data.get(path).map_or(Value::Nil, value));
    }
    let Ok(document) = serde_json::to_vec(data) else { return failed("the data cannot be read") };
    match lookup(&document, path) {
        None => Ok(Value::Nil),
        #[allow(clippy::cast_precision_loss)] // elements of one reply
        Some(Found::Count(count)) => Ok(Value::Float(count as f64)),
        Some(Found::Value(found)) => match serde_json::from_slice(found.raw()) {
            Ok(found) => Ok(value(&found)),
            Err(_) => failed("the data cannot be read"),
        },
        Some(Found::List) => {
            failed(format!("data({path:?}) gathers values from several places, which is not supported"))
        }
    }
}

fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(bool) => Value::Bool(*bool),
        serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Array(list) => Value::Array(list.iter().map(value).collect()),
        serde_json::Value::Object(map) => {
            map.iter().map(|(name, member)| (name.clone(), value(member))).collect()
        }
    }
}

/// Numbers are equal by what they count, as in the language itself.
fn equal(left: &Value, right: &Value) -> bool {
    match (number(left), number(right)) {
        (Some(left), Some(right)) => left.partial_cmp(&right).is_some_and(std::cmp::Ordering::is_eq),
        _ => left == right,
    }
}

#[allow(clippy::cast_precision_loss)] // data holds floats in any case
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(integer) => Some(*integer as f64),
        Value::Float(float) => Some(*float),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nothing",
        Value::Bool(_) => "true or false",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Map(_) => "an object",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn passes(text: &str) -> bool {
        let data = json!({
            "enabled": true, "count": 3, "version": "1.4.2", "tags": ["web", "db"], "ports": [80, 443],
            "memory": {"size": 7959, "free": 12.5}, "a.b": 1, "nothing": null,
        });
        let data = data.as_object().cloned().unwrap();
        let mut filter = ReplyFilter::new(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let reply = FilteredReply {
            sender: "web1.example.net",
            status: StatusCode::Aborted,
            message: "could not do it",
            data: &data,
            time: 1_700_000_000,
        };
        let passes = filter.passes(reply);
        assert_eq!(filter.undecided(), None, "{text}");
        passes
    }

    #[test]
    fn everything_in_a_reply_can_be_asked_for() {
        for text in [
            "true",
            "aborted() && !ok()",
            "not (unknown_action() or missing_data() or invalid_data() or unknown_error())",
            "code == 1",
            "msg contains 'not' && msg startsWith \"could\"",
            "msg matches '^could .* it$'",
            "sender() endsWith '.example.net'",
            "data('enabled')",
            "data('count') == 3",
            "data('count') in [1, 2, 3]",
            "data('memory.size') > 4000 and data('memory.free') == 12.5",
            "data('missing') == nil && data('memory.missing') == nil && data('nothing') == nil",
            "include(data('tags'), 'db')",
            "include(data('ports'), 443)",
            "data('tags.1') == 'db' && data('tags.#') == 2",
            "data('a\\\\.b') == 1",
            "semver(data('version'), '>= 1.2, < 2')",
            "time() == '2023-11-14T22:13:20Z' && time() < '2024'",
            "any(data('ports'), {# == 80})",
            "len(data('tags')) == 2",
        ] {
            assert!(passes(text), "{text}");
        }
        for text in
            ["false", "ok()", "code == 2", "include(data('tags'), 'x')", "semver(data('version'), '^2')"]
        {
            assert!(!passes(text), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_for_every_reply_is_told_at_once() {
        let refused = |text: &str| ReplyFilter::new(text).unwrap_err();
        assert!(matches!(refused("data('x' =="), ReplyFilterError::Syntax(_)));
        assert!(matches!(refused(""), ReplyFilterError::Syntax(_)));
        for text in
            ["nosuch", "nosuch()", "data('x') == nosuch", "data(1)", "ok(1)", "include(1, 2)", "data()"]
        {
            assert!(matches!(refused(text), ReplyFilterError::Fails(_)), "{text}: {:?}", refused(text));
        }
        assert_eq!(refused("code"), ReplyFilterError::NotBoolean("a number"));
        assert_eq!(refused("msg"), ReplyFilterError::NotBoolean("a text"));
        assert_eq!(refused("[1]"), ReplyFilterError::NotBoolean("a list"));
    }

    #[test]
    fn what_is_wrong_for_some_replies_is_counted() {
        let data = json!({"x": "text", "versions": ["1.2", "no version"]}).as_object().cloned().unwrap();
        for text in [
            "data('x')",
            "data('x') > 3",
            "semver(data('x'), '1')",
            "data('x.y.z').a",
            "data('versions.#.x')",
        ] {
            let mut filter = ReplyFilter::new(text).unwrap();
            for sender in ["n1", "n2"] {
                let reply =
                    FilteredReply { sender, status: StatusCode::Ok, message: "OK", data: &data, time: 0 };
                assert!(!filter.passes(reply), "{text}");
            }
            let (count, reason) = filter.undecided().unwrap();
            assert!(count == 2 && reason.starts_with("n1: "), "{text}: {count} {reason}");
        }
    }

    /// Whatever the bounds let through must end, on a thread with as little stack as a test has.
    #[test]
    fn expressions_that_would_exhaust_the_stack_are_not_parsed() {
        let nested = |open: &str, close: &str, levels| open.repeat(levels) + "true" + &close.repeat(levels);
        assert!(ReplyFilter::new(&nested("(", ")", MAX_DEPTH)).is_ok());
        for text in
            [nested("(", ")", MAX_DEPTH + 1), nested("[", "]", 2_000), nested("{\"a\":", "}", MAX_DEPTH + 1)]
        {
            assert_eq!(ReplyFilter::new(&text).unwrap_err(), ReplyFilterError::TooDeep, "{text}");
        }
        for text in
            ["1+".repeat(MAX_OPERATORS + 1) + "1 == 0", "data('x')".to_owned() + &".a".repeat(MAX_OPERATORS)]
        {
            assert_eq!(ReplyFilter::new(&text).unwrap_err(), ReplyFilterError::TooManyOperators, "{text}");
        }
        assert_eq!(ReplyFilter::new(&"1".repeat(MAX_EXPRESSION + 1)).unwrap_err(), ReplyFilterError::TooLong);
        // brackets in texts are no brackets, and a list may be long
        assert!(passes(&format!("msg != '{}'", "([{".repeat(300))));
        assert!(passes(&format!("msg != \"\\\"{}\"", "([{".repeat(300))));
        assert!(passes(&format!("include([{}'web'], data('tags.0'))", "'x', ".repeat(700))));
        // as many levels as the bounds leave
        for (text, is) in [
            ("1+".repeat(MAX_OPERATORS - 2) + "1 == 511", true),
            ("true&&".repeat(MAX_OPERATORS / 2 - 1) + "ok()", false),
            ("false or ".repeat(450) + "true", true),
            ("1^".repeat(MAX_OPERATORS - 2) + "1 == 1", true),
            ("false?true:".repeat(MAX_OPERATORS / 2) + "true", true),
            ("nil??".repeat(MAX_OPERATORS / 2) + "true", true),
            ("if false {true} else ".repeat(190) + "{true}", true),
        ] {
            assert_eq!(passes(&text), is, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in "[ -~]{0,60}") {
            drop(ReplyFilter::new(&text));
        }
    }
}
