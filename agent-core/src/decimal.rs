//! Numbers of facts: as hosts compare them, and in a form that a device without floating point has room for.

use core::cmp::Ordering;

/// A number of a fact, or of what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number(imp::Value);

impl Number {
    /// Reads a JSON number or what an operator typed in its place.
    pub(crate) fn parse(text: &str) -> Option<Number> {
        imp::parse(text).map(Number)
    }

    pub(crate) fn of_count(count: u64) -> Number {
        Number(imp::of_count(count))
    }

    pub(crate) const ZERO: Number = Number(imp::ZERO);

    /// `None` where one of them is no number.
    pub(crate) fn compare(self, other: Number) -> Option<Ordering> {
        self.0.partial_cmp(&other.0)
    }

    /// Cut to an integer; out of range the nearest one.
    pub(crate) fn cut(self) -> i64 {
        imp::cut(self.0)
    }

    /// With four decimals.
    pub(crate) fn write(self, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        imp::write(self.0, out)
    }
}

/// Exact to the last bit, by the standard library.
#[cfg(feature = "exact-facts")]
mod imp {
    pub(super) type Value = f64;
    pub(super) const ZERO: Value = 0.0;

    pub(super) fn parse(text: &str) -> Option<Value> {
        text.parse().ok()
    }

    pub(super) fn of_count(count: u64) -> Value {
        count as f64
    }

    #[expect(clippy::cast_possible_truncation, reason = "cutting is what is asked for")]
    pub(super) fn cut(value: Value) -> i64 {
        value as i64
    }

    pub(super) fn write(value: Value, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        write!(out, "{value:.4}")
    }
}

#[cfg(not(feature = "exact-facts"))]
use millionths as imp;

/// Millionths in 64 bits: six decimals, up to nine million millions, 17 KiB less flash.
#[cfg(any(test, not(feature = "exact-facts")))]
mod millionths {
    pub(super) type Value = i64;
    #[cfg_attr(test, allow(dead_code, reason = "tests look at reading and writing"))]
    pub(super) const ZERO: Value = 0;
    const ONE: i64 = 1_000_000;

    pub(super) fn parse(text: &str) -> Option<Value> {
        let (negative, whole, fraction, exponent) = crate::json::number::parts(text)?;
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        // Digits from the first to the last millionth; what is smaller is cut.
        let mut left = i32::try_from(whole.len()).ok()?.checked_add(exponent)?.checked_add(6)?;
        let mut value = 0_i64;
        for byte in whole.iter().chain(fraction) {
            let digit = i64::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?);
            if left > 0 {
                left = left.saturating_sub(1);
                value = value.checked_mul(10)?.checked_add(digit)?;
            }
        }
        while left > 0 && value != 0 {
            value = value.checked_mul(10)?;
            left = left.saturating_sub(1);
        }
        Some(if negative { value.saturating_neg() } else { value })
    }

    #[cfg_attr(test, allow(dead_code, reason = "tests look at reading and writing"))]
    pub(super) fn of_count(count: u64) -> Value {
        i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(ONE)
    }

    pub(super) fn cut(value: Value) -> i64 {
        value / ONE
    }

    pub(super) fn write(value: Value, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        let (size, sign) = (value.unsigned_abs(), if value < 0 { "-" } else { "" });
        let (whole, part) = (size / 1_000_000, size % 1_000_000 / 100);
        write!(out, "{sign}{whole}.{part:04}")
    }

    #[cfg(test)]
    mod tests {
        use super::{cut, parse, write};

        #[test]
        fn millionths_are_close_to_the_number() {
            for text in [
                "0",
                "1",
                "-1",
                "1.5",
                "3.14159",
                "1e3",
                "1E-3",
                "-0.25",
                "123456789.125",
                "5.",
                ".5",
                "00012",
                "1e-300",
            ] {
                let (ours, exact) = (parse(text).unwrap(), text.parse::<f64>().unwrap());
                assert!((ours as f64 / 1e6 - exact).abs() < 1e-6, "{text}: {ours} {exact}");
                assert_eq!(cut(ours), exact as i64, "{text}");
            }
            assert_eq!(parse("9000000000000"), Some(9_000_000_000_000_000_000));
            for text in
                ["", "-", ".", "a", "1a", "1e", "1.2.3", "1e999", "inf", "NaN", " 1", "1e99999", "1e13"]
            {
                assert_eq!(parse(text), None, "{text}");
            }
            let mut text = std::string::String::new();
            write(-1_234_567, &mut text).unwrap();
            assert_eq!(text, "-1.2345");
        }
    }
}
