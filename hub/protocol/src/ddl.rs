//! The agent schema ("DDL"): what actions an agent has, what they take and what they answer (docs/spec/03 §5).

mod builtin;
mod input;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

pub use builtin::{builtin, builtin_names};
pub use input::{InputError, InputWarning};

/// `$schema` of every agent DDL.
pub const AGENT_SCHEMA: &str = "https://choria.io/schemas/mcorpc/ddl/v1/agent.json";

/// The largest DDL file accepted, in bytes.
pub const MAX_DDL: usize = 1024 * 1024;

/// Seconds a client allows an agent whose DDL says 0.
const DEFAULT_TIMEOUT: u64 = 10;

#[derive(Debug, Error)]
pub enum DdlError {
    #[error("the DDL is {0} bytes; at most {MAX_DDL} are accepted")]
    Oversize(usize),
    #[error("the DDL is not valid: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the DDL has $schema '{0}', not that of an agent")]
    WrongSchema(String),
    #[error("'{name}' is not a valid name for {what}: use a-z, 0-9 and _")]
    BadName { what: &'static str, name: String },
    #[error("the DDL describes action '{0}' twice")]
    DuplicateAction(String),
    #[error("unknown action {agent}#{action}")]
    UnknownAction { agent: String, action: String },
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ddl {
    #[serde(rename = "$schema", default = "agent_schema")]
    pub schema: String,
    pub metadata: Metadata,
    #[serde(default)]
    pub actions: Vec<Action>,
}

fn agent_schema() -> String {
    AGENT_SCHEMA.to_owned()
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    pub name: String,
    pub description: String,
    pub author: String,
    pub license: String,
    pub version: String,
    pub url: String,
    /// Seconds the agent may take.
    pub timeout: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// One host of a queue group answers, without discovery.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub service: bool,
}

impl Metadata {
    /// Seconds to wait for the agent, with the client's default in place of 0.
    pub fn timeout_or_default(&self) -> u64 {
        if self.timeout == 0 { DEFAULT_TIMEOUT } else { self.timeout }
    }
}

/// Which replies a person wants to see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Display {
    Ok,
    #[default]
    Failed,
    Always,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    #[serde(rename = "action")]
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub display: Display,
    #[serde(default)]
    pub input: BTreeMap<String, Input>,
    #[serde(default)]
    pub output: BTreeMap<String, Output>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aggregate: Vec<Aggregate>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Input {
    pub prompt: String,
    pub description: String,
    /// `string integer number float boolean list hash array`, in whatever case the author wrote.
    #[serde(rename = "type")]
    pub kind: String,
    pub optional: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub validation: String,
    /// Bytes; 0 is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub maxlength: u64,
    /// Permitted values of a `list`.
    #[serde(rename = "list", skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub default: Value,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    pub description: String,
    pub display_as: String,
    /// Empty is any.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub default: Value,
}

/// A summary over all replies: `args[0]` names the output, `args[1]` may hold options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    pub function: String,
    #[serde(default)]
    pub args: Vec<Value>,
}

impl Ddl {
    /// Parses and checks a DDL file.
    pub fn parse(bytes: &[u8]) -> Result<Self, DdlError> {
        if bytes.len() > MAX_DDL {
            return Err(DdlError::Oversize(bytes.len()));
        }
        let ddl: Self = serde_json::from_slice(bytes)?;
        ddl.check()?;
        Ok(ddl)
    }

    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// # Errors
    /// [`DdlError::UnknownAction`], in the words that people search for.
    pub fn action(&self, name: &str) -> Result<&Action, DdlError> {
        self.actions.iter().find(|action| action.name == name).ok_or_else(|| DdlError::UnknownAction {
            agent: self.metadata.name.clone(),
            action: name.to_owned(),
        })
    }

    fn check(&self) -> Result<(), DdlError> {
        if self.schema != AGENT_SCHEMA {
            return Err(DdlError::WrongSchema(shown(&self.schema)));
        }
        let valid = |what, name: &str| {
            if is_short_name(name) { Ok(()) } else { Err(DdlError::BadName { what, name: shown(name) }) }
        };
        valid("an agent", &self.metadata.name)?;
        let mut seen = std::collections::BTreeSet::new();
        for action in &self.actions {
            valid("an action", &action.name)?;
            if !seen.insert(action.name.as_str()) {
                return Err(DdlError::DuplicateAction(action.name.clone()));
            }
            action.input.keys().try_for_each(|name| valid("an input", name))?;
        }
        Ok(())
    }
}

impl Action {
    /// Adds the declared defaults of outputs that an answer lacks (docs/spec/03 §5.2).
    pub fn fill_output_defaults(&self, data: &mut Map<String, Value>) {
        for (name, output) in &self.output {
            if !output.default.is_null() && !data.contains_key(name) {
                data.insert(name.clone(), output.default.clone());
            }
        }
    }
}

/// The published pattern has lower case only, but published agents have inputs such as `OU`.
fn is_short_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}
