//! Inputs of an action: from the text a person typed to the value that is sent, and the rules it has to meet
//! (docs/spec/03 §5.1, 07 §4.3).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};
use thiserror::Error;

use super::{Action, Input};

/// Compiled size a validation pattern may reach, in bytes (docs/spec/10 N13).
const REGEX_SIZE: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InputError {
    #[error("input '{0}' is required")]
    Required(String),
    #[error("input '{name}' has not been declared, valid inputs are: {valid}", valid = list(.valid))]
    Undeclared { name: String, valid: Vec<String> },
    #[error("input '{name}' {reason}")]
    NotConvertible { name: String, reason: String },
    #[error("validation failed for input '{name}': {reason}")]
    Invalid { name: String, reason: String },
}

impl InputError {
    /// The input concerned.
    pub fn input(&self) -> &str {
        match self {
            Self::Required(name)
            | Self::Undeclared { name, .. }
            | Self::NotConvertible { name, .. }
            | Self::Invalid { name, .. } => name,
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Something a value was accepted in spite of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputWarning {
    pub input: String,
    pub text: String,
}

impl Action {
    /// Turns `key=value` texts into the data of a request: converts by declared type, fills in defaults, validates.
    ///
    /// A key that is not declared as written is looked for in lower case, as peers do.
    pub fn inputs_from_text(
        &self,
        texts: &BTreeMap<String, String>,
    ) -> Result<(Map<String, Value>, Vec<InputWarning>), InputError> {
        self.inputs(&Map::new(), texts)
    }

    /// The same with inputs of a document, which texts replace. A string in a document is a text, so that YAML needs
    /// no types; every other value stays as it is.
    pub fn inputs(
        &self,
        document: &Map<String, Value>,
        texts: &BTreeMap<String, String>,
    ) -> Result<(Map<String, Value>, Vec<InputWarning>), InputError> {
        let mut data = Map::new();
        for (key, value) in document {
            let (name, input) = self.declared(key)?;
            let value = match value {
                Value::String(text) => convert(name, input, text)?,
                other => other.clone(),
            };
            data.insert(name.to_owned(), value);
        }
        for (key, text) in texts {
            let (name, input) = self.declared(key)?;
            data.insert(name.to_owned(), convert(name, input, text)?);
        }
        self.fill_input_defaults(&mut data);
        let warnings = self.validate(&data)?;
        Ok((data, warnings))
    }

    fn declared(&self, key: &str) -> Result<(&str, &Input), InputError> {
        self.input
            .get_key_value(key)
            .or_else(|| self.input.get_key_value(&key.to_lowercase()))
            .map(|(name, input)| (name.as_str(), input))
            .ok_or_else(|| InputError::Undeclared {
                name: key.to_owned(),
                valid: self.input.keys().cloned().collect(),
            })
    }

    /// Adds declared defaults for inputs that are missing. An empty text is no default: published agents declare
    /// it even for inputs that must be given, and it would fail the input's own pattern.
    pub fn fill_input_defaults(&self, data: &mut Map<String, Value>) {
        for (name, input) in &self.input {
            let usable = !input.default.is_null() && input.default != "";
            if usable && !data.contains_key(name) {
                data.insert(name.clone(), input.default.clone());
            }
        }
    }

    /// Checks data against the declared inputs.
    pub fn validate(&self, data: &Map<String, Value>) -> Result<Vec<InputWarning>, InputError> {
        let mut warnings = Vec::new();
        for (name, input) in &self.input {
            match data.get(name) {
                None if input.optional => {}
                None => return Err(InputError::Required(name.clone())),
                Some(value) => {
                    if let Some(text) = check(name, input, value)? {
                        warnings.push(InputWarning { input: name.clone(), text });
                    }
                }
            }
        }
        match data.keys().find(|name| !self.input.contains_key(*name)) {
            None => Ok(warnings),
            Some(name) => Err(InputError::Undeclared {
                name: name.clone(),
                valid: self.input.keys().cloned().collect(),
            }),
        }
    }
}

fn convert(name: &str, input: &Input, text: &str) -> Result<Value, InputError> {
    let fail = |reason: String| InputError::NotConvertible { name: name.to_owned(), reason };
    match input.kind.to_ascii_lowercase().as_str() {
        "integer" | "int" => text
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| fail(format!("should be a whole number, not '{text}'"))),
        "float" | "number" => text
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map(|number| whole(&number).map_or(Value::Number(number), Value::from))
            .ok_or_else(|| fail(format!("should be a number, not '{text}'"))),
        "boolean" => match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => Err(fail(format!("should be true or false, not '{text}'"))),
        },
        "hash" => match serde_json::from_str(text) {
            Ok(value @ Value::Object(_)) => Ok(value),
            Ok(_) => Err(fail("should be a JSON object".to_owned())),
            Err(error) => Err(fail(format!("should be a JSON object: {error}"))),
        },
        "array" => match serde_json::from_str(text) {
            Ok(value @ Value::Array(_)) => Ok(value),
            Ok(_) => Err(fail("should be a JSON array".to_owned())),
            Err(error) => Err(fail(format!("should be a JSON array: {error}"))),
        },
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// Peers print a float without fraction as `1`, not `1.0`.
fn whole(number: &serde_json::Number) -> Option<i64> {
    let float = number.as_f64()?;
    // beyond 2^53 not every whole number exists as a float
    let exact = float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0;
    exact.then(|| format!("{float:.0}").parse().ok()).flatten()
}

/// Checks one value; `Ok(Some(_))` is a warning.
fn check(name: &str, input: &Input, value: &Value) -> Result<Option<String>, InputError> {
    let verdict = match input.kind.to_ascii_lowercase().as_str() {
        "integer" | "int" => need(is_whole(value), "is not an integer"),
        "number" => need(value.is_number(), "is not a number"),
        "float" => need(value.is_number(), "is not a float"),
        "boolean" => need(value.is_boolean(), "is not a boolean"),
        "hash" => need(value.is_object(), "is not a hash map"),
        "array" => need(value.is_array(), "is not an array"),
        "list" => match value.as_str() {
            None => Err("should be a string".to_owned()),
            Some(text) if input.choices.iter().any(|choice| choice == text) => Ok(None),
            Some(_) => Err(format!("should be one of {}", input.choices.join(", "))),
        },
        "string" => match value.as_str() {
            None => Err("is not a string".to_owned()),
            Some(text) => check_string(input, text),
        },
        other => Err(format!("unsupported input type '{other}'")),
    };
    verdict.map_err(|reason| InputError::Invalid { name: name.to_owned(), reason })
}

fn need(met: bool, otherwise: &str) -> Result<Option<String>, String> {
    if met { Ok(None) } else { Err(otherwise.to_owned()) }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|float| float.fract() == 0.0)
}

fn check_string(input: &Input, text: &str) -> Result<Option<String>, String> {
    if input.maxlength > 0 && u64::try_from(text.len()).unwrap_or(u64::MAX) > input.maxlength {
        return Err(format!("is longer than {} characters", input.maxlength));
    }
    match input.validation.as_str() {
        "" => Ok(None),
        "shellsafe" => {
            match ["`", "$", ";", "|", "&&", ">", "<"]
                .into_iter()
                .find(|unsafe_text| text.contains(unsafe_text))
            {
                Some(found) => Err(format!("may not contain '{found}'")),
                None => Ok(None),
            }
        }
        "ipv4address" => need(text.parse::<Ipv4Addr>().is_ok(), "is not an IPv4 address"),
        "ipv6address" => need(is_ipv6(text), "is not an IPv6 address"),
        "ipaddress" => {
            need(text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok(), "is not an IP address")
        }
        other if other.starts_with(|c: char| c.is_ascii_lowercase()) => Ok(Some(format!(
            "the DDL asks for validator '{other}', which is not known here and was not applied"
        ))),
        pattern => {
            let regex = regex::RegexBuilder::new(&escape_lone_braces(pattern))
                .size_limit(REGEX_SIZE)
                .build()
                .map_err(|_| format!("cannot be checked: the DDL has an invalid pattern '{pattern}'"))?;
            need(regex.is_match(text), &format!("input does not match '{pattern}'"))
        }
    }
}

/// A v4 address written as `::ffff:…` is none.
fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok_and(|address| address.to_ipv4_mapped().is_none())
}

/// RE2, which patterns are written for, reads a brace that starts no repetition as itself (`^{.+}$`).
fn escape_lone_braces(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 4);
    let mut rest = pattern.chars();
    let mut in_class = false;
    let mut repetition = false;
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                out.push(c);
                let Some(escaped) = rest.next() else { break };
                out.push(escaped);
                // \p{Greek} and \x{10FFFF} own their braces
                if matches!(escaped, 'p' | 'P' | 'x') && rest.as_str().starts_with('{') {
                    for inside in rest.by_ref() {
                        out.push(inside);
                        if inside == '}' {
                            break;
                        }
                    }
                }
                continue;
            }
            '[' => in_class = true,
            ']' => in_class = false,
            '{' if !in_class => {
                repetition = starts_repetition(rest.as_str());
                if !repetition {
                    out.push('\\');
                }
            }
            '}' if !in_class => {
                if !repetition {
                    out.push('\\');
                }
                repetition = false;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

fn starts_repetition(after_brace: &str) -> bool {
    after_brace.split_once('}').is_some_and(|(inside, _)| {
        inside.starts_with(|c: char| c.is_ascii_digit())
            && inside.bytes().all(|b| b.is_ascii_digit() || b == b',')
    })
}
