//! What a connected client may ask for: publishing, subscribing, PING, a second CONNECT.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::parse_failure;
use crate::client::Client;
use crate::close::{CloseReason, error_line, quoted};
use crate::connect::ConnectOptions;
use crate::engine::Shared;
use crate::pace::{Pacer, Refused};
use crate::parser::{Op, ParseError};
use crate::permissions::SubscribeDecision;
use crate::router::{ANSWER_PREFIX, Message, Outcome, Route, Scratch, is_reserved_reply};
use crate::subject;
use crate::subscription::{Sid, Sub};

/// Routes that a connection remembers.
const CACHED_ROUTES: usize = 512;

/// A client's operations, and what they act upon.
#[derive(Debug)]
pub(super) struct Operations {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Arc<Client>,
    pub(super) routes: HashMap<Box<[u8]>, Arc<Route>>,
    pub(super) last: Option<Arc<Route>>,
    pub(super) scratch: Scratch,
    pub(super) verbose: bool,
    pub(super) pedantic: bool,
    pub(super) no_responders: bool,
    pub(super) max_subscriptions: usize,
    pub(super) greeted: bool,
    pub(super) pings_out: u32,
    pub(super) ping_sent: Option<Instant>,
    pub(super) msgs: u64,
    pub(super) bytes: u64,
    pub(super) stalled: bool,
    pub(super) pacer: Option<Box<Pacer>>,
}

impl Operations {
    /// Does what a client asked for; an error ends the connection.
    pub(super) fn act(&mut self, op: Op<'_>) -> Result<(), CloseReason> {
        match op {
            Op::Pub { subject, reply, payload } => {
                self.publish(Message { subject, reply, header_len: 0, body: payload });
            }
            Op::Hpub { subject, reply, header_len, message } => {
                self.publish(Message { subject, reply, header_len, body: message });
            }
            Op::Sub { subject, queue, sid } => self.subscribe(subject, queue, sid),
            Op::Unsub { sid, max } => self.unsubscribe(sid, max),
            Op::Ping => self.greet(),
            Op::Pong => {
                self.pings_out = 0;
                if let Some(sent) = self.ping_sent.take() {
                    let nanos = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    self.client.rtt.store(nanos.max(1), Ordering::Relaxed);
                }
            }
            Op::Ok | Op::Info => {}
            Op::Err(_) => return Err(CloseReason::ClientClosed),
            Op::Connect(json) => self.reconnect(json)?,
        }
        Ok(())
    }

    pub(super) fn parse_failure(&self, error: ParseError) -> CloseReason {
        if let Some(suppressed) = self.shared.may_log("protocol", &self.client) {
            tracing::info!(
                reason = "protocol", cid = self.client.cid, user = ?self.client.user, detail = %error,
                remote = self.client.remote.map(tracing::field::display), suppressed, "connection closed",
            );
        }
        parse_failure(error)
    }

    /// A second CONNECT may change how the connection talks, never who it is.
    fn reconnect(&mut self, json: &[u8]) -> Result<(), CloseReason> {
        let Ok(options) = ConnectOptions::parse(json) else { return Err(CloseReason::ProtocolViolation) };
        if options.has_credentials() || !options.account.is_empty() || options.new_account {
            self.shared.log_denial(
                self.client.remote,
                "nonce_reused",
                "a second CONNECT with credentials on one connection",
                &self.client.name,
            );
            return Err(CloseReason::AuthenticationFailure);
        }
        if options.no_responders && !options.headers {
            return Err(CloseReason::NoRespondersRequiresHeaders);
        }
        self.verbose = options.verbose;
        self.pedantic = options.pedantic;
        self.no_responders = options.no_responders;
        self.client.echo.store(options.echo, Ordering::Relaxed);
        self.client.headers.store(options.headers, Ordering::Relaxed);
        self.ok();
        Ok(())
    }

    /// PONG; the first one is followed by what the connection has become.
    fn greet(&mut self) {
        self.client.send_control(b"PONG\r\n");
        if !self.greeted && self.client.protocol >= 1 {
            let info = self.shared.connected_info(&self.client);
            self.client.send_control(&info);
        }
        self.greeted = true;
    }

    fn ok(&self) {
        if self.verbose {
            self.client.send_control(b"+OK\r\n");
        }
    }

    fn error(&self, text: &str) {
        self.client.send_control(&error_line(text));
    }

    /// Refuses an operation of a connection that stays.
    fn violation(&self, text: &str) {
        self.refuse("permission_missing", text);
    }

    fn refuse(&self, reason: &'static str, text: &str) {
        self.shared.log_violation(&self.client, reason, text);
        self.error(text);
    }

    fn publish(&mut self, message: Message<'_>) {
        self.msgs += 1;
        self.bytes += message.body.len() as u64;
        if let Some(pacer) = &mut self.pacer
            && let Err(refused) = pacer.count(message.subject, message.body.len(), Instant::now())
        {
            let why = match refused {
                Refused::TooOften => "too often",
                Refused::TooLarge => "too large",
            };
            // Worded like a refused permission: clients stay connected at those.
            let subject = quoted(message.subject);
            self.refuse("limit", &format!("Permissions Violation for Publish to {subject}, {why}"));
            return;
        }
        if is_reserved_reply(message.reply) {
            self.violation(&format!(
                "Permissions Violation for Publish with Reply of {}",
                quoted(message.reply)
            ));
            return;
        }
        let route = self.route(message.subject);
        let system = matches!(message.subject.first(), Some(b'_' | b'$'));
        if !route.allowed || (system && self.shared.is_reserved_subject(message.subject, &self.client)) {
            self.violation(&format!("Permissions Violation for Publish to {}", quoted(message.subject)));
            return;
        }
        if self.pedantic && !subject::valid_literal(message.subject) {
            self.error("Invalid Publish Subject");
        }
        let outcome =
            if system { self.publish_system(message, &route) } else { self.deliver(message, &route) };
        let Some(outcome) = outcome else {
            self.violation(&format!("Permissions Violation for Publish to {}", quoted(message.subject)));
            return;
        };
        self.stalled |= outcome.stalled;
        if outcome.delivered == 0 && self.no_responders && !message.reply.is_empty() {
            self.shared.no_responders(message.subject, message.reply, &self.client);
        }
        self.ok();
    }

    fn deliver(&mut self, message: Message<'_>, route: &Route) -> Option<Outcome> {
        Some(self.shared.route(route, message, &self.client, &mut self.scratch))
    }

    /// Subjects with a meaning of their own. `None`: refused.
    fn publish_system(&mut self, message: Message<'_>, route: &Route) -> Option<Outcome> {
        if message.subject.starts_with(ANSWER_PREFIX) {
            return self.shared.answer(
                self.client.account.index,
                message,
                &self.client,
                &mut self.scratch,
                0,
            );
        }
        if message.subject == b"$SYS.REQ.USER.INFO" && !message.reply.is_empty() {
            return Some(self.shared.answer_user_info(message, &self.client, &mut self.scratch));
        }
        self.deliver(message, route)
    }

    /// The route of a subject, from the last message, the cache, or the tables.
    fn route(&mut self, subject: &[u8]) -> Arc<Route> {
        let account = &self.client.account;
        if let Some(route) = &self.last
            && route.subject.as_ref() == subject
            && route.is_current(account)
        {
            return Arc::clone(route);
        }
        let route = match self.routes.get(subject) {
            Some(route) if route.is_current(account) => Arc::clone(route),
            _ => {
                let route = Arc::new(Route::new(&self.client, subject));
                if self.routes.len() >= CACHED_ROUTES {
                    self.routes.clear();
                }
                self.routes.insert(subject.into(), Arc::clone(&route));
                route
            }
        };
        self.last = Some(Arc::clone(&route));
        route
    }

    fn subscribe(&mut self, subject: &[u8], queue: &[u8], sid: &[u8]) {
        let config = &self.shared.config;
        if !subject::valid_pattern(subject) || subject.len() > config.max_subject {
            self.error("Invalid Subject");
            return;
        }
        if subject.split(|b| *b == b'.').count() > config.max_subject_tokens {
            self.violation(&format!(
                "Permissions Violation for Subscription to {}, too many tokens",
                quoted(subject)
            ));
            return;
        }
        let decision = self.client.permissions.may_subscribe(subject, queue);
        if decision == SubscribeDecision::Denied {
            let text = format!("Permissions Violation for Subscription to {}", quoted(subject));
            if queue.is_empty() {
                self.violation(&text);
            } else {
                self.violation(&format!("{text} using queue {}", quoted(queue)));
            }
            return;
        }
        let sid = Sid::new(sid);
        {
            let subs = self.client.lock_subs();
            if subs.contains_key(&sid) {
                drop(subs);
                self.ok();
                return;
            }
            if self.max_subscriptions > 0 && subs.len() >= self.max_subscriptions {
                drop(subs);
                self.error("maximum subscriptions exceeded");
                return;
            }
        }
        let sub = Sub {
            client: Arc::clone(&self.client),
            sid,
            subject: subject.into(),
            queue: queue.into(),
            filtered: decision == SubscribeDecision::Filtered,
            max: 0.into(),
            delivered: 0.into(),
            slot: 0.into(),
            shadow: None,
            local: None,
        };
        self.shared.subscribe(&self.client, sub);
        self.ok();
    }

    fn unsubscribe(&mut self, sid: &[u8], max: u64) {
        let sid = Sid::new(sid);
        let stays = max > 0 && {
            let subs = self.client.lock_subs();
            subs.get(&sid).is_some_and(|held| {
                held.sub.max.store(max, Ordering::Relaxed);
                held.sub.delivered.load(Ordering::Relaxed) < max
            })
        };
        if !stays {
            self.shared.unsubscribe(&self.client, &sid);
        }
        self.ok();
    }
}
