//! What the embedding program and monitoring see of connections.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::Client;
use crate::close::CloseReason;

/// One connection at one moment. Times are nanoseconds since 1970.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Unique in the life of the engine.
    pub cid: u64,
    pub account: String,
    pub user: String,
    /// What the client calls itself.
    pub name: String,
    pub lang: String,
    pub version: String,
    pub tags: Vec<String>,
    pub remote: Option<SocketAddr>,
    pub tls_version: Option<String>,
    pub tls_cipher: Option<String>,
    pub started: i64,
    pub last_activity: i64,
    /// Time from a PING to its PONG, once known.
    pub rtt: Option<Duration>,
    pub expires_unix: Option<i64>,
    pub pending_bytes: usize,
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
    pub stalls: u64,
    pub subscriptions: usize,
}

/// A connection that has ended.
#[derive(Debug, Clone)]
pub(crate) struct ClosedConnection {
    pub(crate) connection: ConnectionInfo,
    pub(crate) reason: CloseReason,
    pub(crate) stop: i64,
}

impl ConnectionInfo {
    pub(crate) fn of(client: &Client) -> ConnectionInfo {
        let subscriptions = client.lock_subs().len();
        let rtt = client.rtt.load(Ordering::Relaxed);
        let out = client.lock_out();
        ConnectionInfo {
            cid: client.cid,
            account: client.account.name.clone(),
            user: client.user.clone(),
            name: client.name.clone(),
            lang: client.lang.clone(),
            version: client.version.clone(),
            tags: client.tags.clone(),
            remote: client.remote,
            tls_version: client.tls.as_ref().map(|tls| tls.version.clone()),
            tls_cipher: client.tls.as_ref().map(|tls| tls.cipher.clone()),
            started: client.started,
            last_activity: client.last_activity.load(Ordering::Relaxed),
            rtt: (rtt > 0).then(|| Duration::from_nanos(rtt)),
            expires_unix: client.expires_unix,
            pending_bytes: out.pending,
            in_msgs: client.in_msgs.load(Ordering::Relaxed),
            in_bytes: client.in_bytes.load(Ordering::Relaxed),
            out_msgs: out.msgs,
            out_bytes: out.bytes,
            stalls: out.stalls,
            subscriptions,
        }
    }
}
