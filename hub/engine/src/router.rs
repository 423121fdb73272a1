//! From a published message to the queues of those who get it: matching, fan-out, service imports, answers.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::account::{Account, ServiceImport, Version};
use crate::client::{Client, Enqueued, Held};
use crate::close::{error_line, quoted};
use crate::engine::Shared;
use crate::headers;
use crate::subject;
use crate::sublist::Matches;
use crate::subscription::{Shadow, Sid, Sub};

/// Payloads from here on are shared between several receivers instead of copied to each, bytes.
const SHARE_FROM: usize = 2048;
/// Bodies up to here are put behind the rest of their line once, and copied to each receiver in one piece, bytes.
const JOIN_UP_TO: usize = 512;
/// Service imports that one request may pass.
const MAX_HOPS: usize = 4;
/// How long an imported service may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(120);
/// Unanswered requests to imported services, at one time.
const MAX_AWAITED: usize = 65_536;
/// Subjects of answers to requests that crossed an import.
pub(crate) const ANSWER_PREFIX: &[u8] = b"_R_.";
/// The header that tells an imported service who asks.
const REQUEST_INFO: &[u8] = b"Nats-Request-Info";
/// Reply subjects that a client may not choose: only the engine makes them.
const RESERVED_REPLIES: [&[u8]; 4] = [ANSWER_PREFIX, b"$JS.ACK.", b"_GR_.", b"$GR."];

/// A message on its way. `body` begins with `header_len` bytes of header block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) subject: &'a [u8],
    pub(crate) reply: &'a [u8],
    pub(crate) header_len: usize,
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    pub(crate) fn payload(&self) -> &'a [u8] {
        self.body.get(self.header_len..).unwrap_or_default()
    }
}

/// Buffers that a publisher lends to each delivery, so that none allocates.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    head: Vec<u8>,
    suffix: Vec<u8>,
    plain_suffix: Vec<u8>,
    /// `suffix`, body and CRLF, when the body is small.
    joined: Vec<u8>,
    ended: Vec<Arc<Sub>>,
    /// State of the choice of queue members; not for anything that must be hard to guess.
    random: u64,
}

/// What became of a message.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) delivered: usize,
    /// A receiver is so far behind that the publisher should wait.
    pub(crate) stalled: bool,
}

/// A subject's receivers and rights as one connection cached them.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) subject: Box<[u8]>,
    pub(crate) allowed: bool,
    pub(crate) matches: Matches,
    /// Indexes of the account's service imports.
    pub(crate) services: Vec<usize>,
    pub(crate) shard: usize,
    pub(crate) version: Version,
}

impl Route {
    pub(crate) fn new(client: &Client, subject: &[u8]) -> Route {
        let account = &client.account;
        let version = account.version(subject);
        Route {
            subject: subject.into(),
            allowed: client.permissions.may_publish(subject) && subject::is_word(subject),
            matches: account.matches(subject),
            services: matching_services(account, subject),
            shard: account.shard_index(subject),
            version,
        }
    }

    pub(crate) fn is_current(&self, account: &Account) -> bool {
        account.version_of(self.shard) == self.version
    }
}

fn matching_services(account: &Account, subject: &[u8]) -> Vec<usize> {
    let all = account.services.iter().enumerate();
    all.filter(|(_, service)| subject::matches(&service.subject, subject)).map(|(at, _)| at).collect()
}

/// Whether a client may not choose `reply`: it is the engine's, or no text that others could read.
pub(crate) fn is_reserved_reply(reply: &[u8]) -> bool {
    let reserved = matches!(reply.first(), Some(b'_' | b'$'))
        && RESERVED_REPLIES.iter().any(|prefix| reply.starts_with(prefix));
    reserved || !subject::is_word(reply)
}

/// Answers that imported services owe.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    requests: Mutex<HashMap<Box<[u8]>, Request>>,
}

#[derive(Debug)]
struct Request {
    importer: usize,
    exporter: usize,
    reply: Box<[u8]>,
    until: Instant,
}

impl Awaited {
    fn add(&self, subject: &[u8], request: Request) -> bool {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() >= MAX_AWAITED {
            let now = Instant::now();
            requests.retain(|_, request| request.until > now);
        }
        if requests.len() >= MAX_AWAITED {
            return false;
        }
        requests.insert(subject.into(), request);
        true
    }

    fn take(&self, subject: &[u8], exporter: usize) -> Option<Request> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.get(subject)?.exporter != exporter {
            return None;
        }
        requests.remove(subject).filter(|request| request.until > Instant::now())
    }
}

impl Shared {
    /// Delivers to everyone in `matches` and to the imported services of the route.
    pub(crate) fn route(
        &self,
        route: &Route,
        message: Message<'_>,
        origin: &Client,
        scratch: &mut Scratch,
    ) -> Outcome {
        if !self.readable_header(&message, origin) {
            return Outcome::default();
        }
        let mut outcome = self.deliver(&route.matches, message, origin, scratch);
        for service in route.services.iter().filter_map(|at| origin.account.services.get(*at)) {
            self.forward(&origin.account, service, message, origin, scratch, 0, &mut outcome);
        }
        outcome
    }

    /// Publishes in `account` without a cached route.
    pub(crate) fn publish_in(
        &self,
        account: &Account,
        message: Message<'_>,
        origin: &Client,
        scratch: &mut Scratch,
        hops: usize,
    ) -> Outcome {
        if message.subject.starts_with(ANSWER_PREFIX) {
            return self.answer(account.index, message, origin, scratch, hops).unwrap_or_default();
        }
        let mut outcome = self.deliver(&account.matches(message.subject), message, origin, scratch);
        for at in matching_services(account, message.subject) {
            if let Some(service) = account.services.get(at) {
                self.forward(account, service, message, origin, scratch, hops, &mut outcome);
            }
        }
        outcome
    }

    /// Takes an answer back to the account that asked. `None`: nobody waits for it.
    pub(crate) fn answer(
        &self,
        exporter: usize,
        message: Message<'_>,
        origin: &Client,
        scratch: &mut Scratch,
        hops: usize,
    ) -> Option<Outcome> {
        if hops > MAX_HOPS {
            return None;
        }
        if !self.readable_header(&message, origin) {
            return Some(Outcome::default());
        }
        let request = self.awaited.take(message.subject, exporter)?;
        let importer = self.accounts.get(request.importer)?;
        let message = Message { subject: &request.reply, ..message };
        Some(self.publish_in(importer, message, origin, scratch, hops + 1))
    }

    /// Whether everybody who gets the message can read its header block; else its publisher is told, and nobody gets it.
    fn readable_header(&self, message: &Message<'_>, origin: &Client) -> bool {
        let block = message.body.get(..message.header_len).unwrap_or_default();
        if block.is_empty() || headers::is_well_formed(block) {
            return true;
        }
        let text = format!("Malformed Headers for Publish to {}", quoted(message.subject));
        self.log_violation(origin, "header_malformed", &text);
        origin.send_control(&error_line(&text));
        false
    }

    /// Sends a request on to the account whose service it names.
    #[expect(clippy::too_many_arguments, reason = "one step of a recursion over borrowed state")]
    fn forward(
        &self,
        importer: &Account,
        service: &ServiceImport,
        message: Message<'_>,
        origin: &Client,
        scratch: &mut Scratch,
        hops: usize,
        outcome: &mut Outcome,
    ) {
        let Some(exporter) = self.accounts.get(service.account) else { return };
        if hops > MAX_HOPS {
            return;
        }
        let to = subject::rewrite(&service.subject, &service.to, message.subject);
        let mut reply = Vec::new();
        let passes = message.reply.is_empty() || message.reply.starts_with(b"$JS.ACK.");
        if passes {
            reply.extend_from_slice(message.reply);
        } else {
            let Ok(fresh) = self.answer_subject() else { return };
            reply = fresh;
            let request = Request {
                importer: importer.index,
                exporter: exporter.index,
                reply: message.reply.into(),
                until: Instant::now() + ANSWER_TIME,
            };
            if !self.awaited.add(&reply, request) {
                return;
            }
        }
        let (header, payload) = (self.request_header(importer, origin, &message), message.payload());
        let body = [header.as_slice(), payload].concat();
        let forwarded = Message { subject: &to, reply: &reply, header_len: header.len(), body: &body };
        let result = self.publish_in(exporter, forwarded, origin, scratch, hops + 1);
        if result.delivered == 0 && !passes {
            self.awaited.take(&reply, exporter.index);
        }
        outcome.delivered += result.delivered;
        outcome.stalled |= result.stalled;
    }

    /// The header block of a request that enters another account: the publisher's own, with our statement of
    /// who asks instead of anything that the publisher wrote there.
    fn request_header(&self, importer: &Account, origin: &Client, message: &Message<'_>) -> Vec<u8> {
        let mut header = b"NATS/1.0\r\n".to_vec();
        let info = serde_json::json!({
            "acc": importer.name, "user": origin.user, "id": origin.cid, "server": self.name(),
        });
        header.extend_from_slice(REQUEST_INFO);
        header.extend_from_slice(b": ");
        header.extend_from_slice(info.to_string().as_bytes());
        header.extend_from_slice(b"\r\n");
        let old = message.body.get(..message.header_len).unwrap_or_default();
        for line in old.split(|b| *b == b'\n').skip(1).map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
            let key = line.split(|b| *b == b':').next().unwrap_or_default();
            if line.is_empty() || key.eq_ignore_ascii_case(REQUEST_INFO) {
                continue;
            }
            header.extend_from_slice(line);
            header.extend_from_slice(b"\r\n");
        }
        header.extend_from_slice(b"\r\n");
        header
    }

    /// Fans a message out. Every plain subscriber gets it, and one member of every queue group.
    pub(crate) fn deliver(
        &self,
        matches: &Matches,
        message: Message<'_>,
        origin: &Client,
        scratch: &mut Scratch,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        if matches.is_empty() {
            return outcome;
        }
        scratch.prepare(&message);
        let shared = (message.body.len() >= SHARE_FROM && matches.plain_count() > 1).then(|| {
            let mut bytes = BytesMut::with_capacity(message.body.len() + 2);
            bytes.extend_from_slice(message.body);
            bytes.extend_from_slice(b"\r\n");
            bytes.freeze()
        });
        for sub in matches.plain() {
            match self.deliver_to(sub, message, shared.as_ref(), origin, scratch) {
                Enqueued::Accepted => outcome.delivered += 1,
                Enqueued::Stalled => {
                    outcome.delivered += 1;
                    outcome.stalled = true;
                }
                Enqueued::Refused => {}
            }
        }
        for members in &matches.queues {
            let start = scratch.pick(members.len());
            let (before, from) = members.split_at_checked(start).unwrap_or((&[], members));
            for sub in from.iter().chain(before) {
                let result = self.deliver_to(sub, message, None, origin, scratch);
                if result != Enqueued::Refused {
                    outcome.delivered += 1;
                    outcome.stalled |= result == Enqueued::Stalled;
                    break;
                }
            }
        }
        while let Some(sub) = scratch.ended.pop() {
            self.unsubscribe(&sub.client, &sub.sid);
        }
        self.shed();
        outcome
    }

    fn deliver_to(
        &self,
        sub: &Arc<Sub>,
        message: Message<'_>,
        shared: Option<&Bytes>,
        origin: &Client,
        scratch: &mut Scratch,
    ) -> Enqueued {
        let client = &sub.client;
        if client.cid == origin.cid && !origin.echo.load(Ordering::Relaxed) {
            return Enqueued::Refused;
        }
        let prefix: &[u8] = sub.shadow.as_ref().map_or(b"", |shadow| &shadow.prefix);
        if sub.filtered && !client.permissions.may_receive(&[prefix, message.subject].concat()) {
            return Enqueued::Refused;
        }
        let own = sub.own();
        let number = own.delivered.fetch_add(1, Ordering::Relaxed) + 1;
        let max = own.max.load(Ordering::Relaxed);
        if max != 0 {
            if number > max {
                return Enqueued::Refused;
            }
            if number == max {
                scratch
                    .ended
                    .push(sub.shadow.as_ref().map_or_else(|| Arc::clone(sub), |s| Arc::clone(&s.parent)));
            }
        }
        if let Some(queue) = &own.local {
            return queue.offer(prefix, message, shared, origin);
        }
        let with_headers = message.header_len > 0 && client.headers.load(Ordering::Relaxed);
        let strip = message.header_len > 0 && !with_headers;
        let head = scratch.head.get(usize::from(!with_headers)..).unwrap_or_default();
        if prefix.is_empty() && !strip && !scratch.joined.is_empty() {
            return client.send_message([head, sub.sid.bytes(), &scratch.joined], None, message.body.len());
        }
        // With a prefix the subject does not stand in the head's place: "MSG " and "HMSG " are followed by it.
        let verb_len = if with_headers { 5 } else { 4 };
        let (verb, subject) = head.split_at_checked(verb_len).unwrap_or((head, b""));
        let suffix = if strip { &scratch.plain_suffix } else { &scratch.suffix };
        let (payload, shared, end): (&[u8], _, &[u8]) = match shared {
            Some(shared) if !strip => (b"", Some(shared), b""),
            _ if strip => (message.payload(), None, b"\r\n"),
            _ => (message.body, None, b"\r\n"),
        };
        let size = if strip { message.payload().len() } else { message.body.len() };
        client.send_message([verb, prefix, subject, sub.sid.bytes(), suffix, payload, end], shared, size)
    }

    /// Adds a subscription, and what imports see of it.
    pub(crate) fn subscribe(&self, client: &Arc<Client>, sub: Sub) {
        let sub = Arc::new(sub);
        let mut shadows = Vec::new();
        for import in &client.account.streams {
            let Some(common) = subject::intersection(&import.here, &sub.subject) else { continue };
            let there = common.get(import.prefix.len()..).unwrap_or_default();
            shadows.push(Arc::new(Sub {
                client: Arc::clone(client),
                sid: sub.sid.clone(),
                subject: there.into(),
                queue: sub.queue.clone(),
                filtered: sub.filtered,
                max: 0.into(),
                delivered: 0.into(),
                slot: 0.into(),
                shadow: Some(Shadow {
                    parent: Arc::clone(&sub),
                    prefix: import.prefix.clone(),
                    account: import.from,
                }),
                local: None,
            }));
        }
        let held = Held { sub: Arc::clone(&sub), shadows: shadows.into() };
        for shadow in &held.shadows {
            self.insert_shadow(shadow);
        }
        client.lock_subs().insert(sub.sid.clone(), held);
        client.account.insert(sub);
    }

    fn insert_shadow(&self, sub: &Arc<Sub>) {
        if let Some(account) = sub.shadow.as_ref().and_then(|shadow| self.accounts.get(shadow.account)) {
            account.insert(Arc::clone(sub));
        }
    }

    fn remove_shadow(&self, sub: &Arc<Sub>) {
        if let Some(account) = sub.shadow.as_ref().and_then(|shadow| self.accounts.get(shadow.account)) {
            account.remove(sub);
        }
    }

    /// Ends one subscription; unknown ids are ignored.
    pub(crate) fn unsubscribe(&self, client: &Client, sid: &Sid) {
        let held = client.lock_subs().remove(sid);
        if let Some(held) = held {
            client.account.remove(&held.sub);
            for shadow in &held.shadows {
                self.remove_shadow(shadow);
            }
        }
    }

    /// Ends all subscriptions of a connection.
    pub(crate) fn unsubscribe_all(&self, client: &Client) {
        let subs = std::mem::take(&mut *client.lock_subs());
        client.account.remove_all(subs.values().map(|held| &held.sub));
        for shadow in subs.values().flat_map(|held| held.shadows.iter()) {
            self.remove_shadow(shadow);
        }
    }

    /// Tells a requester that nobody listens, if it asked to be told and waits for the answer.
    pub(crate) fn no_responders(&self, subject: &[u8], reply: &[u8], client: &Client) {
        let matches = client.account.matches(reply);
        let Some(sub) = matches.plain().find(|sub| sub.client.cid == client.cid) else { return };
        let length = 32 + subject.len();
        let mut text = Vec::with_capacity(2 * length);
        text.extend_from_slice(b"HMSG ");
        text.extend_from_slice(reply);
        text.push(b' ');
        text.extend_from_slice(sub.sid.bytes());
        text.extend_from_slice(format!(" {length} {length}\r\nNATS/1.0 503\r\nNats-Subject: ").as_bytes());
        text.extend_from_slice(subject);
        text.extend_from_slice(b"\r\n\r\n\r\n");
        client.send_control(&text);
        let number = sub.delivered.fetch_add(1, Ordering::Relaxed) + 1;
        if number == sub.max.load(Ordering::Relaxed) {
            self.unsubscribe(client, &sub.sid);
        }
    }
}

impl Scratch {
    /// Builds the parts of the protocol line that are the same for every receiver.
    fn prepare(&mut self, message: &Message<'_>) {
        self.head.clear();
        self.head.extend_from_slice(b"HMSG ");
        self.head.extend_from_slice(message.subject);
        self.head.push(b' ');
        self.suffix.clear();
        push_reply(&mut self.suffix, message.reply);
        if message.header_len > 0 {
            push_number(&mut self.suffix, message.header_len);
            self.suffix.push(b' ');
            self.plain_suffix.clear();
            push_reply(&mut self.plain_suffix, message.reply);
            push_number(&mut self.plain_suffix, message.payload().len());
            self.plain_suffix.extend_from_slice(b"\r\n");
        }
        push_number(&mut self.suffix, message.body.len());
        self.suffix.extend_from_slice(b"\r\n");
        self.joined.clear();
        if message.body.len() <= JOIN_UP_TO {
            self.joined.extend_from_slice(&self.suffix);
            self.joined.extend_from_slice(message.body);
            self.joined.extend_from_slice(b"\r\n");
        }
    }

    /// A member to begin with: xorshift, good enough to spread work.
    fn pick(&mut self, len: usize) -> usize {
        if self.random == 0 {
            self.random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), len) | 1;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % (len.max(1) as u64)).unwrap_or(0)
    }
}

fn push_reply(line: &mut Vec<u8>, reply: &[u8]) {
    line.push(b' ');
    if !reply.is_empty() {
        line.extend_from_slice(reply);
        line.push(b' ');
    }
}

/// Decimal digits, without the formatter's detour.
fn push_number(line: &mut Vec<u8>, mut value: usize) {
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        first -= 1;
        if value == 0 {
            break;
        }
    }
    line.extend_from_slice(digits.get(first..).unwrap_or_default());
}
