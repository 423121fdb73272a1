//! Policies that must answer, and hostile ones that must only ever deny.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;

const RULE: &str = "data.io.choria.aaasvc.allow";

fn evaluate(text: &str, input: &Value) -> Decision {
    evaluate_with(text, input, Extensions::default())
}

fn evaluate_with(text: &str, input: &Value, ext: Extensions) -> Decision {
    match Policy::parse(text) {
        Ok(policy) => policy.allow(RULE, input, ext),
        Err(error) => Decision::Deny(error.to_string()),
    }
}

fn v1(rules: &str) -> String {
    format!("package io.choria.aaasvc\n\n{rules}\n")
}

#[test]
fn both_dialects_are_read() {
    let input = json!({"agent": "rpcutil", "action": "ping"});
    for (text, dialect) in [
        (
            v1("default allow := false\nallow if { input.agent == \"rpcutil\"; input.action in [\"ping\"] }"),
            Dialect::V1,
        ),
        (v1("default allow = false\nallow { input.agent == \"rpcutil\" }"), Dialect::V0),
        (
            v1("import future.keywords.in\ndefault allow = false\nallow { input.action in {\"ping\"} }"),
            Dialect::V0,
        ),
        (v1("allow { contains(input.agent, \"util\") }"), Dialect::V0),
        (v1("import rego.v1\ndefault allow := false\nallow if input.agent == \"rpcutil\""), Dialect::V1),
    ] {
        let policy = Policy::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(policy.dialect(), dialect, "{text}");
        assert_eq!(policy.allow(RULE, &input, Extensions::default()), Decision::Allow, "{text}");
        let denied = policy.allow(RULE, &json!({"agent": "shell", "action": "run"}), Extensions::default());
        assert!(!denied.allowed(), "{text}");
    }
}

#[test]
fn t_205_text_of_v1_never_means_what_a_v0_reader_would_see() {
    for text in [
        v1("allow if { 1 == 2 }"),
        // Broken v1 text: falling back to v0 would make the first rule hold for everyone.
        v1("allow if { 1 == 2 }\ndeny { true }"),
        v1("import rego.v1\nallow { true }"),
        v1("deny contains \"x\"\nallow { true }"),
        v1("allow { every x in [1] { x == 2 } }"),
        v1("allow { some x in [1]; x == 2 }"),
    ] {
        assert!(!evaluate(&text, &json!({})).allowed(), "{text}");
    }
    let error = Policy::parse(&v1("allow if { 1 == 2 }\ndeny { true }")).err();
    assert!(matches!(error, Some(PolicyError::OnlyV1 { .. })), "{error:?}");
    choria_rows::row(205, "allow if { 1 == 2 } without the import, at the node", "denied");
}

#[test]
fn t_206_deep_brackets_are_refused_before_the_parser_sees_them() {
    for (open, close) in [("[", "]"), ("{", "}"), ("[{", "}]"), ("{\"a\":[", "]}")] {
        for levels in [18, 1000, 20_000] {
            let text = v1(&format!("allow if {{ x := {}{}; x }}", open.repeat(levels), close.repeat(levels)));
            // the best of a few: a busy machine may take any one of them away from us
            let quickest = (0..5).map(|_| {
                let start = Instant::now();
                assert!(Policy::parse(&text).is_err());
                start.elapsed()
            });
            let quickest = quickest.min().unwrap_or_default();
            assert!(quickest < Duration::from_millis(50), "{open} {levels}: {quickest:?}");
        }
    }
    choria_rows::row(206, "18 levels of brackets", "refused before parsing");
}

#[test]
fn many_allowed_brackets_still_parse_in_bounded_time() {
    let group = format!("{}1{}", "[".repeat(8), "]".repeat(8));
    let text = v1(&format!("allow if {{ x := [{}] }}", vec![group; 2000].join(",")));
    let start = Instant::now();
    assert!(Policy::parse(&text).is_err());
    // The most that the budget admits, at any depth.
    for (depth, count) in [(8usize, 32usize), (6, 120), (4, 450), (2, 2500)] {
        let group = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let text = v1(&format!("allow if {{ {} }}", vec![group; count].join("; ")));
        let _outcome = Policy::parse(&text).is_ok();
        assert!(start.elapsed() < Duration::from_secs(10), "{depth} {count}: {:?}", start.elapsed());
    }
}

#[test]
fn t_207_recursion_is_refused_in_every_disguise() {
    for rules in [
        "f(x) if { f(x) }\nallow if f(1)",
        "f(x) if g(x)\ng(x) if f(x)\nallow if f(1)",
        "f(x) := y if { y := data.io.choria.aaasvc.f(x) }\nallow if f(1)",
        "f(x) := y if { y := data[\"io\"].choria[\"aaasvc\"][\"\\u0066\"](x) }\nallow if f(1)",
        "import data.io.choria.aaasvc.f as g\nf(x) if { g(x) }\nallow if f(1)",
        "import data.io.choria.aaasvc as p\nf(x) if { p.f(x) }\nallow if f(1)",
        "import data.io as q\nf(x) if { q.choria.aaasvc.f(x) }\nallow if f(1)",
        "f(x) if { h(x) with h as f }\nh(x) if x\nallow if f(1)",
        "default f(_) := false\nf(x) := true if { not f(x) }\nallow if f(1)",
        "f(x) := 1 if { x == 2 } else := f(x)\nallow if f(1)",
        "f(x) if { every y in [1] { f(y) } }\nallow if f(1)",
        "f(x) if { [y | y := f(x)] }\nallow if f(1)",
        "f(x) := {\"a\": f(x)}\nallow if f(1)",
        "a := b\nb := a\nallow if a",
        "allow if data.io.choria.aaasvc",
        "allow if { some x; data.io.choria[x] }",
        "f(x) if { data.io.choria.aaasvc[x].f(x) }\nallow if f(1)",
    ] {
        let text = v1(rules);
        let error = Policy::parse(&text).err();
        assert!(error.is_some(), "accepted: {rules}");
        assert!(!evaluate(&text, &json!({})).allowed());
    }
    choria_rows::row(207, "f(x) if { f(x) } and its disguises", "refused, the process lives");
}

/// Deep chains without a cycle overflow the stack just as well. Run on the smallest stack that evaluates policies.
#[test]
fn long_chains_never_overflow_a_worker_stack() {
    let chain = |n: usize, call: fn(usize) -> String, rule: fn(usize, &str) -> String| {
        (0..n).map(|i| rule(i, &call(i + 1))).collect::<Vec<_>>().join("\n")
    };
    let mut texts = Vec::new();
    for n in [10, 20, 25, 30, 40, 60, 100, 800] {
        let functions = chain(n, |i| format!("f{i}(x)"), |i, next| format!("f{i}(x) if {{ {next} }}"));
        texts.push(v1(&format!("{functions}\nf{n}(x) if x == 1\nallow if f0(1)")));
        let values = chain(n, |i| format!("v{i}"), |i, next| format!("v{i} if {{ {next} }}"));
        texts.push(v1(&format!("{values}\nv{n} if true\nallow if v0")));
        let comprehensions = chain(
            n,
            |i| format!("f{i}(x)"),
            |i, next| format!("f{i}(x) := [y | some y in [z | z := {next}]]"),
        );
        texts.push(v1(&format!("{comprehensions}\nf{n}(x) := [1]\nallow if f0(1)")));
    }
    for n in [50, 120, 150, 200, 2000, 10_000] {
        texts.push(v1(&format!("allow if {{ {} == 1 }}", vec!["1"; n].join("+"))));
        texts.push(v1(&format!("allow if {{ input{} }}", "[0]".repeat(n))));
        texts.push(v1(&format!("allow if {{ input{} }}", ".a".repeat(n))));
        texts.push(v1(&format!("allow if {{ {}1{} == 1 }}", "(".repeat(n), ")".repeat(n))));
        texts.push(v1(&format!("allow if {{ {}1 == 1 }}", "-".repeat(n))));
        texts.push(v1(&format!("allow if {{ {} true }}", "not ".repeat(n))));
        texts
            .push(v1(&format!("allow := 1 if {{ false }}{}", " else := 2 if { false }".repeat(n.min(2500)))));
        texts.push(v1(&format!("allow if {{ x := {}1{} }}", "f(".repeat(n), ")".repeat(n))));
        texts.push(v1(&format!("allow if {{ {} }}", vec!["1"; n].join(" | "))));
        texts.push(v1(&format!("allow if {{ {} }}", vec!["1"; n].join(" == "))));
        texts.push(v1(&format!("allow if {{ {} }}", vec!["1"; n].join(" in "))));
    }
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(move || {
        for text in &texts {
            let _decision = evaluate(text, &json!({}));
        }
    });
    assert!(thread.expect("a thread").join().is_ok());
}

#[test]
fn t_208_long_loops_end_in_time() {
    let range = (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let text =
        v1(&format!("xs := [{range}]\nallow if {{ xs[a]; xs[b]; xs[c]; xs[d]; a + b + c + d == -1 }}"));
    let policy = Policy::parse(&text).expect("a policy");
    // The engine that was stopped is not used again; and the best of a few, as above.
    let quickest = (0..5).map(|_| {
        let start = Instant::now();
        assert!(!policy.allow(RULE, &json!({}), Extensions::default()).allowed());
        start.elapsed()
    });
    let quickest = quickest.min().unwrap_or_default();
    assert!(quickest < Duration::from_millis(400), "{quickest:?}");
    choria_rows::row(208, "10^8 iterations", "denied in time");
}

#[test]
fn t_209_the_outside_world_is_out_of_reach() {
    for rules in [
        "allow if { r := http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"}); r }",
        "allow if { not http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"}) }",
        "allow if { opa.runtime() }",
        "allow if { not opa.runtime().x }",
        "allow if { net.cidr_expand(\"0.0.0.0/0\") }",
        "allow if { net.lookup_ip_addr(\"localhost\") }",
    ] {
        assert!(!evaluate(&v1(rules), &json!({})).allowed(), "{rules}");
    }
    choria_rows::row(209, "http.send, opa.runtime", "denied");
}

#[test]
fn t_210_only_exactly_true_allows() {
    for rules in [
        "allow := \"true\"",
        "allow := 1",
        "allow := [true]",
        "allow := null",
        "allow if input.missing",
        "allow := true\nallow := false",
        "other := true",
        "allow contains true",
        "allow[x] if { x := \"a\" }",
    ] {
        let decision = evaluate(&v1(rules), &json!({}));
        assert!(!decision.allowed(), "{rules}");
        assert!(matches!(decision, Decision::Deny(reason) if !reason.is_empty()));
    }
    assert!(!evaluate("package other\nallow := true", &json!({})).allowed());
    assert!(evaluate(&v1("allow := true"), &json!({})).allowed());
    choria_rows::row(210, "\"true\", 1, two values, undefined, another package", "denied");
}

#[test]
fn a_failing_builtin_is_undefined_and_does_not_abort_the_policy() {
    let rules = "default allow := false\nallow if { to_number(\"x\") > 1 }\nallow if { input.ok }";
    assert!(evaluate(&v1(rules), &json!({"ok": true})).allowed());
    assert!(!evaluate(&v1(rules), &json!({"ok": false})).allowed());
}

#[test]
fn memory_cannot_be_filled_by_one_call() {
    let doubling = |function: &str| {
        let steps =
            (1..60).map(|i| function.replace("@", &format!("a{}", i - 1)).replace("#", &format!("a{i}")));
        v1(&format!(
            "allow if {{ a0 := \"xxxxxxxxxxxxxxxx\"; {}; a59 }}",
            steps.collect::<Vec<_>>().join("; ")
        ))
    };
    for text in [
        doubling("# := concat(\"\", [@, @])"),
        doubling("# := sprintf(\"%s%s\", [@, @])"),
        doubling("# := replace(@, \"x\", \"xx\")"),
        doubling("# := hex.encode(@)"),
        doubling("# := json.marshal(@)"),
        doubling("# := regex.replace(@, \"x\", \"xx\")"),
        doubling("# := strings.replace_n({\"x\": \"xx\"}, @)"),
        v1("allow if { x := numbers.range(0, 1000000000000); x }"),
        v1("allow if { x := numbers.range_step(0, 1000000000000, 1); x }"),
        v1("allow if { x := bits.lsh(1, 1000000000000); x }"),
        v1("allow if { x := sprintf(\"%999999999d\", [1]); x }"),
        v1("allow if { x := sprintf(\"%1²d\", [1]); x }"),
        v1("allow if { x := 1e999999999; x > 1 }"),
        v1("allow if { x := to_number(\"1e999999999\"); x > 1 }"),
        v1("allow if { x := units.parse(\"1e999999999\"); x > 1 }"),
        v1("allow if { x := json.unmarshal(\"[1e999999999]\"); x[0] > 1 }"),
        v1(&format!(
            "allow if {{ a0 := 10; {}; a59 }}",
            (1..60).map(|i| format!("a{i} := a{} * a{}", i - 1, i - 1)).collect::<Vec<_>>().join("; ")
        )),
    ] {
        let start = Instant::now();
        assert!(!evaluate(&text, &json!({})).allowed(), "{}", text.get(..200).unwrap_or(&text));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?} {text}", start.elapsed());
    }
    assert!(
        evaluate(
            &v1("allow if { count(numbers.range(1, 10)) == 10; sprintf(\"%d-%s\", [1, \"a\"]) == \"1-a\" }"),
            &json!({})
        )
        .allowed()
    );
}

#[test]
fn t_211_filter_functions_without_a_filter_are_false() {
    for rule in [
        "allow if requires_filter()",
        "allow if requires_fact_filter(\"country=mt\")",
        "allow if requires_class_filter(\"apache\")",
        "allow if requires_identity_filter(\"some.node\")",
    ] {
        assert!(!evaluate(&v1(rule), &json!({})).allowed(), "{rule}");
        let empty = Extensions { filter: Some(Arc::default()), now_ns: 0 };
        assert!(!evaluate_with(&v1(rule), &json!({}), empty).allowed(), "{rule}");
        let full = RequestFilter {
            facts: vec![FactFilter { fact: "country".into(), operator: "==".into(), value: "mt".into() }],
            classes: vec!["apache".into()],
            identities: vec!["some.node".into()],
            compound: false,
        };
        let ext = Extensions { filter: Some(Arc::new(full)), now_ns: 0 };
        assert_eq!(evaluate_with(&v1(rule), &json!({}), ext), Decision::Allow, "{rule}");
    }
    choria_rows::row(211, "requires_filter() without a filter", "false, denied");
}

#[test]
fn a_reused_engine_forgets_the_request_before() {
    let policy =
        Policy::parse(&v1("default allow := false\nallow if { requires_filter(); input.who == \"bob\" }"))
            .expect("a policy");
    let filter = RequestFilter { classes: vec!["a".into()], ..RequestFilter::default() };
    let with = || Extensions { filter: Some(Arc::new(filter.clone())), now_ns: 0 };
    for _ in 0..3 {
        assert!(policy.allow(RULE, &json!({"who": "bob"}), with()).allowed());
        assert!(!policy.allow(RULE, &json!({"who": "eve"}), with()).allowed());
        assert!(!policy.allow(RULE, &json!({"who": "bob"}), Extensions::default()).allowed());
    }
}

#[test]
fn change_windows_can_be_expressed() {
    // 2024-05-01T12:30:15Z, a Wednesday.
    let now_ns = 1_714_566_615_000_000_000;
    let ext = Extensions { filter: None, now_ns };
    let rules = "allow if {
        [h, m, s] := time.clock(time.now_ns())
        h == 12; m == 30; s == 15
        time.weekday(time.now_ns()) == \"Wednesday\"
        [y, mo, d] := time.date([time.now_ns(), \"UTC\"])
        y == 2024; mo == 5; d == 1
        time.now_ns() - time.parse_rfc3339_ns(\"2024-05-01T12:30:00Z\") == time.parse_duration_ns(\"15s\")
    }";
    assert_eq!(evaluate_with(&v1(rules), &json!({}), ext), Decision::Allow);
}

#[test]
fn t_213_a_policy_beyond_the_limit_is_refused() {
    let text = v1(&format!("# {}\nallow := true", "x".repeat(MAX_POLICY_BYTES)));
    assert!(matches!(Policy::parse(&text), Err(PolicyError::TooLong { .. })));
    assert!(matches!(PolicyCache::new(4).get(&text), Err(PolicyError::TooLong { .. })));
    choria_rows::row(213, "a policy of 64 KiB + 1", "refused");
}

#[test]
fn the_cache_is_bounded_and_remembers_refusals() {
    let cache = PolicyCache::new(4);
    for i in 0..20 {
        assert!(cache.get(&v1(&format!("allow := {}", i % 2 == 0))).is_ok());
    }
    assert!(cache.get("not rego").is_err());
    assert_eq!(cache.get("not rego").err(), cache.get("not rego").err());
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        #[test]
        fn no_text_panics(text in "\\PC{0,400}") {
            let _outcome = Policy::parse(&text).is_ok();
        }

        #[test]
        fn no_rego_like_text_panics_or_takes_long(
            tokens in proptest::collection::vec(prop_oneof![
                Just("allow"), Just("if"), Just("f(x)"), Just("{"), Just("}"), Just("["), Just("]"), Just(":="), Just("="),
                Just("=="), Just("input"), Just(".a"), Just("1"), Just("\"s\""), Just("\n"), Just("not"), Just("some"),
                Just("in"), Just("every"), Just("|"), Just(","), Just("else"), Just("default"), Just("with"), Just("as"),
                Just("import"), Just("data"), Just("contains"), Just("-"), Just("`r`"), Just("#c\n"), Just(";"), Just(":"),
            ], 0..60),
        ) {
            let text = v1(&tokens.join(" "));
            let start = Instant::now();
            if let Ok(policy) = Policy::parse(&text) {
                let _decision = policy.allow(RULE, &json!({"a": {"a": 1}}), Extensions::default());
            }
            prop_assert!(start.elapsed() < Duration::from_secs(5));
        }
    }
}
