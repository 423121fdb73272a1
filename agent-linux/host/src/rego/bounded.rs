//! Builtins whose output can outgrow their input, with a ceiling in front.
//!
//! The evaluation timer is looked at between steps, so one call that fills memory is not stopped by it:
//! `numbers.range(0, 1e12)` would end the process. Functions registered by the embedder are found before the
//! interpreter's own, so each risky builtin is shadowed by one that first weighs its arguments. A refused call is an
//! error, hence a denial. A builtin that cannot be bounded from its arguments is not offered at all.

use std::sync::OnceLock;

use regorus::unstable::{BUILTINS, Expr, Ref, Span};
use regorus::{Engine, Source, Value};

/// Text that one call may take in or produce, bytes.
const MAX_TEXT: usize = 256 * 1024;
/// Elements that one call may produce.
const MAX_ELEMENTS: i64 = 10_000;
/// Largest shift and field width: far beyond any sane policy, small enough to be harmless.
const MAX_WIDTH: i64 = 1024;

type Check = fn(&[Value]) -> bool;

const BOUNDED: [(&str, Check); 33] = [
    ("array.concat", small),
    ("array.flatten", small),
    ("base64.decode", small),
    ("base64.encode", small),
    ("base64url.decode", small),
    ("base64url.encode", small),
    ("base64url.encode_no_pad", small),
    ("bits.lsh", |a| {
        a.get(1).is_some_and(|by| by.as_i64().is_ok_and(|by| (0..=MAX_WIDTH).contains(&by))) && small(a)
    }),
    ("concat", small),
    ("format_int", small),
    ("glob.match", small),
    ("glob.quote_meta", small),
    ("hex.decode", small),
    ("hex.encode", small),
    ("json.marshal", small),
    ("json.marshal_with_options", small),
    ("json.unmarshal", |a| small(a) && modest_exponents(a)),
    ("indexof_n", small),
    ("lower", small),
    ("numbers.range", short_range),
    ("numbers.range_step", short_range),
    ("regex.find_all_string_submatch_n", regex_work),
    ("regex.find_n", regex_work),
    ("regex.is_valid", regex_work),
    ("regex.match", regex_work),
    ("regex.split", regex_work),
    ("replace", small_replacement),
    ("split", small),
    ("sprintf", |a| small(a) && narrow_format(a)),
    ("to_number", modest_numeral),
    ("units.parse", modest_numeral),
    ("units.parse_bytes", modest_numeral),
    ("upper", small),
];

/// Not offered: their output cannot be bounded by looking at the arguments, and no policy needs them.
pub(super) const REFUSED: [&str; 5] =
    ["net.cidr_expand", "regex.replace", "regex.template_match", "strings.replace_n", "rego.parse_module"];

pub(super) fn register(engine: &mut Engine) {
    for (name, check) in BOUNDED {
        let Some((function, arity)) = BUILTINS.get(name) else { continue };
        let function = *function;
        let added = engine.add_extension(
            name.to_owned(),
            *arity,
            Box::new(move |arguments: Vec<Value>| {
                if !check(&arguments) {
                    return Err(std::io::Error::other(format!(
                        "error: {name} exceeds what a policy may compute"
                    ))
                    .into());
                }
                let (span, parameters) = placeholder()?;
                // Non-strict, as everywhere: a failing builtin is undefined.
                Ok(function(span, parameters, &arguments, false).unwrap_or(Value::Undefined))
            }),
        );
        debug_assert!(added.is_ok(), "builtin {name} shadowed twice");
    }
    for name in REFUSED {
        let Some((_, arity)) = BUILTINS.get(name) else { continue };
        let added = engine.add_extension(
            name.to_owned(),
            *arity,
            Box::new(move |_: Vec<Value>| {
                Err(std::io::Error::other(format!("error: {name} is not available to policies")).into())
            }),
        );
        debug_assert!(added.is_ok(), "builtin {name} shadowed twice");
    }
}

/// The place in the source that the interpreter's builtins want for their error texts. Ours are dropped.
fn placeholder() -> std::io::Result<(&'static Span, &'static [Ref<Expr>])> {
    static PLACE: OnceLock<Option<(Span, Vec<Ref<Expr>>)>> = OnceLock::new();
    PLACE
        .get_or_init(|| {
            let source = Source::from_contents("call".to_owned(), "call".to_owned()).ok()?;
            let span = Span { source, line: 1, col: 1, start: 0, end: 4 };
            let parameter = || Ref::new(Expr::Null { span: span.clone(), value: Value::Null, eidx: 0 });
            let parameters = (0..8).map(|_| parameter()).collect();
            Some((span, parameters))
        })
        .as_ref()
        .map(|(span, parameters)| (span, parameters.as_slice()))
        .ok_or_else(|| std::io::Error::other("error: builtin call without a source"))
}

fn small(arguments: &[Value]) -> bool {
    weigh(arguments, MAX_TEXT).is_some()
}

/// Bytes of text and elements in `values`; `None` above `limit`. Walks with a list, not by recursion.
fn weigh(values: &[Value], limit: usize) -> Option<usize> {
    let mut total = 0usize;
    let mut pending: Vec<&Value> = values.iter().collect();
    while let Some(value) = pending.pop() {
        total = total.saturating_add(match value {
            Value::String(text) => text.len().saturating_add(1),
            _ => 1,
        });
        if total > limit {
            return None;
        }
        match value {
            Value::Array(items) => pending.extend(items.iter()),
            Value::Set(items) => pending.extend(items.iter()),
            Value::Object(fields) => pending.extend(fields.iter().flat_map(|(key, value)| [key, value])),
            _ => {}
        }
    }
    Some(total)
}

/// A numeral that the interpreter may expand: it turns `1e999999999` into a whole number of that many digits.
pub(super) fn modest_number(numeral: &str) -> bool {
    let exponent = numeral.split(['e', 'E']).nth(1).unwrap_or("0");
    numeral.len() <= 320 && exponent.trim_start_matches(['+', '-']).trim_start_matches('0').len() <= 3
}

fn modest_numeral(arguments: &[Value]) -> bool {
    match arguments.first() {
        Some(Value::String(text)) => modest_number(text.trim()),
        _ => true,
    }
}

/// No `e` followed by more than three digits anywhere in a JSON text.
fn modest_exponents(arguments: &[Value]) -> bool {
    let Some(Value::String(text)) = arguments.first() else { return true };
    text.split(['e', 'E']).skip(1).all(|after| {
        after
            .trim_start_matches(['+', '-'])
            .chars()
            .take_while(char::is_ascii_digit)
            .skip_while(|c| *c == '0')
            .count()
            <= 3
    })
}

fn text_len(value: Option<&Value>) -> usize {
    match value {
        Some(Value::String(text)) => text.len(),
        _ => 0,
    }
}

fn short_range(arguments: &[Value]) -> bool {
    let end = |index: usize| arguments.get(index).and_then(|value| value.as_i64().ok());
    matches!((end(0), end(1)), (Some(from), Some(to)) if from.checked_sub(to).is_some_and(|n| n.unsigned_abs() <= MAX_ELEMENTS.unsigned_abs()))
        // A step of zero would never arrive.
        && (arguments.len() < 3 || end(2).is_some_and(|step| step > 0))
}

fn small_replacement(arguments: &[Value]) -> bool {
    let (text, new) = (text_len(arguments.first()), text_len(arguments.get(2)));
    small(arguments) && text.saturating_add(1).saturating_mul(new.max(1)) <= MAX_TEXT * 4
}

/// Matching is linear in both, so their product bounds the time of one call.
fn regex_work(arguments: &[Value]) -> bool {
    small(arguments)
        && arguments.iter().map(|value| text_len(Some(value)).max(1)).fold(1usize, usize::saturating_mul)
            <= 8 * 1024 * 1024
}

/// A width in a format text makes padding of that size: `%99999999d`.
fn narrow_format(arguments: &[Value]) -> bool {
    let Some(Value::String(format)) = arguments.first() else { return true };
    let mut digits = 0usize;
    for c in format.chars() {
        if c.is_numeric() {
            // The interpreter turns these into numbers and gives up the process on a numeral it cannot read.
            if !c.is_ascii_digit() {
                return false;
            }
            digits = digits.saturating_add(1);
        } else {
            digits = 0;
        }
        if digits > 3 && format.contains('%') {
            return false;
        }
    }
    true
}
