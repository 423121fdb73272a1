//! The wall clock, for timestamps and for the end of sessions. Everything else measures with `Instant`.

use jiff::Timestamp;

/// Nanoseconds since 1970.
pub(crate) fn now_nanos() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// RFC 3339 with nanoseconds, from nanoseconds since 1970.
pub(crate) fn rfc3339(nanos: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanos)).map(|time| format!("{time:.9}")).unwrap_or_default()
}
