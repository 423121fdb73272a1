//! The incremental parser of client protocol lines (`docs/spec/09 §A1`).
//!
//! Complete operations are returned as views into the caller's buffer; only an operation that is cut by the end
//! of the buffer is copied, into a buffer of the parser's own that never grows beyond what the limits allow.

use thiserror::Error;

/// Steps in which the buffer of an unfinished control line grows, bytes.
const LINE_STEP: usize = 4096;
/// Largest amount that the buffer of an unfinished payload grows ahead of the bytes received.
const PAYLOAD_STEP: usize = 64 * 1024;

/// One operation of a client. All slices borrow from the input or from the parser.
#[derive(Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// `CONNECT {json}`; the JSON text.
    Connect(&'a [u8]),
    /// `PUB subject [reply] size` with its payload.
    Pub {
        subject: &'a [u8],
        reply: &'a [u8],
        payload: &'a [u8],
    },
    /// `HPUB subject [reply] header-size total-size`; `message` is header block and payload together.
    Hpub {
        subject: &'a [u8],
        reply: &'a [u8],
        header_len: usize,
        message: &'a [u8],
    },
    /// `SUB subject [queue] sid`; `queue` is empty when absent.
    Sub {
        subject: &'a [u8],
        queue: &'a [u8],
        sid: &'a [u8],
    },
    /// `UNSUB sid [max]`; `max` is 0 when absent.
    Unsub {
        sid: &'a [u8],
        max: u64,
    },
    Ping,
    Pong,
    /// `+OK`, tolerated.
    Ok,
    /// `INFO {json}`, tolerated.
    Info,
    /// `-ERR 'text'`: the peer gives up.
    Err(&'a [u8]),
}

/// Why a connection cannot be parsed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseError {
    #[error("unknown protocol operation")]
    UnknownOperation,
    #[error("the payload does not end where its size says")]
    PayloadTerminator,
    #[error("wrong arguments in a control line")]
    BadArguments,
    #[error("control line longer than {limit} bytes")]
    LineTooLong { limit: usize },
    #[error("payload of {size} bytes over the limit of {limit}")]
    PayloadTooLarge { size: usize, limit: usize },
}

/// What the parser accepts, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct ParserLimits {
    /// Argument part of every control line but CONNECT.
    pub control_line: usize,
    /// Argument part of CONNECT.
    pub connect_line: usize,
    /// Payload, for HPUB including headers.
    pub payload: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Connect,
    Pub,
    Hpub,
    Sub,
    Unsub,
    Ping,
    Pong,
    Ok,
    Err,
    Info,
}

const VERBS: [(&[u8], Verb); 10] = [
    (b"PUB", Verb::Pub),
    (b"HPUB", Verb::Hpub),
    (b"SUB", Verb::Sub),
    (b"UNSUB", Verb::Unsub),
    (b"PING", Verb::Ping),
    (b"PONG", Verb::Pong),
    (b"CONNECT", Verb::Connect),
    (b"+OK", Verb::Ok),
    (b"-ERR", Verb::Err),
    (b"INFO", Verb::Info),
];

/// How the beginning of a line reads.
enum Head {
    Verb(Verb, usize),
    Incomplete,
}

/// A publish whose control line is complete: its ranges inside the line, and its sizes.
#[derive(Debug, Clone, Copy)]
struct Publish {
    subject: (usize, usize),
    reply: (usize, usize),
    header_len: Option<usize>,
    total: usize,
}

/// An incremental parser; one per connection.
#[derive(Debug)]
pub struct Parser {
    limits: ParserLimits,
    /// Bytes of the operation that the last input did not complete.
    partial: Vec<u8>,
    /// `partial` was handed out as an operation and is free again.
    spent: bool,
    /// Set when the control line in `partial` is complete and its payload is not: line length and what it says.
    awaiting: Option<(usize, Publish)>,
}

impl Parser {
    pub fn new(limits: ParserLimits) -> Parser {
        Parser { limits, partial: Vec::new(), spent: false, awaiting: None }
    }

    /// Replaces the limits, from the next operation on.
    pub fn set_limits(&mut self, limits: ParserLimits) {
        self.limits = limits;
    }

    /// Bytes held for an unfinished operation.
    pub fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// The next operation of `input`, which is advanced past what was consumed. `None`: `input` is used up, the
    /// beginning of an operation may be held back.
    ///
    /// # Errors
    /// After any error the connection must be closed: the parser has lost its place.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Op<'s>>, ParseError> {
        if self.spent {
            self.spent = false;
            if self.partial.capacity() > LINE_STEP {
                self.partial = Vec::new();
            } else {
                self.partial.clear();
            }
        }
        if self.partial.is_empty() {
            return self.next_in_place(input);
        }
        match self.complete_partial(input)? {
            None => Ok(None),
            Some(complete) => {
                self.spent = true;
                let partial = self.partial.as_slice();
                match complete {
                    Complete::Line(verb, arguments) => {
                        let line = partial.get(arguments..).unwrap_or_default();
                        simple_op(verb, line).map(Some)
                    }
                    Complete::Publish(line_len, publish) => {
                        let (line, rest) =
                            partial.split_at_checked(line_len).ok_or(ParseError::BadArguments)?;
                        Ok(Some(publish_op(line, rest, publish)))
                    }
                }
            }
        }
    }

    /// The fast way: nothing held back, so look for a whole operation inside `input`.
    fn next_in_place<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Op<'i>>, ParseError> {
        let bytes = *input;
        if bytes.is_empty() {
            return Ok(None);
        }
        let (verb, arguments) = match head(bytes)? {
            Head::Verb(verb, arguments) => (verb, arguments),
            Head::Incomplete => {
                self.hold(input);
                return Ok(None);
            }
        };
        let limit = self.line_limit(verb);
        let Some(end) = memchr::memchr(b'\n', bytes.get(arguments..).unwrap_or_default()) else {
            self.check_unfinished(bytes.len() - arguments, limit)?;
            self.hold(input);
            return Ok(None);
        };
        let line_end = arguments + end;
        let line = trim_line(bytes.get(arguments..line_end).unwrap_or_default());
        self.check_line(line.len(), limit)?;
        let after = bytes.get(line_end + 1..).unwrap_or_default();
        if !matches!(verb, Verb::Pub | Verb::Hpub) {
            *input = after;
            return simple_op(verb, line).map(Some);
        }
        let publish = parse_publish(verb, line, self.limits.payload)?;
        let need = publish.total + 2;
        match after.split_at_checked(need) {
            Some((message, rest)) => {
                check_terminator(message)?;
                *input = rest;
                Ok(Some(publish_op(line, message, publish)))
            }
            None => {
                check_partial_terminator(after, publish.total)?;
                // Only arguments and payload are kept: the ranges count from the arguments.
                self.partial.reserve_exact(line.len() + after.len() + (need - after.len()).min(PAYLOAD_STEP));
                self.partial.extend_from_slice(line);
                self.partial.extend_from_slice(after);
                self.awaiting = Some((line.len(), publish));
                *input = &[];
                Ok(None)
            }
        }
    }

    /// Keeps all of `input` as the beginning of an operation.
    fn hold(&mut self, input: &mut &[u8]) {
        self.append(input, LINE_STEP);
        *input = &[];
    }

    fn append(&mut self, bytes: &[u8], step: usize) {
        let need = self.partial.len() + bytes.len();
        if need > self.partial.capacity() {
            // Grown in steps, so that many half-sent lines cost little more than what was sent.
            let target = need.div_ceil(step).saturating_mul(step).max(self.partial.capacity());
            self.partial.reserve_exact(target - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
    }

    /// Feeds `input` to the operation held in `partial` until it is complete.
    fn complete_partial(&mut self, input: &mut &[u8]) -> Result<Option<Complete>, ParseError> {
        if self.awaiting.is_none() {
            let (verb, arguments) = loop {
                match head(&self.partial)? {
                    Head::Verb(verb, arguments) => break (verb, arguments),
                    Head::Incomplete => {
                        let Some((first, rest)) = input.split_first() else { return Ok(None) };
                        self.partial.push(*first);
                        *input = rest;
                    }
                }
            };
            let limit = self.line_limit(verb);
            // The held bytes never contain the LF.
            let Some(end) = memchr::memchr(b'\n', input) else {
                self.check_unfinished(self.partial.len() - arguments + input.len(), limit)?;
                self.hold(input);
                return Ok(None);
            };
            let (line, rest) = input.split_at_checked(end + 1).ok_or(ParseError::BadArguments)?;
            self.check_unfinished(self.partial.len() - arguments + end, limit)?;
            self.append(line, LINE_STEP);
            *input = rest;
            self.partial.pop();
            if self.partial.last() == Some(&b'\r') && self.partial.len() > arguments {
                self.partial.pop();
            }
            self.check_line(self.partial.len() - arguments, limit)?;
            if !matches!(verb, Verb::Pub | Verb::Hpub) {
                return Ok(Some(Complete::Line(verb, arguments)));
            }
            self.partial.drain(..arguments);
            let publish = parse_publish(verb, &self.partial, self.limits.payload)?;
            self.awaiting = Some((self.partial.len(), publish));
        }
        let Some((line_len, publish)) = self.awaiting else { return Ok(None) };
        let need = line_len + publish.total + 2;
        let missing = need.saturating_sub(self.partial.len());
        let take = missing.min(input.len());
        let (now, rest) = input.split_at_checked(take).unwrap_or((input, &[]));
        self.append(now, PAYLOAD_STEP.min(need.max(1)));
        *input = rest;
        let payload = self.partial.get(line_len..).unwrap_or_default();
        if self.partial.len() < need {
            check_partial_terminator(payload, publish.total)?;
            return Ok(None);
        }
        check_terminator(payload)?;
        self.awaiting = None;
        Ok(Some(Complete::Publish(line_len, publish)))
    }

    fn line_limit(&self, verb: Verb) -> usize {
        if verb == Verb::Connect { self.limits.connect_line } else { self.limits.control_line }
    }

    /// The last byte of an unfinished line may be the CR, which does not count.
    fn check_unfinished(&self, len: usize, limit: usize) -> Result<(), ParseError> {
        self.check_line(len.saturating_sub(1), limit)
    }

    fn check_line(&self, len: usize, limit: usize) -> Result<(), ParseError> {
        if len > limit { Err(ParseError::LineTooLong { limit }) } else { Ok(()) }
    }
}

/// A held operation that is now whole: where its arguments begin, or where its payload begins.
enum Complete {
    Line(Verb, usize),
    Publish(usize, Publish),
}

/// Recognizes the verb at the beginning of `bytes`; an unknown one is refused at its first wrong byte.
fn head(bytes: &[u8]) -> Result<Head, ParseError> {
    for (name, verb) in VERBS {
        let seen = bytes.len().min(name.len());
        let same = bytes.iter().zip(name).take(seen).all(|(byte, letter)| byte.eq_ignore_ascii_case(letter));
        if !same {
            continue;
        }
        if seen < name.len() {
            return Ok(Head::Incomplete);
        }
        if matches!(verb, Verb::Ping | Verb::Pong | Verb::Ok) {
            return Ok(Head::Verb(verb, seen));
        }
        return match bytes.get(seen) {
            None => Ok(Head::Incomplete),
            Some(b' ' | b'\t') => Ok(Head::Verb(verb, seen + 1)),
            Some(_) => Err(ParseError::UnknownOperation),
        };
    }
    Err(ParseError::UnknownOperation)
}

fn trim_line(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn simple_op(verb: Verb, line: &[u8]) -> Result<Op<'_>, ParseError> {
    match verb {
        Verb::Connect => Ok(Op::Connect(line.trim_ascii())),
        Verb::Ping => Ok(Op::Ping),
        Verb::Pong => Ok(Op::Pong),
        Verb::Ok => Ok(Op::Ok),
        Verb::Info => Ok(Op::Info),
        Verb::Err => Ok(Op::Err(line)),
        Verb::Sub => match arguments(line)? {
            ([subject, sid, _, _], 2) => Ok(Op::Sub { subject, queue: b"", sid }),
            ([subject, queue, sid, _], 3) => Ok(Op::Sub { subject, queue, sid }),
            _ => Err(ParseError::BadArguments),
        },
        Verb::Unsub => match arguments(line)? {
            ([sid, ..], 1) => Ok(Op::Unsub { sid, max: 0 }),
            ([sid, max, _, _], 2) => Ok(Op::Unsub { sid, max: number(max)? as u64 }),
            _ => Err(ParseError::BadArguments),
        },
        Verb::Pub | Verb::Hpub => Err(ParseError::BadArguments),
    }
}

/// Splits at most four arguments on runs of space and tab.
fn arguments(line: &[u8]) -> Result<([&[u8]; 4], usize), ParseError> {
    let mut found: [&[u8]; 4] = [b""; 4];
    let mut count = 0usize;
    for word in line.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty()) {
        *found.get_mut(count).ok_or(ParseError::BadArguments)? = word;
        count += 1;
    }
    Ok((found, count))
}

/// A decimal number of at most nine significant digits; anything else is an error, never a wrapped value.
fn number(text: &[u8]) -> Result<usize, ParseError> {
    if text.is_empty() {
        return Err(ParseError::BadArguments);
    }
    text.iter().try_fold(0usize, |value, digit| {
        if !digit.is_ascii_digit() || value > 99_999_999 {
            return Err(ParseError::BadArguments);
        }
        Ok(value * 10 + usize::from(digit - b'0'))
    })
}

fn parse_publish(verb: Verb, line: &[u8], max_payload: usize) -> Result<Publish, ParseError> {
    let (words, count) = arguments(line)?;
    let base = line.as_ptr() as usize;
    let range = |word: &[u8]| {
        let start = word.as_ptr() as usize - base;
        (start, start + word.len())
    };
    let [first, second, third, fourth] = words;
    let (reply, header_len, total) = match (verb, count) {
        (Verb::Pub, 2) => ((0, 0), None, number(second)?),
        (Verb::Pub, 3) => (range(second), None, number(third)?),
        (Verb::Hpub, 3) => ((0, 0), Some(number(second)?), number(third)?),
        (Verb::Hpub, 4) => (range(second), Some(number(third)?), number(fourth)?),
        _ => return Err(ParseError::BadArguments),
    };
    if header_len.is_some_and(|len| len > total) {
        return Err(ParseError::BadArguments);
    }
    if total > max_payload {
        return Err(ParseError::PayloadTooLarge { size: total, limit: max_payload });
    }
    Ok(Publish { subject: range(first), reply, header_len, total })
}

fn publish_op<'a>(line: &'a [u8], message: &'a [u8], publish: Publish) -> Op<'a> {
    let part = |(from, to): (usize, usize)| line.get(from..to).unwrap_or_default();
    let message = message.get(..publish.total).unwrap_or_default();
    let (subject, reply) = (part(publish.subject), part(publish.reply));
    match publish.header_len {
        Some(header_len) => Op::Hpub { subject, reply, header_len, message },
        None => Op::Pub { subject, reply, payload: message },
    }
}

fn check_terminator(message: &[u8]) -> Result<(), ParseError> {
    if message.ends_with(b"\r\n") { Ok(()) } else { Err(ParseError::PayloadTerminator) }
}

/// The part of the terminator that has arrived must already be right: a client that lied about a size hears it
/// at once instead of waiting for bytes that never come.
fn check_partial_terminator(received: &[u8], total: usize) -> Result<(), ParseError> {
    match received.get(total) {
        Some(b'\r') | None => Ok(()),
        Some(_) => Err(ParseError::PayloadTerminator),
    }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
