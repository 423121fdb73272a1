//! Filters against upstream's own answers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "a test may fail")]

use agent_core::filter::{
    Expressions, Filter, Matcher, NoExpressions, NoRegex, Node, fact_matches, parse_fact_expression,
};
use agent_core::json::Error;
use proptest::prelude::*;
use serde_json::{Value, json};

struct HostRegex;

impl Matcher for HostRegex {
    const SUPPORTED: bool = true;

    fn matches(&self, pattern: &str, ignore_case: bool, text: &str) -> Option<bool> {
        let built =
            regex::RegexBuilder::new(pattern).case_insensitive(ignore_case).size_limit(1 << 16).build();
        built.ok().map(|regex| regex.is_match(text))
    }
}

/// Knows three words; anything else is an error.
struct Words;

impl Expressions for Words {
    fn holds(&self, expression: &str, _node: &Node<'_>) -> Option<bool> {
        match expression {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/fixtures/filters/filters.json")).unwrap()
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn passes(filter: &Value) -> bool {
    let vectors = vectors();
    let (agents, classes) = (names(&vectors["agents"]["known"]), names(&vectors["classes"]["known"]));
    let node = Node {
        identity: vectors["identity"]["identity"].as_str().unwrap(),
        agents: &agents,
        classes: &classes,
        facts: vectors["facts_json"].as_str().unwrap().as_bytes(),
    };
    let filter = serde_json::to_vec(filter).unwrap();
    Filter::parse(&filter).unwrap().matches(&node, &HostRegex, &Words, &mut [0; 1024])
}

#[test]
fn lists_of_names() {
    let vectors = vectors();
    for (section, member) in [("agents", "agent"), ("classes", "cf_class"), ("identity", "identity")] {
        for case in vectors[section]["cases"].as_array().unwrap() {
            if case["filter"].as_array().unwrap().is_empty() {
                // The vectors ask the matcher of one kind; a filter without that kind does not ask it.
                assert!(passes(&json!({ member: [] })));
                continue;
            }
            assert_eq!(passes(&json!({ member: case["filter"] })), case["match"] == true, "{section} {case}");
        }
    }
}

#[test]
fn every_fact_comparison_is_upstreams() {
    let vectors = vectors();
    let facts = vectors["facts_json"].as_str().unwrap().as_bytes();
    let mut compared = 0;
    for (path, operators) in vectors["fact_results"].as_object().unwrap() {
        for operator in vectors["fact_operators"].as_array().unwrap() {
            let operator = operator.as_str().unwrap();
            let results = &operators[operator];
            for value in vectors["fact_values"].as_array().unwrap() {
                let has = |list: &str| results[list].as_array().is_some_and(|list| list.contains(value));
                let text = value.as_str().unwrap();
                let ours = fact_matches(facts, path, operator, text, &HostRegex, &mut [0; 256]);
                let expected = if has("error") { None } else { Some(has("true")) };
                assert_eq!(ours.ok(), expected, "{path} {operator} {text:?}");
                let filter = json!({"fact":[{"fact":path,"operator":operator,"value":text}]});
                if compared % 7 == 0 {
                    assert_eq!(passes(&filter), expected == Some(true), "{filter}");
                }
                compared += 1;
            }
        }
    }
    assert!(compared >= 23 * 8 * 31);
}

#[test]
fn fact_expressions_are_taken_apart() {
    for case in vectors()["parse_fact_filter"].as_array().unwrap() {
        let ours = parse_fact_expression(case["input"].as_str().unwrap());
        match ours {
            None => assert_eq!(case["error"], true, "{case}"),
            Some(ours) => {
                assert_eq!(
                    json!([ours.fact, ours.operator, ours.value]),
                    json!([case["fact"], case["operator"], case["value"]]),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn compound_filters_are_counted() {
    let vectors = vectors();
    for case in vectors["compound"]["several_filters"].as_array().unwrap() {
        let entries: Vec<Value> =
            case["exprs"].as_array().unwrap().iter().map(|expr| json!([{ "expr": expr }])).collect();
        assert_eq!(passes(&json!({ "compound": entries })), case["match"] == true, "{case}");
    }
    for case in vectors["compound"]["malformed"].as_array().unwrap() {
        assert_eq!(passes(&json!({ "compound": case["filter"] })), case["match"] == true, "{case}");
    }
}

#[test]
fn t_250_t_252_t_253_t_254_what_cannot_be_evaluated_does_not_match() {
    let node =
        Node { identity: "n1", agents: &&["a"][..], classes: &&["c"][..], facts: br#"{"s":"x","n":1}"# };
    let passes = |filter: Value| {
        let filter = serde_json::to_vec(&filter).unwrap();
        Filter::parse(&filter).unwrap().matches(&node, &NoRegex, &NoExpressions, &mut [0; 64])
    };
    assert!(passes(json!({})));
    assert!(passes(json!({"identity":["n1"],"agent":["a"],"cf_class":["c"]})));
    assert!(passes(json!({"fact":[{"fact":"s","operator":"==","value":"X"}]})));
    let long = ["a"; 20_000].join(".");
    for filter in [
        json!({"identity":["/n1/"]}),
        json!({"agent":["/a/"]}),
        json!({"cf_class":["/c/"]}),
        json!({"fact":[{"fact":"s","operator":"=~","value":"x"}]}),
        json!({"fact":[{"fact":"n","operator":"=~","value":"1"}]}),
        json!({"compound":[[{"expr":"true"}]]}),
        json!({"future":["x"]}),
        json!({"fact":[{"fact":"s","operator":"=="}]}),
        json!({"fact":["s==x"]}),
        json!({"identity":[1]}),
        json!({"fact":vec![json!({"fact":"s","operator":"==","value":"x"}); 65]}),
        json!({"fact":[{"fact":"s","operator":"==","value":"x".repeat(100)}]}),
        json!({"cf_class":vec!["c"; 65]}),
        json!({"compound":[[{"expr":"config_item('plugin.nats.pass').value startsWith 'a'"}]]}),
        json!({"fact":[{"fact":long,"operator":"==","value":"x"}]}),
        json!({"identity":["/(a{1,1000}){1,1000}/"]}),
    ] {
        assert!(!passes(filter.clone()), "{filter}");
    }
    assert!(passes(json!({"future":[]})));
    assert!(matches!(Filter::parse(br#"{"agent":[],"Agent":[]}"#), Err(Error::Ambiguous { .. })));
    assert_eq!(Filter::parse(br#"{"agent":null}"#).unwrap_err(), Error::Type);
    let restrictive = |text: &[u8]| Filter::parse(text).unwrap().is_restrictive();
    assert!(!restrictive(br#"{"agent":["a"],"fact":[]}"#));
    assert!(restrictive(br#"{"identity":["a"]}"#));
    for row in [250, 252, 253, 254] {
        choria_rows::row(row, "a node without patterns and expressions, 64 bytes of room", "no match");
    }
}

proptest! {
    #[test]
    fn arbitrary_filters_never_panic(filter in "\\PC{0,40}|\\{\"(fact|identity|compound|cf_class)\":\\[(\"/?\\PC{0,6}/?\"|\\{\"fact\":\"\\PC{0,4}\",\"operator\":\"[=<>~!]{1,2}\",\"value\":\"\\PC{0,6}\"\\}|\\[\\])\\]\\}", fact in "\\PC{0,20}") {
        let node = Node { identity: "n1", agents: &&["a"][..], classes: &&["c"][..], facts: fact.as_bytes() };
        if let Ok(parsed) = Filter::parse(filter.as_bytes()) {
            parsed.matches(&node, &HostRegex, &Words, &mut [0; 32]);
        }
        let _ = parse_fact_expression(&filter);
    }

    #[test]
    fn configuration_text_never_panics(text in "\\PC{0,80}|([a-z.]{0,4} ?=? ?[a-z,]{0,4}\n){0,6}") {
        let config = agent_core::config::Config::new(&text);
        for line in config.lines() {
            prop_assert!(config.get(line.key).is_some());
            let _ = (config.bool(line.key, true), config.int(line.key, 1), config.list(line.key).count());
        }
    }
}
