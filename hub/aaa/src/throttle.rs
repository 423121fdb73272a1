//! How often somebody may try to log in, `docs/spec/10 §9`.
//!
//! Failures are counted per user *and* address: a stranger who guesses from elsewhere cannot lock a user out.
//! Attempts are counted per address. Success clears the user's failures. Everything is bounded in memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::LoginLimits;

const MINUTE: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Entries remembered of each kind.
const REMEMBERED: usize = 16 * 1024;

/// Why an attempt is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttled {
    /// Too many failures of this user from this address.
    User,
    /// Too many attempts from this address.
    Address,
}

/// Counters of logins.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: HashMap<(IpAddr, String), Failures>,
    attempts: HashMap<IpAddr, Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    count: u32,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    window: Window,
    /// Doubles with every failure beyond the limit.
    wait: Duration,
    until: Instant,
}

impl Throttle {
    /// Counts an attempt and says whether it may go on.
    pub(crate) fn admit(
        &self,
        limits: &LoginLimits,
        address: IpAddr,
        user: &str,
        now: Instant,
    ) -> Result<(), Throttled> {
        if exempt(limits, address) {
            return Ok(());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(
            &mut state.attempts,
            |window| window.since,
            |window| now.duration_since(window.since) >= MINUTE,
        );
        let window = state.attempts.entry(address).or_insert(Window { since: now, count: 0 });
        if now.duration_since(window.since) >= MINUTE {
            *window = Window { since: now, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        if window.count > limits.address_attempts {
            return Err(Throttled::Address);
        }
        match state.failures.get(&(address, user.to_owned())) {
            Some(failures) if failures.until > now => Err(Throttled::User),
            _ => Ok(()),
        }
    }

    /// Notes a failed attempt.
    pub(crate) fn failed(&self, limits: &LoginLimits, address: IpAddr, user: &str, now: Instant) {
        if exempt(limits, address) {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(
            &mut state.failures,
            |f| f.window.since,
            |f| f.until <= now && now.duration_since(f.window.since) >= LONGEST_WAIT,
        );
        let failures = state.failures.entry((address, user.to_owned())).or_insert(Failures {
            window: Window { since: now, count: 0 },
            wait: Duration::ZERO,
            until: now,
        });
        // The memory of a run of failures ends after a quiet time as long as the longest wait.
        let quiet = if failures.wait.is_zero() { MINUTE } else { LONGEST_WAIT };
        if failures.until <= now && now.duration_since(failures.window.since.max(failures.until)) >= quiet {
            failures.window = Window { since: now, count: 0 };
            failures.wait = Duration::ZERO;
        }
        failures.window.count = failures.window.count.saturating_add(1);
        if failures.window.count >= limits.user_failures {
            failures.wait = if failures.wait.is_zero() { MINUTE } else { failures.wait.saturating_mul(2) }
                .min(LONGEST_WAIT);
            failures.until = now.checked_add(failures.wait).unwrap_or(now);
        }
    }

    /// Forgets a user's failures after a success.
    pub(crate) fn succeeded(&self, address: IpAddr, user: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures.remove(&(address, user.to_owned()));
    }
}

fn exempt(limits: &LoginLimits, address: IpAddr) -> bool {
    limits.exempt_loopback && address.to_canonical().is_loopback()
}

/// Drops what has expired when the map is full; when nothing has, the oldest.
fn make_room<K: Hash + Eq + Clone, V>(
    map: &mut HashMap<K, V>,
    since: impl Fn(&V) -> Instant,
    over: impl Fn(&V) -> bool,
) {
    if map.len() < REMEMBERED {
        return;
    }
    map.retain(|_, value| !over(value));
    if map.len() >= REMEMBERED {
        let oldest = map.iter().min_by_key(|(_, value)| since(value)).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            map.remove(&oldest);
        }
    }
}

/// A bucket per caller for signatures: `rate` each second, four seconds' worth at once.
#[derive(Debug, Default)]
pub(crate) struct CallerRate {
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl CallerRate {
    /// Takes one; `false` when the caller has to wait. A rate of 0 never says no.
    pub(crate) fn take(&self, caller: &str, rate: u32, now: Instant) -> bool {
        if rate == 0 {
            return true;
        }
        let (rate, burst) = (f64::from(rate), f64::from(rate) * 4.0);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(caller) {
            bucket.tokens = (bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * rate).min(burst);
            bucket.at = now;
            let granted = bucket.tokens >= 1.0;
            if granted {
                bucket.tokens -= 1.0;
            }
            return granted;
        }
        make_room(&mut buckets, |bucket| bucket.at, |bucket| now.duration_since(bucket.at) >= MINUTE);
        buckets.insert(caller.to_owned(), Bucket { tokens: burst - 1.0, at: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn t_167_failures_slow_one_user_from_one_address_only() {
        let (throttle, limits, start) = (Throttle::default(), LoginLimits::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(throttle.admit(&limits, HERE, "bob", start), Ok(()));
            throttle.failed(&limits, HERE, "bob", start);
        }
        assert_eq!(throttle.admit(&limits, HERE, "bob", start), Err(Throttled::User));
        assert_eq!(throttle.admit(&limits, THERE, "bob", start), Ok(()));
        assert_eq!(throttle.admit(&limits, HERE, "alice", start), Ok(()));
        // A minute later one more try; its failure doubles the wait.
        let later = start + Duration::from_secs(61);
        assert_eq!(throttle.admit(&limits, HERE, "bob", later), Ok(()));
        throttle.failed(&limits, HERE, "bob", later);
        assert_eq!(
            throttle.admit(&limits, HERE, "bob", later + Duration::from_secs(100)),
            Err(Throttled::User)
        );
        assert_eq!(throttle.admit(&limits, HERE, "bob", later + Duration::from_secs(121)), Ok(()));
        throttle.succeeded(HERE, "bob");
        assert_eq!(throttle.admit(&limits, HERE, "bob", later + Duration::from_secs(122)), Ok(()));
        choria_rows::row(
            167,
            "failures of one user from one address; the same user elsewhere",
            "refused; accepted",
        );
    }

    #[test]
    fn attempts_of_one_address_are_bounded_and_loopback_can_be_exempt() {
        let (throttle, mut limits, now) = (Throttle::default(), LoginLimits::default(), Instant::now());
        let admitted =
            (0..100).filter(|i| throttle.admit(&limits, HERE, &i.to_string(), now).is_ok()).count();
        assert_eq!(admitted, 60);
        let loopback = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        limits.exempt_loopback = true;
        assert!((0..200).all(|_| throttle.admit(&limits, loopback, "bob", now).is_ok()));
    }

    #[test]
    fn memory_is_bounded() {
        let (throttle, limits, now) = (Throttle::default(), LoginLimits::default(), Instant::now());
        for i in 0..(REMEMBERED as u32 + 100) {
            let address = IpAddr::V4(std::net::Ipv4Addr::from(i));
            throttle.failed(&limits, address, "bob", now);
            let _admitted = throttle.admit(&limits, address, "bob", now).is_ok();
        }
        let state = throttle.state.lock().expect("state");
        assert!(state.failures.len() <= REMEMBERED && state.attempts.len() <= REMEMBERED);
    }

    #[test]
    fn a_caller_may_burst_and_then_keeps_its_rate() {
        let (rate, now) = (CallerRate::default(), Instant::now());
        assert_eq!((0..500).filter(|_| rate.take("up=bob", 50, now)).count(), 200);
        assert_eq!((0..500).filter(|_| rate.take("up=bob", 50, now + Duration::from_secs(1))).count(), 50);
        assert!((0..500).all(|_| rate.take("up=eve", 0, now)));
    }
}
