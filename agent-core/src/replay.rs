//! Remembering requests so that a captured one is not run twice (`docs/spec/10` N5).
//!
//! The cache is keyed by caller and request id. When it is full the entry with the oldest request time makes room and
//! its time becomes the **watermark**: requests at or below it are refused from then on. Without the watermark an
//! attacker with any valid token could flush the cache with fresh requests and replay an old one.

use sha2::{Digest, Sha256};

/// Slots of a Linux server (`docs/spec/10 §9`).
pub const SERVER_SLOTS: usize = 8192;
/// Slots of a microcontroller.
pub const DEVICE_SLOTS: usize = 64;

/// One remembered request. The caller of the core owns the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplaySlot {
    /// First 8 bytes of a SHA-256 over caller and id, keyed with a secret of this process. 0 with time 0 is free.
    key: u64,
    /// Request time, Unix nanoseconds.
    time: i64,
    /// The entry may go after this, Unix nanoseconds.
    until: i64,
}

impl ReplaySlot {
    pub const FREE: ReplaySlot = ReplaySlot { key: 0, time: 0, until: 0 };

    const fn is_free(&self) -> bool {
        self.time == 0
    }
}

/// Why a request counts as a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// The same caller used the same id before.
    Seen,
    /// Older than the oldest request that the cache had to forget.
    BelowWatermark,
    /// Made before this process could have remembered it.
    BeforeStart,
}

/// The cache. An open-addressed table over borrowed slots; every operation is bounded by the number of slots.
#[derive(Debug)]
pub struct ReplayCache<'s> {
    slots: &'s mut [ReplaySlot],
    used: usize,
    watermark: i64,
    before_start: bool,
    /// The newest request that was dropped as over.
    forgotten: i64,
    key: [u8; 16],
}

/// A hash collision must not be constructible: the table is keyed with bytes that only this process knows.
fn digest(key: &[u8; 16], caller: &str, id: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update(u64::try_from(caller.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(caller.as_bytes());
    hash.update(id.as_bytes());
    let output = hash.finalize();
    output.iter().take(8).fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte))
}

impl<'s> ReplayCache<'s> {
    /// `not_before` refuses requests made before this Unix nanosecond: the start of the process, or 0 to allow them.
    /// `key` is 16 random bytes of this process. Slots are cleared.
    pub fn new(slots: &'s mut [ReplaySlot], not_before: i64, key: [u8; 16]) -> ReplayCache<'s> {
        slots.fill(ReplaySlot::FREE);
        ReplayCache { slots, used: 0, watermark: not_before, before_start: not_before > 0, forgotten: 0, key }
    }

    /// For a node that hears the time only now, for the first time or anew: what was made before the first answer, it could
    /// not have remembered. An answer that corrects a first one from the future takes its watermark back; whatever was
    /// forgotten since, because it seemed to be over, stays below it.
    pub fn start(&mut self, now: i64) {
        if self.watermark == 0 || (self.before_start && now < self.watermark) {
            self.watermark = now;
            self.before_start = true;
        }
        if self.forgotten > self.watermark {
            self.raise(self.forgotten);
        }
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.used
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Requests made at or before this Unix nanosecond are refused.
    #[must_use]
    pub const fn watermark(&self) -> i64 {
        self.watermark
    }

    /// Remembers the request, or says that it must not run. `time` has passed [`crate::ttl::check`] before;
    /// `ttl_seconds` is the granted validity. A request is kept for twice that.
    pub fn admit(
        &mut self,
        caller: &str,
        id: &str,
        time: i64,
        ttl_seconds: u32,
        now: i64,
    ) -> Result<(), Replayed> {
        if time <= self.watermark {
            return Err(if self.before_start { Replayed::BeforeStart } else { Replayed::BelowWatermark });
        }
        let key = digest(&self.key, caller, id);
        if self.find(key) {
            return Err(Replayed::Seen);
        }
        if self.slots.is_empty() {
            // A cache without slots forgets at once, so everything up to this request is now refused.
            self.raise(time);
            return Ok(());
        }
        if self.used.saturating_mul(4) >= self.slots.len().saturating_mul(3) {
            self.expire(now);
        }
        while self.used.saturating_mul(8) >= self.slots.len().saturating_mul(7) && self.used > 0 {
            self.evict_oldest();
        }
        if time <= self.watermark {
            return Err(Replayed::BelowWatermark);
        }
        let keep = i64::from(ttl_seconds).saturating_mul(2_000_000_000);
        self.insert(ReplaySlot { key, time, until: time.max(now).saturating_add(keep) });
        Ok(())
    }

    fn raise(&mut self, time: i64) {
        self.watermark = self.watermark.max(time);
        self.before_start = false;
    }

    fn home(&self, key: u64) -> usize {
        let len = u64::try_from(self.slots.len()).unwrap_or(1).max(1);
        usize::try_from(key % len).unwrap_or(0)
    }

    fn find(&self, key: u64) -> bool {
        let mut at = self.home(key);
        for _ in 0..self.slots.len() {
            match self.slots.get(at) {
                Some(slot) if slot.is_free() => return false,
                Some(slot) if slot.key == key => return true,
                Some(_) => {}
                None => return false,
            }
            at = self.next(at);
        }
        false
    }

    const fn next(&self, at: usize) -> usize {
        let next = at.saturating_add(1);
        if next >= self.slots.len() { 0 } else { next }
    }

    fn insert(&mut self, entry: ReplaySlot) {
        let mut at = self.home(entry.key);
        for _ in 0..self.slots.len() {
            if let Some(slot) = self.slots.get_mut(at)
                && slot.is_free()
            {
                *slot = entry;
                self.used = self.used.saturating_add(1);
                return;
            }
            at = self.next(at);
        }
    }

    /// Frees a slot and moves up what a probe would no longer reach.
    fn remove(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.is_free() {
            return;
        }
        *slot = ReplaySlot::FREE;
        self.used = self.used.saturating_sub(1);
        let mut at = self.next(index);
        for _ in 0..self.slots.len() {
            match self.slots.get_mut(at) {
                Some(slot) if !slot.is_free() => {
                    let moved = core::mem::take(slot);
                    self.used = self.used.saturating_sub(1);
                    self.insert(moved);
                }
                _ => return,
            }
            at = self.next(at);
        }
    }

    fn expire(&mut self, now: i64) {
        let mut index = 0;
        while index < self.slots.len() {
            match self.slots.get(index) {
                // The removal may move another entry here: look again.
                Some(slot) if !slot.is_free() && slot.until < now => {
                    self.forgotten = self.forgotten.max(slot.time);
                    self.remove(index);
                }
                _ => index = index.saturating_add(1),
            }
        }
    }

    /// Drops the oldest eighth at least one, so that a full cache does not scan for every request.
    fn evict_oldest(&mut self) {
        let oldest = self.slots.iter().filter(|slot| !slot.is_free()).map(|slot| slot.time).min();
        let newest = self.slots.iter().filter(|slot| !slot.is_free()).map(|slot| slot.time).max();
        let (Some(oldest), Some(newest)) = (oldest, newest) else { return };
        // One entry on a device; on a server all within 1/64 of the time span of the oldest.
        let span = if self.slots.len() > 512 { newest.saturating_sub(oldest) / 64 } else { 0 };
        let line = oldest.saturating_add(span);
        let mut index = 0;
        while index < self.slots.len() {
            match self.slots.get(index) {
                Some(slot) if !slot.is_free() && slot.time <= line => self.remove(index),
                _ => index = index.saturating_add(1),
            }
        }
        self.raise(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::format;
    use std::vec;

    const S: i64 = 1_000_000_000;

    /// A node without a clock that heard a time from the future first, and then the true one.
    #[test]
    fn a_first_answer_from_the_future_is_taken_back() {
        let mut slots = [ReplaySlot::FREE; 64];
        let mut cache = ReplayCache::new(&mut slots, 0, [7; 16]);
        cache.start(4_102_444_800 * S);
        cache.start(1000 * S);
        assert_eq!(cache.admit("up=a", "1", 1001 * S, 60, 1001 * S), Ok(()));
        assert_eq!(cache.admit("up=a", "2", 999 * S, 60, 1001 * S), Err(Replayed::BeforeStart));
        cache.start(2000 * S);
        assert_eq!(
            cache.admit("up=a", "3", 1500 * S, 600, 2000 * S),
            Ok(()),
            "a later answer changes nothing"
        );
    }

    /// What was dropped because it seemed to be over must not run again when the time is set back.
    #[test]
    fn a_clock_that_is_set_back_revives_nothing() {
        let mut slots = [ReplaySlot::FREE; 64];
        let mut cache = ReplayCache::new(&mut slots, 0, [7; 16]);
        cache.start(1000 * S);
        assert_eq!(cache.admit("up=a", "captured", 1001 * S, 60, 1001 * S), Ok(()));
        for n in 0..60 {
            let now = (5000 + 10 * n) * S;
            assert_eq!(cache.admit("up=b", &format!("{n}"), now, 60, now), Ok(()));
        }
        cache.start(1010 * S);
        assert!(cache.admit("up=a", "captured", 1001 * S, 60, 1010 * S).is_err());
    }

    #[test]
    fn t_226_the_same_id_runs_once_per_caller() {
        let mut slots = [ReplaySlot::FREE; 64];
        let mut cache = ReplayCache::new(&mut slots, 0, [7; 16]);
        assert_eq!(cache.admit("up=a", "1", 10 * S, 60, 10 * S), Ok(()));
        assert_eq!(cache.admit("up=a", "1", 10 * S, 60, 11 * S), Err(Replayed::Seen));
        assert_eq!(
            cache.admit("up=a", "1", 12 * S, 60, 12 * S),
            Err(Replayed::Seen),
            "other bytes under the same id"
        );
        assert_eq!(cache.admit("up=b", "1", 10 * S, 60, 11 * S), Ok(()));
        choria_rows::row(
            226,
            "the same id again, with the same and with other time",
            "refused, seen; another caller's is admitted",
        );
    }

    #[test]
    fn t_227_flushing_the_cache_raises_the_watermark() {
        let mut slots = [ReplaySlot::FREE; 64];
        let mut cache = ReplayCache::new(&mut slots, 0, [7; 16]);
        assert_eq!(cache.admit("up=victim", "first", 1000 * S, 60, 1000 * S), Ok(()));
        for n in 0..200 {
            let time = 1001 * S + n;
            assert_eq!(cache.admit("up=attacker", &format!("{n}"), time, 60, time), Ok(()));
        }
        assert_eq!(cache.admit("up=victim", "first", 1000 * S, 60, 1002 * S), Err(Replayed::BelowWatermark));
        assert!(cache.len() <= 64);
        choria_rows::row(
            227,
            "a cache of 64 filled by 200 valid newer requests, then the first again",
            "refused, below the watermark; the cache stays at 64",
        );
    }

    #[test]
    fn t_228_requests_older_than_the_process_are_refused() {
        let mut slots = [ReplaySlot::FREE; 8];
        let mut cache = ReplayCache::new(&mut slots, 500 * S, [7; 16]);
        assert_eq!(cache.admit("up=a", "1", 499 * S, 60, 501 * S), Err(Replayed::BeforeStart));
        assert_eq!(cache.admit("up=a", "2", 501 * S, 60, 501 * S), Ok(()));
        choria_rows::row(
            228,
            "a request made before the process started",
            "refused, before start; a newer one is admitted",
        );
    }

    #[test]
    fn expired_entries_make_room_without_a_watermark() {
        let mut slots = [ReplaySlot::FREE; 16];
        let mut cache = ReplayCache::new(&mut slots, 0, [7; 16]);
        for n in 0..1000i64 {
            let time = (1000 + n * 200) * S;
            assert_eq!(cache.admit("up=a", &format!("{n}"), time, 60, time), Ok(()));
        }
        assert_eq!(cache.watermark(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever order requests come in and however small the cache: none is ever admitted twice.
        #[test]
        fn nothing_is_admitted_twice(size in 0usize..40, requests in proptest::collection::vec((0u8..6, 0u8..40, 1i64..100), 0..400)) {
            let mut slots = vec![ReplaySlot::FREE; size];
            let mut cache = ReplayCache::new(&mut slots, 0, [1; 16]);
            let mut admitted = HashSet::new();
            for (caller, id, time) in requests {
                let (caller, name) = (format!("up={caller}"), format!("{id}-{time}"));
                if cache.admit(&caller, &name, time * S, 60, 50 * S).is_ok() {
                    prop_assert!(admitted.insert((caller, name)));
                }
                prop_assert!(cache.len() <= size);
            }
        }
    }
}
