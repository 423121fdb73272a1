//! The pull scanner: one token per call, iterative, no memory but a bit per open container.

use super::text::{Chars, Text};
use super::{Error, number};

/// Containers that may be open at once.
pub const MAX_DEPTH: u8 = 32;

/// One step of a document.
#[derive(Debug, Clone, Copy)]
pub enum Token<'a> {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    /// A member name; its value follows.
    Key(Text<'a>),
    String(Text<'a>),
    /// The text of a number, checked against the JSON grammar.
    Number(&'a str),
    Bool(bool),
    Null,
    /// The document is complete and nothing but white space follows.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    KeyOrEnd,
    ElementOrEnd,
    Key,
    CommaOrEnd,
    Nothing,
}

/// Reads a document token by token. After an error the scanner stays at the error.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    all: &'a [u8],
    rest: &'a [u8],
    depth: u8,
    /// Bit n: the container at depth n+1 is an object.
    objects: u32,
    expect: Expect,
}

impl<'a> Scanner<'a> {
    pub const fn new(document: &'a [u8]) -> Scanner<'a> {
        Scanner { all: document, rest: document, depth: 0, objects: 0, expect: Expect::Value }
    }

    /// The offset of the next unread byte.
    pub fn position(&self) -> usize {
        self.all.len().saturating_sub(self.rest.len())
    }

    /// How many containers are open.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The next token.
    pub fn pull(&mut self) -> Result<Token<'a>, Error> {
        loop {
            self.skip_space();
            let first = self.rest.first().copied();
            match (self.expect, first) {
                (Expect::Nothing, None) => return Ok(Token::End),
                (Expect::CommaOrEnd, Some(b',')) => {
                    self.advance(1);
                    self.expect = if self.in_object() { Expect::Key } else { Expect::Value };
                }
                (Expect::CommaOrEnd | Expect::KeyOrEnd, Some(b'}')) if self.in_object() => {
                    return Ok(self.close(Token::ObjectEnd));
                }
                (Expect::CommaOrEnd | Expect::ElementOrEnd, Some(b']')) if !self.in_object() => {
                    return Ok(self.close(Token::ArrayEnd));
                }
                (Expect::Key | Expect::KeyOrEnd, Some(b'"')) => return self.key(),
                (Expect::Value | Expect::ElementOrEnd, Some(first)) => return self.value(first),
                _ => return Err(self.surprise()),
            }
        }
    }

    /// Reads one whole value and answers its bytes, brackets and quotes included, without white space around them.
    pub fn skip_value(&mut self) -> Result<&'a [u8], Error> {
        self.skip_space();
        if self.expect == Expect::CommaOrEnd {
            return Err(self.surprise());
        }
        let from = self.rest;
        let floor = self.depth;
        loop {
            match self.pull()? {
                Token::Key(_) if self.depth == floor => return Err(self.surprise()),
                Token::End => return Err(self.surprise()),
                _ if self.depth < floor => return Err(self.surprise()),
                Token::Key(_) => {}
                _ if self.depth == floor => break,
                _ => {}
            }
        }
        let length = from.len().saturating_sub(self.rest.len());
        from.get(..length).ok_or(self.surprise())
    }

    /// Inside an array: steps over the comma before the next element, or over the closing bracket. Answers whether an
    /// element follows.
    pub fn next_element(&mut self) -> Result<bool, Error> {
        self.skip_space();
        if self.in_object() || self.depth == 0 {
            return Err(self.surprise());
        }
        match (self.expect, self.rest.first()) {
            (Expect::CommaOrEnd | Expect::ElementOrEnd, Some(b']')) => {
                self.close(Token::ArrayEnd);
                Ok(false)
            }
            (Expect::CommaOrEnd, Some(b',')) => {
                self.advance(1);
                self.expect = Expect::Value;
                Ok(true)
            }
            (Expect::ElementOrEnd, Some(_)) => Ok(true),
            _ => Err(self.surprise()),
        }
    }

    fn surprise(&self) -> Error {
        Error::Syntax { at: self.position() }
    }

    fn skip_space(&mut self) {
        let space = self.rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.advance(space);
    }

    fn advance(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn in_object(&self) -> bool {
        let level = u32::from(self.depth.saturating_sub(1));
        self.depth > 0 && self.objects.checked_shr(level).unwrap_or(0) & 1 == 1
    }

    fn open(&mut self, object: bool) -> Result<(), Error> {
        if self.depth >= MAX_DEPTH {
            return Err(Error::TooDeep { at: self.position() });
        }
        let bit = 1_u32.checked_shl(u32::from(self.depth)).unwrap_or(0);
        self.objects = if object { self.objects | bit } else { self.objects & !bit };
        self.depth = self.depth.saturating_add(1);
        self.expect = if object { Expect::KeyOrEnd } else { Expect::ElementOrEnd };
        self.advance(1);
        Ok(())
    }

    fn close(&mut self, token: Token<'a>) -> Token<'a> {
        self.advance(1);
        self.depth = self.depth.saturating_sub(1);
        self.after_value();
        token
    }

    fn after_value(&mut self) {
        self.expect = if self.depth == 0 { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    fn key(&mut self) -> Result<Token<'a>, Error> {
        let text = self.string()?;
        self.skip_space();
        if self.rest.first() != Some(&b':') {
            return Err(self.surprise());
        }
        self.advance(1);
        self.expect = Expect::Value;
        Ok(Token::Key(text))
    }

    fn value(&mut self, first: u8) -> Result<Token<'a>, Error> {
        let token = match first {
            b'{' => {
                self.open(true)?;
                return Ok(Token::ObjectStart);
            }
            b'[' => {
                self.open(false)?;
                return Ok(Token::ArrayStart);
            }
            b'"' => Token::String(self.string()?),
            b't' => self.word(b"true", Token::Bool(true))?,
            b'f' => self.word(b"false", Token::Bool(false))?,
            b'n' => self.word(b"null", Token::Null)?,
            _ => {
                let text = number::prefix(self.rest).ok_or(self.surprise())?;
                self.advance(text.len());
                Token::Number(text)
            }
        };
        self.after_value();
        Ok(token)
    }

    fn word(&mut self, word: &[u8], token: Token<'a>) -> Result<Token<'a>, Error> {
        if !self.rest.starts_with(word) {
            return Err(self.surprise());
        }
        self.advance(word.len());
        Ok(token)
    }

    fn string(&mut self) -> Result<Text<'a>, Error> {
        self.advance(1);
        let start = self.position();
        let body = self.rest;
        let mut length = 0_usize;
        let mut escaped = false;
        loop {
            let rest = body.get(length..).unwrap_or_default();
            let hit = memchr::memchr2(b'"', b'\\', rest).ok_or(self.surprise())?;
            length = length.saturating_add(hit);
            if body.get(length) == Some(&b'"') {
                break;
            }
            escaped = true;
            length = length.saturating_add(2);
        }
        let raw = body.get(..length).ok_or(self.surprise())?;
        if raw.iter().any(|b| *b < 0x20) {
            return Err(self.surprise());
        }
        let raw = core::str::from_utf8(raw).map_err(|_| self.surprise())?;
        if escaped {
            let mut chars = Chars::over(raw);
            while let Some(c) = chars.step() {
                c.ok_or(self.surprise())?;
            }
        }
        self.advance(length.saturating_add(1));
        Ok(Text::new(raw, start, escaped))
    }
}
