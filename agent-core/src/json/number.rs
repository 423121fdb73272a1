//! The grammar and the values of JSON numbers.

/// The number at the front of `bytes`, by the JSON grammar.
pub(super) fn prefix(bytes: &[u8]) -> Option<&str> {
    let unsigned = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let mut rest = match unsigned.first()? {
        b'0' => unsigned.get(1..)?,
        b'1'..=b'9' => digits(unsigned)?,
        _ => return None,
    };
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = digits(fraction)?;
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or(rest.strip_prefix(b"E")) {
        let unsigned = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        rest = digits(unsigned)?;
    }
    let length = bytes.len().saturating_sub(rest.len());
    core::str::from_utf8(bytes.get(..length)?).ok()
}

/// What follows one or more digits.
fn digits(bytes: &[u8]) -> Option<&[u8]> {
    match bytes.iter().take_while(|b| b.is_ascii_digit()).count() {
        0 => None,
        count => bytes.get(count..),
    }
}

/// A date or counter: the whole part of the number when it fits; fractions are cut (`docs/spec/01 §6.1`). Exponents
/// are worked out without floating point; `1e300` does not fit.
pub(super) fn whole(text: &str) -> Option<i64> {
    if let Ok(value) = text.parse() {
        return Some(value);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let negative = mantissa.starts_with('-');
    let (whole, fraction) =
        mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa.trim_start_matches('-'), ""));
    let places = i32::try_from(whole.len()).ok()?.saturating_add(exponent);
    let mut digits = whole.bytes().chain(fraction.bytes());
    let mut value = 0_i64;
    for place in 0..places.max(0) {
        let digit = match digits.next() {
            Some(digit) => i64::from(digit.wrapping_sub(b'0')),
            None if value == 0 => return Some(0),
            None if place > 64 => return None,
            None => 0,
        };
        let signed = if negative { digit.checked_neg()? } else { digit };
        value = value.checked_mul(10)?.checked_add(signed)?;
    }
    Some(value)
}
