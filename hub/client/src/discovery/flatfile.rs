//! Nodes from a list: a text, JSON or YAML file, or the results of an earlier request (docs/spec/07 §6.2).

use std::collections::HashSet;
use std::path::Path;

use agent_core::json::path::{Found, lookup};
use choria_protocol::Filter;
use choria_protocol::filter::is_regex;
use serde_json::Value;

use super::Discovered;
use crate::ClientError;

/// Largest list read, in bytes.
pub(super) const MAX_FILE: u64 = 64 * 1024 * 1024;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    /// A name on each line; blank lines and `#` comments are skipped.
    Text,
    /// An array of names, or whatever a path leads to.
    Json,
    Yaml,
    /// What `choria req --json` or `--jsonl` prints.
    Results,
}

impl ListFormat {
    /// By the file's ending.
    pub fn of_file(file: &Path) -> Self {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Self::Json,
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Text,
        }
    }

    /// By the word of the `format` option.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "choriarpc" | "results" | "rpc" | "response" => Some(Self::Results),
            _ => None,
        }
    }
}

/// How to read a list.
#[derive(Debug, Clone)]
pub struct ListOptions {
    pub format: ListFormat,
    /// A path into the document that gives an array of names.
    pub path: Option<String>,
    /// Of results: also nodes that did not succeed.
    pub all_results: bool,
}

/// Reads a file of nodes and applies the identity filter; other kinds of filter cannot be applied to names.
pub fn from_file(file: &Path, options: &ListOptions, filter: &Filter) -> Result<Discovered, ClientError> {
    from_text(&read(file)?, options, filter)
}

/// The same for a text that is there already, such as standard input.
pub fn from_text(text: &str, options: &ListOptions, filter: &Filter) -> Result<Discovered, ClientError> {
    if !filter.fact.is_empty() || !filter.cf_class.is_empty() || !filter.compound.is_empty() {
        return Err(ClientError::Discovery(
            "a list of nodes knows no facts, classes or expressions; only identity filters can be used with it".to_owned(),
        ));
    }
    let names = match options.format {
        ListFormat::Text => text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect(),
        ListFormat::Json => {
            let document = serde_json::from_str(text).map_err(|e| unreadable(&e))?;
            names_in(&document, options.path.as_deref())?
        }
        ListFormat::Yaml => {
            let document: Value = serde_saphyr::from_str(text).map_err(|e| unreadable(&e))?;
            names_in(&document, options.path.as_deref())?
        }
        ListFormat::Results => results(text, options.all_results)?,
    };
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for name in names {
        if !choria_token::names::valid_identity(&name) {
            let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
            return Err(ClientError::Discovery(format!("invalid identity string \"{shown}\"")));
        }
        if identity_matches(filter, &name)? && seen.insert(name.clone()) {
            kept.push(name);
        }
    }
    Ok(Discovered::unasked(kept))
}

pub(super) fn read(file: &Path) -> Result<String, ClientError> {
    use std::io::Read as _;
    let failed = |reason: String| ClientError::Read { path: file.to_owned(), reason };
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|e| failed(e.to_string()))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(failed(format!("it is larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

pub(super) fn unreadable(error: &dyn std::fmt::Display) -> ClientError {
    let text: String = error.to_string().lines().next().unwrap_or_default().chars().take(256).collect();
    ClientError::Discovery(format!("the list of nodes cannot be read: {text}"))
}

fn names_in(document: &Value, path: Option<&str>) -> Result<Vec<String>, ClientError> {
    let found = match path {
        None => document.clone(),
        Some(path) => {
            let bytes = serde_json::to_vec(document).map_err(|e| unreadable(&e))?;
            match lookup(&bytes, path) {
                Some(Found::Value(value)) => {
                    serde_json::from_slice(value.raw()).map_err(|e| unreadable(&e))?
                }
                _ => {
                    return Err(ClientError::Discovery(format!(
                        "the path '{path}' leads to no array of names"
                    )));
                }
            }
        }
    };
    let names = found.as_array().and_then(|entries| {
        entries.iter().map(|entry| entry.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    names.ok_or_else(|| {
        ClientError::Discovery("the document is no array of names; give a path with filter=".to_owned())
    })
}

/// Senders of `{"replies":[…]}`, or of one reply on each line.
fn results(text: &str, all: bool) -> Result<Vec<String>, ClientError> {
    let pick = |reply: &Value| -> Option<String> {
        let ok = reply.get("statuscode").and_then(Value::as_i64).unwrap_or(0) == 0;
        let name = reply.get("sender").or_else(|| reply.get("identity"))?.as_str()?;
        (all || ok).then(|| name.to_owned())
    };
    if let Ok(document) = serde_json::from_str::<Value>(text)
        && let Some(replies) = document.get("replies").and_then(Value::as_array)
    {
        return Ok(replies.iter().filter_map(pick).collect());
    }
    let mut names = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // lines about anything but replies have no sender
        names.extend(pick(&serde_json::from_str::<Value>(line).map_err(|e| unreadable(&e))?));
    }
    Ok(names)
}

fn identity_matches(filter: &Filter, name: &str) -> Result<bool, ClientError> {
    if filter.identity.is_empty() {
        return Ok(true);
    }
    for wanted in &filter.identity {
        let matches = if is_regex(wanted) {
            let pattern = wanted.trim_start_matches('/').trim_end_matches('/');
            regex::RegexBuilder::new(pattern)
                .size_limit(64 * 1024)
                .build()
                .map_err(|_| ClientError::Discovery(format!("'{wanted}' is no valid pattern")))?
                .is_match(name)
        } else {
            wanted == name
        };
        if matches {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, format: ListFormat, path: Option<&str>) -> Result<Vec<String>, ClientError> {
        let options = ListOptions { format, path: path.map(str::to_owned), all_results: false };
        from_text(text, &options, &Filter::default()).map(|found| found.identities())
    }

    #[test]
    fn every_format() {
        assert_eq!(
            names("n1\n\n# no\n n2.example.net \nn1\n", ListFormat::Text, None).unwrap(),
            ["n1", "n2.example.net"]
        );
        assert_eq!(names(r#"["n1","n2"]"#, ListFormat::Json, None).unwrap(), ["n1", "n2"]);
        assert_eq!(names(r#"{"a":{"b":["n1"]}}"#, ListFormat::Json, Some("a.b")).unwrap(), ["n1"]);
        assert_eq!(names("- n1\n- n2\n", ListFormat::Yaml, None).unwrap(), ["n1", "n2"]);
        let results = r#"{"replies":[{"sender":"n1","statuscode":0},{"sender":"n2","statuscode":1}]}"#;
        assert_eq!(names(results, ListFormat::Results, None).unwrap(), ["n1"]);
        let lines = "{\"sender\":\"n1\",\"statuscode\":0}\n{\"event\":\"end\"}\n{\"identity\":\"n2\"}\n";
        assert_eq!(names(lines, ListFormat::Results, None).unwrap(), ["n1", "n2"]);
    }

    #[test]
    fn bad_lists_are_refused() {
        for (text, format) in [
            ("n1\nno name\n", ListFormat::Text),
            ("n1\n>\n", ListFormat::Text),
            ("{}", ListFormat::Json),
            ("[1]", ListFormat::Json),
            ("[", ListFormat::Json),
            ("a: [b", ListFormat::Yaml),
            ("nothing", ListFormat::Results),
        ] {
            assert!(names(text, format, None).is_err(), "{text}");
        }
        assert!(names("{}", ListFormat::Json, Some("a.b")).is_err());
    }

    #[test]
    fn identity_filters_apply_and_others_do_not() {
        let options = ListOptions { format: ListFormat::Text, path: None, all_results: false };
        let mut filter = Filter::default();
        filter.add_identity("/^web/");
        filter.add_identity("db1");
        let found = from_text("web1\nweb2\ndb1\ndb2\n", &options, &filter).unwrap();
        assert_eq!(found.identities(), ["web1", "web2", "db1"]);
        filter.add_class("x");
        assert!(from_text("web1\n", &options, &filter).is_err());
    }
}
