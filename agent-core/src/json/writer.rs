//! Writing JSON into a bounded sink, in upstream's spelling: compact, and with `<`, `>`, `&`, U+2028 and U+2029 escaped
//! (`docs/spec/01 §1.1`).

use super::number::Decimal;
use super::{Error, MAX_DEPTH};
use crate::append::append;
use crate::encoding::{base64, hex};

/// Where bytes go. An encoder between two documents is a sink too.
pub trait Sink {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error>;
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        (**self).put(bytes)
    }
}

/// A sink over the caller's buffer. Once full it stays full, so that a cut document cannot be taken for a whole one.
#[derive(Debug)]
pub struct SliceSink<'b> {
    buffer: &'b mut [u8],
    length: usize,
    full: bool,
}

impl<'b> SliceSink<'b> {
    pub fn new(buffer: &'b mut [u8]) -> SliceSink<'b> {
        SliceSink { buffer, length: 0, full: false }
    }

    /// The bytes written so far.
    pub fn written(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// The written bytes, or an error when anything did not fit.
    pub fn finish(self) -> Result<&'b mut [u8], Error> {
        if self.full {
            return Err(Error::NoSpace);
        }
        self.buffer.get_mut(..self.length).ok_or(Error::NoSpace)
    }

    /// Forgets everything written, for a document that has to be started again.
    pub fn clear(&mut self) {
        self.length = 0;
        self.full = false;
    }
}

impl Sink for SliceSink<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = if self.full { None } else { append(self.buffer, self.length, bytes) };
        match end {
            Some(end) => {
                self.length = end;
                Ok(())
            }
            None => {
                self.full = true;
                Err(Error::NoSpace)
            }
        }
    }
}

/// Writes one document. Commas and colons come by themselves; the first error is kept and answered by [`Writer::end`],
/// so that a chain of calls needs one check.
#[derive(Debug)]
pub struct Writer<S> {
    sink: S,
    failed: Option<Error>,
    depth: u8,
    /// Bit n: something was written at depth n already.
    filled: u64,
    after_key: bool,
}

impl<'b> Writer<SliceSink<'b>> {
    /// A writer into the caller's buffer.
    pub fn over(buffer: &'b mut [u8]) -> Writer<SliceSink<'b>> {
        Writer::new(SliceSink::new(buffer))
    }

    /// The document, or the first error.
    pub fn finish(self) -> Result<&'b mut [u8], Error> {
        match self.failed {
            Some(error) => Err(error),
            None => self.sink.finish(),
        }
    }
}

impl<S: Sink> Writer<S> {
    pub fn new(sink: S) -> Writer<S> {
        Writer { sink, failed: None, depth: 0, filled: 0, after_key: false }
    }

    /// The first error, if there was one.
    pub fn end(&self) -> Result<(), Error> {
        self.failed.map_or(Ok(()), Err)
    }

    /// The sink, with or without an error.
    pub fn into_sink(self) -> S {
        self.sink
    }

    pub fn begin_object(&mut self) -> &mut Self {
        self.begin(b"{")
    }

    pub fn end_object(&mut self) -> &mut Self {
        self.leave(b"}")
    }

    pub fn begin_array(&mut self) -> &mut Self {
        self.begin(b"[")
    }

    pub fn end_array(&mut self) -> &mut Self {
        self.leave(b"]")
    }

    pub fn key(&mut self, name: &str) -> &mut Self {
        self.separate();
        self.quoted(name);
        self.put(b":");
        self.after_key = true;
        self
    }

    pub fn str(&mut self, text: &str) -> &mut Self {
        self.separate();
        self.quoted(text);
        self
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.separate();
        self.put(Decimal::signed(value).bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.separate();
        self.put(Decimal::new(value).bytes());
        self
    }

    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.raw(if value { b"true" } else { b"false" })
    }

    pub fn null(&mut self) -> &mut Self {
        self.raw(b"null")
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, json: &[u8]) -> &mut Self {
        self.separate();
        self.put(json);
        self
    }

    /// A string holding `bytes` as padded standard base64.
    pub fn base64(&mut self, bytes: &[u8]) -> &mut Self {
        self.filled_str(|sink| put_base64(sink, bytes))
    }

    /// A string holding `bytes` as lower-case hex.
    pub fn hex(&mut self, bytes: &[u8]) -> &mut Self {
        self.filled_str(|sink| put_hex(sink, bytes))
    }

    /// A string of pieces that `fill` writes itself; only for text that needs no escapes, such as base64.
    pub fn filled_str(&mut self, fill: impl FnOnce(&mut dyn Sink) -> Result<(), Error>) -> &mut Self {
        self.separate();
        self.put(b"\"");
        if self.failed.is_none() {
            self.failed = fill(&mut self.sink).err();
        }
        self.put(b"\"");
        self
    }

    pub fn field_str(&mut self, name: &str, value: &str) -> &mut Self {
        self.key(name).str(value)
    }

    pub fn field_i64(&mut self, name: &str, value: i64) -> &mut Self {
        self.key(name).i64(value)
    }

    pub fn field_bool(&mut self, name: &str, value: bool) -> &mut Self {
        self.key(name).bool(value)
    }

    pub fn field_raw(&mut self, name: &str, json: &[u8]) -> &mut Self {
        self.key(name).raw(json)
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.sink.put(bytes).err();
        }
    }

    fn bit(&self) -> u64 {
        1_u64.checked_shl(u32::from(self.depth)).unwrap_or(0)
    }

    fn separate(&mut self) {
        if core::mem::take(&mut self.after_key) {
            return;
        }
        if self.depth > 0 && self.filled & self.bit() != 0 {
            self.put(b",");
        }
        self.filled |= self.bit();
    }

    fn begin(&mut self, bracket: &[u8]) -> &mut Self {
        self.separate();
        self.put(bracket);
        if self.depth >= MAX_DEPTH {
            self.failed = self.failed.or(Some(Error::TooDeep { at: 0 }));
        }
        self.depth = self.depth.saturating_add(1);
        self.filled &= !self.bit();
        self
    }

    fn leave(&mut self, bracket: &[u8]) -> &mut Self {
        self.put(bracket);
        self.depth = self.depth.saturating_sub(1);
        self
    }

    fn quoted(&mut self, text: &str) {
        if self.failed.is_none() {
            self.failed = put_quoted(&mut self.sink, text).err();
        }
    }
}

// Without a type parameter: one copy serves all sinks.

fn put_quoted(sink: &mut dyn Sink, text: &str) -> Result<(), Error> {
    sink.put(b"\"")?;
    // Runs of harmless bytes in one piece, the rest escaped.
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| needs_escape(*c)) {
        sink.put(rest.as_bytes().get(..at).unwrap_or_default())?;
        put_escape(sink, c)?;
        rest = rest.get(at.saturating_add(c.len_utf8())..).unwrap_or_default();
    }
    sink.put(rest.as_bytes())?;
    sink.put(b"\"")
}

fn put_escape(sink: &mut dyn Sink, c: char) -> Result<(), Error> {
    match c {
        '"' => sink.put(b"\\\""),
        '\\' => sink.put(b"\\\\"),
        '\n' => sink.put(b"\\n"),
        '\r' => sink.put(b"\\r"),
        '\t' => sink.put(b"\\t"),
        '\u{8}' => sink.put(b"\\b"),
        '\u{c}' => sink.put(b"\\f"),
        _ => {
            let code = u16::try_from(u32::from(c)).unwrap_or(0xfffd).to_be_bytes();
            sink.put(b"\\u")?;
            put_hex(sink, &code)
        }
    }
}

fn put_hex(sink: &mut dyn Sink, bytes: &[u8]) -> Result<(), Error> {
    for byte in bytes {
        let mut pair = [0; 2];
        if let Ok(text) = hex::encode_to_slice(&[*byte], &mut pair) {
            sink.put(text.as_bytes())?;
        }
    }
    Ok(())
}

fn put_base64(sink: &mut dyn Sink, bytes: &[u8]) -> Result<(), Error> {
    for chunk in bytes.chunks(3) {
        sink.put(&base64::group(chunk))?;
    }
    Ok(())
}

fn needs_escape(c: char) -> bool {
    matches!(c, '\0'..='\u{1f}' | '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}')
}
