//! Policies that compute do so in turns, so that one caller's leave the processors to the others.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Policies of one caller that compute at the same time.
const AT_ONCE: usize = 2;

/// Who computes now.
#[derive(Debug, Default)]
pub struct Turns {
    by_caller: RefCell<HashMap<String, Arc<Semaphore>>>,
}

impl Turns {
    /// The next turn of this caller. It lasts as long as what is returned, also when nobody waits for the result any more.
    pub(super) async fn of(&self, caller: &str) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut by_caller = self.by_caller.borrow_mut();
            by_caller.retain(|_, turns| Arc::strong_count(turns) > 1);
            let turns =
                by_caller.entry(caller.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
            Arc::clone(turns)
        };
        turns.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn one_callers_turns_are_not_anothers() {
        let turns = Turns::default();
        let (first, second) = (turns.of("up=greedy").await, turns.of("up=greedy").await);
        let third = tokio::time::timeout(Duration::from_millis(50), turns.of("up=greedy")).await;
        assert!(third.is_err(), "a third at once");
        assert!(turns.of("up=modest").await.is_some());
        drop(first);
        assert!(turns.of("up=greedy").await.is_some());
        drop(second);
        assert!(turns.of("up=modest").await.is_some());
        assert_eq!(turns.by_caller.borrow().len(), 1, "who has none is forgotten");
    }
}
