//! Waiting times between connection attempts (`docs/spec/01 §8.4`, `docs/spec/03 §1.4`).

/// Waits before the first connection is up, milliseconds.
pub const FIVE_SECONDS: &[u16] = &[500, 750, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000];

/// Waits between reconnections, milliseconds.
pub const TWENTY_SECONDS: &[u16] = &[
    500, 750, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000, //
    5500, 5750, 6000, 6500, 7000, 7500, 8000, 8500, 9000, 9500, 10_000, //
    10_500, 10_750, 11_000, 11_500, 12_000, 12_500, 13_000, 13_500, 14_000, 14_500, 15_000, //
    15_500, 15_750, 16_000, 16_500, 17_000, 17_500, 18_000, 18_500, 19_000, 19_500, 20_000,
];

/// The wait after failed attempt `attempt` in milliseconds, spread evenly over half to one and a half times the table's
/// value so that a fleet that lost its broker does not return in one wave.
///
/// `attempt` counts from 1; entry 0 of a table is never used for connections, as in the original tables. Past the end
/// the last entry repeats.
#[must_use]
pub fn delay_ms(table: &[u16], attempt: u32, random: u32) -> u64 {
    let last = table.len().saturating_sub(1);
    let index = usize::try_from(attempt).unwrap_or(usize::MAX).min(last);
    let base = u64::from(table.get(index).copied().unwrap_or(5000));
    // random / 2^32 is in [0, 1).
    let spread = base.saturating_mul(u64::from(random)) >> 32;
    (base / 2).saturating_add(spread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tables_have_the_published_shape() {
        assert_eq!(TWENTY_SECONDS.len(), 44);
        assert_eq!(TWENTY_SECONDS.last(), Some(&20_000));
        assert!(TWENTY_SECONDS.starts_with(FIVE_SECONDS));
    }

    #[test]
    fn the_first_wait_uses_the_second_entry() {
        assert_eq!(delay_ms(FIVE_SECONDS, 1, 0), 375);
        assert_eq!(delay_ms(FIVE_SECONDS, 1, u32::MAX), 375 + 749);
        assert_eq!(delay_ms(FIVE_SECONDS, 900, 0), 2500);
    }

    proptest! {
        #[test]
        fn waits_stay_in_the_window(attempt in 0u32.., random in any::<u32>()) {
            let base = u64::from(TWENTY_SECONDS[usize::try_from(attempt).unwrap().min(43)]);
            let wait = delay_ms(TWENTY_SECONDS, attempt, random);
            prop_assert!(wait >= base / 2 && wait < base / 2 + base);
        }
    }
}
