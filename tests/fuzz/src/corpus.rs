//! Where inputs come from: the project's golden vectors, and what earlier runs found.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A document of golden vectors, by its path below `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> Value {
    let text = match name {
        "connect/login_request.json" => include_str!("../../fixtures/connect/login_request.json"),
        "connect/nats_connect.json" => include_str!("../../fixtures/connect/nats_connect.json"),
        "filters/filters.json" => include_str!("../../fixtures/filters/filters.json"),
        "protocol/v2_messages.json" => include_str!("../../fixtures/protocol/v2_messages.json"),
        "protocol/v2_secure_request_verdicts.json" => {
            include_str!("../../fixtures/protocol/v2_secure_request_verdicts.json")
        }
        "tokens/chain.json" => include_str!("../../fixtures/tokens/chain.json"),
        "tokens/verdicts.json" => include_str!("../../fixtures/tokens/verdicts.json"),
        other => panic!("there are no vectors {other}"),
    };
    serde_json::from_str(text).expect("golden vectors are JSON")
}

/// Texts as inputs.
pub(crate) fn texts(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Every text inside of a document.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    visit(value, &mut |value| {
        if let Value::String(text) = value {
            found.push(text.clone());
        }
    });
    found
}

/// Every text inside of a document that is itself a JSON object, and every object of the document, up to 4 KiB.
pub(crate) fn documents(value: &Value) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    visit(value, &mut |value| match value {
        Value::String(text) if text.starts_with('{') => found.push(text.clone().into_bytes()),
        Value::Object(_) => found.extend(serde_json::to_vec(value).ok().filter(|bytes| bytes.len() <= 4096)),
        _ => {}
    });
    found.sort();
    found.dedup();
    found
}

/// Every token inside of a document.
pub(crate) fn tokens(value: &Value) -> Vec<String> {
    let mut found = strings(value);
    found.retain(|text| text.starts_with("eyJ") && text.split('.').count() == 3);
    found.sort();
    found.dedup();
    found
}

fn visit(value: &Value, seen: &mut impl FnMut(&Value)) {
    seen(value);
    match value {
        Value::Array(list) => list.iter().for_each(|value| visit(value, seen)),
        Value::Object(members) => members.values().for_each(|value| visit(value, seen)),
        _ => {}
    }
}

/// Where the inputs are that once broke a target: `cases/<target>/`.
pub fn cases(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cases").join(target)
}

/// The kept inputs of a target, with their names: what once broke it, and what a search has reached.
///
/// # Errors
/// A file is there and cannot be read.
pub fn kept(target: &str) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let folder = cases(target);
    if folder.exists() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            found.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
        }
    }
    found.sort();
    let searched =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target).with_extension("txt");
    if searched.exists() {
        let broken = |error| std::io::Error::other(format!("{}: {error}", searched.display()));
        for (number, line) in (1..).zip(std::fs::read_to_string(&searched)?.lines()) {
            found.push((format!("corpus-{number:03}"), STANDARD.decode(line).map_err(broken)?));
        }
    }
    Ok(found)
}
