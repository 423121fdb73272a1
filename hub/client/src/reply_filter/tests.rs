use super::*;
use serde_json::json;

fn passes(text: &str) -> bool {
    let data = json!({
        "enabled": true, "count": 3, "version": "1.4.2", "tags": ["web", "db"], "ports": [80, 443],
        "memory": {"size": 7959, "free": 12.5}, "a.b": 1, "nothing": null,
    });
    let data = data.as_object().cloned().unwrap();
    let mut filter = ReplyFilter::new(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let reply = FilteredReply {
        sender: "web1.example.net",
        status: StatusCode::Aborted,
        message: "could not do it",
        data: &data,
        time: 1_700_000_000,
    };
    let passes = filter.passes(reply);
    assert_eq!(filter.undecided(), None, "{text}");
    passes
}

#[test]
fn everything_in_a_reply_can_be_asked_for() {
    for text in [
        "true",
        "aborted() && !ok()",
        "not (unknown_action() or missing_data() or invalid_data() or unknown_error())",
        "code == 1",
        "msg contains 'not' && msg startsWith \"could\"",
        "msg matches '^could .* it$'",
        "sender() endsWith '.example.net'",
        "data('enabled')",
        "data('count') == 3",
        "data('count') in [1, 2, 3]",
        "data('memory.size') > 4000 and data('memory.free') == 12.5",
        "data('missing') == nil && data('memory.missing') == nil && data('nothing') == nil",
        "include(data('tags'), 'db')",
        "include(data('ports'), 443)",
        "data('tags.1') == 'db' && data('tags.#') == 2",
        "data('a\\\\.b') == 1",
        "semver(data('version'), '>= 1.2, < 2')",
        "time() == '2023-11-14T22:13:20Z' && time() < '2024'",
        "any(data('ports'), {# == 80})",
        "len(data('tags')) == 2",
    ] {
        assert!(passes(text), "{text}");
    }
    for text in ["false", "ok()", "code == 2", "include(data('tags'), 'x')", "semver(data('version'), '^2')"]
    {
        assert!(!passes(text), "{text}");
    }
}

#[test]
fn what_is_wrong_for_every_reply_is_told_at_once() {
    let refused = |text: &str| ReplyFilter::new(text).unwrap_err();
    assert!(matches!(refused("data('x' =="), ReplyFilterError::Syntax(_)));
    assert!(matches!(refused(""), ReplyFilterError::Syntax(_)));
    for text in ["nosuch", "nosuch()", "data('x') == nosuch", "data(1)", "ok(1)", "include(1, 2)", "data()"] {
        assert!(matches!(refused(text), ReplyFilterError::Fails(_)), "{text}: {:?}", refused(text));
    }
    for text in ["ok() ? true : nosuch", "msg matches '('", "aborted() && nosuch()"] {
        assert!(matches!(refused(text), ReplyFilterError::Fails(_)), "{text}: {:?}", refused(text));
    }
    assert!(refused("ok").to_string().ends_with("did you mean ok()?"), "{}", refused("ok"));
    assert_eq!(refused("code"), ReplyFilterError::NotBoolean("a number"));
    assert_eq!(refused("msg"), ReplyFilterError::NotBoolean("a text"));
    assert_eq!(refused("[1]"), ReplyFilterError::NotBoolean("a list"));
}

#[test]
fn what_is_wrong_for_some_replies_is_counted() {
    let data = json!({"x": "text", "versions": ["1.2", "no version"]}).as_object().cloned().unwrap();
    for text in
        ["data('x')", "data('x') > 3", "semver(data('x'), '1')", "data('x.y.z').a", "data('versions.#.x')"]
    {
        let mut filter = ReplyFilter::new(text).unwrap();
        for sender in ["n1", "n2"] {
            let reply = FilteredReply { sender, status: StatusCode::Ok, message: "OK", data: &data, time: 0 };
            assert!(!filter.passes(reply), "{text}");
        }
        let (count, reason) = filter.undecided().unwrap();
        assert!(count == 2 && reason.starts_with("n1: "), "{text}: {count} {reason}");
    }
}

/// Whatever the bounds let through must end, on a thread with as little stack as a test has.
#[test]
fn expressions_that_would_exhaust_the_stack_are_not_parsed() {
    let nested = |open: &str, close: &str, levels| open.repeat(levels) + "true" + &close.repeat(levels);
    assert!(ReplyFilter::new(&nested("(", ")", MAX_DEPTH)).is_ok());
    for text in [nested("(", ")", MAX_DEPTH + 1), nested("[", "]", 2_000), nested("[(", ")]", MAX_DEPTH)] {
        assert_eq!(ReplyFilter::new(&text).unwrap_err(), ReplyFilterError::TooDeep, "{text}");
    }
    for text in
        ["1+".repeat(MAX_OPERATORS + 1) + "1 == 0", "data('x')".to_owned() + &".a".repeat(MAX_OPERATORS)]
    {
        assert_eq!(ReplyFilter::new(&text).unwrap_err(), ReplyFilterError::TooManyOperators, "{text}");
    }
    assert_eq!(ReplyFilter::new(&"1".repeat(MAX_EXPRESSION + 1)).unwrap_err(), ReplyFilterError::TooLong);
    // brackets in texts are no brackets, and a list may be long
    assert!(passes(&format!("msg != '{}'", "([{".repeat(300))));
    assert!(passes(&format!("msg != \"\\\"{}\"", "([{".repeat(300))));
    assert!(passes(&format!("include([{}'web'], data('tags.0'))", "'x', ".repeat(700))));
    // as many levels as the bounds leave
    for (text, is) in [
        ("1+".repeat(MAX_OPERATORS - 2) + "1 == 511", true),
        ("true&&".repeat(MAX_OPERATORS / 2 - 1) + "ok()", false),
        ("false or ".repeat(450) + "true", true),
        ("1^".repeat(MAX_OPERATORS - 2) + "1 == 1", true),
        ("false?true:".repeat(MAX_OPERATORS / 2) + "true", true),
        ("nil??".repeat(MAX_OPERATORS / 2) + "true", true),
        ("if false {true} else ".repeat(190) + "{true}", true),
    ] {
        assert_eq!(passes(&text), is, "{text}");
    }
}

/// The engine cannot be told to stop.
#[test]
fn what_could_take_any_time_or_memory_is_refused() {
    for text in [
        "len(1..9223372036854775807) > 0",
        "5 in 1 ..int(data('x'))",
        "len(repeat('x', 1000)) > 0",
        "'x'.repeat(9) == 'y'",
        "let x = msg; x == x",
        "join(data('x'), 'y') == ''",
        "/*'*/ true",
        "true // '",
        "any(data('x'), {any(data('x'), {# > 1})})",
        "len(map(data('x'), data('x'))) > 0",
        "map(data('x'), map(data('x'), [#, #]))[0] == 1",
        "data('x') | groupBy(# + msg) != {}",
        "sortBy(data('x'), msg)[0] == 1",
    ] {
        let error = ReplyFilter::new(text).unwrap_err();
        assert!(matches!(error, ReplyFilterError::Unbounded(_)), "{text}: {error:?}");
    }
    assert!(passes("msg != 'let // repeat .. {{'"));
    assert!(passes("data('memory.size') / 2 > 1 && 3.5 > 1"));
}

/// With so little patience that what is given up has an end of its own soon after.
#[test]
fn what_takes_long_is_given_up() {
    let moment = Duration::from_millis(5);
    let nested = "a[".repeat(18) + "1" + &"]".repeat(18);
    let hasty = Patience { parsing: moment, ..PATIENCE };
    assert_eq!(ReplyFilter::patient(&nested, hasty).unwrap_err(), ReplyFilterError::TooSlow);

    let reply = |data| FilteredReply { sender: "n1", status: StatusCode::Ok, message: "OK", data, time: 0 };
    let list: Vec<u32> = (0..3_000).collect();
    let data = json!({ "list": list }).as_object().cloned().unwrap();
    let told = |patience| {
        let expression = "any(data('list'), {data('list.#') == 0})";
        let mut filter = ReplyFilter::patient(expression, patience).unwrap();
        assert!(!filter.passes(reply(&data)) && !filter.passes(reply(&data)));
        let (count, reason) = filter.undecided().unwrap();
        assert_eq!(count, 2);
        reason.to_owned()
    };
    assert_eq!(told(Patience { one_reply: moment, ..PATIENCE }), "n1: it takes longer than 5ms");
    assert_eq!(
        told(Patience { all_replies: moment, ..PATIENCE }),
        "n1: it takes longer than 5ms for all replies together"
    );
    // nothing is left for a second reply, however fast it is decided
    let mut filter =
        ReplyFilter::patient("ok()", Patience { all_replies: Duration::MAX, ..PATIENCE }).unwrap();
    assert!(filter.passes(reply(&data)));
    filter.patience.all_replies = Duration::ZERO;
    assert!(!filter.passes(reply(&data)) && filter.undecided().is_some());
}

#[test]
fn a_map_ends_nothing() {
    for text in ["data('m') == {size: -1}", "{ a : msg } == 1", "{'a\\'b': [1]} == 1", "{\"a\": ok()} == 1"] {
        assert_eq!(ReplyFilter::new(text).unwrap_err(), ReplyFilterError::Map, "{text}");
    }
    assert!(passes("any(data('ports'), {true ? # == 80 : false})"));
}

#[test]
fn arithmetic_ends_nothing() {
    for text in [
        "1 / 0 == 1",
        "1 % 0 == 1",
        "9223372036854775807 + 1 == 1",
        "-9223372036854775807 - 2 == 1",
        "9223372036854775807 * 2 == 1",
        "(0 - 9223372036854775807 - 1) / -1 == 1",
        "(0 - 9223372036854775807 - 1) % -1 == 1",
        "-(0 - 9223372036854775807 - 1) == 1",
        "abs(0 - 9223372036854775807 - 1) == 1",
        "2 ** 99999 == 1",
        "bitshl(1, 99) == 1",
        "bitshl(1, -1) == 1",
        "int('9223372036854775807') == 1",
        "int(1e300) == 1",
    ] {
        if let Err(error) = ReplyFilter::new(text) {
            assert_ne!(error, ReplyFilterError::Fails(GAVE_UP.into()), "{text}");
        }
    }
}

/// Pieces of expressions.
const PIECES: [&str; 44] = [
    "true",
    "nil",
    "7",
    "2.5",
    "'web'",
    "b'x'",
    "`raw`",
    "msg",
    "code",
    "#",
    "ok()",
    "sender()",
    "time()",
    "data('list')",
    "data('n')",
    "include(",
    "semver(",
    "any(",
    "filter(",
    "count(",
    "sum(",
    "sort(",
    "toJSON(",
    "fromJSON(",
    "split(",
    "[1]",
    "[0:",
    "(",
    ")",
    "]",
    "{",
    "}",
    ",",
    ".x",
    "?.",
    "??",
    " in ",
    " not ",
    " and ",
    " matches ",
    " == ",
    "-",
    "**",
    "|",
];

proptest::proptest! {
    #[test]
    fn any_text_is_answered(
        noise in "[ -~]{0,60}",
        pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..16),
    ) {
        let data = json!({"list": [1, "web", null, {"x": [2]}], "n": -1}).as_object().cloned().unwrap();
        let reply =
            FilteredReply { sender: "n1", status: StatusCode::Ok, message: "OK", data: &data, time: 0 };
        for text in [noise, pieces.concat()] {
            match ReplyFilter::new(&text) {
                Ok(mut filter) => {
                    filter.passes(reply);
                    let reason = filter.undecided().map(|(_, reason)| reason).unwrap_or_default();
                    proptest::prop_assert!(!reason.contains(GAVE_UP), "{}", text);
                }
                Err(error) => {
                    proptest::prop_assert_ne!(error, ReplyFilterError::Fails(GAVE_UP.into()), "{}", text);
                }
            }
        }
    }
}
