//! An expression that says which replies are of interest (docs/spec/07 §5.4). Replies are what nodes say: the expression
//! is bounded before it is parsed, and one that fails on a reply leaves that reply out and is counted.
//!
//! The engine cannot be interrupted and builds its tree without a guard. So it works on a thread of its own, with a stack for
//! all that the bounds let through, and whoever waits for it does not wait for ever.

mod evaluation;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use choria_protocol::rpc::StatusCode;
use serde_json::Map;
use thiserror::Error;

use self::evaluation::Expression;

/// Longest expression in bytes.
const MAX_EXPRESSION: usize = 4_096;
/// Brackets within brackets.
const MAX_DEPTH: usize = 64;
/// Operators and brackets, each of which may be a level of the engine's tree.
const MAX_OPERATORS: usize = 512;
/// Of the engine's thread; an eighth of it would do for what the bounds let through.
const STACK: usize = 64 * 1024 * 1024;
/// For parsing: nested square brackets take the parser twice as long with each level.
const PARSING: Duration = Duration::from_secs(2);
/// For one reply.
const DECIDING: Duration = Duration::from_secs(1);
/// Words that make much of little: a few of them, and no memory is enough.
const MULTIPLIERS: [&str; 5] = ["join", "let", "reduce", "repeat", "replace"];

/// Why an expression cannot be used, before anybody was asked anything.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplyFilterError {
    #[error("is longer than {MAX_EXPRESSION} bytes")]
    TooLong,
    #[error("is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("has more than {MAX_OPERATORS} operators and brackets")]
    TooManyOperators,
    #[error("has {0}, which a filter of replies may not use: it could take any time or memory")]
    Unbounded(String),
    /// The engine takes only literals for a map's values, and ends the process on others.
    #[error("has a map, which a filter of replies may not hold")]
    Map,
    #[error("takes too long to be understood; use fewer brackets within brackets")]
    TooSlow,
    /// The text of the parser, which shows the place.
    #[error("is no expression")]
    Syntax(String),
    #[error("cannot be evaluated: {0}")]
    Fails(String),
    #[error("is {0}, not true or false")]
    NotBoolean(&'static str),
}

/// What an expression can look at.
#[derive(Debug, Clone, Copy)]
pub struct FilteredReply<'a> {
    pub sender: &'a str,
    pub status: StatusCode,
    pub message: &'a str,
    pub data: &'a Map<String, serde_json::Value>,
    /// Unix seconds by the node's clock.
    pub time: i64,
}

/// The same on its way to the engine's thread.
#[derive(Debug, Clone)]
struct Reply {
    sender: String,
    status: StatusCode,
    message: String,
    data: Map<String, serde_json::Value>,
    time: i64,
}

/// A compiled expression, and how often it could not decide.
#[derive(Debug)]
pub struct ReplyFilter {
    /// `None` once it took too long: its thread may be at it for ever.
    engine: Option<Engine>,
    undecided: usize,
    reason: Option<String>,
}

impl ReplyFilter {
    /// Compiles an expression and tries it on empty replies.
    ///
    /// # Errors
    /// Whatever will be wrong on every reply: bounds, syntax, names that do not exist, a result that is never boolean.
    pub fn new(text: &str) -> Result<Self, ReplyFilterError> {
        check_bounds(text)?;
        Ok(ReplyFilter { engine: Some(Engine::start(text)?), undecided: 0, reason: None })
    }

    /// Whether a reply is of interest. Waits a second at most.
    pub fn passes(&mut self, reply: FilteredReply<'_>) -> bool {
        let verdict = self.engine.as_ref().map(|engine| engine.decide(reply));
        let reason = match verdict {
            Some(Ok(Ok(passes))) => return passes,
            Some(Ok(Err(reason))) => reason,
            Some(Err(_)) => {
                self.engine = None;
                format!("it takes longer than {} s", DECIDING.as_secs())
            }
            None => "it took too long before".to_owned(),
        };
        self.undecided += 1;
        self.reason.get_or_insert_with(|| format!("{}: {reason}", reply.sender));
        false
    }

    /// How many replies were left out because the expression gave neither true nor false, and why the first was.
    pub fn undecided(&self) -> Option<(usize, &str)> {
        Some((self.undecided, self.reason.as_deref()?))
    }
}

/// The thread that evaluates. It ends when this is dropped, unless it is at something that does not end.
#[derive(Debug)]
struct Engine {
    replies: Sender<Reply>,
    verdicts: Receiver<Result<bool, String>>,
}

impl Engine {
    fn start(text: &str) -> Result<Engine, ReplyFilterError> {
        let (replies, asked) = channel::<Reply>();
        let (answers, verdicts) = channel();
        let (ready, compiled) = channel();
        let text = text.to_owned();
        let work = move || {
            let expression = match Expression::new(&text) {
                Ok(expression) => expression,
                Err(error) => return drop(ready.send(Err(error))),
            };
            drop(ready.send(Ok(())));
            // nobody listens any more once the filter is gone
            while let Ok(reply) = asked.recv() {
                if answers.send(expression.decide(&reply)).is_err() {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("reply-filter".into()).stack_size(STACK).spawn(work);
        started.map_err(|error| ReplyFilterError::Fails(error.to_string()))?;
        match compiled.recv_timeout(PARSING) {
            Ok(outcome) => outcome.map(|()| Engine { replies, verdicts }),
            Err(RecvTimeoutError::Timeout) => Err(ReplyFilterError::TooSlow),
            Err(RecvTimeoutError::Disconnected) => Err(ReplyFilterError::Fails("the engine gave up".into())),
        }
    }

    /// The expression's verdict; an error when there is none in time.
    fn decide(&self, reply: FilteredReply<'_>) -> Result<Result<bool, String>, RecvTimeoutError> {
        let FilteredReply { sender, status, message, data, time } = reply;
        let reply = Reply {
            sender: sender.to_owned(),
            status,
            message: message.to_owned(),
            data: data.clone(),
            time,
        };
        self.replies.send(reply).map_err(|_| RecvTimeoutError::Disconnected)?;
        self.verdicts.recv_timeout(DECIDING)
    }
}

/// Looks at what stands outside of texts.
fn check_bounds(text: &str) -> Result<(), ReplyFilterError> {
    if text.len() > MAX_EXPRESSION {
        return Err(ReplyFilterError::TooLong);
    }
    let unbounded = |what: &str| Err(ReplyFilterError::Unbounded(what.to_owned()));
    let (mut depth, mut deepest, mut braces, mut operators) = (0_usize, 0, 0_usize, 0);
    let mut quote = None;
    let mut word = String::new();
    let mut before = ' ';
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if quote.is_none() && (character.is_ascii_alphanumeric() || character == '_') {
            word.push(character);
        } else {
            if MULTIPLIERS.contains(&word.as_str()) {
                return unbounded(&format!("'{word}'"));
            }
            word.clear();
        }
        match (quote, character) {
            (Some('"' | '\''), '\\') => drop(characters.next()),
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(character),
            // a quote in a comment is none
            (None, '/' | '*') if before == '/' => return unbounded("a comment"),
            (None, '.') if before == '.' => return unbounded("a range"),
            (None, '{') if begins_map(characters.as_str()) => return Err(ReplyFilterError::Map),
            (None, '(' | '[' | '{') => {
                depth += 1;
                deepest = deepest.max(depth);
                operators += 1;
                braces += usize::from(character == '{');
                if braces > 1 {
                    return unbounded("braces within braces");
                }
            }
            (None, ')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                braces = braces.saturating_sub(usize::from(character == '}'));
            }
            // separators make lists longer and nothing deeper
            (None, ',' | '_') => {}
            (None, other) => operators += usize::from(other.is_ascii_punctuation()),
        }
        before = if quote.is_none() { character } else { ' ' };
    }
    if MULTIPLIERS.contains(&word.as_str()) {
        return unbounded(&format!("'{word}'"));
    }
    if deepest > MAX_DEPTH {
        return Err(ReplyFilterError::TooDeep);
    }
    if operators > MAX_OPERATORS { Err(ReplyFilterError::TooManyOperators) } else { Ok(()) }
}

/// Whether what follows a brace is a key and its colon.
fn begins_map(rest: &str) -> bool {
    let key = rest.trim_start();
    let behind = match key.chars().next() {
        Some(quote @ ('"' | '\'' | '`')) => {
            let mut escaped = false;
            key.char_indices().skip(1).find_map(|(at, character)| {
                let ends = character == quote && !escaped;
                escaped = character == '\\' && !escaped && quote != '`';
                ends.then(|| key.get(at + 1..)).flatten()
            })
        }
        _ => Some(key.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_')),
    };
    behind.is_some_and(|behind| behind.trim_start().starts_with(':'))
}

#[cfg(test)]
mod tests {
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
        for text in
            ["false", "ok()", "code == 2", "include(data('tags'), 'x')", "semver(data('version'), '^2')"]
        {
            assert!(!passes(text), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_for_every_reply_is_told_at_once() {
        let refused = |text: &str| ReplyFilter::new(text).unwrap_err();
        assert!(matches!(refused("data('x' =="), ReplyFilterError::Syntax(_)));
        assert!(matches!(refused(""), ReplyFilterError::Syntax(_)));
        for text in
            ["nosuch", "nosuch()", "data('x') == nosuch", "data(1)", "ok(1)", "include(1, 2)", "data()"]
        {
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
        for text in [
            "data('x')",
            "data('x') > 3",
            "semver(data('x'), '1')",
            "data('x.y.z').a",
            "data('versions.#.x')",
        ] {
            let mut filter = ReplyFilter::new(text).unwrap();
            for sender in ["n1", "n2"] {
                let reply =
                    FilteredReply { sender, status: StatusCode::Ok, message: "OK", data: &data, time: 0 };
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
        for text in [nested("(", ")", MAX_DEPTH + 1), nested("[", "]", 2_000), nested("[(", ")]", MAX_DEPTH)]
        {
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
    fn what_could_take_any_time_or_memory_is_refused_or_given_up() {
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
        ] {
            let error = ReplyFilter::new(text).unwrap_err();
            assert!(matches!(error, ReplyFilterError::Unbounded(_)), "{text}: {error:?}");
        }
        assert!(passes("msg != 'let // repeat .. {{'"));
        assert!(passes("data('memory.size') / 2 > 1 && 3.5 > 1"));

        let nested = "a[".repeat(40) + "1" + &"]".repeat(40);
        assert_eq!(ReplyFilter::new(&nested).unwrap_err(), ReplyFilterError::TooSlow);

        let list: Vec<u32> = (0..200_000).collect();
        let data = json!({ "list": list }).as_object().cloned().unwrap();
        let mut filter = ReplyFilter::new("any(data('list'), {data('list.#') == 0})").unwrap();
        let reply =
            FilteredReply { sender: "n1", status: StatusCode::Ok, message: "OK", data: &data, time: 0 };
        let started = std::time::Instant::now();
        assert!(!filter.passes(reply) && !filter.passes(reply));
        assert!(started.elapsed() < DECIDING * 5, "{:?}", started.elapsed());
        let (count, reason) = filter.undecided().unwrap();
        assert!(count == 2 && reason.contains("longer than 1 s"), "{count} {reason}");
    }

    #[test]
    fn a_map_ends_nothing() {
        for text in
            ["data('m') == {size: -1}", "{ a : msg } == 1", "{'a\\'b': [1]} == 1", "{\"a\": ok()} == 1"]
        {
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
                assert_ne!(error, ReplyFilterError::Fails("the engine gave up".into()), "{text}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in "[ -~]{0,60}") {
            drop(ReplyFilter::new(&text));
        }
    }
}
