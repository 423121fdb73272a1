//! Writing the `data` object of a reply into a buffer of fixed size.

use core::fmt::{self, Write as _};

use super::status::{Status, StatusCode, StatusText};
use crate::append::append;

/// Text of a reply whose data did not fit the buffer (`docs/spec/08 §6.5`).
pub const TOO_LARGE: &str = "reply exceeds device limit";

/// Deepest nesting of objects and arrays in a reply.
const MAX_DEPTH: u8 = 31;

/// Writes the JSON object `data` of one reply.
///
/// Data grows from the front of the buffer, the status text from its end. When the two meet the reply is spoiled:
/// everything written is discarded and the caller gets status 1 and [`TOO_LARGE`]. No method reports the overflow,
/// so an agent writes without checking each step.
///
/// Inside an array the `name` of every method is ignored; pass `""`.
pub struct ReplyWriter<'b> {
    buffer: &'b mut [u8],
    data_len: usize,
    text_len: usize,
    /// Bit n set: level n is an array.
    arrays: u32,
    /// Bit n set: level n has a member already.
    started: u32,
    depth: u8,
    spoiled: bool,
    whole: bool,
}

/// What a call left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished<'b> {
    pub code: StatusCode,
    pub text: &'b str,
    /// One JSON value, `{}` when nothing was written.
    pub data: &'b [u8],
    /// No reply may be sent.
    pub silent: bool,
}

impl fmt::Debug for ReplyWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyWriter")
            .field("written", &self.data_len)
            .field("depth", &self.depth)
            .field("spoiled", &self.spoiled)
            .finish_non_exhaustive()
    }
}

impl<'b> ReplyWriter<'b> {
    pub fn new(buffer: &'b mut [u8]) -> ReplyWriter<'b> {
        let mut writer = ReplyWriter {
            buffer,
            data_len: 0,
            text_len: 0,
            arrays: 0,
            started: 0,
            depth: 0,
            spoiled: false,
            whole: false,
        };
        writer.put(b"{");
        writer
    }

    /// Bytes that may still be written.
    #[must_use]
    pub fn room(&self) -> usize {
        self.buffer.len().saturating_sub(self.data_len).saturating_sub(self.text_len)
    }

    /// Whether something did not fit.
    #[must_use]
    pub const fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// Forgets all data written so far; an action that fails half way answers with its status alone.
    pub fn clear(&mut self) {
        self.data_len = 0;
        self.arrays = 0;
        self.started = 0;
        self.depth = 0;
        self.whole = false;
        self.spoiled = false;
        self.put(b"{");
    }

    pub fn str(&mut self, name: &str, value: &str) {
        self.member(name);
        self.quoted(value);
    }

    pub fn int(&mut self, name: &str, value: i64) {
        self.member(name);
        self.format(format_args!("{value}"));
    }

    pub fn uint(&mut self, name: &str, value: u64) {
        self.member(name);
        self.format(format_args!("{value}"));
    }

    pub fn bool(&mut self, name: &str, value: bool) {
        self.member(name);
        self.put(if value { b"true" } else { b"false" });
    }

    pub fn null(&mut self, name: &str) {
        self.member(name);
        self.put(b"null");
    }

    /// A string made of values, e.g. `out.text("pin", format_args!("GPIO{n}"))`.
    pub fn text(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.member(name);
        self.put(b"\"");
        if (Escaping { to: self }).write_fmt(value).is_err() {
            self.spoiled = true;
        }
        self.put(b"\"");
    }

    /// A value that is JSON already. The caller vouches for its syntax.
    pub fn raw(&mut self, name: &str, json: &[u8]) {
        self.member(name);
        self.put(json);
    }

    /// Opens a nested object; close it with [`ReplyWriter::end`].
    pub fn object(&mut self, name: &str) {
        self.open(name, false);
    }

    /// Opens a nested array; close it with [`ReplyWriter::end`].
    pub fn array(&mut self, name: &str) {
        self.open(name, true);
    }

    /// Closes the innermost object or array. Too many calls do nothing; missing ones are made up at the end.
    pub fn end(&mut self) {
        if self.depth == 0 || self.whole {
            return;
        }
        let closing: &[u8] = if self.in_array() { b"]" } else { b"}" };
        self.put(closing);
        self.depth = self.depth.saturating_sub(1);
    }

    /// Replaces everything written by one JSON value, the whole `data` of the reply. `null` becomes `{}`.
    pub fn data_json(&mut self, json: &[u8]) {
        self.clear();
        self.data_len = 0;
        self.put(if json.is_empty() || json == b"null" { b"{}" } else { json });
        self.whole = true;
    }

    /// A status whose text has values in it.
    pub fn fail(&mut self, code: StatusCode, text: fmt::Arguments<'_>) -> Status {
        self.text_len = 0;
        // The text is stored back to front: it then needs no space reserved in advance, and is turned once at the end.
        if (Reversed { to: self }).write_fmt(text).is_err() {
            self.spoiled = true;
        }
        Status::written(code)
    }

    /// The answer for an action that the agent does not have (`docs/spec/03 §4`).
    pub fn unknown_action(&mut self, agent: &str, action: &str) -> Status {
        self.fail(StatusCode::UnknownAction, format_args!("Unknown action {action} for agent {agent}"))
    }

    /// Closes what is open and joins status and data.
    pub fn finish(mut self, status: Status) -> Finished<'b> {
        while self.depth > 0 && !self.whole {
            self.end();
        }
        if !self.whole {
            self.put(b"}");
        }
        let ReplyWriter { buffer, data_len, text_len, spoiled, .. } = self;
        let spoilt =
            Finished { code: StatusCode::Aborted, text: TOO_LARGE, data: b"{}", silent: status.is_silent() };
        if spoiled {
            return spoilt;
        }
        let middle = buffer.len().saturating_sub(text_len);
        let Some((front, back)) = buffer.split_at_mut_checked(middle) else { return spoilt };
        back.reverse();
        let text = match status.text() {
            StatusText::Fixed(text) => text,
            StatusText::Written => core::str::from_utf8(back).unwrap_or(""),
        };
        let front: &'b [u8] = front;
        let data = front.get(..data_len).unwrap_or(b"{}");
        Finished { code: status.code(), text, data, silent: status.is_silent() }
    }

    const fn level(&self) -> u32 {
        1u32 << self.depth
    }

    const fn in_array(&self) -> bool {
        self.arrays & self.level() != 0
    }

    fn member(&mut self, name: &str) {
        if self.whole {
            self.spoiled = true;
        }
        if self.started & self.level() != 0 {
            self.put(b",");
        }
        self.started |= self.level();
        if !self.in_array() {
            self.quoted(name);
            self.put(b":");
        }
    }

    fn open(&mut self, name: &str, array: bool) {
        self.member(name);
        if self.depth >= MAX_DEPTH {
            self.spoiled = true;
            return;
        }
        self.put(if array { b"[" } else { b"{" });
        self.depth = self.depth.saturating_add(1);
        self.started &= !self.level();
        if array {
            self.arrays |= self.level();
        } else {
            self.arrays &= !self.level();
        }
    }

    fn quoted(&mut self, text: &str) {
        self.put(b"\"");
        self.escaped(text);
        self.put(b"\"");
    }

    fn escaped(&mut self, text: &str) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        for &byte in text.as_bytes() {
            match byte {
                b'"' => self.put(b"\\\""),
                b'\\' => self.put(b"\\\\"),
                b'\n' => self.put(b"\\n"),
                b'\r' => self.put(b"\\r"),
                b'\t' => self.put(b"\\t"),
                0..=0x1f => {
                    let low = HEX.get(usize::from(byte & 0xf)).copied().unwrap_or(b'0');
                    self.put(if byte < 0x10 { b"\\u000" } else { b"\\u001" });
                    self.put(&[low]);
                }
                _ => self.put(&[byte]),
            }
        }
    }

    fn format(&mut self, arguments: fmt::Arguments<'_>) {
        if (Plain { to: self }).write_fmt(arguments).is_err() {
            self.spoiled = true;
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let limit = self.buffer.len().saturating_sub(self.text_len);
        let room = self.buffer.get_mut(..limit).filter(|_| !self.spoiled);
        match room.and_then(|room| append(room, self.data_len, bytes)) {
            Some(end) => self.data_len = end,
            None => self.spoiled = true,
        }
    }

    fn put_back(&mut self, byte: u8) {
        let at = self.buffer.len().checked_sub(self.text_len.saturating_add(1));
        match at.and_then(|at| (at >= self.data_len).then_some(at)).and_then(|at| self.buffer.get_mut(at)) {
            Some(place) => {
                *place = byte;
                self.text_len = self.text_len.saturating_add(1);
            }
            None => self.spoiled = true,
        }
    }
}

struct Plain<'w, 'b> {
    to: &'w mut ReplyWriter<'b>,
}

impl fmt::Write for Plain<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.to.put(text.as_bytes());
        Ok(())
    }
}

struct Escaping<'w, 'b> {
    to: &'w mut ReplyWriter<'b>,
}

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.to.escaped(text);
        Ok(())
    }
}

struct Reversed<'w, 'b> {
    to: &'w mut ReplyWriter<'b>,
}

impl fmt::Write for Reversed<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            self.to.put_back(byte);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_values_and_escapes() {
        let mut buffer = [0u8; 256];
        let mut out = ReplyWriter::new(&mut buffer);
        out.str("a", "x\"\\\n\u{1}é");
        out.int("n", -4);
        out.array("list");
        out.uint("", 1);
        out.object("");
        out.bool("t", true);
        out.end();
        out.end();
        out.text("f", format_args!("{}-{}", 1, "\""));
        out.object("open");
        let done = out.finish(Status::ok());
        assert_eq!(done.code, StatusCode::Ok);
        assert_eq!(done.text, "OK");
        assert_eq!(
            core::str::from_utf8(done.data).unwrap(),
            "{\"a\":\"x\\\"\\\\\\n\\u0001é\",\"n\":-4,\"list\":[1,{\"t\":true}],\"f\":\"1-\\\"\",\"open\":{}}"
        );
    }

    #[test]
    fn a_written_text_survives_beside_the_data() {
        let mut buffer = [0u8; 64];
        let mut out = ReplyWriter::new(&mut buffer);
        let status = out.fail(StatusCode::Aborted, format_args!("pin {} is busy: ü", 7));
        out.int("pin", 7);
        let done = out.finish(status);
        assert_eq!((done.code, done.text), (StatusCode::Aborted, "pin 7 is busy: ü"));
        assert_eq!(done.data, b"{\"pin\":7}");
    }

    #[test]
    fn overflow_discards_everything() {
        for size in 0..24 {
            let mut buffer = [0u8; 24];
            let mut out = ReplyWriter::new(&mut buffer[..size]);
            out.str("key", "0123456789abcdef");
            let done = out.finish(Status::ok());
            assert_eq!(
                (done.code, done.text, done.data),
                (StatusCode::Aborted, TOO_LARGE, b"{}".as_slice()),
                "{size}"
            );
        }
    }

    #[test]
    fn a_whole_document_replaces_members() {
        let mut buffer = [0u8; 64];
        let mut out = ReplyWriter::new(&mut buffer);
        out.int("lost", 1);
        out.data_json(b"{\"x\":[1,2]}");
        assert_eq!(out.finish(Status::ok()).data, b"{\"x\":[1,2]}");
        let mut out = ReplyWriter::new(&mut buffer);
        out.data_json(b"null");
        assert_eq!(out.finish(Status::ok()).data, b"{}");
    }
}
