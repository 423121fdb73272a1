//! The states of a connection and what moves it between them.

use super::connect::{Client, ConnectError, Credentials, write_connect};
use super::info::Info;
use super::subscriptions::{Roster, Walk};
use crate::backoff::{FIVE_SECONDS, TWENTY_SECONDS, delay_ms};
use crate::entropy::Entropy;
use crate::nats::sender::SendError;
use crate::nats::{Frame, Limits, Outgoing, Parser, ProtocolError, Span};

/// Bytes a broker may send before it has accepted us (`docs/spec/10 §9`).
const MAX_BEFORE_PONG: usize = 64 * 1024;

/// What stays the same over all connections of a node.
#[derive(Debug, Clone, Copy)]
pub struct SessionConfig<'c> {
    pub client: Client<'c>,
    /// Refuse a broker that offers no TLS. A token is never sent without TLS, so this is off only for networks
    /// that use none.
    pub require_tls: bool,
    /// Brokers to go through before the next longer wait; at least 1.
    pub servers: u32,
    /// Time for TCP, TLS and authentication together, milliseconds.
    pub connect_timeout_ms: u64,
    pub ping_interval_ms: u64,
    /// Unanswered PINGs that end a connection.
    pub pings_out: u8,
    pub limits: Limits,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Between attempts, until the time given.
    Waiting {
        until_ms: u64,
    },
    Dialing,
    /// TCP is up, INFO has not come.
    Greeting,
    /// The shell makes the TLS handshake.
    Securing,
    /// The shell reads token and seed.
    Proving,
    /// CONNECT is out, PONG has not come.
    Confirming,
    Subscribing,
    Ready,
    /// Ended by the shell.
    Stopped,
}

impl State {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Waiting { .. } => "waiting",
            State::Dialing => "dialing",
            State::Greeting => "greeting",
            State::Securing => "securing",
            State::Proving => "proving",
            State::Confirming => "confirming",
            State::Subscribing => "subscribing",
            State::Ready => "ready",
            State::Stopped => "stopped",
        }
    }
}

/// Why a connection ended or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    DialFailed,
    /// The peer closed, or the transport failed.
    Closed,
    Timeout,
    /// TLS is wanted and the broker offers none.
    TlsNotOffered,
    TlsFailed,
    /// Bytes behind INFO before the handshake: somebody injects plain text.
    PlaintextBeforeTls,
    Protocol(ProtocolError),
    /// INFO is not the first thing, or no JSON.
    BadInfo,
    /// No nonce, or something else in its place.
    NonceBad,
    /// The shell has no usable credentials, e.g. an expired token.
    NoCredentials,
    /// The broker refused the credentials.
    AuthorizationViolation,
    TooMuchBeforeReady,
    /// PINGs stay unanswered.
    Stale,
    /// A line of ours does not fit the output buffer.
    OutputTooSmall,
    /// The shell asked for it.
    Stopped,
}

impl Reason {
    /// One word for the log (`docs/spec/10 §8`).
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Reason::DialFailed => "dial_failed",
            Reason::Closed => "closed",
            Reason::Timeout => "timeout",
            Reason::TlsNotOffered => "tls_required",
            Reason::TlsFailed => "tls_failed",
            Reason::PlaintextBeforeTls => "plaintext_before_tls",
            Reason::Protocol(_) => "protocol",
            Reason::BadInfo => "info_bad",
            Reason::NonceBad => "nonce_bad",
            Reason::NoCredentials => "no_credentials",
            Reason::AuthorizationViolation => "authorization_violation",
            Reason::TooMuchBeforeReady => "limit",
            Reason::Stale => "stale",
            Reason::OutputTooSmall => "output_too_small",
            Reason::Stopped => "stopped",
        }
    }
}

/// What the session wants done or has to tell. Spans point into the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    None,
    /// Open a TCP connection. The number counts attempts since the last working connection, from 1.
    Dial {
        attempt: u32,
    },
    UpgradeTls,
    /// Call [`Session::credentials`].
    Authenticate,
    /// Send this many bytes from the front of the output buffer.
    Send(usize),
    /// Close the connection; the next attempt is already scheduled.
    Disconnect(Reason),
    /// All subscriptions are out.
    Ready,
    Message {
        subject: Span,
        reply: Span,
        payload: Span,
    },
    TooLarge {
        subject: Span,
        size: u64,
    },
    /// Text of a -ERR that does not end the connection by itself.
    BrokerError(Span),
}

/// The connection.
#[derive(Debug)]
pub struct Session<'c> {
    config: SessionConfig<'c>,
    state: State,
    parser: Parser,
    info: Option<Info>,
    attempt: u32,
    connected_before: bool,
    tls: bool,
    started_ms: u64,
    last_ping_ms: u64,
    unanswered: u8,
    before_ready: usize,
    walk: Walk,
    /// A PING of the broker's waits for its answer.
    owes_pong: bool,
}

impl<'c> Session<'c> {
    #[must_use]
    pub fn new(config: SessionConfig<'c>) -> Session<'c> {
        Session {
            config,
            state: State::Waiting { until_ms: 0 },
            parser: Parser::new(config.limits),
            info: None,
            attempt: 0,
            connected_before: false,
            tls: false,
            started_ms: 0,
            last_ping_ms: 0,
            unanswered: 0,
            before_ready: 0,
            walk: Walk::default(),
            owes_pong: false,
        }
    }

    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Largest payload the broker takes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.info.map_or(1 << 20, |info| usize::try_from(info.max_payload).unwrap_or(usize::MAX))
    }

    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// When [`Session::tick`] has something to do, milliseconds on the caller's clock.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ms } => Some(until_ms),
            State::Stopped => None,
            State::Subscribing => Some(0),
            State::Ready => Some(self.last_ping_ms.saturating_add(self.config.ping_interval_ms)),
            _ => Some(self.started_ms.saturating_add(self.config.connect_timeout_ms)),
        }
    }

    /// Time has passed.
    pub fn tick(
        &mut self,
        now: u64,
        roster: &Roster<'_>,
        entropy: &mut Entropy,
        tx: &mut [u8],
    ) -> SessionEvent {
        match self.state {
            State::Waiting { until_ms } if now >= until_ms => {
                self.state = State::Dialing;
                self.attempt = self.attempt.saturating_add(1);
                self.started_ms = now;
                SessionEvent::Dial { attempt: self.attempt }
            }
            State::Waiting { .. } | State::Stopped => SessionEvent::None,
            State::Subscribing | State::Ready if self.owes_pong => self.answer_ping(now, entropy, tx),
            State::Subscribing => self.subscribe(now, roster, entropy, tx),
            State::Ready if now >= self.last_ping_ms.saturating_add(self.config.ping_interval_ms) => {
                if self.unanswered >= self.config.pings_out {
                    return self.lose(now, Reason::Stale, entropy);
                }
                self.unanswered = self.unanswered.saturating_add(1);
                self.last_ping_ms = now;
                self.emit(now, entropy, tx, |out| out.ping())
            }
            State::Ready => SessionEvent::None,
            _ if now >= self.started_ms.saturating_add(self.config.connect_timeout_ms) => {
                self.lose(now, Reason::Timeout, entropy)
            }
            State::Confirming if self.owes_pong => self.answer_ping(now, entropy, tx),
            _ => SessionEvent::None,
        }
    }

    /// TCP is up.
    pub fn dialed(&mut self) {
        if self.state == State::Dialing {
            self.state = State::Greeting;
            self.parser.reset();
            self.info = None;
            self.tls = false;
            self.before_ready = 0;
            self.unanswered = 0;
            self.owes_pong = false;
        }
    }

    /// The TLS handshake is done.
    pub fn secured(&mut self) -> SessionEvent {
        if self.state != State::Securing {
            return SessionEvent::None;
        }
        self.tls = true;
        self.state = State::Proving;
        SessionEvent::Authenticate
    }

    /// The answer to [`SessionEvent::Authenticate`].
    pub fn credentials(
        &mut self,
        now: u64,
        credentials: &Credentials<'_>,
        entropy: &mut Entropy,
        tx: &mut [u8],
    ) -> SessionEvent {
        if self.state != State::Proving {
            return SessionEvent::None;
        }
        if credentials.token.is_some() && self.config.require_tls && !self.tls {
            return self.lose(now, Reason::TlsNotOffered, entropy);
        }
        let mut out = Outgoing::new(tx);
        let nonce = self.info.as_ref().and_then(Info::nonce);
        match write_connect(&mut out, &self.config.client, credentials, nonce, self.tls) {
            Ok(()) => {
                self.state = State::Confirming;
                SessionEvent::Send(out.len())
            }
            Err(ConnectError::Nonce) => self.lose(now, Reason::NonceBad, entropy),
            Err(ConnectError::NoRoom) => self.lose(now, Reason::OutputTooSmall, entropy),
        }
    }

    /// The transport is gone, could not be made, or has to go. The next attempt is scheduled.
    pub fn lose(&mut self, now: u64, reason: Reason, entropy: &mut Entropy) -> SessionEvent {
        if matches!(self.state, State::Waiting { .. } | State::Stopped) {
            return SessionEvent::None;
        }
        let servers = self.config.servers.max(1);
        let pass = self.attempt.checked_div(servers).unwrap_or(0);
        let wait = if self.attempt.checked_rem(servers) == Some(0) || self.attempt == 0 {
            let table = if self.connected_before { TWENTY_SECONDS } else { FIVE_SECONDS };
            delay_ms(table, pass.max(1), entropy.u32())
        } else {
            // The next broker of the same pass: at once, but not all nodes in the same instant.
            u64::from(entropy.below(100))
        };
        self.state = State::Waiting { until_ms: now.saturating_add(wait) };
        SessionEvent::Disconnect(reason)
    }

    /// No more connections.
    pub fn stop(&mut self) -> SessionEvent {
        let open = !matches!(self.state, State::Waiting { .. } | State::Stopped);
        self.state = State::Stopped;
        if open { SessionEvent::Disconnect(Reason::Stopped) } else { SessionEvent::None }
    }

    /// The set of agents has changed.
    pub fn refresh(&mut self) {
        if self.state == State::Ready {
            self.walk.restart(false);
            self.state = State::Subscribing;
        }
    }

    /// Takes bytes of the broker. Returns how many and what they mean; the rest is for the next call.
    pub fn feed(
        &mut self,
        now: u64,
        input: &[u8],
        rx: &mut [u8],
        entropy: &mut Entropy,
    ) -> (usize, SessionEvent) {
        match self.state {
            State::Waiting { .. } | State::Stopped | State::Dialing => {
                return (input.len(), SessionEvent::None);
            }
            State::Securing | State::Proving if !self.tls && !input.is_empty() => {
                return (input.len(), self.lose(now, Reason::PlaintextBeforeTls, entropy));
            }
            _ => {}
        }
        let (used, frame) = match self.parser.feed(input, rx) {
            Ok(done) => done,
            Err(error) => return (input.len(), self.lose(now, Reason::Protocol(error), entropy)),
        };
        if !matches!(self.state, State::Subscribing | State::Ready) {
            self.before_ready = self.before_ready.saturating_add(used);
            if self.before_ready > MAX_BEFORE_PONG {
                return (input.len(), self.lose(now, Reason::TooMuchBeforeReady, entropy));
            }
        }
        let Some(frame) = frame else { return (used, SessionEvent::None) };
        let event = self.on_frame(now, frame, rx, entropy);
        let rest = input.get(used..).unwrap_or_default();
        if matches!(event, SessionEvent::UpgradeTls) && !rest.is_empty() {
            return (input.len(), self.lose(now, Reason::PlaintextBeforeTls, entropy));
        }
        (used, event)
    }

    fn on_frame(&mut self, now: u64, frame: Frame, rx: &[u8], entropy: &mut Entropy) -> SessionEvent {
        let up = matches!(self.state, State::Subscribing | State::Ready);
        match frame {
            Frame::Info(json) => self.on_info(now, json.of(rx), entropy),
            _ if self.state == State::Greeting => self.lose(now, Reason::BadInfo, entropy),
            Frame::Pong if self.state == State::Confirming => {
                self.state = State::Subscribing;
                self.walk.restart(true);
                self.attempt = 0;
                self.connected_before = true;
                self.last_ping_ms = now;
                SessionEvent::None
            }
            Frame::Pong => {
                self.unanswered = 0;
                SessionEvent::None
            }
            Frame::Ping => {
                self.owes_pong = true;
                SessionEvent::None
            }
            Frame::Ok => SessionEvent::None,
            Frame::Error(text) if up => SessionEvent::BrokerError(text),
            Frame::Error(text) => {
                let refused =
                    text.of(rx).get(..13).is_some_and(|head| head.eq_ignore_ascii_case(b"authorization"));
                self.lose(now, if refused { Reason::AuthorizationViolation } else { Reason::Closed }, entropy)
            }
            Frame::Message { subject, reply, payload, .. } if up => {
                SessionEvent::Message { subject, reply, payload }
            }
            Frame::TooLarge { subject, size, .. } if up => SessionEvent::TooLarge { subject, size },
            Frame::Message { .. } | Frame::TooLarge { .. } => {
                self.lose(now, Reason::Protocol(ProtocolError::UnknownOperation), entropy)
            }
        }
    }

    fn on_info(&mut self, now: u64, json: &[u8], entropy: &mut Entropy) -> SessionEvent {
        if self.state != State::Greeting {
            // Later INFO lines tell of other brokers and of lame ducks; we know our brokers.
            return SessionEvent::None;
        }
        let Ok(info) = Info::parse(json) else { return self.lose(now, Reason::BadInfo, entropy) };
        self.info = Some(info);
        if info.nonce_refused {
            return self.lose(now, Reason::NonceBad, entropy);
        }
        if info.tls_required || (self.config.require_tls && info.tls_available) {
            self.state = State::Securing;
            return SessionEvent::UpgradeTls;
        }
        if self.config.require_tls {
            return self.lose(now, Reason::TlsNotOffered, entropy);
        }
        self.state = State::Proving;
        SessionEvent::Authenticate
    }

    fn answer_ping(&mut self, now: u64, entropy: &mut Entropy, tx: &mut [u8]) -> SessionEvent {
        self.owes_pong = false;
        self.emit(now, entropy, tx, |out| out.pong())
    }

    fn subscribe(
        &mut self,
        now: u64,
        roster: &Roster<'_>,
        entropy: &mut Entropy,
        tx: &mut [u8],
    ) -> SessionEvent {
        let mut out = Outgoing::new(tx);
        match self.walk.write(roster, &mut out) {
            Ok(_) if !out.is_empty() => SessionEvent::Send(out.len()),
            Ok(_) => {
                self.state = State::Ready;
                SessionEvent::Ready
            }
            Err(_) => self.lose(now, Reason::OutputTooSmall, entropy),
        }
    }

    fn emit(
        &mut self,
        now: u64,
        entropy: &mut Entropy,
        tx: &mut [u8],
        write: impl FnOnce(&mut Outgoing<'_>) -> Result<(), SendError>,
    ) -> SessionEvent {
        let mut out = Outgoing::new(tx);
        match write(&mut out) {
            Ok(()) => SessionEvent::Send(out.len()),
            Err(_) => self.lose(now, Reason::OutputTooSmall, entropy),
        }
    }
}
