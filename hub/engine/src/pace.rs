//! How fast one connection may publish (`docs/spec/10 §9`): what exceeds its rate waits in the socket.

use std::time::{Duration, Instant};

/// Rates of one connection. Messages and bytes beyond them are read later, never dropped: the peer's own socket is
/// the queue. Subjects with a rate of their own are refused beyond it, so that they hold nothing else up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// Messages: a rate and how many may come at once.
    pub messages: Rate,
    /// Payload bytes, likewise.
    pub bytes: Rate,
    /// Subjects with bounds of their own.
    pub subjects: Vec<SubjectPace>,
}

/// So many each second, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

/// Bounds of the messages whose subject begins with `prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectPace {
    /// With its last dot.
    pub prefix: String,
    pub messages: Rate,
    /// Bytes of one message.
    pub max_payload: usize,
}

/// What a [`SubjectPace`] says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    TooOften,
    TooLarge,
}

/// The state of a connection's [`Pace`].
#[derive(Debug)]
pub(crate) struct Pacer {
    messages: Bucket,
    bytes: Bucket,
    subjects: Vec<(SubjectPace, Bucket)>,
}

impl Pacer {
    pub(crate) fn new(pace: Pace, now: Instant) -> Pacer {
        Pacer {
            messages: Bucket::full(pace.messages, now),
            bytes: Bucket::full(pace.bytes, now),
            subjects: pace
                .subjects
                .into_iter()
                .map(|subject| {
                    let bucket = Bucket::full(subject.messages, now);
                    (subject, bucket)
                })
                .collect(),
        }
    }

    /// Counts a message that was read; refused ones count as well.
    pub(crate) fn count(&mut self, subject: &[u8], size: usize, now: Instant) -> Result<(), Refused> {
        self.messages.take(1.0, now);
        self.bytes.take(size as f64, now);
        let own = self.subjects.iter_mut().find(|(pace, _)| subject.starts_with(pace.prefix.as_bytes()));
        let Some((pace, bucket)) = own else { return Ok(()) };
        if size > pace.max_payload {
            return Err(Refused::TooLarge);
        }
        if bucket.wait(now).is_some() {
            return Err(Refused::TooOften);
        }
        bucket.take(1.0, now);
        Ok(())
    }

    /// How long nothing more is read; `None`: go on.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.messages.wait(now).max(self.bytes.wait(now))
    }
}

/// Tokens that come back with time. It may owe some: one message is never cut in two.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Bucket {
        let burst = f64::from(rate.burst.max(1));
        Bucket { rate: f64::from(rate.per_second.max(1)), burst, tokens: burst, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        self.at = now;
    }

    fn take(&mut self, count: f64, now: Instant) {
        self.refill(now);
        self.tokens -= count;
    }

    /// Until one token is there.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        // A whole token, but for what rounding took from it.
        let missing = 1.0 - self.tokens;
        (missing > 1e-6).then(|| Duration::from_secs_f64(missing / self.rate).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer(now: Instant) -> Pacer {
        let lifecycle = SubjectPace {
            prefix: "choria.lifecycle.".into(),
            messages: Rate { per_second: 1, burst: 5 },
            max_payload: 4096,
        };
        let pace = Pace {
            messages: Rate { per_second: 50, burst: 200 },
            bytes: Rate { per_second: 2 << 20, burst: 2 << 20 },
            subjects: vec![lifecycle],
        };
        Pacer::new(pace, now)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let (mut pacer, mut now, mut sent) = (pacer(start), start, 0);
        while now < start + Duration::from_secs(10) {
            match pacer.wait(now) {
                Some(wait) => now += wait,
                None => {
                    pacer.count(b"provisioning.reply.x", 10, now).expect("no bounds of its own");
                    sent += 1;
                }
            }
        }
        assert!((690..=710).contains(&sent), "200 at once and 50 a second: {sent}");
    }

    #[test]
    fn bytes_count_too_and_one_large_message_is_paid_for_later() {
        let now = Instant::now();
        let mut pacer = pacer(now);
        for _ in 0..3 {
            pacer.count(b"provisioning.reply.x", 1 << 20, now).expect("no bounds of its own");
        }
        let wait = pacer.wait(now).expect("1 MiB is owed");
        assert!(wait > Duration::from_millis(490) && wait < Duration::from_millis(510), "{wait:?}");
        assert_eq!(pacer.wait(now + wait), None);
    }

    #[test]
    fn subjects_with_bounds_of_their_own_are_refused_beyond_them() {
        let now = Instant::now();
        let mut pacer = pacer(now);
        let mut publish =
            |size, now| pacer.count(b"choria.lifecycle.event.startup.provision_mode", size, now);
        assert_eq!(publish(4097, now), Err(Refused::TooLarge));
        assert!((0..5).all(|_| publish(4096, now) == Ok(())));
        assert_eq!(publish(10, now), Err(Refused::TooOften));
        assert_eq!(publish(10, now + Duration::from_secs(1)), Ok(()));
        assert_eq!(publish(10, now + Duration::from_secs(1)), Err(Refused::TooOften));
    }
}
