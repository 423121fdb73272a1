//! Log lines that peers can cause: thinned out by reason and whoever caused them, so that a flood of bad messages does
//! not fill the disk (docs/spec/10 §8). Counters and audits keep counting everything.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
/// Causes remembered at one time.
const REMEMBERED: usize = 16 * 1024;

/// Lines written in the last minute, by cause: a reason word, or that and an address.
#[derive(Debug)]
pub struct Thinning<K> {
    lines: HashMap<K, (Instant, u64)>,
    most: u64,
}

impl<K: Hash + Eq> Thinning<K> {
    /// `most`: lines of one cause in a minute; more are only counted.
    pub fn new(most: u64) -> Thinning<K> {
        Thinning { lines: HashMap::new(), most }
    }

    /// Whether to write a line now; with the number left out before it, when it begins a new minute.
    pub fn may_log(&mut self, cause: K) -> Option<u64> {
        self.at(cause, Instant::now())
    }

    fn at(&mut self, cause: K, now: Instant) -> Option<u64> {
        if self.lines.len() >= REMEMBERED && !self.lines.contains_key(&cause) {
            self.lines.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            if self.lines.len() >= REMEMBERED {
                // Somebody with that many addresses is not held back by any of this.
                self.lines.clear();
            }
        }
        let (since, count) = self.lines.entry(cause).or_insert((now, 0));
        let mut left_out = 0;
        if now.duration_since(*since) >= WINDOW {
            left_out = count.saturating_sub(self.most);
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        (*count <= self.most).then_some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_not_written() {
        let mut thinning = Thinning::new(200);
        let start = Instant::now();
        let written = (0..10_000).filter(|_| thinning.at("sig_bad", start).is_some()).count();
        assert_eq!(written, 200);
        assert_eq!(thinning.at("replayed", start), Some(0), "another reason is not held back");
        assert_eq!(thinning.at("sig_bad", start + WINDOW), Some(9_800));
        assert_eq!(thinning.at("sig_bad", start + WINDOW), Some(0));
    }

    #[test]
    fn memory_is_bounded_however_many_causes_there_are() {
        let mut thinning = Thinning::new(1);
        let start = Instant::now();
        for address in 0..REMEMBERED * 3 {
            assert_eq!(thinning.at(("password_bad", address), start), Some(0));
        }
        assert!(thinning.lines.len() <= REMEMBERED);
    }
}
