//! What the rest of the engine sees of one connection: its identity, its queue of outgoing bytes, its counters.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;

use crate::account::Account;
use crate::authenticator::Permissions;
use crate::close::CloseReason;
use crate::permissions::Compiled;
use crate::subscription::{Sid, Sub};

/// Steps in which queued bytes are reported to the engine-wide total: often enough to bound memory, seldom enough
/// that connections do not fight over one counter.
const TOTAL_STEP: usize = 64 * 1024;

/// A connection as its peers see it. The task that owns the socket has more.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) cid: u64,
    pub(crate) account: Arc<Account>,
    /// `None`: in-process.
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) user: String,
    pub(crate) name: String,
    pub(crate) lang: String,
    pub(crate) version: String,
    pub(crate) tags: Vec<String>,
    pub(crate) tls: Option<TlsSummary>,
    pub(crate) permissions: Compiled,
    pub(crate) granted: Permissions,
    pub(crate) expires_unix: Option<i64>,
    /// Nanoseconds since 1970.
    pub(crate) started: i64,
    pub(crate) last_activity: AtomicI64,
    /// Nanoseconds, 0 until known.
    pub(crate) rtt: AtomicU64,
    pub(crate) echo: AtomicBool,
    pub(crate) headers: AtomicBool,
    pub(crate) protocol: i64,
    pub(crate) in_msgs: AtomicU64,
    pub(crate) in_bytes: AtomicU64,
    subs: Mutex<HashMap<Sid, Held>>,
    out: Mutex<Outbound>,
    limits: Limits,
}

/// A subscription of the client, and what imports see of it in other accounts.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) sub: Arc<Sub>,
    pub(crate) shadows: Box<[Arc<Sub>]>,
}

/// TLS facts for monitoring.
#[derive(Debug, Clone)]
pub(crate) struct TlsSummary {
    pub(crate) version: String,
    pub(crate) cipher: String,
}

/// Bounds of the outgoing queue.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes for this client.
    pub(crate) pending: usize,
    /// Bytes queued for all clients.
    pub(crate) total_now: Arc<AtomicUsize>,
}

/// A piece of outgoing bytes.
#[derive(Debug)]
pub(crate) enum Chunk {
    Own(Vec<u8>),
    /// A large payload that several clients get.
    Shared(Bytes),
}

impl Chunk {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(bytes) => bytes,
        }
    }
}

/// Outgoing bytes that the connection's task has not taken yet, and how to wake it.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    pub(crate) chunks: VecDeque<Chunk>,
    /// What comes after `chunks`.
    pub(crate) tail: Vec<u8>,
    /// Bytes queued here or taken and not yet written.
    pub(crate) pending: usize,
    /// The part of `pending` that the engine-wide total knows.
    reported: usize,
    pub(crate) closing: Option<CloseReason>,
    /// The task is gone: nothing is accepted any more.
    pub(crate) closed: bool,
    pub(crate) msgs: u64,
    pub(crate) bytes: u64,
    pub(crate) stalls: u64,
    waker: Option<Waker>,
    armed: bool,
}

/// What became of a message handed to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enqueued {
    Accepted,
    /// Accepted, but the queue is so full that the producer should wait.
    Stalled,
    Refused,
}

/// Everything needed to make a [`Client`].
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) cid: u64,
    pub(crate) account: Arc<Account>,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) user: String,
    pub(crate) name: String,
    pub(crate) lang: String,
    pub(crate) version: String,
    pub(crate) tags: Vec<String>,
    pub(crate) tls: Option<TlsSummary>,
    pub(crate) permissions: Permissions,
    pub(crate) expires_unix: Option<i64>,
    pub(crate) started: i64,
    pub(crate) echo: bool,
    pub(crate) headers: bool,
    pub(crate) protocol: i64,
}

impl Client {
    pub(crate) fn new(profile: Profile, limits: Limits) -> Client {
        Client {
            cid: profile.cid,
            account: profile.account,
            remote: profile.remote,
            user: profile.user,
            name: profile.name,
            lang: profile.lang,
            version: profile.version,
            tags: profile.tags,
            tls: profile.tls,
            permissions: Compiled::new(&profile.permissions),
            granted: profile.permissions,
            expires_unix: profile.expires_unix,
            started: profile.started,
            last_activity: AtomicI64::new(profile.started),
            rtt: AtomicU64::new(0),
            echo: AtomicBool::new(profile.echo),
            headers: AtomicBool::new(profile.headers),
            protocol: profile.protocol,
            in_msgs: AtomicU64::new(0),
            in_bytes: AtomicU64::new(0),
            subs: Mutex::new(HashMap::new()),
            out: Mutex::new(Outbound::default()),
            limits,
        }
    }

    pub(crate) fn lock_out(&self) -> MutexGuard<'_, Outbound> {
        // Nothing panics while holding it; a poisoned queue is still a queue.
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_subs(&self) -> MutexGuard<'_, HashMap<Sid, Held>> {
        self.subs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message made of `parts`, and `shared` behind them.
    pub(crate) fn send_message<const N: usize>(
        &self,
        parts: [&[u8]; N],
        shared: Option<&Bytes>,
        size: usize,
    ) -> Enqueued {
        let mut out = self.lock_out();
        if out.closed || out.closing.is_some() {
            return Enqueued::Refused;
        }
        let own: usize = parts.iter().map(|part| part.len()).sum();
        out.tail.reserve(own);
        for part in parts {
            out.tail.extend_from_slice(part);
        }
        let mut added = own;
        if let Some(shared) = shared {
            added += shared.len();
            let tail = std::mem::take(&mut out.tail);
            out.chunks.push_back(Chunk::Own(tail));
            out.chunks.push_back(Chunk::Shared(shared.clone()));
        }
        out.msgs += 1;
        out.bytes += size as u64;
        self.queued(&mut out, added)
    }

    /// Queues protocol bytes that are no message.
    pub(crate) fn send_control(&self, bytes: &[u8]) {
        let mut out = self.lock_out();
        if !out.closed {
            out.tail.extend_from_slice(bytes);
            self.queued(&mut out, bytes.len());
        }
    }

    fn queued(&self, out: &mut Outbound, added: usize) -> Enqueued {
        out.pending += added;
        let mut result = Enqueued::Accepted;
        let over = out.pending > self.limits.pending;
        if out.pending >= out.reported + TOTAL_STEP {
            let delta = out.pending - out.reported;
            out.reported = out.pending;
            self.limits.total_now.fetch_add(delta, Ordering::Relaxed);
        }
        if over {
            out.closing.get_or_insert(CloseReason::SlowConsumerPending);
            out.armed = true;
            result = Enqueued::Refused;
        }
        if result == Enqueued::Accepted && out.pending > self.limits.pending / 4 * 3 {
            out.stalls += 1;
            result = Enqueued::Stalled;
        }
        if std::mem::take(&mut out.armed)
            && let Some(waker) = &out.waker
        {
            waker.wake_by_ref();
        }
        result
    }

    /// Reports that `written` bytes have left.
    pub(crate) fn written(&self, out: &mut Outbound, written: usize) {
        out.pending = out.pending.saturating_sub(written);
        if out.reported > out.pending {
            self.limits.total_now.fetch_sub(out.reported - out.pending, Ordering::Relaxed);
            out.reported = out.pending;
        }
    }

    /// Asks the connection's task to close with `reason`.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut out = self.lock_out();
        out.closing.get_or_insert(reason);
        out.armed = false;
        if let Some(waker) = &out.waker {
            waker.wake_by_ref();
        }
    }

    /// Drops what is queued and refuses more; the task has ended.
    pub(crate) fn finish(&self) {
        let mut out = self.lock_out();
        out.closed = true;
        out.chunks = VecDeque::new();
        out.tail = Vec::new();
        out.waker = None;
        let pending = out.pending;
        self.written(&mut out, pending);
    }

    pub(crate) fn is_local(&self) -> bool {
        self.remote.is_none()
    }

    /// Counts a batch of received messages.
    pub(crate) fn received(&self, msgs: u64, bytes: u64) {
        self.in_msgs.fetch_add(msgs, Ordering::Relaxed);
        self.in_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Outbound {
    pub(crate) fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.chunks.is_empty()
    }

    /// Remembers the task; with `on_data` it is woken by the next queued byte, else only by a close.
    pub(crate) fn arm(&mut self, waker: &Waker, on_data: bool) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
        self.armed = on_data;
    }
}
