//! Filters of a request against the node: what a caller may make every node of a fleet evaluate.

use std::time::Duration;

use agent_core::filter::{Filter, Matcher, NoExpressions, Node};
use agent_linux::regexes::Regexes;

use crate::Target;
use crate::corpus::{documents, fixture};
use crate::effort::within;
use crate::pieces::{Script, joined};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "filter_compound",
        oracle: "a request with any compound expression does not match; the rest as a naive evaluation",
        run: filter_compound,
        seeds: filter_seeds,
        words: &[
            "\"compound\":",
            "\"fact\":",
            "\"cf_class\":",
            "\"agent\":",
            "\"identity\":",
            "[{\"expr\":",
            "\"operator\":",
            "\"value\":",
            "\"/.*/\"",
        ],
        longest: 2048,
    },
    Target {
        name: "regex_filter",
        oracle: "an answer within a second and 512 KiB of stack; plain text is found where it stands",
        run: regex_filter,
        seeds: || {
            vec![
                joined(&["web\\d+\\.\\w+", "web12.example"]),
                joined(&["(a*)*$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"]),
                joined(&["(?i)^A|b{2,9}[^c-e]\\pL+", "abbbx"]),
                joined(&["((((((((((a{1,99}){1,99}", "aaa"]),
                joined(&["plain", "some plain text"]),
            ]
        },
        words: &["(?i)", "(?:", "{1,99}", "\\pL", "\\b", "[^", "*)*", "+)+", "(?P<n>", "(?s:.)"],
        longest: 2048,
    },
];

fn filter_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        br#"{"fact":[{"fact":"os.family","operator":"==","value":"RedHat"}],"cf_class":["apache"],"agent":["rpcutil"],"identity":["n1"],"compound":[]}"#.to_vec(),
        br#"{"compound":[[{"expr":"true"}]]}"#.to_vec(),
        br#"{"compound":[[{"expr":"not false"}],[{"expr":"(true)"}]],"identity":["/n\\d/"]}"#.to_vec(),
        br#"{"compound":[[]]}"#.to_vec(),
        br#"{"compound":null}"#.to_vec(),
    ];
    seeds.extend(documents(&fixture("filters/filters.json")).into_iter().filter(|bytes| bytes.len() < 600));
    seeds
}

const FACTS: &[u8] = br#"{"os":{"family":"RedHat"},"cpus":4,"list":[1,2],"on":true}"#;

fn filter_compound(input: &[u8]) {
    let Ok(filter) = Filter::parse(input) else { return };
    let agents = vec!["rpcutil".to_owned(), "discovery".to_owned()];
    let classes = vec!["apache".to_owned()];
    let node = Node { identity: "n1", agents: &agents, classes: &classes, facts: FACTS };
    let passes = within(Duration::from_secs(5), &"a filter", || {
        filter.matches(&node, &Regexes, &NoExpressions, &mut [0; 1024])
    });
    let Ok(host) = serde_json::from_slice::<serde_json::Value>(input) else { return };
    let entries = |name: &str| host[name].as_array().cloned().unwrap_or_default();
    if !entries("compound").is_empty() {
        assert!(!passes, "a compound filter was passed over");
        assert!(filter.is_restrictive());
    }
    let plain = |list: &[serde_json::Value]| {
        list.iter().all(|entry| entry.as_str().is_some_and(|text| !text.is_empty() && !text.contains('/')))
    };
    let (identities, agents_asked) = (entries("identity"), entries("agent"));
    if plain(&identities) && !identities.is_empty() && !identities.iter().any(|name| name == "n1") {
        assert!(!passes, "another identity was asked for");
    }
    if plain(&agents_asked) {
        let known = agents_asked.iter().all(|name| agents.iter().any(|agent| name == agent));
        assert!(known || !passes, "an agent was asked for that is not here");
    }
    let only = ["identity", "agent", "fact", "cf_class", "compound"];
    if host.as_object().is_some_and(|members| {
        members
            .iter()
            .all(|(name, list)| only.contains(&name.as_str()) && list.as_array().is_some_and(Vec::is_empty))
    }) {
        assert!(passes && !filter.is_restrictive(), "an empty filter excludes");
    }
}

fn regex_filter(input: &[u8]) {
    let mut script = Script::new(input);
    let (Ok(pattern), Ok(text)) = (std::str::from_utf8(script.text()), std::str::from_utf8(script.text()))
    else {
        return;
    };
    let (pattern, text) = (pattern.to_owned(), text.to_owned());
    let plain = pattern.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let expected = plain.then(|| text.contains(&pattern));
    let run = move || {
        let answer = within(Duration::from_secs(1), &pattern, || Regexes.matches(&pattern, false, &text));
        assert!(expected.is_none() || answer == expected, "{pattern:?} in {text:?}: {answer:?}");
        Regexes.matches(&pattern, true, &text)
    };
    let small = std::thread::Builder::new().stack_size(512 * 1024).spawn(run).expect("a thread");
    small.join().expect("the matcher answers");
}
