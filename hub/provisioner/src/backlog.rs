//! Nodes that wait: bounded, without duplicates, and patient with names nobody answers to (`docs/spec/04 §10.4`,
//! `docs/spec/10` V13).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How many nodes may wait.
pub const CAPACITY: usize = 50_000;

/// A provisioned node is not looked at again for this long: it is still restarting.
const REST: Duration = Duration::from_secs(60);

/// A startup event ends the rest after this long: that node did restart, and came back unprovisioned (somebody asked it to
/// `reprovision`). Earlier ones may be copies of the event that brought it here.
const EVENT_REST: Duration = Duration::from_secs(5);

/// First and longest time a name is left alone after nobody answered to it.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// How a node made itself known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It said that it started.
    Event,
    /// It answered a discovery, which it also does while it waits to restart.
    Broadcast,
}

/// What became of a name that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Queued,
    /// Waiting, being worked on, or just done.
    Known,
    /// Nobody answered to it before; it is left alone for a while.
    BackingOff,
    Full,
    /// Not a name a node can have.
    Invalid,
}

/// How the work on a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Provisioned,
    /// Failed, deferred, shut down or upgraded: the next sign of life brings it back.
    Released,
    /// Nobody answered to the first request.
    Unreachable,
}

/// One node to work on.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn {
    pub identity: String,
    /// It has waited longer than the limit, so more likely than not it is gone.
    pub stale: bool,
}

#[derive(Clone, Copy)]
enum Place {
    Waiting { since: Instant },
    Working,
    Resting { since: Instant, until: Instant },
}

struct Unreachable {
    strikes: u32,
    until: Instant,
}

/// The map and the queue. Time comes in as an argument.
#[derive(Default)]
pub struct Backlog {
    places: HashMap<String, Place>,
    queue: VecDeque<String>,
    resting: VecDeque<(Instant, String)>,
    unreachable: HashMap<String, Unreachable>,
}

impl std::fmt::Debug for Backlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backlog")
            .field("waiting", &self.queue.len())
            .field("known", &self.places.len())
            .finish()
    }
}

impl Backlog {
    /// A sign of life of a node.
    pub fn add(&mut self, identity: &str, sign: Sign, now: Instant) -> Added {
        if !acceptable(identity) {
            return Added::Invalid;
        }
        self.wake(now);
        match self.places.get(identity) {
            Some(Place::Resting { since, .. })
                if sign == Sign::Event && now.saturating_duration_since(*since) >= EVENT_REST => {}
            Some(_) => return Added::Known,
            None => {}
        }
        if self.unreachable.get(identity).is_some_and(|strike| strike.until > now) {
            return Added::BackingOff;
        }
        if self.queue.len() >= CAPACITY {
            return Added::Full;
        }
        self.places.insert(identity.to_string(), Place::Waiting { since: now });
        self.queue.push_back(identity.to_string());
        Added::Queued
    }

    /// The node that has waited longest; the caller owes an [`Backlog::end`] for it.
    pub fn take(&mut self, now: Instant, patience: Duration) -> Option<Turn> {
        let identity = self.queue.pop_front()?;
        let stale = match self.places.insert(identity.clone(), Place::Working) {
            Some(Place::Waiting { since }) => now.saturating_duration_since(since) > patience,
            _ => false,
        };
        Some(Turn { identity, stale })
    }

    /// The work on a node ended.
    pub fn end(&mut self, identity: &str, ending: Ending, now: Instant) {
        match ending {
            Ending::Provisioned => {
                let until = now + REST;
                self.places.insert(identity.to_string(), Place::Resting { since: now, until });
                self.resting.push_back((until, identity.to_string()));
                self.unreachable.remove(identity);
            }
            Ending::Released => {
                self.places.remove(identity);
                self.unreachable.remove(identity);
            }
            Ending::Unreachable => {
                self.places.remove(identity);
                self.strike(identity, now);
            }
        }
    }

    /// Forgets everything that waits, as a standby does. What is being worked on ends on its own.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.places.retain(|_, place| !matches!(place, Place::Waiting { .. }));
    }

    /// Nodes in the queue.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Nodes known at all: waiting, worked on, resting.
    pub fn known(&self) -> usize {
        self.places.len()
    }

    fn strike(&mut self, identity: &str, now: Instant) {
        if self.unreachable.len() >= CAPACITY {
            self.unreachable.retain(|_, strike| strike.until > now);
        }
        if self.unreachable.len() >= CAPACITY && !self.unreachable.contains_key(identity) {
            return;
        }
        let strike =
            self.unreachable.entry(identity.to_string()).or_insert(Unreachable { strikes: 0, until: now });
        let pause = BACK_OFF.0.saturating_mul(1 << strike.strikes.min(6)).min(BACK_OFF.1);
        strike.strikes = strike.strikes.saturating_add(1);
        strike.until = now + pause;
    }

    fn wake(&mut self, now: Instant) {
        while let Some((until, identity)) = self.resting.pop_front_if(|(until, _)| *until <= now) {
            // it may have rested again since
            if matches!(self.places.get(&identity), Some(Place::Resting { until: current, .. }) if *current <= until)
            {
                self.places.remove(&identity);
            }
        }
    }
}

/// Names that can be a node and are no part of the network itself.
fn acceptable(identity: &str) -> bool {
    choria_token::names::valid_identity(identity)
        && !matches!(identity, "broker" | "provisioner" | "localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(120);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_worked_on_once_and_rests_a_minute() {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        assert_eq!(backlog.add("n1", Sign::Broadcast, start), Added::Queued);
        assert_eq!(backlog.add("n1", Sign::Broadcast, start), Added::Known);
        let turn = backlog.take(after(start, 1), PATIENCE).unwrap();
        assert_eq!(turn, Turn { identity: "n1".into(), stale: false });
        assert_eq!(backlog.add("n1", Sign::Broadcast, after(start, 1)), Added::Known);
        assert_eq!(backlog.take(start, PATIENCE), None);
        backlog.end("n1", Ending::Provisioned, after(start, 2));
        assert_eq!(backlog.add("n1", Sign::Broadcast, after(start, 61)), Added::Known);
        assert_eq!(backlog.add("n1", Sign::Broadcast, after(start, 62)), Added::Queued);
    }

    #[test]
    fn a_startup_event_ends_the_rest_of_a_node_that_was_sent_back() {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        backlog.add("n1", Sign::Event, start);
        backlog.take(start, PATIENCE).unwrap();
        backlog.end("n1", Ending::Provisioned, start);
        assert_eq!(backlog.add("n1", Sign::Event, after(start, 4)), Added::Known, "a copy");
        assert_eq!(backlog.add("n1", Sign::Broadcast, after(start, 20)), Added::Known);
        assert_eq!(backlog.add("n1", Sign::Event, after(start, 20)), Added::Queued);
        assert_eq!(backlog.add("n1", Sign::Event, after(start, 20)), Added::Known);
        // the end of the first rest is not the end of the wait
        assert_eq!(backlog.add("n1", Sign::Event, after(start, 61)), Added::Known);
        assert_eq!(backlog.take(after(start, 62), PATIENCE).unwrap().identity, "n1");
    }

    #[test]
    fn failure_frees_the_name_at_once() {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        backlog.add("n1", Sign::Broadcast, start);
        backlog.take(start, PATIENCE).unwrap();
        backlog.end("n1", Ending::Released, start);
        assert_eq!(backlog.known(), 0);
        assert_eq!(backlog.add("n1", Sign::Broadcast, start), Added::Queued);
    }

    #[test]
    fn silence_costs_a_minute_then_two_up_to_an_hour() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        for pause in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            assert_eq!(backlog.add("n1", Sign::Broadcast, now), Added::Queued);
            backlog.take(now, PATIENCE).unwrap();
            backlog.end("n1", Ending::Unreachable, now);
            assert_eq!(backlog.add("n1", Sign::Broadcast, after(now, pause - 1)), Added::BackingOff);
            now = after(now, pause);
        }
        backlog.add("n1", Sign::Broadcast, now);
        backlog.take(now, PATIENCE).unwrap();
        backlog.end("n1", Ending::Released, now);
        assert_eq!(backlog.add("n1", Sign::Broadcast, now), Added::Queued, "an answer clears the record");
    }

    #[test]
    fn old_entries_are_stale() {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        backlog.add("n1", Sign::Broadcast, start);
        assert!(backlog.take(after(start, 121), PATIENCE).unwrap().stale);
    }

    #[test]
    fn the_queue_is_bounded_and_never_blocks() {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        for number in 0..CAPACITY {
            assert_eq!(backlog.add(&format!("n{number}"), Sign::Broadcast, start), Added::Queued);
        }
        assert_eq!(backlog.add("late", Sign::Broadcast, start), Added::Full);
        backlog.take(start, PATIENCE).unwrap();
        assert_eq!(backlog.add("late", Sign::Broadcast, start), Added::Queued);
        backlog.clear();
        assert_eq!((backlog.waiting(), backlog.known()), (0, 1));
    }

    #[test]
    fn t_153_names_that_are_none() {
        let mut backlog = Backlog::default();
        for name in ["*", "a b", "../x", "", "broker", "a.>", &"x".repeat(300)] {
            assert_eq!(backlog.add(name, Sign::Broadcast, Instant::now()), Added::Invalid, "{name}");
        }
        choria_rows::row(153, "names *, a b, ../x, empty, broker, a.>, 300 characters", "not queued");
    }
}
