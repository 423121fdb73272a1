//! How many requests run and wait at once (`docs/spec/10` N14).

use std::collections::{HashMap, VecDeque};

/// Bounds of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub running: usize,
    pub waiting: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { running: 64, waiting: 256 }
    }
}

/// Jobs by caller. No caller gets more than half of what runs or of what waits, so that one cannot starve the others.
#[derive(Debug)]
pub struct Queue<J> {
    bounds: Bounds,
    running: HashMap<String, usize>,
    running_total: usize,
    waiting: VecDeque<(String, J)>,
    waiting_by: HashMap<String, usize>,
}

/// The job was not taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy<J>(pub J);

impl<J> Queue<J> {
    #[must_use]
    pub fn new(bounds: Bounds) -> Queue<J> {
        Queue {
            bounds,
            running: HashMap::new(),
            running_total: 0,
            waiting: VecDeque::new(),
            waiting_by: HashMap::new(),
        }
    }

    /// Takes a job; [`Queue::take`] tells what may start.
    ///
    /// # Errors
    /// The job, when the caller's share or the whole queue is full.
    pub fn push(&mut self, caller: &str, job: J) -> Result<(), Busy<J>> {
        let mine = self.waiting_by.get(caller).copied().unwrap_or(0);
        if self.waiting.len() >= self.bounds.waiting || mine >= (self.bounds.waiting / 2).max(1) {
            return Err(Busy(job));
        }
        *self.waiting_by.entry(caller.to_owned()).or_default() += 1;
        self.waiting.push_back((caller.to_owned(), job));
        Ok(())
    }

    /// The oldest job whose caller has a free place. It counts as running until [`Queue::done`].
    pub fn take(&mut self) -> Option<(String, J)> {
        if self.running_total >= self.bounds.running {
            return None;
        }
        let share = (self.bounds.running / 2).max(1);
        let at = self
            .waiting
            .iter()
            .position(|(caller, _)| self.running.get(caller).is_none_or(|count| *count < share))?;
        let (caller, job) = self.waiting.remove(at)?;
        release(&mut self.waiting_by, &caller);
        *self.running.entry(caller.clone()).or_default() += 1;
        self.running_total += 1;
        Some((caller, job))
    }

    /// A running job of this caller has ended.
    pub fn done(&mut self, caller: &str) {
        if self.running.contains_key(caller) {
            release(&mut self.running, caller);
            self.running_total = self.running_total.saturating_sub(1);
        }
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running_total == 0 && self.waiting.is_empty()
    }

    /// Forgets what has not started.
    pub fn clear_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_by.clear();
    }
}

fn release(counts: &mut HashMap<String, usize>, caller: &str) {
    if let Some(count) = counts.get_mut(caller) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_255_one_caller_gets_half() {
        let mut queue = Queue::new(Bounds { running: 4, waiting: 8 });
        for n in 0..4 {
            queue.push("up=greedy", n).unwrap();
        }
        assert_eq!(queue.push("up=greedy", 9), Err(Busy(9)), "half of the queue");
        assert_eq!(queue.take(), Some(("up=greedy".into(), 0)));
        assert_eq!(queue.take(), Some(("up=greedy".into(), 1)));
        assert_eq!(queue.take(), None, "half of what runs");
        queue.push("up=modest", 100).unwrap();
        assert_eq!(queue.take(), Some(("up=modest".into(), 100)), "overtakes");
        queue.done("up=greedy");
        assert_eq!(queue.take(), Some(("up=greedy".into(), 2)));
        for caller in ["up=greedy", "up=greedy", "up=modest", "up=stranger"] {
            queue.done(caller);
        }
        assert_eq!(queue.take(), Some(("up=greedy".into(), 3)));
        queue.done("up=greedy");
        assert!(queue.is_idle());
        choria_rows::row(255, "one caller fills its share", "the next is refused, another caller overtakes");
    }

    #[test]
    fn the_whole_is_bounded() {
        let mut queue = Queue::new(Bounds { running: 64, waiting: 256 });
        let taken = (0..1000).filter(|n| queue.push(&format!("up={n}"), *n).is_ok()).count();
        assert_eq!(taken, 256);
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), 64);
    }
}
