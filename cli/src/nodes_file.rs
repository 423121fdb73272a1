//! Names of nodes from a file: text, JSON, YAML, or the results of an earlier request (docs/spec/07 §6.2).

use std::io::Read;
use std::path::Path;

use choria_protocol::Filter;
use choria_token::names;
use serde_json::Value;

use crate::discovery_flags::DiscoveryFlags;
use crate::failure::{Doing, Failure};

/// A list of a million names fits.
const LIMIT: u64 = 64 * 1024 * 1024;

/// The nodes named by `--nodes`, or by the options `file=` and `format=`; `-I` narrows them.
pub(crate) fn read(flags: &DiscoveryFlags, filter: &Filter) -> Result<Vec<String>, Failure> {
    let option = |name: &str| {
        let of = |text: &String| {
            text.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        flags.options.iter().find_map(of)
    };
    let file = match (&flags.nodes, option("file")) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) => path.into(),
        (None, None) => return Err(Failure::usage("which file? give --nodes FILE, or --do file=FILE")),
    };
    if !filter.fact.is_empty() || !filter.cf_class.is_empty() || !filter.compound.is_empty() {
        return Err(Failure::usage("a file knows names only: beside --nodes the only filter is -I"));
    }
    let text = contents(&file)?;
    let format = option("format").unwrap_or_else(|| guess(&file, &text).to_owned());
    let found = match format.as_str() {
        "text" => lines(&text),
        "json" => json_list(&text).doing(|| format!("{} is not a JSON list of names", file.display()))?,
        "yaml" | "yml" => serde_saphyr::from_str(&text).map_err(|error| {
            Failure::new(format!("{} is not a YAML list of names: {error}", file.display()))
        })?,
        "results" | "rpc" | "response" | "choriarpc" => results(&text).ok_or_else(|| {
            Failure::new(format!("{} does not hold the results of a request", file.display()))
        })?,
        other => {
            return Err(Failure::usage(format!(
                "format {other:?} is not known: text, json, yaml or results"
            )));
        }
    };
    if let Some(bad) = found.iter().find(|name| !names::valid_identity(name)) {
        return Err(Failure::new(format!("{}: invalid identity string {bad:?}", file.display())));
    }
    let mut seen = std::collections::HashSet::new();
    let wanted =
        |name: &String| filter.identity.is_empty() || filter.identity.iter().any(|text| matches(text, name));
    Ok(found.into_iter().filter(wanted).filter(|name| seen.insert(name.clone())).collect())
}

fn matches(filter: &str, name: &str) -> bool {
    match filter.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
        Some(pattern) => regex::Regex::new(pattern).is_ok_and(|regex| regex.is_match(name)),
        None => filter == name,
    }
}

fn contents(path: &Path) -> Result<String, Failure> {
    let what = || format!("cannot read the names of nodes from {}", path.display());
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(LIMIT).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).doing(what)?.take(LIMIT).read_to_string(&mut text)
    };
    read.doing(what)?;
    Ok(text)
}

fn guess(path: &Path, text: &str) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        _ if text.trim_start().starts_with('{') => "results",
        Some("json") => "json",
        Some("yaml" | "yml") => "yaml",
        _ if text.trim_start().starts_with('[') => "json",
        _ => "text",
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn json_list(text: &str) -> Result<Vec<String>, serde_json::Error> {
    serde_json::from_str(text)
}

/// The nodes that succeeded in an earlier `choria req --json`.
fn results(text: &str) -> Option<Vec<String>> {
    let document: Value = serde_json::from_str(text).ok()?;
    let replies = document.get("replies")?.as_array()?;
    let ok = replies.iter().filter(|reply| reply.get("statuscode").and_then(Value::as_i64) == Some(0));
    Some(ok.filter_map(|reply| reply.get("sender")?.as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::{guess, lines, results};
    use std::path::Path;

    #[test]
    fn blank_lines_and_comments_are_no_names() {
        assert_eq!(lines("n1\n\n# n2\n  n3  \n"), ["n1", "n3"]);
    }

    #[test]
    fn results_of_a_request_are_recognised() {
        let text = r#"{"replies":[{"sender":"n1","statuscode":0},{"sender":"n2","statuscode":1}]}"#;
        assert_eq!(guess(Path::new("-"), text), "results");
        assert_eq!(results(text).unwrap(), ["n1"]);
    }
}
