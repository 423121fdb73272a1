//! What the engine makes of an expression and a reply.

use std::sync::atomic::{AtomicBool, Ordering};

use agent_core::json::path::{Found, lookup};
use choria_protocol::rpc::StatusCode;
use expr::{Context, ContextProvider, Environment, Program, Value};
use serde_json::Map;

use super::{Reply, ReplyFilterError};
use crate::version_constraint;

/// What an expression asks a reply's status with.
const STATUSES: [(&str, StatusCode); 6] = [
    ("ok", StatusCode::Ok),
    ("aborted", StatusCode::Aborted),
    ("unknown_action", StatusCode::UnknownAction),
    ("missing_data", StatusCode::MissingData),
    ("invalid_data", StatusCode::InvalidData),
    ("unknown_error", StatusCode::UnknownError),
];
/// The other functions.
const FUNCTIONS: [&str; 5] = ["data", "include", "semver", "sender", "time"];

/// A compiled expression that may be true or false.
#[derive(Debug)]
pub(super) struct Expression(Program);

impl Expression {
    /// Tries it on an empty reply of each status.
    pub(super) fn new(text: &str) -> Result<Expression, ReplyFilterError> {
        let program = expr::compile(text).map_err(|error| ReplyFilterError::Syntax(error.to_string()))?;
        for (_, status) in STATUSES {
            let (sender, data) = (String::new(), Map::new());
            let reply = Reply { sender, status, message: "OK".into(), data, time: 0 };
            let trial = Trial::default();
            match evaluate(&program, &reply, &trial) {
                // other data may give another type
                Ok(Value::Bool(_)) => {}
                Ok(_) if trial.data.load(Ordering::Relaxed) => {}
                Ok(other) => return Err(ReplyFilterError::NotBoolean(kind(&other))),
                Err(reason) if trial.is_anothers_fault(&reason) => {}
                Err(reason) => return Err(ReplyFilterError::Fails(hinted(reason))),
            }
        }
        Ok(Expression(program))
    }

    pub(super) fn decide(&self, reply: &Reply) -> Result<bool, String> {
        match evaluate(&self.0, reply, &Trial::default())? {
            Value::Bool(passes) => Ok(passes),
            other => Err(format!("it is {}, not true or false", kind(&other))),
        }
    }
}

/// Who forgets the brackets of a function is told.
fn hinted(reason: String) -> String {
    let name = reason.strip_prefix("unknown variable: ").unwrap_or_default();
    let known = STATUSES.iter().map(|(status, _)| *status).chain(FUNCTIONS).any(|known| known == name);
    if known { format!("{reason}; did you mean {name}()?") } else { reason }
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
        let own = ["unknown variable", "Unknown function", "regex parse error"];
        !own.iter().any(|words| reason.contains(words))
            && (self.data.load(Ordering::Relaxed) || self.text.load(Ordering::Relaxed))
    }
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

fn evaluate(program: &Program, reply: &Reply, trial: &Trial) -> Result<Value, String> {
    let mut environment = Environment::new();
    for (name, status) in STATUSES {
        environment.add_function(name, move |call| {
            let [] = call.args.as_slice() else { return failed(format!("{name}() takes nothing")) };
            Ok(Value::Bool(reply.status == status))
        });
    }
    environment.add_function("sender", |call| {
        trial.text.store(true, Ordering::Relaxed);
        let [] = call.args.as_slice() else { return failed("sender() takes nothing") };
        Ok(Value::from(reply.sender.as_str()))
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
        data(&reply.data, path)
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
    let fields = Fields {
        message: Value::from(reply.message.as_str()),
        code: Value::Integer(i64::from(reply.status)),
        trial,
    };
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
