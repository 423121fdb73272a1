//! The private subject that replies to one request arrive on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{ClientError, Connection};

/// Bytes of replies that may wait to be read. What comes beyond is dropped and counted (docs/spec/10 C7).
const MAX_WAITING: usize = 256 * 1024 * 1024;

/// One subscription. A task moves messages from the connection to a queue bounded in bytes, so that a reader that
/// verifies signatures neither holds up the connection nor lets a flood of large replies eat the memory.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: mpsc::UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    pump: JoinHandle<()>,
}

impl Inbox {
    /// Subscribes and waits until the broker knows, so that no early reply is missed.
    pub(crate) async fn open(connection: &Connection, subject: String) -> Result<Self, ClientError> {
        let mut subscription =
            connection.nats().subscribe(subject).await.map_err(|e| ClientError::Broker(e.to_string()))?;
        connection.flush().await?;
        let (sender, queue) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let dropped = Arc::new(AtomicUsize::new(0));
        let (pump_waiting, pump_dropped) = (Arc::clone(&waiting), Arc::clone(&dropped));
        let pump = tokio::spawn(async move {
            while let Some(message) = subscription.next().await {
                let size = message.payload.len();
                if pump_waiting.load(Ordering::Relaxed).saturating_add(size) > MAX_WAITING {
                    pump_dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                pump_waiting.fetch_add(size, Ordering::Relaxed);
                if sender.send(message.payload).is_err() {
                    break;
                }
            }
        });
        Ok(Self { queue, waiting, dropped, pump })
    }

    /// The next message; `None` when the connection has closed.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let payload = self.queue.recv().await?;
        self.waiting.fetch_sub(payload.len(), Ordering::Relaxed);
        Some(payload)
    }

    /// Messages dropped because too many bytes were waiting.
    pub(crate) fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // the subscription goes with its task, which unsubscribes
        self.pump.abort();
    }
}
