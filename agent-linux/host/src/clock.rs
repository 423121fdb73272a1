//! The only reader of the wall clock. Everything else takes the time as an argument, so that a test decides it.

use jiff::Timestamp;

/// The current instant, UTC.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Seconds since 1970-01-01T00:00:00Z, as token claims and lifecycle events carry them.
pub fn unix_seconds() -> i64 {
    now().as_second()
}

/// Nanoseconds since 1970-01-01T00:00:00Z, as protocol v2 requests carry them. Saturates in the year 2262.
pub fn unix_nanos() -> i64 {
    i64::try_from(now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// `2024-05-01T10:00:00Z`: RFC 3339 at second resolution, UTC. An instant outside of years -9999..9999 reads
/// as the zero time of Go, which peers take as "not applicable".
pub fn rfc3339_seconds(unix: i64) -> String {
    match Timestamp::from_second(unix) {
        Ok(at) => at.to_string(),
        Err(_) => "0001-01-01T00:00:00Z".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_nanoseconds_agree() {
        let seconds = unix_seconds();
        let nanos = unix_nanos();
        assert!((nanos / 1_000_000_000 - seconds).abs() <= 1);
    }

    #[test]
    fn event_times_have_second_resolution() {
        assert_eq!(rfc3339_seconds(1_714_557_600), "2024-05-01T10:00:00Z");
        assert_eq!(rfc3339_seconds(i64::MAX), "0001-01-01T00:00:00Z");
    }
}
