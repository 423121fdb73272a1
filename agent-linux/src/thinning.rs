//! Log lines that peers can cause: thinned out by reason, so that a flood of bad messages does not fill the disk
//! (docs/spec/10 §8). A node knows no address of its peers; counters keep counting everything.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Lines of one reason in one window; more are only counted.
const LINES: u64 = 200;
const WINDOW: Duration = Duration::from_secs(60);

/// Lines written lately, by reason.
#[derive(Debug, Default)]
pub struct Thinning {
    lines: HashMap<&'static str, (Instant, u64)>,
}

impl Thinning {
    /// Whether to write a line now; with the number left out before it, when it begins a new window.
    pub fn may_log(&mut self, reason: &'static str) -> Option<u64> {
        self.at(reason, Instant::now())
    }

    fn at(&mut self, reason: &'static str, now: Instant) -> Option<u64> {
        let (since, count) = self.lines.entry(reason).or_insert((now, 0));
        let mut left_out = 0;
        if now.duration_since(*since) >= WINDOW {
            left_out = count.saturating_sub(LINES);
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        (*count <= LINES).then_some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_not_written() {
        let mut thinning = Thinning::default();
        let start = Instant::now();
        let written = (0..10_000).filter(|_| thinning.at("sig_bad", start).is_some()).count();
        assert_eq!(written, 200);
        assert_eq!(thinning.at("replayed", start), Some(0), "another reason is not held back");
        assert_eq!(thinning.at("sig_bad", start + WINDOW), Some(9_800));
        assert_eq!(thinning.at("sig_bad", start + WINDOW), Some(0));
    }
}
