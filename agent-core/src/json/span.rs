//! Where a member of a document stands in the caller's buffer.
//!
//! Ranges instead of borrowed slices: an inner layer is decoded over its own text, which no borrow would survive
//! (`docs/spec/08 §6.1`).

use super::fields::Fields;
use super::scanner::{Scanner, Token};
use super::text::unescape_in_place;
use super::value::{Kind, Value};
use super::{Error, number};
use crate::encoding::base64;

/// A range of the caller's buffer. Reading it from another buffer gives other bytes or none, never a panic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The whole of a buffer.
    pub fn whole(buffer: &[u8]) -> Span {
        Span::new(0, buffer.len())
    }

    fn new(start: usize, length: usize) -> Span {
        let bound = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { start: bound(start), end: bound(start.saturating_add(length)) }
    }

    fn range(self) -> core::ops::Range<usize> {
        let bound = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        bound(self.start)..bound(self.end)
    }

    pub fn len(self) -> usize {
        self.range().len()
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The bytes of the range.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.range()).unwrap_or_default()
    }

    /// The text of the range, empty when it is not UTF-8.
    pub fn text(self, buffer: &[u8]) -> &str {
        core::str::from_utf8(self.of(buffer)).unwrap_or_default()
    }

    pub(crate) fn of_mut(self, buffer: &mut [u8]) -> &mut [u8] {
        buffer.get_mut(self.range()).unwrap_or_default()
    }

    pub(crate) fn shortened(self, length: usize) -> Span {
        let start = usize::try_from(self.start).unwrap_or(usize::MAX);
        Span::new(start, length.min(self.len()))
    }
}

/// A member found in a layer: for a string the range between its quotes, else the range of the value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
    escaped: bool,
}

impl Member {
    /// Unescapes a string over itself.
    pub(crate) fn settle(&self, buffer: &mut [u8]) -> Result<Span, Error> {
        if self.kind != Kind::String {
            return Err(Error::Type);
        }
        if !self.escaped {
            return Ok(self.span);
        }
        let length = unescape_in_place(self.span.of_mut(buffer))?;
        Ok(self.span.shortened(length))
    }

    /// Unescapes a string of padded base64 and decodes it over itself.
    pub(crate) fn settle_base64(&self, buffer: &mut [u8]) -> Result<Span, Error> {
        let span = self.settle(buffer)?;
        let length = base64::decode_in_place(span.of_mut(buffer)).map_err(|_| Error::Type)?;
        Ok(span.shortened(length))
    }

    /// A number written as a plain integer.
    pub(crate) fn integer(&self, buffer: &[u8]) -> Result<i64, Error> {
        match self.kind {
            Kind::Number => number::integer(self.span.text(buffer)).ok_or(Error::Type),
            _ => Err(Error::Type),
        }
    }

    /// The whole part of a number in any spelling.
    pub(crate) fn date(&self, buffer: &[u8]) -> Result<i64, Error> {
        match self.kind {
            Kind::Number => number::whole(self.span.text(buffer)).ok_or(Error::Type),
            _ => Err(Error::Type),
        }
    }
}

/// Finds the members `names` of the object that fills `within`, in any order, before anything is changed. Null counts as
/// absent; foreign members pass; repeated and case-variant names are refused.
pub(crate) fn members<const N: usize>(
    buffer: &[u8],
    within: Span,
    names: &[&str; N],
) -> Result<[Option<Member>; N], Error> {
    let mut found = [None; N];
    find(buffer, within, names, &mut found)?;
    Ok(found)
}

/// The same for any number of names; one copy of it serves all layers.
fn find(buffer: &[u8], within: Span, names: &[&str], found: &mut [Option<Member>]) -> Result<(), Error> {
    let base = within.range().start;
    let mut fields = Fields::new(names);
    let mut scanner = Scanner::new(within.of(buffer));
    let Token::ObjectStart = scanner.pull()? else { return Err(Error::Type) };
    while let Token::Key(key) = scanner.pull()? {
        let place = fields.place(&key)?;
        let value = Value::read(&mut scanner)?;
        let Some(slot) = place.and_then(|place| found.get_mut(place)) else { continue };
        *slot = match (value.kind(), value.as_text()) {
            (Kind::Null, _) => None,
            (_, Some(text)) => Some(Member {
                span: Span::new(base.saturating_add(text.start()), text.raw().len()),
                kind: Kind::String,
                escaped: text.is_escaped(),
            }),
            (kind, None) => Some(Member {
                span: Span::new(base.saturating_add(value.start()), value.raw().len()),
                kind,
                escaped: false,
            }),
        };
    }
    scanner.pull()?;
    Ok(())
}
