//! A lazy value: its kind and its bytes in the document.

use super::object::Object;
use super::scanner::{Scanner, Token};
use super::text::Text;
use super::{Error, number};

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// One value of a document, checked but not taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    raw: &'a [u8],
    at: usize,
    kind: Kind,
}

impl<'a> Value<'a> {
    /// Checks a whole document; trailing white space is allowed, anything else behind the value is not.
    pub fn parse(document: &'a [u8]) -> Result<Value<'a>, Error> {
        let mut scanner = Scanner::new(document);
        let value = Value::read(&mut scanner)?;
        scanner.pull()?;
        Ok(value)
    }

    /// The next value of a scanner that stands before one.
    pub fn read(scanner: &mut Scanner<'a>) -> Result<Value<'a>, Error> {
        let raw = scanner.skip_value()?;
        let at = scanner.position().saturating_sub(raw.len());
        let kind = match raw.first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't') => Kind::True,
            Some(b'f') => Kind::False,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        };
        Ok(Value { raw, at, kind })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The bytes of the value, brackets and quotes included.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The offset of the first byte in the document.
    pub fn start(&self) -> usize {
        self.at
    }

    pub(super) fn offset_by(mut self, base: usize) -> Value<'a> {
        self.at = self.at.saturating_add(base);
        self
    }

    pub fn as_text(&self) -> Option<Text<'a>> {
        match Scanner::new(self.raw).pull() {
            Ok(Token::String(text)) => {
                Some(Text::new(text.raw(), self.at.saturating_add(1), text.is_escaped()))
            }
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self.kind {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    /// The text of a number.
    pub fn as_number(&self) -> Option<&'a str> {
        match self.kind {
            Kind::Number => core::str::from_utf8(self.raw).ok(),
            _ => None,
        }
    }

    /// The whole part of a number that fits 64 bits.
    pub fn as_i64(&self) -> Option<i64> {
        number::whole(self.as_number()?)
    }

    pub fn as_object(&self) -> Option<Object<'a>> {
        (self.kind == Kind::Object).then(|| Object::over(self.raw, self.at))
    }

    /// The elements of an array, in order.
    pub fn elements(&self) -> Option<Elements<'a>> {
        if self.kind != Kind::Array {
            return None;
        }
        let mut scanner = Scanner::new(self.raw);
        scanner.pull().ok()?;
        Some(Elements { scanner, base: self.at })
    }
}

/// The elements of an array.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    scanner: Scanner<'a>,
    base: usize,
}

impl Elements<'_> {
    /// Of a list that is not there.
    pub(crate) const NONE: Elements<'static> = Elements { scanner: Scanner::new(b""), base: 0 };
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.scanner.next_element().ok().filter(|more| *more)?;
        Value::read(&mut self.scanner).ok().map(|value| value.offset_by(self.base))
    }
}
