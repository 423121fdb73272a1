//! The machine itself: connection, dispatch and life-cycle events put together.

use super::{Buffers, Event, Input, Now, Output, Step};
use crate::dispatch::{Body, Context, Counters, Gate, Judge, RespondError, Return, Rules, Via, respond};
use crate::entropy::Entropy;
use crate::lifecycle::{self, ALIVE_INTERVAL_MS, ALIVE_SPLAY_MINUTES, Kind, Source};
use crate::nats::Outgoing;
use crate::nats::sender::SendError;
use crate::replay::ReplayCache;
use crate::session::{AgentRow, Reason, Roster, Session, SessionConfig, SessionEvent, State};

/// What a node has settled for the life of its machine.
#[derive(Debug, Clone, Copy)]
pub struct Config<'c> {
    pub identity: &'c str,
    pub session: SessionConfig<'c>,
    pub rules: Rules<'c>,
    /// `server`, `provision_mode_server` or `service_host`.
    pub component: &'c str,
    pub version: &'c str,
    pub legacy_events: bool,
    /// False for a service host.
    pub node_subjects: bool,
}

/// The agent. Lives as long as its mode: provisioning or member of the fleet.
#[derive(Debug)]
pub struct Core<'c> {
    config: Config<'c>,
    session: Session<'c>,
    replay: ReplayCache<'c>,
    entropy: Entropy,
    counters: Counters,
    announced: bool,
    said_goodbye: bool,
    alive_at_ms: u64,
}

impl<'c> Core<'c> {
    /// `seed` is 32 random bytes for jitter and event ids.
    #[must_use]
    pub fn new(config: Config<'c>, replay: ReplayCache<'c>, seed: [u8; 32]) -> Core<'c> {
        Core {
            config,
            session: Session::new(config.session),
            replay,
            entropy: Entropy::new(seed),
            counters: Counters::default(),
            announced: false,
            said_goodbye: false,
            alive_at_ms: u64::MAX,
        }
    }

    /// The node had no clock and now has: requests that are older than this moment, Unix nanoseconds, are refused.
    pub fn clock_known(&mut self, now: i64) {
        self.replay.start(now);
    }

    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    #[must_use]
    pub const fn state(&self) -> State {
        self.session.state()
    }

    /// When the next [`Input::Tick`] is due, milliseconds on the monotonic clock.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let session = self.session.deadline();
        if self.session.is_ready() { session.map(|at| at.min(self.alive_at_ms)) } else { session }
    }

    /// One step. `agents` keeps its order between steps; `gate` verifies callers and filters.
    pub fn step<'r, 't>(
        &mut self,
        now: Now,
        input: Input<'_>,
        agents: &[AgentRow<'_>],
        gate: &mut dyn Gate,
        buffers: Buffers<'r, 't>,
    ) -> Step<'r, 't> {
        let Buffers { rx, tx } = buffers;
        let ms = now.mono_ms;
        // A new connection is introduced in full before anything that arrived on it is looked at.
        let introducing = match self.session.state() {
            State::Subscribing => true,
            State::Ready => !self.announced,
            _ => false,
        };
        let (consumed, event) = match input {
            Input::Received(_) if introducing => (0, SessionEvent::None),
            Input::Received(bytes) => self.session.feed(ms, bytes, rx, &mut self.entropy),
            Input::Tick => (0, SessionEvent::None),
            Input::Dialed => {
                self.session.dialed();
                (0, SessionEvent::None)
            }
            Input::Secured => (0, self.session.secured()),
            Input::Credentials(credentials) => {
                (0, self.session.credentials(ms, credentials, &mut self.entropy, tx))
            }
            Input::NoCredentials => (0, self.session.lose(ms, Reason::NoCredentials, &mut self.entropy)),
            Input::DialFailed => (0, self.session.lose(ms, Reason::DialFailed, &mut self.entropy)),
            Input::TlsFailed => (0, self.session.lose(ms, Reason::TlsFailed, &mut self.entropy)),
            Input::Disconnected => (0, self.session.lose(ms, Reason::Closed, &mut self.entropy)),
            Input::AgentsChanged => {
                self.session.refresh();
                (0, SessionEvent::None)
            }
            Input::Stop => return Step { consumed: 0, output: self.stop(now, tx) },
        };
        // Whatever came in, a step without a result of its own goes on with what is due.
        let event = if matches!(event, SessionEvent::None) {
            let config = &self.config;
            let roster = Roster {
                collectives: config.rules.collectives,
                identity: config.identity,
                agents,
                node_subjects: config.node_subjects,
            };
            self.session.tick(ms, &roster, &mut self.entropy, tx)
        } else {
            event
        };
        let output = match event {
            SessionEvent::None => self.due_events(now, tx),
            SessionEvent::Dial { attempt } => Output::Dial { attempt },
            SessionEvent::UpgradeTls => Output::UpgradeTls,
            SessionEvent::Authenticate => Output::Authenticate,
            SessionEvent::Send(len) => sent(tx, len),
            SessionEvent::Disconnect(reason) => Output::Disconnect(reason),
            SessionEvent::Ready => Output::Event(Event::Ready),
            SessionEvent::TooLarge { subject, size } => {
                self.counters.total = self.counters.total.saturating_add(1);
                self.counters.unvalidated = self.counters.unvalidated.saturating_add(1);
                self.counters.too_large = self.counters.too_large.saturating_add(1);
                let rx: &'r [u8] = rx;
                Output::Event(Event::TooLarge { subject: subject.text(rx), size })
            }
            SessionEvent::BrokerError(text) => {
                let rx: &'r [u8] = rx;
                Output::Event(Event::BrokerError(text.text(rx)))
            }
            SessionEvent::Message { subject, payload, .. } => {
                let (head, tail) = rx.split_at_mut(payload.start.min(rx.len()));
                let head: &'r [u8] = head;
                let subject = subject.text(head);
                let payload = tail.get_mut(..payload.len()).unwrap_or_default();
                let mut judge = Judge {
                    rules: &self.config.rules,
                    agents,
                    gate,
                    replay: &mut self.replay,
                    counters: &mut self.counters,
                    now: now.wall_nanos,
                };
                match judge.decide(subject, payload) {
                    Ok(verdict) => verdict.into(),
                    Err(refusal) => Output::Event(Event::Refused { reason: refusal.reason, subject }),
                }
            }
        };
        Step { consumed, output }
    }

    /// Renders the reply to a call. Send the result if the connection still stands.
    pub fn respond<'t>(
        &mut self,
        now: Now,
        to: &Return<'_>,
        body: Body<'_>,
        via: Via<'_>,
        tx: &'t mut [u8],
        scratch: &mut [u8],
    ) -> Result<&'t [u8], RespondError> {
        let context = Context {
            identity: self.config.identity,
            time: now.wall_nanos.unwrap_or(1),
            via,
            max_payload: self.session.max_payload(),
        };
        let mut out = Outgoing::new(tx);
        respond(&mut out, to, body, &context, scratch)?;
        self.counters.replies = self.counters.replies.saturating_add(1);
        Ok(out.finish())
    }

    /// Renders a message of the shell's own, e.g. registration data.
    pub fn publish<'t>(
        &self,
        subject: &str,
        reply: Option<&str>,
        payload: &[u8],
        tx: &'t mut [u8],
    ) -> Result<&'t [u8], SendError> {
        if payload.len() > self.session.max_payload() {
            return Err(SendError::NoRoom);
        }
        let mut out = Outgoing::new(tx);
        out.publish(subject, reply, payload)?;
        Ok(out.finish())
    }

    /// Renders a life-cycle event of the shell's own, e.g. `provisioned`.
    pub fn event<'t>(&mut self, now: Now, kind: Kind<'_>, tx: &'t mut [u8]) -> Option<&'t [u8]> {
        let source = Source {
            identity: self.config.identity,
            component: self.config.component,
            version: self.config.version,
            legacy: self.config.legacy_events,
        };
        let seconds = now.wall_nanos.unwrap_or(0).div_euclid(1_000_000_000);
        let mut out = Outgoing::new(tx);
        lifecycle::publish(&mut out, kind, &source, self.entropy.bytes16(), seconds).ok()?;
        self.counters.events = self.counters.events.saturating_add(1);
        Some(out.finish())
    }

    fn due_events<'r, 't>(&mut self, now: Now, tx: &'t mut [u8]) -> Output<'r, 't> {
        if !self.session.is_ready() || self.said_goodbye {
            return Output::Idle;
        }
        let kind = if !self.announced {
            self.announced = true;
            let minutes = u64::from(self.entropy.below(ALIVE_SPLAY_MINUTES));
            self.alive_at_ms = now.mono_ms.saturating_add(minutes.saturating_mul(60_000));
            Kind::Startup
        } else if now.mono_ms >= self.alive_at_ms {
            self.alive_at_ms = now.mono_ms.saturating_add(ALIVE_INTERVAL_MS);
            Kind::Alive
        } else {
            return Output::Idle;
        };
        self.event(now, kind, tx).map_or(Output::Idle, Output::Send)
    }

    fn stop<'r, 't>(&mut self, now: Now, tx: &'t mut [u8]) -> Output<'r, 't> {
        if self.session.is_ready() && !self.said_goodbye {
            self.said_goodbye = true;
            // An event that does not fit the buffer must not keep the node from ending.
            if let Some(bytes) = self.event(now, Kind::Shutdown, tx) {
                return Output::Send(bytes);
            }
        }
        match self.session.stop() {
            SessionEvent::Disconnect(reason) => Output::Disconnect(reason),
            _ => Output::Idle,
        }
    }
}

fn sent<'r, 't>(tx: &'t mut [u8], len: usize) -> Output<'r, 't> {
    let tx: &'t [u8] = tx;
    Output::Send(tx.get(..len).unwrap_or_default())
}
