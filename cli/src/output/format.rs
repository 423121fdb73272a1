//! Durations and times as operators know them (docs/spec/07 §2.8).

use std::time::Duration;

/// The short form: `418ms`, `1.14s`, `2m3s`. Rounded to `step`.
pub(crate) fn short(duration: Duration, step: Duration) -> String {
    let step = step.as_nanos().max(1);
    let nanos = (duration.as_nanos() + step / 2) / step * step;
    if nanos == 0 {
        return String::from("0s");
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", fraction(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", fraction(nanos, 1_000_000));
    }
    let minutes = nanos / 60_000_000_000;
    let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn fraction(nanos: u128, unit: u128) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.to_string().len() - 1;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// The long form for validity and ages: `364d23h59m41s`, and `12.00s` under a minute.
pub(crate) fn long(seconds: i64) -> String {
    let seconds = seconds.unsigned_abs();
    if seconds < 60 {
        return format!("{seconds}.00s");
    }
    let units = [("y", 365 * 86_400), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut rest = seconds;
    let mut out = String::new();
    for (name, size) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 || !out.is_empty() {
            out.push_str(&format!("{count}{name}"));
        }
    }
    out
}

/// `2023-12-08 13:03:23 +0000 UTC`
pub(crate) fn token_time(unix: i64) -> String {
    match jiff::Timestamp::from_second(unix) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        Err(_) => format!("{unix} seconds since 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::{long, short, token_time};
    use std::time::Duration;

    #[test]
    fn durations_in_the_short_form() {
        let milli = Duration::from_millis(1);
        for (duration, text) in [
            (Duration::from_micros(417_800), "418ms"),
            (Duration::from_millis(1_140), "1.14s"),
            (Duration::from_secs(123), "2m3s"),
            (Duration::from_secs(25 * 60 + 31), "25m31s"),
            (Duration::from_secs(3_600), "1h0m0s"),
            (Duration::ZERO, "0s"),
        ] {
            assert_eq!(short(duration, milli), text);
        }
        assert_eq!(short(Duration::from_micros(1_200), Duration::from_micros(100)), "1.2ms");
    }

    #[test]
    fn durations_in_the_long_form() {
        assert_eq!(long(364 * 86_400 + 23 * 3_600 + 59 * 60 + 41), "364d23h59m41s");
        assert_eq!(long(400 * 86_400), "1y35d0h0m0s");
        assert_eq!(long(679), "11m19s");
        assert_eq!(long(12), "12.00s");
    }

    #[test]
    fn times_of_tokens() {
        assert_eq!(token_time(1_702_040_603), "2023-12-08 13:03:23 +0000 UTC");
    }
}
