//! An authenticated connection: one task that reads, routes and writes.
//!
//! Nothing is held for an idle peer but its TLS state: the read buffer belongs to the thread, and queues are freed
//! when they have drained. A wake-up writes everything that is queued at once.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use crate::client::{Chunk, Client};
use crate::clock;
use crate::close::{CloseReason, error_line, quoted};
use crate::connect::ConnectOptions;
use crate::engine::Shared;
use crate::pace::{Pace, Pacer, Refused};
use crate::parser::{Op, ParseError, Parser};
use crate::permissions::SubscribeDecision;
use crate::router::{ANSWER_PREFIX, Message, Outcome, Route, Scratch, is_reserved_reply};
use crate::stream::Stream;
use crate::subject;
use crate::subscription::{Sid, Sub};

/// Bytes read from a socket at once; one buffer per thread.
const READ_BUFFER: usize = 64 * 1024;
/// The same for a connection with a pace: what it has to wait with is kept, and copied with each message that may go on.
const PACED_READ: usize = 4 * 1024;
/// Reads of one connection before others get their turn.
const READS_PER_TURN: usize = 4;
/// Routes that a connection remembers.
const CACHED_ROUTES: usize = 512;
/// Pieces given to one vectored write.
const MAX_SLICES: usize = 64;
/// A drained queue of less than this is freed; a larger one is busy and keeps its buffer.
const BUSY: usize = 4096;
/// A buffer beyond this is never kept.
const KEEP_AT_MOST: usize = 1024 * 1024;
/// How long the last bytes of a closing connection may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// Pause of a publisher whose receiver is nearly full.
const STALL: Duration = Duration::from_millis(2);
/// The first PING comes early, so that the round trip time is known.
const FIRST_PING: Duration = Duration::from_secs(2);

thread_local! {
    static READ_SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The task's side of a connection.
#[derive(Debug)]
pub(crate) struct Session {
    stream: Stream,
    parser: Parser,
    core: Core,
    writing: Writing,
    timer: Pin<Box<Sleep>>,
    next_ping: Instant,
    expires: Option<Instant>,
    stalled_until: Option<Instant>,
    /// Read and not acted on yet: the connection is over its pace. At most one read.
    unread: Vec<u8>,
}

/// What the operations of a client act upon.
#[derive(Debug)]
struct Core {
    shared: Arc<Shared>,
    client: Arc<Client>,
    routes: HashMap<Box<[u8]>, Arc<Route>>,
    last: Option<Arc<Route>>,
    scratch: Scratch,
    verbose: bool,
    pedantic: bool,
    no_responders: bool,
    max_subscriptions: usize,
    greeted: bool,
    pings_out: u32,
    ping_sent: Option<Instant>,
    msgs: u64,
    bytes: u64,
    stalled: bool,
    pacer: Option<Box<Pacer>>,
}

/// Bytes taken from the queue and being written.
#[derive(Debug, Default)]
struct Writing {
    chunks: std::collections::VecDeque<Chunk>,
    tail: Vec<u8>,
    /// Written bytes of the first piece.
    offset: usize,
    /// Written and not yet reported.
    written: usize,
    /// Bytes of this batch, to tell busy from idle.
    batch: usize,
    flushing: bool,
    /// Bytes that left since `blocked_since`.
    progress: usize,
    blocked_since: Option<Instant>,
}

/// What the opening of a connection hands over.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) parser: Parser,
    pub(crate) client: Arc<Client>,
    pub(crate) options: ConnectOptions,
    pub(crate) max_subscriptions: usize,
    pub(crate) pace: Option<Pace>,
    pub(crate) expires_in: Option<Duration>,
    /// Bytes after the CONNECT line.
    pub(crate) rest: Vec<u8>,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, opened: Opened) -> (Session, Vec<u8>) {
        let now = Instant::now();
        let expires = opened.expires_in.and_then(|left| now.checked_add(left));
        let core = Core {
            shared,
            client: opened.client,
            routes: HashMap::new(),
            last: None,
            scratch: Scratch::default(),
            verbose: opened.options.verbose,
            pedantic: opened.options.pedantic,
            no_responders: opened.options.no_responders,
            max_subscriptions: opened.max_subscriptions,
            greeted: false,
            pings_out: 0,
            ping_sent: None,
            msgs: 0,
            bytes: 0,
            stalled: false,
            pacer: opened.pace.map(|pace| Box::new(Pacer::new(pace, now))),
        };
        let next_ping = now + jittered(FIRST_PING.min(core.shared.config.ping_interval), core.client.cid);
        let session = Session {
            stream: opened.stream,
            parser: opened.parser,
            core,
            writing: Writing::default(),
            timer: Box::pin(tokio::time::sleep_until(next_ping.into())),
            next_ping,
            expires,
            stalled_until: None,
            unread: Vec::new(),
        };
        (session, opened.rest)
    }

    /// Serves the connection until it ends, and says why it did.
    pub(crate) async fn run(mut self, rest: Vec<u8>) -> CloseReason {
        let begun = if rest.is_empty() { Ok(()) } else { self.process(&rest) };
        drop(rest);
        let reason = match begun {
            Err(reason) => reason,
            Ok(()) => std::future::poll_fn(|cx| self.poll(cx)).await,
        };
        let shared = Arc::clone(&self.core.shared);
        shared.unsubscribe_all(&self.core.client);
        let slow = matches!(reason, CloseReason::SlowConsumerDeadline | CloseReason::SlowConsumerPending);
        if !slow && !matches!(reason, CloseReason::ReadError | CloseReason::WriteError) {
            // Not part of the connection's own state: a future this size is only needed once, here.
            drop(Box::pin(tokio::time::timeout(FAREWELL, self.farewell(reason))).await);
        }
        self.core.client.finish();
        reason
    }

    /// Writes what is queued and the reason of the close.
    async fn farewell(&mut self, reason: CloseReason) -> std::io::Result<()> {
        let (chunks, tail) = {
            let mut out = self.core.client.lock_out();
            out.closed = true;
            (std::mem::take(&mut out.chunks), std::mem::take(&mut out.tail))
        };
        while self.writing.remaining() {
            std::future::poll_fn(|cx| self.writing.poll(&mut self.stream, cx)).await?;
        }
        for chunk in chunks {
            self.stream.write_all(chunk.bytes()).await?;
        }
        self.stream.write_all(&tail).await?;
        if let Some(text) = reason.wire_error() {
            self.stream.write_all(&error_line(text)).await?;
        }
        self.stream.flush().await?;
        self.stream.shutdown().await?;
        if reason.wire_error().is_some() {
            // Closing with unread bytes would reset the connection, and the reset can overtake the error line.
            let mut sink = [0u8; 512];
            while self.stream.read(&mut sink).await? > 0 {}
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        match self.turn(cx) {
            Ok(again) => {
                if again {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Err(reason) => Poll::Ready(reason),
        }
    }

    /// One turn: write, read, write what the reading caused, look at the clock. `true`: there is more to do.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let mut more = true;
        for _ in 0..READS_PER_TURN {
            self.flush(cx)?;
            if self.stalled_until.is_some() || !self.read(cx)? {
                more = false;
                break;
            }
        }
        let drained = self.flush(cx)?;
        {
            let mut out = self.core.client.lock_out();
            if let Some(reason) = out.closing {
                return Err(reason);
            }
            if drained && !out.is_empty() {
                return Ok(true);
            }
            out.arm(cx.waker(), drained);
        }
        self.check_time(cx)?;
        Ok(more)
    }

    /// Writes until all is written (`true`) or the socket is full.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        loop {
            if !self.writing.remaining() && !self.take_queued()? {
                return Ok(true);
            }
            match self.writing.poll(&mut self.stream, cx) {
                Poll::Ready(Ok(())) => (self.writing.blocked_since, self.writing.progress) = (None, 0),
                Poll::Ready(Err(_)) => return Err(CloseReason::WriteError),
                Poll::Pending => {
                    let written = std::mem::take(&mut self.writing.written);
                    if written > 0 {
                        self.writing.progress += written;
                        // a peer that takes a sip now and then does not keep a queue for ever: within the deadline the
                        // largest message must go through, or all there is
                        if self.writing.progress >= self.core.shared.config.max_payload {
                            (self.writing.blocked_since, self.writing.progress) = (None, 0);
                        }
                        let mut out = self.core.client.lock_out();
                        self.core.client.written(&mut out, written);
                    }
                    self.writing.blocked_since.get_or_insert_with(Instant::now);
                    return Ok(false);
                }
            }
        }
    }

    /// Moves the queue into `writing`; false when there is nothing.
    fn take_queued(&mut self) -> Result<bool, CloseReason> {
        let writing = &mut self.writing;
        if writing.batch < BUSY || writing.tail.capacity() > KEEP_AT_MOST {
            writing.tail = Vec::new();
        }
        writing.tail.clear();
        if writing.batch < BUSY {
            writing.chunks = std::collections::VecDeque::new();
        }
        let mut out = self.core.client.lock_out();
        self.core.client.written(&mut out, std::mem::take(&mut writing.written));
        if let Some(reason) = out.closing
            && reason == CloseReason::SlowConsumerPending
        {
            return Err(reason);
        }
        if out.is_empty() {
            if writing.batch < BUSY && out.tail.capacity() > 0 {
                out.tail = Vec::new();
            }
            writing.batch = 0;
            return Ok(false);
        }
        std::mem::swap(&mut out.tail, &mut writing.tail);
        std::mem::swap(&mut out.chunks, &mut writing.chunks);
        drop(out);
        writing.batch = writing.tail.len() + writing.chunks.iter().map(|c| c.bytes().len()).sum::<usize>();
        writing.offset = 0;
        writing.flushing = true;
        Ok(true)
    }

    /// Reads once and acts on it; false when there is nothing to read.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if !self.unread.is_empty() {
            let unread = std::mem::take(&mut self.unread);
            return self.process(&unread).map(|()| true);
        }
        let mut scratch = READ_SCRATCH.take();
        if scratch.len() < READ_BUFFER {
            scratch = vec![0; READ_BUFFER];
        }
        let most = if self.core.pacer.is_some() { PACED_READ } else { READ_BUFFER };
        let mut buffer = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
        let result = match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(_)) => Err(CloseReason::ReadError),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(CloseReason::ClientClosed),
            Poll::Ready(Ok(())) => self.process(buffer.filled()).map(|()| true),
        };
        READ_SCRATCH.set(scratch);
        result
    }

    fn process(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let mut input = bytes;
        let result = loop {
            if let Some(wait) = self.core.pacer.as_mut().and_then(|pacer| pacer.wait(Instant::now())) {
                self.unread = input.to_vec();
                self.stalled_until = Some(Instant::now() + wait);
                break Ok(());
            }
            match self.parser.next(&mut input) {
                Ok(Some(op)) => {
                    if let Err(reason) = self.core.act(op) {
                        break Err(reason);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(self.core.parse_failure(error)),
            }
        };
        let core = &mut self.core;
        core.client.last_activity.store(clock::now_nanos(), Ordering::Relaxed);
        if core.msgs > 0 {
            core.client.received(core.msgs, core.bytes);
            core.client.account.in_msgs.fetch_add(core.msgs, Ordering::Relaxed);
            core.client.account.in_bytes.fetch_add(core.bytes, Ordering::Relaxed);
            (core.msgs, core.bytes) = (0, 0);
        }
        if std::mem::take(&mut core.stalled) {
            let until = Instant::now() + STALL;
            self.stalled_until = Some(self.stalled_until.map_or(until, |paced| paced.max(until)));
        }
        result
    }

    fn check_time(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        loop {
            let deadline = self.next_deadline();
            if self.timer.deadline().into_std() > deadline {
                self.timer.as_mut().reset(deadline.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            let now = Instant::now();
            if self.expires.is_some_and(|at| at <= now) {
                return Err(CloseReason::AuthenticationExpired);
            }
            let deadline = self.core.shared.config.write_deadline;
            if self.writing.blocked_since.is_some_and(|since| now >= since + deadline) {
                return Err(CloseReason::SlowConsumerDeadline);
            }
            if self.stalled_until.is_some_and(|until| until <= now) {
                self.stalled_until = None;
                cx.waker().wake_by_ref();
            }
            if self.next_ping <= now {
                self.ping(now)?;
                cx.waker().wake_by_ref();
            }
            let deadline = self.next_deadline();
            self.timer.as_mut().reset(deadline.into());
        }
    }

    fn next_deadline(&self) -> Instant {
        let blocked = self.writing.blocked_since.map(|since| since + self.core.shared.config.write_deadline);
        [self.expires, blocked, self.stalled_until].into_iter().flatten().fold(self.next_ping, Instant::min)
    }

    /// PING unless the client spoke within the interval; too many unanswered ones end the connection.
    fn ping(&mut self, now: Instant) -> Result<(), CloseReason> {
        let core = &mut self.core;
        let interval = core.shared.config.ping_interval;
        self.next_ping = now + jittered(interval, core.client.cid ^ u64::from(core.pings_out));
        let silent = clock::now_nanos().saturating_sub(core.client.last_activity.load(Ordering::Relaxed));
        let known = core.client.rtt.load(Ordering::Relaxed) > 0;
        if known && core.pings_out == 0 && Duration::from_nanos(silent.unsigned_abs()) < interval {
            return Ok(());
        }
        if core.pings_out >= core.shared.config.max_pings_out {
            return Err(CloseReason::StaleConnection);
        }
        core.pings_out += 1;
        core.ping_sent = Some(now);
        core.client.send_control(b"PING\r\n");
        Ok(())
    }
}

/// Up to a fifth longer, so that a fleet that came at once does not ping at once.
fn jittered(base: Duration, seed: u64) -> Duration {
    let spread = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    base + base.mul_f64(spread as f64 / f64::from(1u32 << 20) / 5.0)
}

impl Writing {
    fn remaining(&self) -> bool {
        self.flushing
    }

    /// Writes the batch; ready when all of it has left.
    fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            let first = match self.chunks.front() {
                Some(chunk) => chunk.bytes(),
                None => self.tail.as_slice(),
            };
            let first = first.get(self.offset..).unwrap_or_default();
            if first.is_empty() {
                self.offset = 0;
                if self.chunks.pop_front().is_some() {
                    continue;
                }
                self.tail.clear();
                std::task::ready!(Pin::new(stream).poll_flush(cx))?;
                self.flushing = false;
                return Poll::Ready(Ok(()));
            }
            let written = if self.chunks.is_empty() {
                std::task::ready!(Pin::new(&mut *stream).poll_write(cx, first))?
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let others = self.chunks.iter().skip(1).map(Chunk::bytes).chain([self.tail.as_slice()]);
                let mut count = 0;
                for (slice, bytes) in slices.iter_mut().zip(std::iter::once(first).chain(others)) {
                    *slice = IoSlice::new(bytes);
                    count += 1;
                }
                let slices = slices.get(..count).unwrap_or_default();
                std::task::ready!(Pin::new(&mut *stream).poll_write_vectored(cx, slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.advance(written);
        }
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(chunk) = self.chunks.front() {
            let left = chunk.bytes().len().saturating_sub(self.offset);
            if written < left {
                self.offset += written;
                return;
            }
            written -= left;
            self.offset = 0;
            self.chunks.pop_front();
        }
        self.offset += written;
    }
}

impl Core {
    fn act(&mut self, op: Op<'_>) -> Result<(), CloseReason> {
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

    fn parse_failure(&self, error: ParseError) -> CloseReason {
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

/// How a connection ends whose bytes make no sense.
pub(crate) fn parse_failure(error: ParseError) -> CloseReason {
    match error {
        ParseError::UnknownOperation | ParseError::PayloadTerminator => CloseReason::PayloadTerminator,
        ParseError::BadArguments => CloseReason::ParseError,
        ParseError::LineTooLong { .. } => CloseReason::MaximumControlLine,
        ParseError::PayloadTooLarge { .. } => CloseReason::MaximumPayload,
    }
}
