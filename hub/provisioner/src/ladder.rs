//! How long to wait before asking a node again (`docs/spec/04 §10.6`).

use std::time::Duration;

/// The five-second ladder, milliseconds.
const LADDER: [u64; 11] = [500, 750, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000];

/// The pause after failed try number `tries` (from 1), spread by half to one and a half with `random`.
pub(crate) fn pause(tries: u32, random: u16) -> Duration {
    let rung = usize::try_from(tries).unwrap_or(usize::MAX).min(LADDER.len() - 1);
    let milliseconds = LADDER.get(rung).copied().unwrap_or(5000);
    Duration::from_micros(milliseconds * 500 + milliseconds * 1000 * u64::from(random) / 65_536)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder() {
        assert_eq!(pause(1, 0), Duration::from_micros(375_000));
        assert_eq!(pause(1, 32_768), Duration::from_millis(750));
        assert!(pause(1, u16::MAX) < Duration::from_millis(1125));
        assert_eq!(pause(u32::MAX, 32_768), Duration::from_secs(5));
    }
}
