//! Policies in tokens: whoever may issue a token makes every node parse and evaluate its text.

use std::time::Duration;

use choria_host::rego::{Extensions, Policy};

use crate::Target;
use crate::corpus::texts;
use crate::effort::within;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "rego_guard",
    oracle: "what the guard lets pass is parsed within a second and evaluated within its limit, on 4 MiB of stack",
    run: rego_guard,
    seeds: || {
        texts(&[
            "package io.choria.aaasvc\n\ndefault allow = false\n\nallow {\n  input.agent == \"rpcutil\"\n  input.action == \"ping\"\n}\n",
            "package io.choria.aaasvc\nimport rego.v1\ndefault allow := false\nallow if {\n  input.agent in [\"a\", \"b\"]\n  count(input.data) < 3\n}\n",
            "package io.choria.aaasvc\nallow { x := [y | y := input.list[_]; y > 1]; count(x) == 2 }\n",
            "package io.choria.aaasvc\nallow { a }\na { b }\nb { [[[[1]]]] == input.x }\n",
            "package io.choria.aaasvc\nallow { startswith(input.caller, \"up=\"); regex.match(\"^a+$\", input.agent) }\n",
        ])
    },
    words: &[
        "package ",
        "allow {",
        "default ",
        "import rego.v1",
        " if {",
        "input.",
        "some ",
        "every ",
        "not ",
        "[_]",
        "[[[[",
        "{{{{",
        "sprintf(",
        "--",
        "((((",
        "with input as ",
        "else = ",
        ":= ",
    ],
    longest: 4096,
}];

fn rego_guard(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let text = text.to_owned();
    let run = move || {
        let Ok(policy) = within(Duration::from_secs(1), &text, || Policy::parse(&text)) else { return };
        let question = serde_json::json!({"agent": "rpcutil", "action": "ping", "caller": "up=alice", "data": {"a": 1},
            "list": [1, 2, 3], "x": [[[[1]]]], "time": 1_798_761_600});
        let decision = within(Duration::from_secs(3), &text, || {
            policy.allow("data.io.choria.aaasvc.allow", &question, Extensions::default())
        });
        if !text.contains("allow") {
            assert!(!decision.allowed(), "a policy without 'allow' allows");
        }
        let again =
            policy.allow("data.io.choria.aaasvc.nothing_of_this_name", &question, Extensions::default());
        assert!(!again.allowed(), "a rule that is not there allows");
    };
    let small = std::thread::Builder::new().stack_size(4 * 1024 * 1024).spawn(run).expect("a thread");
    small.join().expect("the policy is answered");
}
