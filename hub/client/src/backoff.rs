//! How long to wait before the next attempt (docs/spec/01 §8.4).

use std::time::Duration;

/// Milliseconds between attempts of the first connection.
const INITIAL: [u64; 11] = [500, 750, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000];

/// Delay before attempt `n` (the first retry is 1) of the first connection.
pub(crate) fn initial(n: usize) -> Duration {
    jitter(INITIAL.get(n.min(INITIAL.len() - 1)).copied().unwrap_or(5000))
}

/// Delay before reconnect attempt `n`: half a second at first, growing by about half a second up to twenty.
pub(crate) fn reconnect(n: usize) -> Duration {
    let steps = u64::try_from(n).unwrap_or(u64::MAX);
    jitter(steps.saturating_mul(500).saturating_add(250).clamp(500, 20_000))
}

/// Spreads a delay over 0.5 to 1.5 of itself, so that a fleet does not return in step.
fn jitter(milliseconds: u64) -> Duration {
    let share = u64::from(choria_host::random::below(1001));
    Duration::from_millis(milliseconds / 2 + milliseconds.saturating_mul(share) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_half_of_the_table() {
        for n in 0..200 {
            assert!((250..=7_500).contains(&(initial(n).as_millis() as u64)), "{n}");
            assert!((250..=30_000).contains(&(reconnect(n).as_millis() as u64)), "{n}");
        }
        assert!(reconnect(usize::MAX) >= Duration::from_secs(10));
    }
}
