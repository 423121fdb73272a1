//! The time functions that change-window policies use, on jiff instead of the interpreter's own 2 MB of zone tables.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use regorus::{Engine, Value};

use super::request::text_argument;

type Function = fn(&[Value]) -> Option<Value>;

pub(super) fn register(engine: &mut Engine) {
    let functions: [(&str, Function); 5] = [
        ("time.clock", |a| {
            zoned(a).map(|t| Value::from(numbers([t.hour().into(), t.minute().into(), t.second().into()])))
        }),
        ("time.date", |a| {
            zoned(a).map(|t| Value::from(numbers([t.year().into(), t.month().into(), t.day().into()])))
        }),
        ("time.weekday", |a| zoned(a).map(|t| Value::from(weekday(&t)))),
        ("time.parse_rfc3339_ns", |a| {
            let timestamp: Timestamp = text_argument(a)?.parse().ok()?;
            Some(Value::from(i64::try_from(timestamp.as_nanosecond()).ok()?))
        }),
        ("time.parse_duration_ns", |a| parse_duration_ns(text_argument(a)?).map(Value::from)),
    ];
    for (name, function) in functions {
        let added = engine.add_extension(
            name.to_owned(),
            1,
            Box::new(move |arguments: Vec<Value>| Ok(function(&arguments).unwrap_or(Value::Undefined))),
        );
        debug_assert!(added.is_ok(), "extension {name} registered twice");
    }
}

fn numbers(parts: [i64; 3]) -> Vec<Value> {
    parts.into_iter().map(Value::from).collect()
}

fn weekday(time: &Zoned) -> &'static str {
    match time.weekday() {
        jiff::civil::Weekday::Monday => "Monday",
        jiff::civil::Weekday::Tuesday => "Tuesday",
        jiff::civil::Weekday::Wednesday => "Wednesday",
        jiff::civil::Weekday::Thursday => "Thursday",
        jiff::civil::Weekday::Friday => "Friday",
        jiff::civil::Weekday::Saturday => "Saturday",
        jiff::civil::Weekday::Sunday => "Sunday",
    }
}

/// The argument of `time.clock` and its kin: nanoseconds (UTC), or `[nanoseconds, "Zone/Name"]`.
fn zoned(arguments: &[Value]) -> Option<Zoned> {
    let (nanoseconds, zone) = match arguments.first()? {
        Value::Array(pair) => match (pair.first()?, pair.get(1)?) {
            (nanoseconds, Value::String(zone)) => (nanoseconds.as_i64().ok()?, time_zone(zone.as_ref())?),
            _ => return None,
        },
        nanoseconds => (nanoseconds.as_i64().ok()?, TimeZone::UTC),
    };
    Some(Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()?.to_zoned(zone))
}

fn time_zone(name: &str) -> Option<TimeZone> {
    match name {
        "" | "UTC" => return Some(TimeZone::UTC),
        "Local" => return Some(TimeZone::system()),
        _ => {}
    }
    // The name becomes a path below the zone directory: nothing but zone names may reach it.
    let plain = name.len() <= 64
        && !name.starts_with('/')
        && !name.contains("..")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'/'));
    plain.then(|| TimeZone::get(name).ok()).flatten()
}

/// Go's duration text (`1h30m`, `-1.5s`, `2us`) in nanoseconds.
fn parse_duration_ns(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(end)?;
        let number: f64 = number.parse().ok()?;
        let units =
            [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
        let (tail, scale) =
            units.into_iter().find_map(|(unit, scale)| Some((tail.strip_prefix(unit)?, scale)))?;
        total += number * scale;
        rest = tail;
    }
    // 2^63: beyond it the text names no nanosecond count.
    if total >= 9_223_372_036_854_775_808.0 {
        return None;
    }
    #[allow(clippy::cast_possible_truncation)] // bounded on the line above
    let total = total as i64;
    Some(if negative { total.checked_neg()? } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, want) in [
            ("0", Some(0)),
            ("1h", Some(3_600_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("2us", Some(2_000)),
            ("300ms", Some(300_000_000)),
            ("", None),
            ("5", None),
            ("1x", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(parse_duration_ns(text), want, "{text}");
        }
    }

    #[test]
    fn zone_names_cannot_walk_the_file_system() {
        for name in ["../../etc/passwd", "/etc/passwd", "Europe/../../x", "a b"] {
            assert!(time_zone(name).is_none(), "{name}");
        }
        assert!(time_zone("UTC").is_some());
    }
}
