//! A checked JSON object with typed getters that never take one of two names silently.

use super::Error;
use super::scanner::{Scanner, Token};
use super::text::Text;
use super::value::{Kind, Value};

/// One JSON object, checked as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Object<'a> {
    /// Checks a document that must be one object.
    pub fn parse(document: &'a [u8]) -> Result<Object<'a>, Error> {
        Value::parse(document)?.as_object().ok_or(Error::Type)
    }

    pub(super) fn over(raw: &'a [u8], at: usize) -> Object<'a> {
        Object { raw, at }
    }

    /// The bytes from brace to brace.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The members in document order.
    pub fn entries(&self) -> Entries<'a> {
        let mut scanner = Scanner::new(self.raw);
        scanner.pull().ok();
        Entries { scanner, base: self.at }
    }

    /// The member `name`; absent is `None`. A second such name, or one that differs only in case, is an error.
    pub fn get(&self, name: &str) -> Result<Option<Value<'a>>, Error> {
        let mut found = None;
        for (key, value) in self.entries() {
            if !key.folds_to(name) {
                continue;
            }
            if found.is_some() || !key.is(name) {
                return Err(Error::Ambiguous { at: key.start() });
            }
            found = Some(value);
        }
        Ok(found)
    }

    /// The member `name` as a string, unescaped into `scratch` when it holds escapes; absent or null is `None`.
    pub fn str<'s>(&self, name: &str, scratch: &'s mut [u8]) -> Result<Option<&'s str>, Error>
    where
        'a: 's,
    {
        let Some(value) = self.present(name)? else { return Ok(None) };
        let text = value.as_text().ok_or(Error::Type)?;
        match text.plain() {
            Some(plain) => Ok(Some(plain)),
            None => text.unescape(scratch).map(Some),
        }
    }

    /// The member `name` as a whole number; absent or null is `None`.
    pub fn i64(&self, name: &str) -> Result<Option<i64>, Error> {
        self.present(name)?.map(|value| value.as_i64().ok_or(Error::Type)).transpose()
    }

    /// The member `name` as a boolean; absent or null is `None`.
    pub fn bool(&self, name: &str) -> Result<Option<bool>, Error> {
        self.present(name)?.map(|value| value.as_bool().ok_or(Error::Type)).transpose()
    }

    /// The member `name` as an object; absent or null is `None`.
    pub fn object(&self, name: &str) -> Result<Option<Object<'a>>, Error> {
        self.present(name)?.map(|value| value.as_object().ok_or(Error::Type)).transpose()
    }

    /// The bytes of the member `name`; absent or null is `None`.
    pub fn raw_member(&self, name: &str) -> Result<Option<&'a [u8]>, Error> {
        Ok(self.present(name)?.map(|value| value.raw()))
    }

    fn present(&self, name: &str) -> Result<Option<Value<'a>>, Error> {
        Ok(self.get(name)?.filter(|value| value.kind() != Kind::Null))
    }
}

/// The members of an object: name and value.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    scanner: Scanner<'a>,
    base: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (Text<'a>, Value<'a>);

    fn next(&mut self) -> Option<(Text<'a>, Value<'a>)> {
        // The object was checked before, so an error cannot come; it would end the iteration.
        let Ok(Token::Key(key)) = self.scanner.pull() else { return None };
        let key = Text::new(key.raw(), self.base.saturating_add(key.start()), key.is_escaped());
        let value = Value::read(&mut self.scanner).ok()?;
        Some((key, value.offset_by(self.base)))
    }
}
