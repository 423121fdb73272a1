//! Our built-in DDLs against the published ones, and the rules for inputs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::{collections::BTreeMap, path::PathBuf};

use choria_protocol::ddl::{Ddl, InputError, builtin};
use serde_json::{Value, json};

/// Differences that are meant, as `agent#action.input`.
const MEANT: &[&str] = &[
    // the published `shellsafe` would refuse every filter with `<` or `>` (docs/spec/03 §7.7)
    "aaa_signer#sign.request",
];

#[test]
fn builtin_inputs_and_outputs_are_those_of_peers() {
    let directory =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors/schemas/ddl/agent");
    if !directory.is_dir() {
        println!("skipped: {} is not there", directory.display());
        return;
    }
    for agent in ["rpcutil", "choria_util", "choria_provision", "aaa_signer"] {
        let ours = builtin(agent).unwrap();
        let theirs = Ddl::parse(&std::fs::read(directory.join(format!("{agent}.json"))).unwrap()).unwrap();
        assert_eq!(
            (ours.metadata.timeout, ours.metadata.service),
            (theirs.metadata.timeout, theirs.metadata.service),
            "{agent}"
        );
        assert_eq!(ours.actions.len(), theirs.actions.len(), "{agent}");
        for their in &theirs.actions {
            let our = ours.action(&their.name).unwrap();
            let place = format!("{agent}#{}", their.name);
            assert_eq!(our.display, their.display, "{place}");
            assert_eq!(our.aggregate, their.aggregate, "{place}");
            assert!(our.input.keys().eq(their.input.keys()), "{place}");
            for (name, input) in &our.input {
                let there = &their.input[name];
                let place = format!("{place}.{name}");
                assert_eq!(
                    (&input.kind, input.optional, input.maxlength),
                    (&there.kind, there.optional, there.maxlength),
                    "{place}"
                );
                if !MEANT.contains(&place.as_str()) {
                    assert_eq!(input.validation, there.validation, "{place}");
                }
            }
            assert!(our.output.keys().eq(their.output.keys()), "{place}");
            for (name, output) in &our.output {
                assert_eq!(
                    (&output.kind, &output.default),
                    (&their.output[name].kind, &their.output[name].default),
                    "{place}.{name}"
                );
            }
        }
    }
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn example() -> Ddl {
    Ddl::parse(
        json!({
            "$schema": "https://choria.io/schemas/mcorpc/ddl/v1/agent.json",
            "metadata": {"name": "x", "description": "", "author": "", "license": "", "version": "1", "url": "", "timeout": 0},
            "actions": [{"action": "go", "description": "", "input": {
                "count": {"type": "integer", "optional": true},
                "ratio": {"type": "float", "optional": true},
                "on": {"type": "boolean", "optional": true},
                "map": {"type": "Hash", "optional": true},
                "many": {"type": "array", "optional": true},
                "one": {"type": "list", "optional": true, "list": ["a", "b"], "default": "a"},
                "word": {"type": "string", "validation": "^[a-z]{2,4}$", "maxlength": 0},
                "safe": {"type": "string", "optional": true, "validation": "shellsafe", "maxlength": 10},
                "v4": {"type": "string", "optional": true, "validation": "ipv4address", "maxlength": 100},
                "v6": {"type": "string", "optional": true, "validation": "ipv6address", "maxlength": 100},
                "odd": {"type": "string", "optional": true, "validation": "futurerule", "maxlength": 100}
            }}]
        })
        .to_string()
        .as_bytes(),
    )
    .unwrap()
}

#[test]
fn texts_become_values_and_defaults_are_filled_in() {
    let ddl = example();
    let (data, warnings) = ddl
        .action("go")
        .unwrap()
        .inputs_from_text(&texts(&[
            ("COUNT", "12"),
            ("ratio", "1.5"),
            ("on", "T"),
            ("map", "{\"k\":1}"),
            ("many", "[1,2]"),
            ("word", "abc"),
            ("odd", "z"),
        ]))
        .unwrap();
    assert_eq!(
        Value::Object(data),
        json!({"count": 12, "ratio": 1.5, "on": true, "map": {"k": 1}, "many": [1, 2], "word": "abc", "one": "a", "odd": "z"})
    );
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].input, "odd");
    assert_eq!(ddl.metadata.timeout_or_default(), 10);
}

#[test]
fn inputs_of_a_document_are_texts_or_values_and_texts_replace_them() {
    let ddl = example();
    let action = ddl.action("go").unwrap();
    let document = json!({
        "count": "12", "ratio": 2, "ON": true, "map": {"k": 1}, "many": "[1,2]", "WORD": "abc", "one": "b",
    });
    let (data, _) =
        action.inputs(document.as_object().unwrap(), &texts(&[("word", "xyz"), ("ratio", "1.5")])).unwrap();
    assert_eq!(
        Value::Object(data),
        json!({"count": 12, "ratio": 1.5, "on": true, "map": {"k": 1}, "many": [1, 2], "word": "xyz", "one": "b"})
    );
    for (document, says) in [
        (json!({"word": 7}), "'word': is not a string"),
        (json!({"word": null}), "'word': is not a string"),
        (json!({"word": "abc", "count": "x"}), "should be a whole number"),
        (json!({"word": "abc", "count": 1.5}), "is not an integer"),
        (json!({"word": "abc", "nope": 1}), "'nope' has not been declared"),
        (json!({"count": 1}), "'word' is required"),
    ] {
        let error = action.inputs(document.as_object().unwrap(), &texts(&[])).unwrap_err().to_string();
        assert!(error.contains(says), "{document}: {error}");
    }
}

#[test]
fn bad_inputs_are_named() {
    let ddl = example();
    let action = ddl.action("go").unwrap();
    assert_eq!(ddl.action("stop").unwrap_err().to_string(), "unknown action x#stop");
    assert_eq!(action.inputs_from_text(&texts(&[])).unwrap_err().to_string(), "input 'word' is required");
    let undeclared = action.inputs_from_text(&texts(&[("word", "abc"), ("nope", "1")])).unwrap_err();
    assert!(undeclared.to_string().starts_with("input 'nope' has not been declared"), "{undeclared}");
    for (name, text, says) in [
        ("word", "toolong", "does not match"), // although maxlength is 0
        ("count", "1.5", "whole number"),
        ("on", "yes", "true or false"),
        ("map", "[1]", "JSON object"),
        ("many", "{", "JSON array"),
        ("one", "c", "should be one of a, b"),
        ("safe", "a;b", "may not contain ';'"),
        ("safe", "abcdefghijk", "is longer than 10 characters"),
        ("v4", "300.1.1.1", "IPv4"),
        ("v6", "::ffff:1.2.3.4", "IPv6"),
        ("ratio", "NaN", "a number"),
    ] {
        let mut given = texts(&[("word", "abc")]);
        given.insert(name.to_owned(), text.to_owned());
        let error = action.inputs_from_text(&given).unwrap_err();
        assert_eq!(error.input(), name);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn patterns_written_for_re2_work() {
    let ddl = builtin("choria_provision").unwrap();
    let configure = ddl.action("configure").unwrap();
    let good = texts(&[("config", "{\"a\":\"b\"}")]);
    assert!(configure.inputs_from_text(&good).is_ok());
    assert!(matches!(
        configure.inputs_from_text(&texts(&[("config", "nope")])),
        Err(InputError::Invalid { .. })
    ));
    let csr = ddl.action("gencsr").unwrap();
    assert!(csr.inputs_from_text(&texts(&[("token", "t"), ("C", "GB"), ("OU", "a b-c")])).is_ok());
    assert!(csr.inputs_from_text(&texts(&[("token", "t"), ("C", "gb")])).is_err());
    // a required input whose default is "" is still required
    assert!(matches!(ddl.action("jwt").unwrap().inputs_from_text(&texts(&[])), Err(InputError::Required(_))));
}

#[test]
fn malformed_ddls_are_refused() {
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"$schema":"x","metadata":{"name":"a"}}"#,
        r#"{"metadata":{"name":"../a"}}"#,
        r#"{"metadata":{"name":"a"},"actions":[{"action":"x"},{"action":"x"}]}"#,
        r#"{"metadata":{"name":"a"},"actions":[{"action":"x/y"}]}"#,
    ] {
        assert!(Ddl::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}
