//! Facts that a caller asks for, by a path of its own making.

use std::time::Duration;

use agent_core::filter::parse_fact_expression;
use agent_core::json::path::{Found, lookup};

use crate::Target;
use crate::effort::within;
use crate::pieces::{Script, joined};

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "fact_path",
    oracle: "gjson, for the part of its language that both speak; bounded time",
    run: fact_path,
    seeds: path_seeds,
    words: &["#.", "#(", ")#", "==\"", "\\.", "*.", ".0", "|", "@this", "!="],
    longest: 2048,
}];

fn path_seeds() -> Vec<Vec<u8>> {
    let facts = r#"{"s":"hi","dotted.key":"lit","arr":[1,"2",3.5],"disks":[{"name":"sda","size":64},{"name":"nvme0n1","size":128}],"x1":{"no":1}}"#;
    [
        "s",
        "dotted\\.key",
        "arr.0",
        "arr.#",
        "disks.#.name",
        "disks.#(name==\"sda\").size",
        "x*.no",
        "disks.#(size>100)#",
        "os.family=RedHat",
    ]
    .iter()
    .map(|path| joined(&[path, facts]))
    .collect()
}

/// Paths that both readers understand alike: names and indices, or `#`, without wildcards (see agent-core's tests for
/// where the oracle loses its way).
fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 200
        && path.split('.').count() <= 16
        && path.split('.').all(|part| {
            part == "#"
                || (!part.is_empty()
                    && part.len() < 12
                    && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()))
        })
}

fn fact_path(input: &[u8]) {
    let mut script = Script::new(input);
    let path = script.text();
    let document = script.rest();
    let Ok(path) = std::str::from_utf8(path) else { return };
    let ours = within(Duration::from_secs(2), &path, || lookup(document, path));
    if let Some(Found::Value(value)) = &ours {
        assert!(
            document.windows(value.raw().len()).any(|window| window == value.raw()),
            "not a part of the document"
        );
    }
    if let Some(expression) = parse_fact_expression(path) {
        assert!(!expression.fact.is_empty() && !expression.value.is_empty());
        assert!(path.contains(expression.fact) && path.contains(expression.value));
    }
    let Ok(text) = std::str::from_utf8(document) else { return };
    // The oracle reads on where a document is broken, and has its own idea of escaped and repeated names.
    let has_one_reading = matches!(
        crate::oracle::read(document, crate::oracle::Case::Exact, 16),
        crate::oracle::Reading::One(_)
    );
    if !is_plain(path) || !has_one_reading || text.contains('\\') || !text.starts_with(['{', '[']) {
        return;
    }
    let oracle = gjson::get(text, path);
    match ours {
        None => assert!(!oracle.exists(), "{path} in {text}: the oracle has {}", oracle.json()),
        Some(Found::Value(value)) => {
            assert_eq!(std::str::from_utf8(value.raw()), Ok(oracle.json()), "{path} in {text}")
        }
        Some(Found::Count(count)) => assert_eq!(count, oracle.u64(), "{path} in {text}"),
        Some(Found::List) => assert!(oracle.kind() == gjson::Kind::Array, "{path} in {text}"),
    }
}
