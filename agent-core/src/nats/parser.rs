//! Incremental parser of what a broker sends.
//!
//! The caller owns the receive buffer. A control line is collected at its front; the payload of a message follows the
//! line directly, so a message is never copied twice and its subject stays readable beside it. A message that does not
//! fit is reported once and drained; the connection lives (`docs/spec/08 §6.2`, `docs/spec/10` N14).

use core::ops::Range;

use crate::append::append;

/// Longest control line but INFO.
pub const MAX_LINE: usize = 4096;

/// A larger announced message is not drained but ends the connection: no broker is configured like that.
pub const ABSURD_PAYLOAD: u64 = 64 << 20;

/// A place in the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    #[must_use]
    pub const fn range(self) -> Range<usize> {
        self.start..self.end
    }

    #[must_use]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.range()).unwrap_or_default()
    }

    /// Empty when the bytes are no UTF-8.
    #[must_use]
    pub fn text(self, buffer: &[u8]) -> &str {
        core::str::from_utf8(self.of(buffer)).unwrap_or_default()
    }

    #[must_use]
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start)
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// One protocol operation. Spans point into the receive buffer and hold until the next call of [`Parser::feed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// The JSON of INFO.
    Info(Span),
    Message {
        subject: Span,
        sid: u32,
        reply: Span,
        headers: Span,
        payload: Span,
    },
    /// The payload is being drained and will not be reported.
    TooLarge {
        subject: Span,
        sid: u32,
        size: u64,
    },
    Ping,
    Pong,
    Ok,
    /// Text of -ERR without its quotes.
    Error(Span),
}

/// The peer does not speak the protocol; the connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    LineTooLong,
    UnknownOperation,
    BadArguments,
    /// A payload is not followed by CR LF.
    Unterminated,
    AbsurdSize(u64),
}

/// Limits of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest INFO line: 4 KiB on a device, 32 KiB on a server.
    pub info: usize,
    /// Largest payload with headers, even if the buffer has more room.
    pub payload: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Line,
    Payload {
        message: Pending,
        have: usize,
    },
    /// What is left of a payload and its CR LF.
    Drain {
        left: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    subject: Span,
    sid: u32,
    reply: Span,
    header_len: usize,
    at: usize,
    total: usize,
}

/// The parser. One per connection.
#[derive(Debug, Clone)]
pub struct Parser {
    limits: Limits,
    state: State,
    line_len: usize,
}

impl Parser {
    #[must_use]
    pub const fn new(limits: Limits) -> Parser {
        Parser { limits, state: State::Line, line_len: 0 }
    }

    /// Forgets a half received operation; for a new connection.
    pub const fn reset(&mut self) {
        self.state = State::Line;
        self.line_len = 0;
    }

    /// Takes bytes of `input` until one operation is complete. Returns how many were taken and the operation.
    /// With no operation returned all of `input` was taken.
    pub fn feed(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<(usize, Option<Frame>), ProtocolError> {
        let mut taken = 0usize;
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok((taken, None));
            }
            match self.state {
                State::Line => {
                    let (used, complete) = self.take_line(rest, buffer)?;
                    taken = taken.saturating_add(used);
                    if complete && let Some(frame) = self.parse_line(buffer)? {
                        return Ok((taken, Some(frame)));
                    }
                }
                State::Payload { message, have } => {
                    let (used, done) = self.take_payload(message, have, rest, buffer)?;
                    taken = taken.saturating_add(used);
                    if done {
                        return Ok((taken, Some(message.frame())));
                    }
                }
                State::Drain { left } => {
                    let available = u64::try_from(rest.len()).unwrap_or(u64::MAX);
                    let used = left.min(available);
                    taken = taken.saturating_add(usize::try_from(used).unwrap_or(rest.len()));
                    let left = left.saturating_sub(used);
                    self.state = if left == 0 { State::Line } else { State::Drain { left } };
                }
            }
        }
    }

    fn take_line(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<(usize, bool), ProtocolError> {
        let end = memchr::memchr(b'\n', input);
        let used = end.map_or(input.len(), |at| at.saturating_add(1));
        let part = input.get(..used).unwrap_or_default();
        let len = append(buffer, self.line_len, part).ok_or(ProtocolError::LineTooLong)?;
        let is_info = buffer.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"INFO "));
        if len > if is_info { self.limits.info } else { MAX_LINE } {
            return Err(ProtocolError::LineTooLong);
        }
        self.line_len = len;
        Ok((used, end.is_some()))
    }

    fn take_payload(
        &mut self,
        message: Pending,
        have: usize,
        input: &[u8],
        buffer: &mut [u8],
    ) -> Result<(usize, bool), ProtocolError> {
        let missing = message.total.saturating_sub(have);
        let used = missing.min(input.len());
        let start = message.at.saturating_add(have.min(message.total));
        let part = input.get(..used).unwrap_or_default();
        append(buffer, start, part).ok_or(ProtocolError::BadArguments)?;
        // The two bytes after the payload are checked one by one and not stored.
        let mut position = have.saturating_add(used);
        let mut taken = used;
        for &byte in input.get(used..).unwrap_or_default() {
            let expected = if position == message.total { b'\r' } else { b'\n' };
            if byte != expected {
                return Err(ProtocolError::Unterminated);
            }
            taken = taken.saturating_add(1);
            position = position.saturating_add(1);
            if expected == b'\n' {
                self.state = State::Line;
                self.line_len = 0;
                return Ok((taken, true));
            }
        }
        self.state = State::Payload { message, have: position };
        Ok((taken, false))
    }

    fn parse_line(&mut self, buffer: &[u8]) -> Result<Option<Frame>, ProtocolError> {
        let whole = buffer.get(..self.line_len).unwrap_or_default();
        let len = self.line_len;
        let line = whole.strip_suffix(b"\n").unwrap_or(whole);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.line_len = 0;
        let word_end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
        let word = line.get(..word_end).unwrap_or_default();
        let mut arguments = Arguments { line, at: word_end };
        let mut upper = [0u8; 4];
        for (to, from) in upper.iter_mut().zip(word) {
            *to = from.to_ascii_uppercase();
        }
        if word.len() > 4 {
            return Err(ProtocolError::UnknownOperation);
        }
        match &upper {
            b"INFO" => Ok(Some(Frame::Info(arguments.rest()))),
            b"MSG\0" => self.message(arguments, false, len, buffer.len()),
            b"HMSG" => self.message(arguments, true, len, buffer.len()),
            b"PING" => Ok(Some(Frame::Ping)),
            b"PONG" => Ok(Some(Frame::Pong)),
            b"+OK\0" => Ok(Some(Frame::Ok)),
            b"-ERR" => {
                let mut text = arguments.rest();
                let quoted = text.of(line);
                if quoted.len() >= 2 && quoted.first() == Some(&b'\'') && quoted.last() == Some(&b'\'') {
                    text.start = text.start.saturating_add(1);
                    text.end = text.end.saturating_sub(1);
                }
                Ok(Some(Frame::Error(text)))
            }
            _ => Err(ProtocolError::UnknownOperation),
        }
    }

    /// `MSG <subject> <sid> [reply] <size>` and `HMSG <subject> <sid> [reply] <header size> <size>`.
    fn message(
        &mut self,
        mut arguments: Arguments<'_>,
        headers: bool,
        line_len: usize,
        capacity: usize,
    ) -> Result<Option<Frame>, ProtocolError> {
        let mut words = [Span::default(); 5];
        let mut count = 0usize;
        while let Some(word) = arguments.next() {
            let place = words.get_mut(count).ok_or(ProtocolError::BadArguments)?;
            *place = word;
            count = count.saturating_add(1);
        }
        let line = arguments.line;
        let least = if headers { 4 } else { 3 };
        let (subject, sid, reply, sizes) = match (words, count.checked_sub(least)) {
            ([subject, sid, first, second, _], Some(0)) => (subject, sid, Span::default(), [first, second]),
            ([subject, sid, reply, first, second], Some(1)) => (subject, sid, reply, [first, second]),
            _ => return Err(ProtocolError::BadArguments),
        };
        let [first, second] = sizes;
        let sid = number(sid.of(line))
            .and_then(|sid| u32::try_from(sid).ok())
            .ok_or(ProtocolError::BadArguments)?;
        let first = number(first.of(line)).ok_or(ProtocolError::BadArguments)?;
        let (header_len, total) = if headers {
            (first, number(second.of(line)).ok_or(ProtocolError::BadArguments)?)
        } else {
            (0, first)
        };
        if header_len > total || core::str::from_utf8(subject.of(line)).is_err() {
            return Err(ProtocolError::BadArguments);
        }
        if total > ABSURD_PAYLOAD {
            return Err(ProtocolError::AbsurdSize(total));
        }
        let fits = usize::try_from(total).ok().filter(|&size| {
            size <= self.limits.payload && line_len.checked_add(size).is_some_and(|end| end <= capacity)
        });
        match (fits, usize::try_from(header_len)) {
            (Some(total), Ok(header_len)) => {
                let message = Pending { subject, sid, reply, header_len, at: line_len, total };
                self.state = State::Payload { message, have: 0 };
                Ok(None)
            }
            _ => {
                self.state = State::Drain { left: total.saturating_add(2) };
                Ok(Some(Frame::TooLarge { subject, sid, size: total }))
            }
        }
    }
}

impl Pending {
    const fn frame(self) -> Frame {
        let headers_end = self.at.saturating_add(self.header_len);
        Frame::Message {
            subject: self.subject,
            sid: self.sid,
            reply: self.reply,
            headers: Span { start: self.at, end: headers_end },
            payload: Span { start: headers_end, end: self.at.saturating_add(self.total) },
        }
    }
}

/// Words of a control line as spans.
struct Arguments<'l> {
    line: &'l [u8],
    at: usize,
}

impl Arguments<'_> {
    fn skip_blanks(&mut self) {
        while matches!(self.line.get(self.at), Some(b' ' | b'\t')) {
            self.at = self.at.saturating_add(1);
        }
    }

    fn rest(&mut self) -> Span {
        self.skip_blanks();
        Span { start: self.at.min(self.line.len()), end: self.line.len() }
    }

    fn next(&mut self) -> Option<Span> {
        self.skip_blanks();
        let start = self.at;
        while self.line.get(self.at).is_some_and(|byte| !matches!(byte, b' ' | b'\t')) {
            self.at = self.at.saturating_add(1);
        }
        (self.at > start).then_some(Span { start, end: self.at })
    }
}

/// Decimal digits only, at most ten.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    text.iter().try_fold(0u64, |sum, &byte| {
        byte.is_ascii_digit()
            .then(|| sum.saturating_mul(10).saturating_add(u64::from(byte.saturating_sub(b'0'))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::{String, ToString};
    use std::vec;
    use std::vec::Vec;

    const LIMITS: Limits = Limits { info: 4096, payload: 1 << 20 };

    fn text(span: Span, buffer: &[u8]) -> String {
        String::from_utf8_lossy(span.of(buffer)).into_owned()
    }

    /// Feeds `input` in the given pieces and renders what comes out.
    fn run(pieces: &[&[u8]], size: usize) -> Result<Vec<String>, ProtocolError> {
        let mut parser = Parser::new(LIMITS);
        let mut buffer = vec![0u8; size];
        let mut seen = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let (used, frame) = parser.feed(rest, &mut buffer)?;
                assert!(used > 0, "no progress");
                rest = &rest[used..];
                if let Some(frame) = frame {
                    seen.push(match frame {
                        Frame::Info(json) => format!("info {}", text(json, &buffer)),
                        Frame::Message { subject, sid, reply, headers, payload } => format!(
                            "msg {} {sid} {} {}|{}",
                            text(subject, &buffer),
                            text(reply, &buffer),
                            text(headers, &buffer),
                            text(payload, &buffer)
                        ),
                        Frame::TooLarge { subject, size, .. } => {
                            format!("large {} {size}", text(subject, &buffer))
                        }
                        Frame::Error(what) => format!("err {}", text(what, &buffer)),
                        other => format!("{other:?}"),
                    });
                }
            }
        }
        Ok(seen)
    }

    const STREAM: &[u8] = b"INFO {\"nonce\":\"abcdefgh\"} \r\nPING\r\n+OK\r\nMSG c.node.n1 7 5\r\nhello\r\n\
        HMSG a.b 8 in.box 12 14\r\nNATS/1.0\r\n\r\nhi\r\nmsg\tx  1   0\r\n\r\nMSG big 1 90\r\n\
        012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n\
        -ERR 'Authorization Violation'\r\nPONG\r\n";

    fn expected() -> Vec<String> {
        [
            "info {\"nonce\":\"abcdefgh\"} ",
            "Ping",
            "Ok",
            "msg c.node.n1 7  |hello",
            "msg a.b 8 in.box NATS/1.0\r\n\r\n|hi",
            "msg x 1  |",
            "large big 90",
            "err Authorization Violation",
            "Pong",
        ]
        .map(ToString::to_string)
        .to_vec()
    }

    #[test]
    fn split_at_every_boundary() {
        assert_eq!(run(&[STREAM], 64).unwrap(), expected());
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(run(&bytes, 64).unwrap(), expected());
        for at in 0..STREAM.len() {
            let (left, right) = STREAM.split_at(at);
            assert_eq!(run(&[left, right], 64).unwrap(), expected(), "{at}");
        }
    }

    #[test]
    fn hostile_lines() {
        for (line, error) in [
            ("HELLO\r\n", ProtocolError::UnknownOperation),
            ("\r\n", ProtocolError::UnknownOperation),
            ("MSG a\r\n", ProtocolError::BadArguments),
            ("MSG a 1 2 3 4 5 6\r\n", ProtocolError::BadArguments),
            ("MSG a -1 5\r\n", ProtocolError::BadArguments),
            ("MSG a 1 18446744073709551616\r\n", ProtocolError::BadArguments),
            ("MSG a 1 1073741824\r\n", ProtocolError::AbsurdSize(1 << 30)),
            ("HMSG a 1 9 5\r\n", ProtocolError::BadArguments),
            ("MSG a 1 2\r\nxxyy", ProtocolError::Unterminated),
            ("MSG a 1 2\r\nxx\rx", ProtocolError::Unterminated),
        ] {
            assert_eq!(run(&[line.as_bytes()], 8192), Err(error), "{line}");
        }
        let long = format!("PING {}\r\n", "x".repeat(5000));
        assert_eq!(run(&[long.as_bytes()], 8192), Err(ProtocolError::LineTooLong));
        assert_eq!(run(&[long.as_bytes()], 16), Err(ProtocolError::LineTooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_any_buffer(input in proptest::collection::vec(any::<u8>(), 0..600), size in 0usize..300) {
            run(&[&input], size).ok();
        }

        #[test]
        fn near_miss_streams(cut in 0usize..STREAM.len(), value in any::<u8>(), size in 0usize..128, at in 0usize..STREAM.len()) {
            let mut bytes = STREAM.to_vec();
            bytes[cut] = value;
            let (left, right) = bytes.split_at(at);
            prop_assert_eq!(run(&[left, right], size), run(&[&bytes], size));
        }
    }
}
