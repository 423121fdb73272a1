//! JSON without an allocator: a pull scanner, lazy values over the caller's bytes, a bounded writer and fact paths.
//!
//! Strict where two readers could disagree: no trailing commas, no control characters in strings, no invalid UTF-8, no
//! lone surrogates, at most [`MAX_DEPTH`] open containers, and names that differ only in case are never silently one of
//! two (`docs/spec/10 §5.1` K6).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod ambiguity;
mod fields;
pub(crate) mod number;
mod object;
pub mod path;
mod scanner;
mod span;
mod text;
mod value;
mod writer;

pub use ambiguity::check_unambiguous;
pub use fields::Fields;
pub use number::integer;
pub use object::{Entries, Object};
pub use scanner::{MAX_DEPTH, Scanner, Token};
pub use span::Span;
pub(crate) use span::{Member, members};
pub use text::{Chars, Text, unescape_in_place};
pub use value::{Elements, Kind, Value};
pub use writer::{Sink, SliceSink, Writer};

/// Why a document was refused or could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Not JSON; `at` is the byte offset of the first surprise.
    Syntax { at: usize },
    /// More than [`MAX_DEPTH`] containers are open at `at`.
    TooDeep { at: usize },
    /// A member name repeats, or differs only in case, at `at`.
    Ambiguous { at: usize },
    /// A member has another type than asked for, or a number does not fit.
    Type,
    /// The buffer lent by the caller is too small.
    NoSpace,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Error::Syntax { at } => write!(f, "not valid JSON at byte {at}"),
            Error::TooDeep { at } => write!(f, "JSON nested deeper than {MAX_DEPTH} levels at byte {at}"),
            Error::Ambiguous { at } => {
                write!(f, "a JSON member name repeats or differs only in case at byte {at}")
            }
            Error::Type => f.write_str("a JSON member has an unexpected type or range"),
            Error::NoSpace => f.write_str("JSON does not fit its buffer"),
        }
    }
}

impl core::error::Error for Error {}
