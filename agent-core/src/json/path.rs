//! Fact paths: the part of gjson's path language that picks a value out of a document (`docs/spec/01 §4.1`).
//!
//! Supported: names, `\` escapes, `*` and `?` in names, array indices, `#`, `#.rest`, `#(query)` and `#(query)#`, `|` where it
//! means the same as `.`. Not supported, and therefore never found: modifiers (`@…`), multipaths, literals, `~` queries and
//! `|` behind a list. Iterative, except that a query evaluates its own path, at most [`MAX_QUERIES`] deep.

use super::number::integer;
use super::object::Entries;
use super::text::{Chars, Text};
use super::value::{Kind, Value};
use crate::decimal::Number;
use core::cmp::Ordering;

/// Longest path in bytes.
pub const MAX_PATH: usize = 1024;
/// Most parts in a path.
pub const MAX_PARTS: usize = 64;
/// Queries within queries.
pub const MAX_QUERIES: u8 = 3;
/// Wildcard names within one path; each needs a place to return to.
const MAX_BRANCHES: usize = 8;

/// What a path leads to.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    Value(Value<'a>),
    /// `#` at the end: how many elements the array has.
    Count(u64),
    /// A list put together from several places, which has no bytes of its own in the document.
    List,
}

/// Evaluates `path` on `document`. A document that is not JSON, a path over its limits and a path that leads nowhere all
/// find nothing.
pub fn lookup<'a>(document: &'a [u8], path: &str) -> Option<Found<'a>> {
    let separators = path.bytes().filter(|b| matches!(b, b'.' | b'|')).count();
    if path.is_empty() || path.len() > MAX_PATH || separators >= MAX_PARTS || path.starts_with("..") {
        return None;
    }
    walk(Value::parse(document).ok()?, path, 0)
}

/// An object whose later members may match a wildcard as well.
struct Branch<'a, 'p> {
    /// The members not looked at yet: going on where the walk stopped keeps the whole walk linear.
    entries: Entries<'a>,
    path: &'p str,
}

enum Step<'a, 'p> {
    Found(Found<'a>),
    Down(Value<'a>, &'p str),
    Nothing,
}

fn walk<'a>(start: Value<'a>, start_path: &str, queries: u8) -> Option<Found<'a>> {
    let mut branches: heapless::Vec<Branch<'a, '_>, MAX_BRANCHES> = heapless::Vec::new();
    let (mut value, mut path) = (start, start_path);
    loop {
        let part = Part::split(path)?;
        let mut step = match value.kind() {
            Kind::Object => match value.as_object() {
                Some(object) => member(object.entries(), path, &part, &mut branches)?,
                None => Step::Nothing,
            },
            Kind::Array => element(&value, &part, queries),
            _ => Step::Nothing,
        };
        while let Step::Nothing = step {
            let branch = branches.pop()?;
            step = member(branch.entries, branch.path, &Part::split(branch.path)?, &mut branches)?;
        }
        match step {
            Step::Found(found) => return Some(found),
            Step::Down(below, rest) => (value, path) = (below, rest),
            Step::Nothing => return None,
        }
    }
}

/// Follows the first of `entries` that `part`, the front of `path`, names. Behind a wildcard the rest is kept to return
/// to; `None` when there are too many such places.
fn member<'a, 'p>(
    mut entries: Entries<'a>,
    path: &'p str,
    part: &Part<'p>,
    branches: &mut heapless::Vec<Branch<'a, 'p>, MAX_BRANCHES>,
) -> Option<Step<'a, 'p>> {
    let Some((_, found)) = entries.find(|(name, _)| part.names(name)) else { return Some(Step::Nothing) };
    if part.wild {
        branches.push(Branch { entries, path }).ok()?;
    }
    Some(part.follow(found))
}

// out of line, like `Query::matches`: a device's image is smaller by 190 bytes
#[inline(never)]
fn element<'a, 'p>(array: &Value<'a>, part: &Part<'p>, queries: u8) -> Step<'a, 'p> {
    let Some(mut elements) = array.elements() else { return Step::Nothing };
    if let Some(query) = part.text.strip_prefix('#') {
        if query.is_empty() {
            return match part.rest {
                None => Step::Found(Found::Count(u64::try_from(elements.count()).unwrap_or(u64::MAX))),
                Some(_) if !part.piped => Step::Found(Found::List),
                Some(_) => Step::Nothing,
            };
        }
        let (query, all) = match query.strip_suffix('#') {
            Some(query) => (query, true),
            None => (query, false),
        };
        let Some(query) = Query::parse(query) else { return Step::Nothing };
        if all {
            return if part.piped { Step::Nothing } else { Step::Found(Found::List) };
        }
        return match elements.find(|element| query.matches(element, queries)) {
            Some(found) => part.follow(found),
            None => Step::Nothing,
        };
    }
    if part.text.is_empty() || !part.text.bytes().all(|b| b.is_ascii_digit()) {
        return Step::Nothing;
    }
    match integer(part.text).and_then(|index| elements.nth(usize::try_from(index).ok()?)) {
        Some(found) => part.follow(found),
        None => Step::Nothing,
    }
}

/// One part of a path and what comes behind it.
struct Part<'p> {
    text: &'p str,
    wild: bool,
    rest: Option<&'p str>,
    /// The separator behind the part is `|`.
    piped: bool,
}

impl<'p> Part<'p> {
    /// `None` for what this evaluator does not support.
    fn split(path: &'p str) -> Option<Part<'p>> {
        match path.as_bytes() {
            [b'{' | b'[' | b'!', ..] => return None,
            [b'@', ..] if is_modifier(path) => return None,
            [b'#', b'(' | b'[', ..] => return Part::split_query(path),
            _ => {}
        }
        let mut wild = false;
        let mut escaped = false;
        for (at, c) in path.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '*' | '?' => wild = true,
                '.' | '|' => return Part::at(path, at, wild),
                _ => {}
            }
        }
        Some(Part { text: path, wild, rest: None, piped: false })
    }

    fn split_query(path: &'p str) -> Option<Part<'p>> {
        let end = query_end(path)?;
        let end = if path.as_bytes().get(end) == Some(&b'#') { end.saturating_add(1) } else { end };
        match path.as_bytes().get(end) {
            None => Some(Part { text: path, wild: false, rest: None, piped: false }),
            Some(b'.' | b'|') => Part::at(path, end, false),
            Some(_) => None,
        }
    }

    fn at(path: &'p str, at: usize, wild: bool) -> Option<Part<'p>> {
        let (text, rest) = path.split_at_checked(at)?;
        let piped = rest.starts_with('|');
        Some(Part { text, wild, rest: rest.get(1..), piped })
    }

    fn follow<'a>(&self, value: Value<'a>) -> Step<'a, 'p> {
        match self.rest {
            None => Step::Found(Found::Value(value)),
            Some(rest) => Step::Down(value, rest),
        }
    }

    fn names(&self, name: &Text<'_>) -> bool {
        if self.wild { glob(name.chars(), self.text) } else { name.chars().eq(literal(self.text)) }
    }
}

/// The characters of a part without wildcards.
fn literal(part: &str) -> impl Iterator<Item = char> {
    let mut chars = part.chars();
    core::iter::from_fn(move || match chars.next()? {
        '\\' => chars.next(),
        c => Some(c),
    })
}

/// A device takes every `@…` for a modifier: its facts have no such names.
#[cfg(not(feature = "exact-facts"))]
fn is_modifier(_: &str) -> bool {
    true
}

#[cfg(feature = "exact-facts")]
fn is_modifier(path: &str) -> bool {
    const KNOWN: [&str; 13] = [
        "pretty", "ugly", "reverse", "this", "flatten", "join", "valid", "keys", "values", "tostr",
        "fromstr", "group", "dig",
    ];
    let name = path.get(1..).unwrap_or_default();
    let name = name.split(['.', '|', ':']).next().unwrap_or_default();
    KNOWN.contains(&name)
}

/// Matches a name against a pattern with `*`, `?` and `\` escapes, without recursion: only the last `*` is ever retried.
fn glob(name: Chars<'_>, pattern: &str) -> bool {
    let (mut name, mut pattern) = (name, pattern.chars());
    let mut retry: Option<(Chars<'_>, core::str::Chars<'_>)> = None;
    loop {
        let mut ahead = pattern.clone();
        let wanted = ahead.next();
        let mut rest = name.clone();
        let fits = match wanted {
            Some('*') => {
                retry = Some((name.clone(), ahead.clone()));
                pattern = ahead;
                continue;
            }
            None => {
                if rest.next().is_none() {
                    return true;
                }
                false
            }
            Some('?') => rest.next().is_some(),
            Some('\\') => ahead.next().is_some_and(|c| rest.next() == Some(c)),
            Some(c) => rest.next() == Some(c),
        };
        if fits {
            (name, pattern) = (rest, ahead);
            continue;
        }
        let Some((mut from, after)) = retry.take() else { return false };
        if from.next().is_none() {
            return false;
        }
        name = from.clone();
        pattern = after.clone();
        retry = Some((from, after));
    }
}

/// The offset behind the bracket that closes the query a path begins with.
fn query_end(path: &str) -> Option<usize> {
    bare(path, |b| matches!(b, b')' | b']')).map(|at| at.saturating_add(1))
}

/// Where the operator of a query begins.
fn operator_at(inner: &str) -> Option<usize> {
    bare(inner, |b| matches!(b, b'!' | b'=' | b'<' | b'>' | b'%'))
}

/// The first byte that `wanted` takes outside quotes and brackets; a closing bracket is outside what it closes.
fn bare(text: &str, wanted: fn(u8) -> bool) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quoted = false;
    let mut escaped = false;
    text.bytes().position(|b| {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'(' | b'[' => depth = depth.saturating_add(1),
            b')' | b']' => {
                depth = depth.saturating_sub(1);
                return depth == 0 && wanted(b);
            }
            _ => return depth == 0 && wanted(b),
        }
        false
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
    Unlike,
}

impl Operator {
    fn accepts(self, order: Ordering) -> bool {
        match self {
            Operator::Equal => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
            Operator::Exists | Operator::Like | Operator::Unlike => false,
        }
    }
}

/// The condition between the brackets of `#(…)`.
struct Query<'p> {
    path: &'p str,
    operator: Operator,
    value: &'p str,
    quoted: bool,
}

impl<'p> Query<'p> {
    /// `text` includes its brackets.
    fn parse(text: &'p str) -> Option<Query<'p>> {
        let inner = text.get(1..text.len().checked_sub(1)?)?;
        let Some(at) = operator_at(inner) else {
            return Some(Query {
                path: inner.trim_ascii(),
                operator: Operator::Exists,
                value: "",
                quoted: false,
            });
        };
        let (path, rest) = inner.split_at_checked(at)?;
        let (operator, rest) = Query::operator(rest)?;
        let value = rest.trim_ascii();
        if value.starts_with('~') {
            return None;
        }
        let unquoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        let quoted = unquoted.is_some();
        Some(Query { path: path.trim_ascii(), operator, value: unquoted.unwrap_or(value), quoted })
    }

    fn operator(text: &str) -> Option<(Operator, &str)> {
        const SPELLED: [(&str, Operator); 9] = [
            ("!=", Operator::NotEqual),
            ("!%", Operator::Unlike),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("==", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::Greater),
            ("=", Operator::Equal),
            ("%", Operator::Like),
        ];
        SPELLED.iter().find_map(|(spelling, operator)| Some((*operator, text.strip_prefix(spelling)?)))
    }

    // out of line: see `element`
    #[inline(never)]
    fn matches(&self, element: &Value<'_>, queries: u8) -> bool {
        let subject = match element.kind() {
            Kind::Object | Kind::Array => {
                if self.path.is_empty() || queries >= MAX_QUERIES {
                    return false;
                }
                match walk(*element, self.path, queries.saturating_add(1)) {
                    Some(found) => found,
                    None => return false,
                }
            }
            _ if self.path.is_empty() => Found::Value(*element),
            _ => return false,
        };
        match (self.operator, subject) {
            (Operator::Exists, _) => true,
            (_, Found::Count(count)) => self.compare_number(Number::of_count(count)),
            (_, Found::List) => false,
            (_, Found::Value(value)) => self.compare(&value),
        }
    }

    fn compare(&self, value: &Value<'_>) -> bool {
        match value.kind() {
            Kind::String => value.as_text().is_some_and(|text| self.compare_text(&text)),
            Kind::Number => value.as_number().and_then(Number::parse).is_some_and(|n| self.compare_number(n)),
            Kind::True => match self.operator {
                Operator::Equal => self.value == "true",
                Operator::NotEqual => self.value != "true",
                Operator::Greater => self.value == "false",
                Operator::GreaterOrEqual => true,
                _ => false,
            },
            Kind::False => match self.operator {
                Operator::Equal => self.value == "false",
                Operator::NotEqual => self.value != "false",
                Operator::Less => self.value == "true",
                Operator::LessOrEqual => true,
                _ => false,
            },
            Kind::Null | Kind::Object | Kind::Array => false,
        }
    }

    fn compare_text(&self, text: &Text<'_>) -> bool {
        match self.operator {
            Operator::Like => glob(text.chars(), self.value),
            Operator::Unlike => !glob(text.chars(), self.value),
            _ if self.quoted => self.operator.accepts(text.chars().cmp(Chars::over(self.value))),
            _ => self.operator.accepts(text.chars().cmp(self.value.chars())),
        }
    }

    fn compare_number(&self, number: Number) -> bool {
        // As upstream: a value that is no number counts as zero.
        let wanted = Number::parse(self.value).unwrap_or(Number::ZERO);
        number.compare(wanted).is_some_and(|order| self.operator.accepts(order))
    }
}
