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
    let (negative, whole, fraction, exponent) = parts(text)?;
    let places = i32::try_from(whole.len()).ok()?.saturating_add(exponent);
    let mut digits = whole.iter().chain(fraction);
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

/// The parts of a decimal number: whether it is negative, the digits before and behind the point, the exponent.
pub(crate) fn parts(text: &str) -> Option<(bool, &[u8], &[u8], i32)> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let (mantissa, exponent) = match cut(digits, |byte| matches!(byte, b'e' | b'E')) {
        Some((mantissa, exponent)) => {
            (mantissa, i32::try_from(integer(core::str::from_utf8(exponent).ok()?)?).ok()?)
        }
        None => (digits, 0),
    };
    let (whole, fraction) = cut(mantissa, |byte| byte == b'.').unwrap_or((mantissa, &[]));
    Some((negative, whole, fraction, exponent))
}

fn cut(bytes: &[u8], at: fn(u8) -> bool) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| at(*byte))?;
    Some((bytes.get(..place)?, bytes.get(place.saturating_add(1)..)?))
}

/// A plain integer with or without a sign. One reader for all widths: the standard library brings its own for each.
pub fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0_i64;
    for byte in digits {
        let digit = i64::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?);
        let signed = if negative { digit.wrapping_neg() } else { digit };
        value = value.checked_mul(10)?.checked_add(signed)?;
    }
    Some(value)
}

/// An integer as text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal {
    text: [u8; 21],
    from: u8,
}

impl Decimal {
    pub(crate) fn new(mut value: u64) -> Decimal {
        let mut decimal = Decimal { text: [b'0'; 21], from: 21 };
        for place in decimal.text.iter_mut().rev() {
            *place = u8::try_from(value % 10).unwrap_or(0).wrapping_add(b'0');
            value /= 10;
            decimal.from = decimal.from.saturating_sub(1);
            if value == 0 {
                break;
            }
        }
        decimal
    }

    pub(crate) fn signed(value: i64) -> Decimal {
        let mut decimal = Decimal::new(value.unsigned_abs());
        if value < 0 {
            decimal.from = decimal.from.saturating_sub(1);
            if let Some(place) = decimal.text.get_mut(usize::from(decimal.from)) {
                *place = b'-';
            }
        }
        decimal
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.text.get(usize::from(self.from)..).unwrap_or_default()
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(self.bytes()).unwrap_or_default()
    }
}
