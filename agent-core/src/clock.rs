//! The time of a node that cannot be sure of it: what a time server said, unless that is below a floor that only the
//! organization can raise (`docs/spec/08 §7.5`, `docs/spec/10` D3).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Seconds that a token's time of issue may lie ahead of a known clock and still raise the floor.
const AHEAD: i64 = 24 * 3600;
const NANOS: i64 = 1_000_000_000;

/// A time that was heard, carried on by the monotonic clock.
///
/// Time servers prove nothing, so what they say is believed only while the node runs, and not below the floor: there the
/// time is not what they say, only later than the floor. So a server that sets the time back revives no token that was
/// over before the floor and keeps no node from enrolling, and one that sets it far ahead has done nothing that a restart,
/// or its next true answer, does not undo. A board that has a clock of its own keeps the floor alone.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Unix nanoseconds, and the monotonic milliseconds at which it was that time.
    heard: Option<(i64, u64)>,
    /// Unix seconds.
    floor: i64,
}

impl Clock {
    /// `floor` is the time at which the image was made, or a later one that was kept, Unix seconds.
    #[must_use]
    pub const fn new(floor: i64) -> Clock {
        Clock { heard: None, floor }
    }

    /// It is `unix_nanos` now, says a time server. False: that cannot be, and what was known before stays.
    pub fn hear(&mut self, unix_nanos: i64, mono_ms: u64) -> bool {
        let is_possible = self.possible(unix_nanos).is_some();
        if is_possible {
            self.heard = Some((unix_nanos, mono_ms));
        }
        is_possible
    }

    /// Unix nanoseconds at `mono_ms`, not below the floor, which is never raised past them; `None` while nobody has said a
    /// time that can be.
    #[must_use]
    pub fn nanos(&self, mono_ms: u64) -> Option<i64> {
        let (then, at) = self.heard?;
        let since = i64::try_from(mono_ms.saturating_sub(at)).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        Some(then.saturating_add(since))
    }

    /// The monotonic milliseconds at which a time was last heard that can be.
    #[must_use]
    pub fn heard_ms(&self) -> Option<u64> {
        Some(self.heard?.1)
    }

    /// This time, Unix nanoseconds, unless it is below the floor.
    #[must_use]
    pub fn possible(&self, unix_nanos: i64) -> Option<i64> {
        (unix_nanos >= self.floor.saturating_mul(NANOS)).then_some(unix_nanos)
    }

    /// Unix seconds that the time is never below.
    #[must_use]
    pub const fn floor(&self) -> i64 {
        self.floor
    }

    /// A token of the organization that was verified was issued at `issued`, Unix seconds: it is at least that late. A time
    /// of issue more than a day ahead of `now`, Unix nanoseconds, is somebody's mistake and raises nothing, and so does any
    /// where `now` is not known: the floor never sinks again, and a device whose floor is ahead of the time is lost.
    pub fn raise(&mut self, issued: i64, now: Option<i64>) {
        let Some(now) = now.map(|nanos| nanos.div_euclid(NANOS)) else { return };
        if issued <= now.saturating_add(AHEAD) {
            // never past what is the time, or it would not be known any more
            self.floor = self.floor.max(issued.min(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MADE: i64 = 1_790_000_000;

    #[test]
    fn a_server_that_sets_the_time_back_says_nothing() {
        let mut clock = Clock::new(MADE);
        assert_eq!(clock.nanos(5), None);
        assert!(!clock.hear(1_000_000_000 * NANOS, 1_000));
        assert_eq!(clock.nanos(2_000), None);
        assert!(clock.hear((MADE + 10) * NANOS, 3_000));
        assert_eq!(clock.nanos(4_500), Some((MADE + 11) * NANOS + NANOS / 2));
        assert!(!clock.hear((MADE - 1) * NANOS, 5_000));
        assert_eq!(clock.nanos(5_000), Some((MADE + 12) * NANOS), "what was known stays");
    }

    #[test]
    fn a_server_that_sets_the_time_ahead_moves_no_floor() {
        let mut clock = Clock::new(MADE);
        assert!(clock.hear(4_102_444_800 * NANOS, 0));
        assert_eq!(clock.nanos(0), Some(4_102_444_800 * NANOS));
        assert_eq!(clock.floor(), MADE);
        assert!(clock.hear((MADE + 60) * NANOS, 10));
        assert_eq!(clock.nanos(10), Some((MADE + 60) * NANOS));
    }

    #[test]
    fn only_tokens_raise_the_floor_and_none_from_far_ahead() {
        let mut clock = Clock::new(MADE);
        let now = Some((MADE + 91 * 86_400) * NANOS);
        clock.raise(MADE - 1, now);
        assert_eq!(clock.floor(), MADE);
        for issued in [MADE + 90 * 86_400, MADE + 1, 4_102_444_800, i64::MAX] {
            clock.raise(issued, None);
            assert_eq!(clock.floor(), MADE, "without a clock nothing tells a date from a mistake");
        }
        clock.raise(MADE + 92 * 86_400 + 1, now);
        assert_eq!(clock.floor(), MADE);
        clock.raise(MADE + 92 * 86_400, now);
        assert_eq!(clock.floor(), MADE + 91 * 86_400, "not past the time");
        clock.raise(MADE + 90 * 86_400, now);
        assert_eq!(clock.floor(), MADE + 91 * 86_400, "it never sinks");
    }

    proptest! {
        #[test]
        fn no_number_overflows(floor in any::<i64>(), heard in any::<i64>(), at in any::<u64>(), now in any::<u64>(), issued in any::<i64>()) {
            let mut clock = Clock::new(floor);
            assert_eq!(clock.hear(heard, at), heard >= floor.saturating_mul(NANOS));
            clock.raise(issued, clock.nanos(now));
            prop_assert!(clock.floor() >= floor);
            prop_assert!(clock.nanos(now).is_none_or(|nanos| nanos >= clock.floor().saturating_mul(NANOS)));
        }
    }
}
