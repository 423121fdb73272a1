//! What connections may cost before they have authenticated: places, and bytes (`docs/spec/10 §9`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A connection that has been at it this long may lose its place to a newer one.
const PATIENCE: Duration = Duration::from_secs(1);

/// The places of connections that have not authenticated.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    places: Mutex<BTreeMap<u64, Arc<Entry>>>,
    next: std::sync::atomic::AtomicU64,
    freed: Notify,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    evict: Notify,
    /// It waits for a slot of ours, so its slowness is not its own.
    ours: AtomicBool,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    waiting: Arc<Waiting>,
    id: u64,
    entry: Arc<Entry>,
    over_limit: bool,
}

impl Waiting {
    /// Takes a place. When all are taken, the oldest peer that keeps us waiting for more than a second loses its
    /// own; while there is none, the caller waits, and new peers wait in the kernel's backlog.
    pub(crate) async fn enter(self: &Arc<Self>, max: usize, over_limit: bool) -> Place {
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.try_enter(max, over_limit) {
                return place;
            }
            tokio::time::timeout(PATIENCE / 10, freed).await.ok();
        }
    }

    fn try_enter(self: &Arc<Self>, max: usize, over_limit: bool) -> Option<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= max {
            let oldest = places.iter().find(|(_, entry)| !entry.ours.load(Ordering::Relaxed));
            let (id, entry) = oldest.filter(|(_, entry)| entry.since.elapsed() >= PATIENCE)?;
            entry.evict.notify_one();
            let id = *id;
            places.remove(&id);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let entry =
            Arc::new(Entry { since: Instant::now(), evict: Notify::new(), ours: AtomicBool::new(false) });
        places.insert(id, Arc::clone(&entry));
        Some(Place { waiting: Arc::clone(self), id, entry, over_limit })
    }
}

impl Place {
    pub(crate) async fn evicted(&self) {
        self.entry.evict.notified().await;
    }

    pub(crate) fn waiting_on_us(&self, ours: bool) {
        self.entry.ours.store(ours, Ordering::Relaxed);
    }

    /// The engine has no room for another connection.
    pub(crate) fn over_limit(&self) -> bool {
        self.over_limit
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.waiting.freed.notify_one();
    }
}

/// Bytes that one connection holds of a common budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    total: &'a AtomicUsize,
    limit: usize,
    held: usize,
}

impl<'a> Reserved<'a> {
    pub(crate) fn new(total: &'a AtomicUsize, limit: usize) -> Reserved<'a> {
        Reserved { total, limit, held: 0 }
    }

    /// Holds `bytes` in all; false when the budget does not have them.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        if bytes > self.held {
            let more = bytes - self.held;
            if self.total.fetch_add(more, Ordering::Relaxed) + more > self.limit {
                self.total.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else {
            self.total.fetch_sub(self.held - bytes, Ordering::Relaxed);
        }
        self.held = bytes;
        true
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_budget_is_common_and_given_back() {
        let total = AtomicUsize::new(0);
        let mut first = Reserved::new(&total, 100);
        let mut second = Reserved::new(&total, 100);
        assert!(first.hold(60) && second.hold(40));
        assert!(!second.hold(41));
        assert!(first.hold(10) && second.hold(90));
        drop((first, second));
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = false)]
    async fn a_full_house_evicts_the_oldest_that_keeps_us_waiting() {
        let waiting = Arc::new(Waiting::default());
        let first = waiting.enter(2, false).await;
        let second = waiting.enter(2, false).await;
        assert!(waiting.try_enter(2, false).is_none());
        first.waiting_on_us(true);
        let third = waiting.enter(2, false).await;
        tokio::time::timeout(Duration::from_secs(1), second.evicted()).await.unwrap();
        drop((first, second, third));
        assert!(waiting.try_enter(1, false).is_some());
    }
}
