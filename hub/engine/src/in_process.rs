//! Connections of the embedding program: no socket, no credentials, typed messages, bounded queues.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::client::{Client, Enqueued};
use crate::engine::Shared;
use crate::error::EngineError;
use crate::headers::Headers;
use crate::router::{Message, Scratch};
use crate::subject;
use crate::subscription::{Sid, Sub};

/// Messages that wait in one subscription before further ones are dropped and counted.
const QUEUE: usize = 65_536;
/// Bytes that wait in one subscription before further messages are dropped and counted.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// A connection of the embedding program to one account, with every permission in it. Only
/// [`crate::Engine::connect_in_process`] makes one: nothing that arrives on a socket can become it.
#[derive(Debug, Clone)]
pub struct InProcess {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    client: Arc<Client>,
    next_sid: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.unsubscribe_all(&self.client);
        self.client.account.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A message as the embedding program receives it.
#[derive(Debug, Clone)]
pub struct InMessage {
    pub subject: Bytes,
    /// Empty when no answer is expected.
    pub reply: Bytes,
    /// The header block as it was sent, empty when there is none.
    pub header: Bytes,
    pub payload: Bytes,
    pub publisher: Publisher,
}

/// Who published a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher {
    /// A connection, by the id that [`crate::Engine::connections`] shows.
    Connection(u64),
    /// The embedding program.
    InProcess,
}

impl InMessage {
    /// The subject as text.
    pub fn subject_text(&self) -> String {
        String::from_utf8_lossy(&self.subject).into_owned()
    }

    /// The value of the first header of this name.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        crate::headers::first_value(&self.header, name)
    }

    /// The status code of a message without payload, such as 503 for nobody there.
    pub fn status(&self) -> Option<u16> {
        crate::headers::status(&self.header)
    }
}

/// A subscription of the embedding program. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    inner: Arc<Inner>,
    queue: Arc<LocalQueue>,
    sid: Sid,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.inner.shared.unsubscribe(&self.inner.client, &self.sid);
    }
}

impl Subscription {
    /// The next message, in the order of each publisher. `None` after the engine has shut down.
    pub async fn next(&mut self) -> Option<InMessage> {
        let queue = Arc::clone(&self.queue);
        loop {
            let notified = queue.ready.notified();
            if let Some(message) = self.try_next() {
                return Some(message);
            }
            if self.inner.shared.is_shut_down() {
                return None;
            }
            notified.await;
        }
    }

    /// The next message if there is one already.
    pub fn try_next(&mut self) -> Option<InMessage> {
        let mut state = self.queue.lock();
        let message = state.messages.pop_front()?;
        state.bytes = state.bytes.saturating_sub(message.payload.len() + message.header.len());
        Some(message)
    }

    /// Messages dropped because this subscription did not keep up.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }
}

impl InProcess {
    pub(crate) fn new(shared: Arc<Shared>, client: Arc<Client>) -> InProcess {
        InProcess { inner: Arc::new(Inner { shared, client, next_sid: AtomicU64::new(1) }) }
    }

    /// Publishes without reply or headers.
    ///
    /// # Errors
    /// Invalid subject, payload over the limit, engine shut down.
    pub fn publish(&self, subject: &str, payload: &[u8]) -> Result<(), EngineError> {
        self.publish_message(subject, "", None, payload).map(drop)
    }

    /// Publishes with an optional reply subject (empty: none) and optional headers; tells how many got it.
    ///
    /// # Errors
    /// Invalid subject or reply, message over the limit, engine shut down.
    pub fn publish_message(
        &self,
        subject: &str,
        reply: &str,
        headers: Option<&Headers>,
        payload: &[u8],
    ) -> Result<usize, EngineError> {
        let shared = &self.inner.shared;
        if shared.is_shut_down() {
            return Err(EngineError::ShutDown);
        }
        for text in [subject, reply] {
            if !(subject::valid_literal(text.as_bytes()) || (text.is_empty() && !subject.is_empty())) {
                return Err(EngineError::Subject(text.to_owned()));
            }
        }
        let header = headers.map(Headers::to_bytes).unwrap_or_default();
        let size = header.len() + payload.len();
        let limit = shared.config.max_payload;
        if size > limit {
            return Err(EngineError::TooLarge { size, limit });
        }
        let joined;
        let body = if header.is_empty() {
            payload
        } else {
            joined = [header.as_slice(), payload].concat();
            &joined
        };
        let message =
            Message { subject: subject.as_bytes(), reply: reply.as_bytes(), header_len: header.len(), body };
        let client = &self.inner.client;
        client.received(1, size as u64);
        let outcome = shared.publish_in(&client.account, message, client, &mut Scratch::default(), 0);
        Ok(outcome.delivered)
    }

    /// Subscribes to a subject or pattern.
    ///
    /// # Errors
    /// Invalid pattern.
    pub fn subscribe(&self, pattern: &str) -> Result<Subscription, EngineError> {
        self.add(pattern, "")
    }

    /// Subscribes as one member of a queue group.
    ///
    /// # Errors
    /// Invalid pattern.
    pub fn queue_subscribe(&self, pattern: &str, queue: &str) -> Result<Subscription, EngineError> {
        self.add(pattern, queue)
    }

    fn add(&self, pattern: &str, queue: &str) -> Result<Subscription, EngineError> {
        if !subject::valid_pattern(pattern.as_bytes()) {
            return Err(EngineError::Subject(pattern.to_owned()));
        }
        let sid = Sid::new(self.inner.next_sid.fetch_add(1, Ordering::Relaxed).to_string().as_bytes());
        let local = Arc::new(LocalQueue::default());
        self.inner.shared.register_local(&local);
        let sub = Sub {
            client: Arc::clone(&self.inner.client),
            sid: sid.clone(),
            subject: pattern.as_bytes().into(),
            queue: queue.as_bytes().into(),
            filtered: false,
            max: 0.into(),
            delivered: 0.into(),
            slot: 0.into(),
            shadow: None,
            local: Some(Arc::clone(&local)),
        };
        self.inner.shared.subscribe(&self.inner.client, sub);
        Ok(Subscription { inner: Arc::clone(&self.inner), queue: local, sid })
    }

    /// Sends a request and waits for its first answer.
    ///
    /// # Errors
    /// Nobody listens, no answer within `timeout`, or what [`InProcess::publish`] refuses.
    pub async fn request(
        &self,
        subject: &str,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<InMessage, EngineError> {
        let inbox = format!("_INBOX.{}", self.inner.shared.random_name()?);
        let mut answers = self.subscribe(&inbox)?;
        if self.publish_message(subject, &inbox, None, payload)? == 0 {
            return Err(EngineError::NoResponders(subject.to_owned()));
        }
        match tokio::time::timeout(timeout, answers.next()).await {
            Ok(Some(message)) if message.status() == Some(503) => {
                Err(EngineError::NoResponders(subject.to_owned()))
            }
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(EngineError::ShutDown),
            Err(_) => Err(EngineError::Timeout(subject.to_owned())),
        }
    }
}

/// The bounded queue of one in-process subscription.
#[derive(Debug, Default)]
pub(crate) struct LocalQueue {
    state: Mutex<LocalState>,
    ready: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct LocalState {
    messages: VecDeque<InMessage>,
    bytes: usize,
}

impl LocalQueue {
    fn lock(&self) -> std::sync::MutexGuard<'_, LocalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        self.ready.notify_one();
    }

    /// Queues a message, or drops and counts it: the hub's own slow reader never holds up the fleet.
    pub(crate) fn offer(
        &self,
        prefix: &[u8],
        message: Message<'_>,
        shared: Option<&Bytes>,
        origin: &Client,
    ) -> Enqueued {
        let mut state = self.lock();
        if state.messages.len() >= QUEUE || state.bytes + message.body.len() > QUEUE_BYTES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Enqueued::Refused;
        }
        let mut body = match shared {
            Some(shared) => shared.slice(..shared.len().saturating_sub(2)),
            None => Bytes::copy_from_slice(message.body),
        };
        let header = body.split_to(message.header_len.min(body.len()));
        let mut names = BytesMut::with_capacity(prefix.len() + message.subject.len() + message.reply.len());
        names.extend_from_slice(prefix);
        names.extend_from_slice(message.subject);
        let subject_len = names.len();
        names.extend_from_slice(message.reply);
        let mut reply = names.freeze();
        let subject = reply.split_to(subject_len);
        state.bytes += message.body.len();
        let publisher =
            if origin.is_local() { Publisher::InProcess } else { Publisher::Connection(origin.cid) };
        state.messages.push_back(InMessage { subject, reply, header, payload: body, publisher });
        drop(state);
        self.ready.notify_one();
        Enqueued::Accepted
    }
}
