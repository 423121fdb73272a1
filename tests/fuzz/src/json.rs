//! The core's JSON scanner against serde_json.

use agent_core::json::{Error, Object, Value, check_unambiguous, unescape_in_place};

use crate::Target;
use crate::corpus::{documents, fixture, texts};
use crate::oracle::{Case, Reading, read};

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "json_scanner",
    oracle: "serde_json with repeated and case-variant names refused; equal values",
    run: json_scanner,
    seeds: || {
        let mut seeds = texts(&[
            r#"{"a":1,"A":2}"#,
            r#"[1e400,-0.0,1.5E-7,"\ud83d\ude00\u0000\/",{},[]]"#,
            "{\"\u{17f}\":1,\"s\":2}",
            r#"{"n":9223372036854775807,"b":[true,false,null]} "#,
            "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        ]);
        seeds.extend(documents(&fixture("protocol/v2_messages.json")));
        seeds
    },
    words: &[
        "{\"a\":",
        "null",
        "true",
        "false",
        "\\u0061",
        "\\ud83d\\ude00",
        "1e5",
        "-0",
        "\u{212a}",
        "\u{17f}",
        "[[[[",
        "]]]]",
    ],
    longest: 4096,
}];

fn json_scanner(input: &[u8]) {
    let mut names = [0; 256];
    let ours = check_unambiguous(input, &mut names);
    match read(input, Case::Folded, usize::from(agent_core::json::MAX_DEPTH)) {
        Reading::Unrepresentable => {}
        Reading::One(value) => {
            assert!(matches!(ours, Ok(()) | Err(Error::NoSpace)), "{ours:?} for what serde_json reads");
            same(&Value::parse(input).expect("checked before"), &value);
        }
        Reading::Ambiguous => {
            // Whichever comes first in the document is reported.
            assert!(ours.is_err(), "an ambiguous document was taken");
        }
        Reading::TooDeep => assert!(ours.is_err(), "a deep document was taken"),
        Reading::NotJson => assert!(ours.is_err(), "what serde_json refuses was taken"),
    }
    if let Ok(object) = Object::parse(input) {
        for (name, value) in object.entries() {
            let mut copy = value.raw().to_vec();
            if let Some(text) = value.as_text() {
                let expected: String = text.chars().collect();
                let inside = &mut copy[1..text.raw().len() + 1];
                let length = unescape_in_place(inside).expect("a legal string");
                assert_eq!(&inside[..length], expected.as_bytes());
            }
            assert!(name.chars().count() <= name.raw().len());
        }
    }
}

fn same(ours: &Value<'_>, host: &serde_json::Value) {
    use serde_json::Value as Host;
    match host {
        Host::Null => assert_eq!(ours.kind(), agent_core::json::Kind::Null),
        Host::Bool(truth) => assert_eq!(ours.as_bool(), Some(*truth)),
        Host::String(text) => {
            let mut room = vec![0; text.len()];
            assert_eq!(ours.as_text().expect("a string").unescape(&mut room), Ok(text.as_str()));
        }
        Host::Number(number) => {
            let text = ours.as_number().expect("a number");
            let value: f64 = text.parse().expect("a number");
            let host = number.as_f64().expect("a number");
            // serde_json's quick parser may be off by the last digit.
            assert!((value - host).abs() <= host.abs() * 1e-15, "{text} is {host}");
            if let (Some(whole), Some(ours)) = (number.as_i64(), ours.as_i64()) {
                assert_eq!(ours, whole, "{text}");
            }
        }
        Host::Array(list) => {
            let elements: Vec<_> = ours.elements().expect("a list").collect();
            assert_eq!(elements.len(), list.len());
            elements.iter().zip(list).for_each(|(ours, host)| same(ours, host));
        }
        Host::Object(members) => {
            let object = ours.as_object().expect("an object");
            assert_eq!(object.entries().count(), members.len());
            for (name, value) in object.entries() {
                let name: String = name.chars().collect();
                same(&value, members.get(&name).unwrap_or_else(|| panic!("no member {name:?}")));
            }
        }
    }
}
