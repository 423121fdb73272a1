//! The text of a JSON string, as it stands between its quotes.

use super::Error;
use crate::append::append;

/// A scanned string: legal UTF-8, legal escapes, not yet unescaped.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    raw: &'a str,
    at: usize,
    escaped: bool,
}

impl<'a> Text<'a> {
    pub(super) fn new(raw: &'a str, at: usize, escaped: bool) -> Text<'a> {
        Text { raw, at, escaped }
    }

    /// The bytes between the quotes, escapes included.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// Where the first byte after the opening quote stands in the document.
    pub fn start(&self) -> usize {
        self.at
    }

    /// Whether the raw text holds escapes; if not, it is the value.
    pub fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// The value itself, when no escape stands in the way.
    pub fn plain(&self) -> Option<&'a str> {
        if self.escaped { None } else { Some(self.raw) }
    }

    /// The characters of the value.
    pub fn chars(&self) -> Chars<'a> {
        Chars { rest: self.raw.chars() }
    }

    /// Whether the value is exactly `other`.
    pub fn is(&self, other: &str) -> bool {
        match self.plain() {
            Some(text) => text == other,
            None => self.chars().eq(other.chars()),
        }
    }

    /// Whether a case-insensitive reader, such as upstream's, would take this name for `other`.
    pub fn folds_to(&self, other: &str) -> bool {
        self.chars().map(fold).eq(other.chars().map(fold))
    }

    /// The characters that a case-insensitive reader compares.
    pub fn folded(&self) -> impl Iterator<Item = char> + 'a {
        self.chars().map(fold)
    }

    /// Whether a case-insensitive reader would take two names for one.
    pub fn folds_like(&self, other: &Text<'_>) -> bool {
        self.chars().map(fold).eq(other.chars().map(fold))
    }

    /// Writes the value into the front of `out`.
    pub fn unescape<'o>(&self, out: &'o mut [u8]) -> Result<&'o str, Error> {
        let (mut length, mut room) = (0_usize, [0; 4]);
        if let Some(text) = self.plain() {
            length = append(out, 0, text.as_bytes()).ok_or(Error::NoSpace)?;
        } else {
            for c in self.chars() {
                let bytes = c.encode_utf8(&mut room).as_bytes();
                length = append(out, length, bytes).ok_or(Error::NoSpace)?;
            }
        }
        let text = out.get(..length).ok_or(Error::NoSpace)?;
        core::str::from_utf8(text).map_err(|_| Error::Syntax { at: self.at })
    }
}

/// Simple case folding as far as it maps into ASCII: upstream's JSON reader also takes the long s and the Kelvin sign
/// for their ASCII letters.
fn fold(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => c.to_ascii_lowercase(),
    }
}

/// The characters of a string value, unescaped on the way.
#[derive(Debug, Clone)]
pub struct Chars<'a> {
    rest: core::str::Chars<'a>,
}

impl<'a> Chars<'a> {
    /// Over raw text whose escapes are legal; an illegal one ends the iteration.
    pub(super) fn over(raw: &'a str) -> Chars<'a> {
        Chars { rest: raw.chars() }
    }

    fn hex4(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for _ in 0..4 {
            value = (value << 4) | self.rest.next()?.to_digit(16)?;
        }
        Some(value)
    }

    /// One character, or the reason why there is none: `None` at the end, `Some(None)` at an illegal escape.
    pub(super) fn step(&mut self) -> Option<Option<char>> {
        let c = self.rest.next()?;
        if c != '\\' { Some(Some(c)) } else { Some(self.escape()) }
    }

    fn escape(&mut self) -> Option<char> {
        match self.rest.next()? {
            c @ ('"' | '\\' | '/') => Some(c),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'u' => match self.hex4()? {
                high @ 0xd800..=0xdbff => {
                    if self.rest.next()? != '\\' || self.rest.next()? != 'u' {
                        return None;
                    }
                    let low = self.hex4().filter(|low| (0xdc00..=0xdfff).contains(low))?;
                    char::from_u32(0x10000_u32.saturating_add(((high & 0x3ff) << 10) | (low & 0x3ff)))
                }
                code => char::from_u32(code),
            },
            _ => None,
        }
    }
}

impl Iterator for Chars<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        self.step()?
    }
}

/// Unescapes a raw string over itself, which never grows; answers the length of the value at the front of `raw`.
pub fn unescape_in_place(raw: &mut [u8]) -> Result<usize, Error> {
    let (mut read, mut write, mut room) = (0_usize, 0_usize, [0; 4]);
    while let Some(rest) = raw.get(read..) {
        let Some(first) = rest.first().copied() else { break };
        if first != b'\\' {
            if let Some(place) = raw.get_mut(write) {
                *place = first;
            }
            read = read.saturating_add(1);
            write = write.saturating_add(1);
            continue;
        }
        // The longest escape is a surrogate pair of twelve bytes.
        let window = rest.get(..rest.len().min(12)).unwrap_or(rest);
        let ascii = window.iter().position(|b| !b.is_ascii()).unwrap_or(window.len());
        let window = core::str::from_utf8(window.get(..ascii).unwrap_or_default()).unwrap_or_default();
        let mut chars = Chars::over(window);
        let c = chars.step().flatten().ok_or(Error::Syntax { at: read })?;
        let used = window.len().saturating_sub(chars.rest.as_str().len());
        read = read.saturating_add(used);
        let bytes = c.encode_utf8(&mut room).as_bytes();
        write = append(raw, write, bytes).ok_or(Error::NoSpace)?;
    }
    Ok(write)
}
