//! Fact comparisons, upstream's quirks included: they decide which nodes of a mixed fleet answer
//! (`docs/spec/01 §4.1`).

use super::Matcher;
use crate::case::lower;
use crate::decimal::Number;
use crate::json::number::{Decimal, integer};
use crate::json::path::{Found, lookup};
use crate::json::{Kind, Text};
use core::cmp::Ordering;

/// Why a comparison has no answer; the whole filter then does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactFailure {
    /// The filter lacks a member or has one of the wrong type.
    Malformed,
    /// The operator does not exist or does not apply to the fact's type.
    Operator,
    /// The value is not the number it has to be.
    Value,
    /// The pattern is illegal or not supported on this node.
    Pattern,
    /// A text does not fit the node's buffer.
    TooLong,
}

impl core::fmt::Display for FactFailure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            FactFailure::Malformed => "the fact filter is incomplete",
            FactFailure::Operator => "the operator does not apply to the fact",
            FactFailure::Value => "the value of the fact filter is not a number",
            FactFailure::Pattern => "the pattern of the fact filter cannot be evaluated",
            FactFailure::TooLong => "the fact or the filter is too long for this node",
        })
    }
}

impl core::error::Error for FactFailure {}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    Like,
}

impl Operator {
    fn parse(text: &str) -> Result<Operator, FactFailure> {
        Ok(match text {
            "==" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "<" => Operator::Less,
            ">" => Operator::Greater,
            "<=" => Operator::LessOrEqual,
            ">=" => Operator::GreaterOrEqual,
            "=~" => Operator::Like,
            _ => return Err(FactFailure::Operator),
        })
    }

    fn accepts(self, order: Ordering) -> bool {
        match self {
            Operator::Equal => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::Less => order.is_lt(),
            Operator::Greater => order.is_gt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::GreaterOrEqual => order.is_ge(),
            Operator::Like => false,
        }
    }
}

/// Whether the fact at `path` compares to `value` as asked. A fact that is missing is `false` for every operator.
/// `scratch` receives the text of a string fact when it is matched against a pattern.
pub fn fact_matches<M: Matcher>(
    facts: &[u8],
    path: &str,
    operator: &str,
    value: &str,
    matcher: &M,
    scratch: &mut [u8],
) -> Result<bool, FactFailure> {
    let Some(found) = lookup(facts, path) else { return Ok(false) };
    let operator = Operator::parse(operator)?;
    let found = match found {
        Found::Count(count) => return number(Number::of_count(count), operator, value, matcher),
        Found::List => return other(operator),
        Found::Value(found) => found,
    };
    match found.kind() {
        Kind::String => match found.as_text() {
            Some(text) => string(&text, operator, value, matcher, scratch),
            None => Ok(false),
        },
        Kind::Number => {
            let fact = found.as_number().and_then(Number::parse).ok_or(FactFailure::Value)?;
            number(fact, operator, value, matcher)
        }
        Kind::True => truth(operator, value),
        Kind::False => untruth(operator, value),
        Kind::Null | Kind::Object | Kind::Array => other(operator),
    }
}

fn string<M: Matcher>(
    fact: &Text<'_>,
    operator: Operator,
    value: &str,
    matcher: &M,
    scratch: &mut [u8],
) -> Result<bool, FactFailure> {
    if operator == Operator::Like {
        if !M::SUPPORTED {
            return Err(FactFailure::Pattern);
        }
        let text = fact.unescape(scratch).map_err(|_| FactFailure::TooLong)?;
        return like(matcher, value, text);
    }
    Ok(operator.accepts(lower(fact.chars()).cmp(lower(value.chars()))))
}

/// A value with a point compares as a float, and then `>` lets equality pass; else the fact is cut to an integer and
/// equality is that of the decimal texts.
fn number<M: Matcher>(
    fact: Number,
    operator: Operator,
    value: &str,
    matcher: &M,
) -> Result<bool, FactFailure> {
    if value.contains('.') {
        return match operator {
            Operator::Like => printed(fact, matcher, value),
            _ => {
                let wanted = Number::parse(value).ok_or(FactFailure::Value)?;
                let operator =
                    if operator == Operator::Greater { Operator::GreaterOrEqual } else { operator };
                Ok(fact.compare(wanted).map_or(operator == Operator::NotEqual, |o| operator.accepts(o)))
            }
        };
    }
    let fact = fact.cut();
    let text = Decimal::signed(fact);
    match operator {
        Operator::Equal => Ok(text.as_str() == value),
        Operator::NotEqual => Ok(text.as_str() != value),
        Operator::Like => like(matcher, value, text.as_str()),
        _ => {
            let wanted = integer(value).ok_or(FactFailure::Value)?;
            Ok(operator.accepts(fact.cmp(&wanted)))
        }
    }
}

/// A pattern with a point is held against the number with four decimals.
fn printed<M: Matcher>(fact: Number, matcher: &M, pattern: &str) -> Result<bool, FactFailure> {
    if !M::SUPPORTED {
        return Err(FactFailure::Pattern);
    }
    let mut text: heapless::String<320> = heapless::String::new();
    fact.write(&mut text).map_err(|_| FactFailure::TooLong)?;
    like(matcher, pattern, &text)
}

fn like<M: Matcher>(matcher: &M, pattern: &str, text: &str) -> Result<bool, FactFailure> {
    matcher.matches(pattern.trim_matches('/'), true, text).ok_or(FactFailure::Pattern)
}

fn truth(operator: Operator, value: &str) -> Result<bool, FactFailure> {
    match operator {
        Operator::Equal => Ok(is_true(value)),
        Operator::NotEqual => Ok(!is_true_in_any_case(value)),
        Operator::Like => Ok(is_true_in_any_case(value)),
        _ => Err(FactFailure::Operator),
    }
}

/// `!=` on a false fact answers what `==` answers.
fn untruth(operator: Operator, value: &str) -> Result<bool, FactFailure> {
    match operator {
        Operator::Equal | Operator::NotEqual => Ok(!is_true(value)),
        Operator::Like => Ok(!is_true_in_any_case(value)),
        _ => Err(FactFailure::Operator),
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "TRUE" | "true" | "True")
}

fn is_true_in_any_case(value: &str) -> bool {
    ["1", "t", "true"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Null, objects and lists.
fn other(operator: Operator) -> Result<bool, FactFailure> {
    match operator {
        Operator::Equal | Operator::NotEqual | Operator::Like => Ok(false),
        _ => Err(FactFailure::Operator),
    }
}
