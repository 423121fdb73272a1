//! An expression that says which replies are of interest (docs/spec/07 §5.4). Replies are what nodes say: the expression
//! is bounded before it is parsed, and one that fails on a reply leaves that reply out and is counted.
//!
//! The engine cannot be interrupted and builds its tree without a guard. So it works on a thread of its own, with a stack for
//! all that the bounds let through, and whoever waits for it does not wait for ever.

mod evaluation;
#[cfg(test)]
mod tests;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

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
/// Words that make much of little: a few of them, or a long list in a reply, and no memory is enough. Functions that ask
/// something of each element, and keep elements or a count, take time only.
const MULTIPLIERS: [&str; 8] = ["groupBy", "join", "let", "map", "reduce", "repeat", "replace", "sortBy"];

/// How long an expression may keep its user waiting.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Nested square brackets take the parser twice as long with each level.
    parsing: Duration,
    one_reply: Duration,
    /// Whoever waits does not read from the network meanwhile.
    all_replies: Duration,
}

/// The engine's thread has ended by itself.
const GAVE_UP: &str = "the engine gave up";

const PATIENCE: Patience = Patience {
    parsing: Duration::from_secs(2),
    one_reply: Duration::from_secs(1),
    all_replies: Duration::from_secs(10),
};

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
    patience: Patience,
    /// For all replies so far.
    took: Duration,
    undecided: usize,
    reason: Option<String>,
}

impl ReplyFilter {
    /// Compiles an expression and tries it on empty replies.
    ///
    /// # Errors
    /// Whatever will be wrong on every reply: bounds, syntax, names that do not exist, a result that is never boolean.
    pub fn new(text: &str) -> Result<Self, ReplyFilterError> {
        Self::patient(text, PATIENCE)
    }

    fn patient(text: &str, patience: Patience) -> Result<Self, ReplyFilterError> {
        check_bounds(text)?;
        let engine = Some(Engine::start(text, patience.parsing)?);
        Ok(ReplyFilter { engine, patience, took: Duration::ZERO, undecided: 0, reason: None })
    }

    /// Whether a reply is of interest. Waits a second at most, and 10 for all replies together.
    pub fn passes(&mut self, reply: FilteredReply<'_>) -> bool {
        let reason = match self.decide(reply) {
            Ok(passes) => return passes,
            Err(reason) => reason,
        };
        self.undecided += 1;
        self.reason.get_or_insert_with(|| format!("{}: {reason}", reply.sender));
        false
    }

    /// The verdict, or why there is none.
    fn decide(&mut self, reply: FilteredReply<'_>) -> Result<bool, String> {
        let Some(engine) = &self.engine else { return Err("it took too long before".to_owned()) };
        let left = self.patience.all_replies.saturating_sub(self.took);
        let started = Instant::now();
        let verdict = engine.decide(reply, left.min(self.patience.one_reply));
        self.took += started.elapsed();
        verdict.unwrap_or_else(|reason| {
            self.engine = None;
            Err(match reason {
                RecvTimeoutError::Disconnected => GAVE_UP.to_owned(),
                RecvTimeoutError::Timeout if left < self.patience.one_reply => {
                    format!("it takes longer than {:?} for all replies together", self.patience.all_replies)
                }
                RecvTimeoutError::Timeout => format!("it takes longer than {:?}", self.patience.one_reply),
            })
        })
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
    fn start(text: &str, patience: Duration) -> Result<Engine, ReplyFilterError> {
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
        match compiled.recv_timeout(patience) {
            Ok(outcome) => outcome.map(|()| Engine { replies, verdicts }),
            Err(RecvTimeoutError::Timeout) => Err(ReplyFilterError::TooSlow),
            Err(RecvTimeoutError::Disconnected) => Err(ReplyFilterError::Fails(GAVE_UP.into())),
        }
    }

    /// The expression's verdict; an error when there is none in time.
    fn decide(
        &self,
        reply: FilteredReply<'_>,
        patience: Duration,
    ) -> Result<Result<bool, String>, RecvTimeoutError> {
        let FilteredReply { sender, status, message, data, time } = reply;
        let reply = Reply {
            sender: sender.to_owned(),
            status,
            message: message.to_owned(),
            data: data.clone(),
            time,
        };
        self.replies.send(reply).map_err(|_| RecvTimeoutError::Disconnected)?;
        self.verdicts.recv_timeout(patience)
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
