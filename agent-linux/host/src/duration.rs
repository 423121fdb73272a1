//! Durations as people write them, in settings files (docs/spec/02 §6) and in flags (docs/spec/07 §2.1).
//!
//! One grammar covers both: a bare integer is seconds, otherwise one or more numbers, each with a unit of
//! `ns us µs ms s m h d w M y` (`M` = 30 days, `y` = 365 days; `D W Y` as their lower case). Numbers may have
//! a fraction: `1h30m`, `1.5d`, `90`.

use std::time::Duration;

/// Longest text accepted, in bytes.
const MAX_TEXT: usize = 64;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("'{0}' is not a duration: write a number with a unit, such as 90s, 5m, 1h30m or 2d")]
    Malformed(String),
    #[error("'{text}' has the unknown unit '{unit}': use one of ns us ms s m h d w M y")]
    UnknownUnit { text: String, unit: String },
    #[error("'{0}' is below zero")]
    Negative(String),
    #[error("'{0}' is too long a time")]
    TooLarge(String),
}

/// Nanoseconds of one unit.
fn unit_nanos(unit: &str) -> Option<u128> {
    const SECOND: u128 = 1_000_000_000;
    const DAY: u128 = 86_400 * SECOND;
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        "d" | "D" => DAY,
        "w" | "W" => 7 * DAY,
        "M" => 30 * DAY,
        "y" | "Y" => 365 * DAY,
        _ => return None,
    })
}

/// Reads a duration. See the module for the grammar.
///
/// # Errors
/// [`DurationError`], which names the text.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let trimmed = text.trim();
    let malformed = || DurationError::Malformed(text.chars().take(MAX_TEXT).collect());
    let too_large = || DurationError::TooLarge(text.chars().take(MAX_TEXT).collect());
    if trimmed.is_empty() || trimmed.len() > MAX_TEXT {
        return Err(malformed());
    }
    if trimmed.starts_with('-') {
        return Err(DurationError::Negative(trimmed.to_owned()));
    }
    let body = trimmed.strip_prefix('+').unwrap_or(trimmed);
    if body.bytes().all(|b| b.is_ascii_digit()) && !body.is_empty() {
        return body.parse::<u64>().map(Duration::from_secs).map_err(|_| too_large());
    }
    let mut rest = body;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
        let (number, tail) = rest.split_at(split);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let scale = unit_nanos(unit)
            .ok_or_else(|| DurationError::UnknownUnit { text: trimmed.to_owned(), unit: unit.to_owned() })?;
        total = total
            .checked_add(scaled(number, scale).ok_or_else(malformed)?.ok_or_else(too_large)?)
            .ok_or_else(too_large)?;
        rest = next;
    }
    let seconds = u64::try_from(total / 1_000_000_000).map_err(|_| too_large())?;
    let nanos = u32::try_from(total % 1_000_000_000).map_err(|_| too_large())?;
    Ok(Duration::new(seconds, nanos))
}

/// `number * scale`, with the fraction cut at a nanosecond. `None`: not a number. `Some(None)`: too large.
fn scaled(number: &str, scale: u128) -> Option<Option<u128>> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    // Nine digits are enough: more would be below a nanosecond for every unit up to a second, and below a
    // thousandth of a second for a year.
    let fraction: String = fraction.chars().take(9).collect();
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let divisor = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some(whole.checked_mul(scale).and_then(|w| w.checked_add(part.checked_mul(scale)? / divisor)))
}

/// The short form of docs/spec/07 §2.8: `418ms`, `1.14s`, `2m3s`, `25m31s`, `3d4h0m0s`. Below a second three
/// significant digits of ms, µs or ns; below a minute two decimals, trailing zeros cut; above whole seconds.
pub fn human(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", nanos / 1_000);
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", nanos / 1_000_000);
    }
    let seconds = duration.as_secs();
    if seconds < 60 {
        let hundredths = duration.subsec_millis() / 10;
        let text = format!("{seconds}.{hundredths:02}");
        return format!("{}s", text.trim_end_matches('0').trim_end_matches('.'));
    }
    let (days, hours, minutes, secs) =
        (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}d{hours}h{minutes}m{secs}s")
    } else if hours > 0 {
        format!("{hours}h{minutes}m{secs}s")
    } else {
        format!("{minutes}m{secs}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_both_grammars() {
        for (text, seconds) in [
            ("60", 60.0),
            ("0", 0.0),
            ("1m30s", 90.0),
            ("500ms", 0.5),
            ("2d", 172_800.0),
            ("1.5d", 129_600.0),
            ("1w", 604_800.0),
            ("1M", 2_592_000.0),
            ("1y", 31_536_000.0),
            ("365d", 31_536_000.0),
            ("8760h", 31_536_000.0),
            ("1Y", 31_536_000.0),
            ("+5s", 5.0),
            (" 5m ", 300.0),
            ("1h2m3.5s", 3723.5),
            ("250µs", 0.000_25),
            (".5s", 0.5),
        ] {
            assert!((parse(text).unwrap().as_secs_f64() - seconds).abs() < 1e-9, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_one() {
        for text in ["", "s", "5x", "1..5s", "five", "5 m", "1m30", ".s", "--5s", "5m-3s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("-5s"), Err(DurationError::Negative("-5s".into())));
        assert!(matches!(parse("99999999999999999999y"), Err(DurationError::TooLarge(_))));
        assert!(matches!(parse("99999999999999999999"), Err(DurationError::TooLarge(_))));
    }

    #[test]
    fn short_form() {
        for (millis, text) in [
            (418, "418ms"),
            (1_140, "1.14s"),
            (2_000, "2s"),
            (123_000, "2m3s"),
            (1_531_000, "25m31s"),
            (90_061_000, "1d1h1m1s"),
            (0, "0s"),
        ] {
            assert_eq!(human(Duration::from_millis(millis)), text);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,80}") {
            let _any = parse(&text);
        }

        #[test]
        fn what_human_prints_parses_back(seconds in 60_u64..1_000_000_000) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&human(duration)).unwrap(), duration);
        }
    }
}
