//! When clients together leave more unread than the engine may hold, those with the longest queues go, and not whoever
//! happens to be sent the next message (`docs/spec/10 §9`).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::client::Client;
use crate::clock;
use crate::close::CloseReason;
use crate::engine::Shared;

/// Looking at every queue is work; those that were told to go need a moment to do so.
const BETWEEN: i64 = 10_000_000;

/// When queues were looked at last, nanoseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Shedding(AtomicI64);

impl Shared {
    /// To be called after messages were queued; costs one comparison while there is room.
    pub(crate) fn shed(&self) {
        let limit = self.config.max_pending_total;
        if self.pending_bytes() <= limit {
            return;
        }
        let (now, last) = (clock::now_nanos(), self.shedding.0.load(Ordering::Relaxed));
        let mine = now.saturating_sub(last) >= BETWEEN
            && self.shedding.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !mine {
            return;
        }
        let mut queues: Vec<(usize, Arc<Client>)> = Vec::new();
        for client in self.all_clients() {
            let pending = {
                let out = client.lock_out();
                if out.closing.is_some() { 0 } else { out.pending }
            };
            if pending > 0 {
                queues.push((pending, client));
            }
        }
        queues.sort_unstable_by_key(|(pending, _)| std::cmp::Reverse(*pending));
        let mut total: usize = queues.iter().map(|(pending, _)| *pending).sum();
        if total <= limit {
            return;
        }
        for (pending, client) in queues {
            // a quarter is made free, or the next message would begin anew
            if total <= limit / 4 * 3 {
                return;
            }
            client.close(CloseReason::SlowConsumerPending);
            total -= pending;
        }
    }
}
