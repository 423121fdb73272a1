//! An authenticated connection: one task that reads, routes and writes.
//!
//! Nothing is held for an idle peer but its TLS state: the read buffer belongs to the thread, and queues are freed
//! when they have drained. A wake-up writes everything that is queued at once.

mod operations;
mod writing;

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use self::operations::Operations;
use self::writing::Writing;
use crate::client::Client;
use crate::clock;
use crate::close::{CloseReason, error_line};
use crate::connect::ConnectOptions;
use crate::engine::Shared;
use crate::pace::{Pace, Pacer};
use crate::parser::{ParseError, Parser};
use crate::router::Scratch;
use crate::stream::Stream;

/// Bytes read from a socket at once; one buffer per thread.
const READ_BUFFER: usize = 64 * 1024;
/// The same for a connection with a pace: what it has to wait with is kept, and copied with each message that may go on.
const PACED_READ: usize = 4 * 1024;
/// Reads of one connection before others get their turn.
const READS_PER_TURN: usize = 4;
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
    operations: Operations,
    writing: Writing,
    timer: Pin<Box<Sleep>>,
    next_ping: Instant,
    expires: Option<Instant>,
    stalled_until: Option<Instant>,
    /// Read and not acted on yet: the connection is over its pace. At most one read.
    unread: Vec<u8>,
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
        let operations = Operations {
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
        let next_ping =
            now + jittered(FIRST_PING.min(operations.shared.config.ping_interval), operations.client.cid);
        let session = Session {
            stream: opened.stream,
            parser: opened.parser,
            operations,
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
        let shared = Arc::clone(&self.operations.shared);
        shared.unsubscribe_all(&self.operations.client);
        let slow = matches!(reason, CloseReason::SlowConsumerDeadline | CloseReason::SlowConsumerPending);
        if !slow && !matches!(reason, CloseReason::ReadError | CloseReason::WriteError) {
            // Not part of the connection's own state: a future this size is only needed once, here.
            drop(Box::pin(tokio::time::timeout(FAREWELL, self.farewell(reason))).await);
        }
        self.operations.client.finish();
        reason
    }

    /// Writes what is queued and the reason of the close.
    async fn farewell(&mut self, reason: CloseReason) -> std::io::Result<()> {
        let (chunks, tail) = {
            let mut out = self.operations.client.lock_out();
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
            let mut out = self.operations.client.lock_out();
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
                        if self.writing.progress >= self.operations.shared.config.max_payload {
                            (self.writing.blocked_since, self.writing.progress) = (None, 0);
                        }
                        let mut out = self.operations.client.lock_out();
                        self.operations.client.written(&mut out, written);
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
            writing.chunks = VecDeque::new();
        }
        let mut out = self.operations.client.lock_out();
        self.operations.client.written(&mut out, std::mem::take(&mut writing.written));
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
        let most = if self.operations.pacer.is_some() { PACED_READ } else { READ_BUFFER };
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
            if let Some(wait) = self.operations.pacer.as_mut().and_then(|pacer| pacer.wait(Instant::now())) {
                self.unread = input.to_vec();
                self.stalled_until = Some(Instant::now() + wait);
                break Ok(());
            }
            match self.parser.next(&mut input) {
                Ok(Some(op)) => {
                    if let Err(reason) = self.operations.act(op) {
                        break Err(reason);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(self.operations.parse_failure(error)),
            }
        };
        let operations = &mut self.operations;
        operations.client.last_activity.store(clock::now_nanos(), Ordering::Relaxed);
        if operations.msgs > 0 {
            operations.client.received(operations.msgs, operations.bytes);
            operations.client.account.in_msgs.fetch_add(operations.msgs, Ordering::Relaxed);
            operations.client.account.in_bytes.fetch_add(operations.bytes, Ordering::Relaxed);
            (operations.msgs, operations.bytes) = (0, 0);
        }
        if std::mem::take(&mut operations.stalled) {
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
            let deadline = self.operations.shared.config.write_deadline;
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
        let blocked =
            self.writing.blocked_since.map(|since| since + self.operations.shared.config.write_deadline);
        [self.expires, blocked, self.stalled_until].into_iter().flatten().fold(self.next_ping, Instant::min)
    }

    /// PING unless the client spoke within the interval; too many unanswered ones end the connection.
    fn ping(&mut self, now: Instant) -> Result<(), CloseReason> {
        let operations = &mut self.operations;
        let interval = operations.shared.config.ping_interval;
        self.next_ping = now + jittered(interval, operations.client.cid ^ u64::from(operations.pings_out));
        let silent =
            clock::now_nanos().saturating_sub(operations.client.last_activity.load(Ordering::Relaxed));
        let known = operations.client.rtt.load(Ordering::Relaxed) > 0;
        if known && operations.pings_out == 0 && Duration::from_nanos(silent.unsigned_abs()) < interval {
            return Ok(());
        }
        if operations.pings_out >= operations.shared.config.max_pings_out {
            return Err(CloseReason::StaleConnection);
        }
        operations.pings_out += 1;
        operations.ping_sent = Some(now);
        operations.client.send_control(b"PING\r\n");
        Ok(())
    }
}

/// Up to a fifth longer, so that a fleet that came at once does not ping at once.
fn jittered(base: Duration, seed: u64) -> Duration {
    let spread = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    base + base.mul_f64(spread as f64 / f64::from(1u32 << 20) / 5.0)
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
