//! Addresses whose credentials keep failing: their answers are delayed, their log lines thinned out
//! (`docs/spec/10 §9`). Peers that succeed are never slowed, whatever address they share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::FailurePolicy;

/// Addresses remembered at one time.
const MAX_ADDRESSES: usize = 16_384;
/// Longer delay with each failure beyond the free ones.
const STEP: Duration = Duration::from_millis(100);
/// Log lines per address, reason and window before they are only counted.
const LINES: u32 = 20;

/// Recent failures by address, and log lines by reason and address.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    addresses: Mutex<HashMap<IpAddr, Window>>,
    lines: Mutex<HashMap<(&'static str, IpAddr), Window>>,
    delayed: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    count: u32,
}

impl Failures {
    /// Counts a failure and says how long its answer waits.
    pub(crate) fn record(&self, address: IpAddr, policy: &FailurePolicy, now: Instant) -> Duration {
        if policy.exempt_loopback && address.is_loopback() {
            return Duration::ZERO;
        }
        let count = count(&self.addresses, address, policy.window, now);
        let excess = count.saturating_sub(policy.free);
        policy.max_delay.min(STEP.saturating_mul(excess))
    }

    /// Waits out a delay; at once when too many already wait.
    pub(crate) async fn delay(&self, delay: Duration, policy: &FailurePolicy) {
        if delay.is_zero() {
            return;
        }
        if self.delayed.fetch_add(1, Ordering::Relaxed) < policy.max_delayed {
            tokio::time::sleep(delay).await;
        }
        self.delayed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether to write a log line; with the number of lines left out before it, when it begins a new window.
    pub(crate) fn may_log(&self, reason: &'static str, address: IpAddr, now: Instant) -> Option<u32> {
        let window = Duration::from_secs(60);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut lines, window, now);
        let entry = lines.entry((reason, address)).or_insert(Window { since: now, count: 0 });
        let mut suppressed = 0;
        if now.duration_since(entry.since) >= window {
            suppressed = entry.count.saturating_sub(LINES);
            *entry = Window { since: now, count: 0 };
        }
        entry.count = entry.count.saturating_add(1);
        (entry.count <= LINES).then_some(suppressed)
    }
}

fn count(map: &Mutex<HashMap<IpAddr, Window>>, address: IpAddr, window: Duration, now: Instant) -> u32 {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    make_room(&mut map, window, now);
    let entry = map.entry(address).or_insert(Window { since: now, count: 0 });
    if now.duration_since(entry.since) >= window {
        *entry = Window { since: now, count: 0 };
    }
    entry.count = entry.count.saturating_add(1);
    entry.count
}

fn make_room<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Window>, window: Duration, now: Instant) {
    if map.len() >= MAX_ADDRESSES {
        map.retain(|_, entry| now.duration_since(entry.since) < window);
    }
    if map.len() >= MAX_ADDRESSES {
        // An attacker with that many addresses is not slowed by any of this.
        map.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn delays_begin_after_the_free_failures_and_are_capped() {
        let failures = Failures::default();
        let policy = FailurePolicy { free: 3, ..FailurePolicy::default() };
        let (address, now) = (IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)), Instant::now());
        let delays: Vec<_> = (0..40).map(|_| failures.record(address, &policy, now)).collect();
        assert!(delays.iter().take(3).all(Duration::is_zero));
        assert_eq!(delays.get(3), Some(&STEP));
        assert_eq!(delays.last(), Some(&policy.max_delay));
        assert!(failures.record(address, &policy, now + policy.window).is_zero());
        assert!(failures.record(IpAddr::from(Ipv4Addr::LOCALHOST), &policy, now).is_zero());
    }

    #[test]
    fn log_lines_are_thinned_out_and_counted() {
        let failures = Failures::default();
        let (address, now) = (IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)), Instant::now());
        let written = (0..100).filter(|_| failures.may_log("nonce_bad", address, now).is_some()).count();
        assert_eq!(written, 20);
        assert_eq!(failures.may_log("nonce_bad", address, now + Duration::from_secs(61)), Some(80));
        assert_eq!(failures.may_log("no_credentials", address, now), Some(0));
    }
}
