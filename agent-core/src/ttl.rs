//! Age of a request (`docs/spec/01 §2.7`, bounds of `docs/spec/10` N7).

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

/// Longest validity that a node grants, seconds; longer ones are cut to it, not refused.
pub const DEFAULT_CAP_SECONDS: u32 = 600;

/// Why a request is too old, too new, or without a usable age. The words are those of `docs/spec/10 §8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TtlReject {
    /// `ttl` outside 1 ..= 2^31-1, or a `time` that is not positive.
    OutOfRange,
    Expired,
    /// Made further in the future than its own validity.
    FromTheFuture,
    /// Older than the node's cap though not older than the caller's `ttl`.
    Capped,
}

impl TtlReject {
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            TtlReject::OutOfRange | TtlReject::Expired | TtlReject::FromTheFuture => "ttl_expired",
            TtlReject::Capped => "ttl_cap",
        }
    }
}

/// Accepts only `now - ttl < time < now + ttl`, both sides strict, with `ttl` cut to `cap_seconds`.
///
/// `now` and `time` are Unix nanoseconds, `ttl` seconds as the request states it.
pub fn check(now: i64, time: i64, ttl: i64, cap_seconds: u32) -> Result<(), TtlReject> {
    if !(1..=i64::from(i32::MAX)).contains(&ttl) || time <= 0 {
        return Err(TtlReject::OutOfRange);
    }
    let asked = ttl.saturating_mul(SECOND);
    let granted = asked.min(i64::from(cap_seconds).saturating_mul(SECOND));
    let age = now.saturating_sub(time);
    if age >= asked {
        return Err(TtlReject::Expired);
    }
    if age >= granted {
        return Err(TtlReject::Capped);
    }
    if age <= granted.saturating_neg() {
        return Err(TtlReject::FromTheFuture);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_800_000_000 * SECOND;

    #[test]
    fn t_231_t_232_both_bounds_are_strict() {
        assert_eq!(check(NOW, NOW - 60 * SECOND + 1, 60, 600), Ok(()));
        assert_eq!(check(NOW, NOW - 60 * SECOND, 60, 600), Err(TtlReject::Expired));
        assert_eq!(check(NOW, NOW + 60 * SECOND - 1, 60, 600), Ok(()));
        assert_eq!(check(NOW, NOW + 60 * SECOND, 60, 600), Err(TtlReject::FromTheFuture));
        choria_rows::row(231, "exactly ttl old, and a nanosecond less", "ttl_expired, accepted");
        choria_rows::row(232, "exactly ttl early, and a nanosecond less", "ttl_expired, accepted");
    }

    #[test]
    fn t_230_t_232_a_long_validity_works_while_fresh() {
        assert_eq!(check(NOW, NOW - SECOND, 3600, 600), Ok(()));
        assert_eq!(check(NOW, NOW - 601 * SECOND, 3600, 600), Err(TtlReject::Capped));
        assert_eq!(check(NOW, NOW + (1 << 62), 3600, 600), Err(TtlReject::FromTheFuture));
        choria_rows::row(230, "ttl 3600 at age 1 s and at cap + 1 s", "accepted, ttl_cap");
        choria_rows::row(232, "2^62 ns early", "ttl_expired");
    }

    #[test]
    fn t_230_impossible_values() {
        for ttl in [0, -5, i64::MAX, i64::MIN] {
            assert_eq!(check(NOW, NOW, ttl, 600), Err(TtlReject::OutOfRange));
        }
        assert_eq!(check(NOW, -1, 60, 600), Err(TtlReject::OutOfRange));
        choria_rows::row(230, "ttl 0, -5, 2^63-1, -2^63", "refused");
    }

    proptest! {
        #[test]
        fn never_panics(now in any::<i64>(), time in any::<i64>(), ttl in any::<i64>(), cap in any::<u32>()) {
            check(now, time, ttl, cap).ok();
        }
    }
}
