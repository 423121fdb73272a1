//! Subjects, patterns and permission sets against a matcher that is obviously right.

use std::cell::RefCell;
use std::sync::Arc;

use nats_engine::permissions::{Compiled, SubscribeDecision};
use nats_engine::{AccountConfig, Engine, EngineConfig, InProcess, Open, Permissions, Rules, subject};

use crate::Target;
use crate::pieces::{Script, joined};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "subject_match",
        oracle: "naive matcher, for one pattern and for delivery through the broker's index",
        run: subject_match,
        seeds: || {
            vec![
                joined(&["a.b.c", "a.*.c", "a.>", ">", "*.*.*", "a.b"]),
                joined(&["choria.reply.h.x", "*.reply.h.>", "choria.reply.*.*", "choria.>"]),
                joined(&["a", "a", "*", ">", "a.>", "b"]),
                joined(&["$SYS.a", "$SYS.>", ">", "*.a"]),
            ]
        },
        words: &[".*", ".>", ">", "*", ".", "choria.reply.", "$SYS."],
        longest: 512,
    },
    Target {
        name: "subset",
        oracle: "containment, overlap and intersection agree with the naive matcher on every subject of a small alphabet",
        run: subset,
        seeds: || {
            vec![
                joined(&["*.reply.h.>", "choria.reply.h.>"]),
                joined(&["a.*", "a.>"]),
                joined(&["*.b.>", "a.*.c"]),
                joined(&[">", ">"]),
                joined(&["a.b", "a.c"]),
            ]
        },
        words: &[".*", ".>", ">", "*", "."],
        longest: 64,
    },
    Target {
        name: "permission_set",
        oracle: "naive evaluation of the lists; a subscription never gets what publishing its subject would be denied",
        run: permission_set,
        seeds: || {
            vec![
                joined(&["a.b", "q", "\u{1}", "*.reply.h.>", "a.>", "", "*.reply.>"]),
                joined(&["jobs", "workers.a", "\u{3}", "jobs workers.*", "", "jobs other"]),
                joined(&[">", "", "\u{7}", "a.>", "a.secret", "b", "a.b"]),
            ]
        },
        words: &[".*", ".>", ">", "*", ".", " q", " *"],
        longest: 512,
    },
];

thread_local! {
    /// One broker for all inputs: each subscribes, publishes and leaves.
    static BROKER: RefCell<Option<(tokio::runtime::Runtime, Engine, InProcess)>> = const { RefCell::new(None) };
}

fn with_broker(test: impl FnOnce(&InProcess)) {
    BROKER.with_borrow_mut(|broker| {
        let (_, _, connection) = broker.get_or_insert_with(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let _inside = runtime.enter();
            let engine = Engine::new(
                EngineConfig::default(),
                vec![AccountConfig::named("A")],
                Arc::new(Open::new("A")),
            )
            .expect("an engine");
            let connection = engine.connect_in_process("A", "fuzz").expect("the account is there");
            (runtime, engine, connection)
        });
        test(connection);
    });
}

fn subject_match(input: &[u8]) {
    let mut script = Script::new(input);
    let literal = script.text();
    let mut patterns = Vec::new();
    while !script.is_over() && patterns.len() < 8 {
        patterns.push(script.text());
    }
    for pattern in &patterns {
        if subject::valid_pattern(pattern) && subject::valid_literal(literal) {
            let expected = subject_matches(&tokens(pattern), &tokens(literal));
            assert_eq!(subject::matches(pattern, literal), expected);
        }
    }
    let Ok(name) = std::str::from_utf8(literal) else { return };
    // Answers across accounts have subjects of their own, which only the broker gives out.
    if name.starts_with("_R_.") {
        return;
    }
    with_broker(|broker| {
        let mut subscribed = Vec::new();
        for pattern in patterns.iter().filter_map(|pattern| std::str::from_utf8(pattern).ok()) {
            let taken = broker.subscribe(pattern);
            assert_eq!(taken.is_ok(), subject::valid_pattern(pattern.as_bytes()), "{pattern:?}");
            subscribed.extend(taken.ok().map(|subscription| (pattern, subscription)));
        }
        let published = broker.publish(name, b"x");
        assert_eq!(published.is_ok(), subject::valid_literal(literal), "{name:?}");
        for (pattern, subscription) in &mut subscribed {
            let got = subscription.try_next().is_some();
            let expected =
                published.is_ok() && subject_matches(&tokens(pattern.as_bytes()), &tokens(literal));
            assert_eq!(got, expected, "{name:?} to a subscription of {pattern:?}");
            assert!(subscription.try_next().is_none(), "delivered twice");
        }
    });
}

/// Every subject of up to four tokens from the patterns' own words and one that is in neither.
fn small_subjects(patterns: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut words: Vec<&[u8]> = patterns.iter().flat_map(|pattern| tokens(pattern)).collect();
    words.retain(|word| !matches!(*word, b"*" | b">"));
    words.sort_unstable();
    words.dedup();
    words.truncate(7);
    words.push(b"~another");
    let mut subjects: Vec<Vec<u8>> = Vec::new();
    let mut last: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
    for _ in 0..4 {
        let longer = last
            .iter()
            .flat_map(|subject| words.iter().map(move |word| [subject, b".".as_slice(), word].concat()));
        let longer = longer.collect();
        subjects.append(&mut last);
        last = longer;
    }
    subjects
}

fn subset(input: &[u8]) {
    let mut script = Script::new(input);
    let (outer, inner) = (script.text(), script.text());
    if !subject::valid_pattern(outer) || !subject::valid_pattern(inner) {
        return;
    }
    let common = subject::intersection(outer, inner);
    assert_eq!(subject::overlaps(outer, inner), common.is_some());
    assert_eq!(subject::overlaps(inner, outer), common.is_some(), "overlap has no direction");
    assert!(subject::covers(outer, outer) && subject::covers(b">", inner));
    let covers = subject::covers(outer, inner);
    let mut all_inside = true;
    for subject in small_subjects(&[outer, inner]) {
        let words = tokens(&subject);
        let (in_outer, in_inner) =
            (subject_matches(&tokens(outer), &words), subject_matches(&tokens(inner), &words));
        all_inside &= in_outer || !in_inner;
        if let Some(common) = &common {
            assert_eq!(subject::matches(common, &subject), in_outer && in_inner, "intersection");
        } else {
            assert!(!(in_outer && in_inner), "an overlap was missed");
        }
    }
    if covers {
        assert!(all_inside, "the outer pattern does not cover the inner one");
    } else if tokens(outer).len() < 4 && tokens(inner).len() < 4 {
        assert!(!all_inside, "the outer pattern does cover the inner one");
    }
}

fn permission_set(input: &[u8]) {
    let mut script = Script::new(input);
    let (pattern, queue) = (script.text(), script.text());
    let shape = script.byte();
    script.text();
    let mut lists: [Vec<String>; 4] = Default::default();
    let mut turn = 0;
    while !script.is_over() && turn < 16 {
        let Ok(entry) = std::str::from_utf8(script.text()) else { return };
        let (name, group) = entry.split_once(' ').unwrap_or((entry, "x"));
        if subject::valid_pattern(name.as_bytes()) && subject::valid_pattern(group.as_bytes()) {
            // Only subscribe rules know queues.
            let text = if turn % 4 < 2 { name } else { entry };
            lists[turn % 4].push(text.to_owned());
        }
        turn += 1;
    }
    if !subject::valid_pattern(pattern) || !(queue.is_empty() || subject::valid_literal(queue)) {
        return;
    }
    let [publish_allow, publish_deny, subscribe_allow, subscribe_deny] = lists;
    let permissions = Permissions {
        publish: Rules { allow: (shape & 1 == 0).then_some(publish_allow), deny: publish_deny },
        subscribe: Rules { allow: (shape & 2 == 0).then_some(subscribe_allow), deny: subscribe_deny },
    };
    let compiled = Compiled::new(&permissions);
    let any = |list: &[String], subject: &[u8]| {
        list.iter().any(|entry| subject_matches(&tokens(entry.as_bytes()), &tokens(subject)))
    };
    if subject::valid_literal(pattern) {
        let allowed = permissions.publish.allow.as_ref().is_none_or(|list| any(list, pattern))
            && !any(&permissions.publish.deny, pattern);
        assert_eq!(compiled.may_publish(pattern), allowed, "publish");
    }
    // The rules that apply to this queue, as plain patterns.
    let applying = |list: &[String]| -> Vec<String> {
        list.iter()
            .filter_map(|entry| match entry.split_once(' ') {
                None => Some(entry.clone()),
                Some((name, group)) => {
                    let fits =
                        !queue.is_empty() && subject_matches(&tokens(group.as_bytes()), &tokens(queue));
                    fits.then(|| name.to_owned())
                }
            })
            .collect()
    };
    let allow_list = permissions.subscribe.allow.as_ref().filter(|list| !list.is_empty());
    let allow = allow_list.map(|list| applying(list));
    let deny = applying(&permissions.subscribe.deny);
    let decision = compiled.may_subscribe(pattern, queue);
    let mut patterns: Vec<&[u8]> = vec![pattern];
    patterns.extend(allow.iter().flatten().chain(&deny).map(String::as_bytes));
    for subject in small_subjects(&patterns) {
        if !subject_matches(&tokens(pattern), &tokens(&subject)) {
            continue;
        }
        let may = allow.as_ref().is_none_or(|list| any(list, &subject)) && !any(&deny, &subject);
        match decision {
            SubscribeDecision::Denied => {}
            SubscribeDecision::Allowed => {
                assert!(may, "allowed, and {:?} is not", String::from_utf8_lossy(&subject))
            }
            SubscribeDecision::Filtered => {
                assert!(
                    may || !compiled.may_receive(&subject),
                    "{:?} passes the filter",
                    String::from_utf8_lossy(&subject)
                );
            }
        }
        if subject == pattern && may {
            assert_ne!(decision, SubscribeDecision::Denied, "a literal that is allowed was denied");
        }
    }
}

/// Whether a subject matches a pattern, by the words of docs/spec/09 §A6: token by token, from the front, recursively.
fn subject_matches(pattern: &[&[u8]], subject: &[&[u8]]) -> bool {
    match (pattern, subject) {
        ([b">"], [_, ..]) => true,
        ([], []) => true,
        ([first, pattern @ ..], [token, subject @ ..]) => {
            (first == b"*" || first == token) && subject_matches(pattern, subject)
        }
        _ => false,
    }
}

/// The tokens of a subject.
fn tokens(subject: &[u8]) -> Vec<&[u8]> {
    subject.split(|byte| *byte == b'.').collect()
}
