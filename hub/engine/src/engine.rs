//! The engine itself: what its connections share, and what the embedding program calls.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, Semaphore};

use crate::account::Account;
use crate::authenticator::{Authenticator, Permissions};
use crate::client::{Client, Limits, Profile};
use crate::clock;
use crate::close::{CloseReason, printable};
use crate::config::{AccountConfig, EngineConfig};
use crate::connections::{ClosedConnection, ConnectionInfo};
use crate::error::EngineError;
use crate::failures::Failures;
use crate::in_process::{InProcess, LocalQueue, Publisher};
use crate::opening::{self, TlsConfig};
use crate::preauth::Waiting;
use crate::router::{ANSWER_PREFIX, Awaited};
use crate::server_id;
use crate::shedding::Shedding;

/// Connections the kernel may hold before they are accepted.
const BACKLOG: u32 = 4096;
/// Random bytes of a nonce, and of the reply subject of an imported request.
const NONCE_BYTES: usize = 11;
const ANSWER_BYTES: usize = 16;
/// Pause after an accept that failed, as when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An embeddable NATS server. Clones are handles of the same engine.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// Counters since the start, and gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub connections: usize,
    pub total_connections: u64,
    pub subscriptions: usize,
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
    pub slow_consumers: u64,
    pub stale_connections: u64,
    /// Connections refused by the authenticator.
    pub denied: u64,
}

/// A listening port. Dropping the handle does not close it; [`Engine::shutdown`] does.
#[derive(Debug, Clone, Copy)]
pub struct ListenerHandle {
    address: SocketAddr,
}

impl ListenerHandle {
    pub(crate) fn new(address: SocketAddr) -> ListenerHandle {
        ListenerHandle { address }
    }

    /// The bound address, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) accounts: Vec<Arc<Account>>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) awaited: Awaited,
    pub(crate) failures: Failures,
    /// Slots for TLS key exchanges and credential checks.
    pub(crate) handshakes: Semaphore,
    pub(crate) preauth_bytes: AtomicUsize,
    pub(crate) counters: Counters,
    pub(crate) server_id: String,
    pub(crate) started: i64,
    pub(crate) started_at: Instant,
    pub(crate) listening: RwLock<Vec<Listening>>,
    clients: Mutex<HashMap<u64, Arc<Client>>>,
    /// Connection ids by what clients call themselves and by the user they were admitted as.
    names: Mutex<HashMap<String, BTreeSet<u64>>>,
    closed: Mutex<VecDeque<ClosedConnection>>,
    local_queues: Mutex<Vec<Weak<LocalQueue>>>,
    waiting: Arc<Waiting>,
    open_sockets: AtomicUsize,
    pending_total: Arc<AtomicUsize>,
    pub(crate) shedding: Shedding,
    next_cid: AtomicU64,
    pub(crate) event_seq: AtomicU64,
    pub(crate) lame_duck: AtomicBool,
    shut_down: AtomicBool,
    stop: Notify,
}

/// A bound client port, for INFO and monitoring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) total_connections: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) slow_consumers: AtomicU64,
    pub(crate) stale: AtomicU64,
    /// Traffic of connections that have ended.
    past_in_msgs: AtomicU64,
    past_in_bytes: AtomicU64,
    past_out_msgs: AtomicU64,
    past_out_bytes: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("server_id", &self.server_id).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes an engine; it has no ports yet. Must be called inside a tokio runtime when a system account is
    /// configured.
    ///
    /// # Errors
    /// Contradictory accounts or imports; no randomness.
    pub fn new(
        config: EngineConfig,
        accounts: Vec<AccountConfig>,
        authenticator: Arc<dyn Authenticator>,
    ) -> Result<Engine, EngineError> {
        let accounts = Account::build(accounts)?;
        if let Some(name) = &config.system_account
            && !accounts.iter().any(|account| account.name == *name)
        {
            return Err(EngineError::UnknownAccount(name.clone()));
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let slots = if config.handshakes == 0 { 4 * cores } else { config.handshakes };
        let shared = Shared {
            accounts,
            authenticator,
            awaited: Awaited::default(),
            failures: Failures::default(),
            handshakes: Semaphore::new(slots),
            preauth_bytes: AtomicUsize::new(0),
            counters: Counters::default(),
            server_id: server_id::generate()?,
            started: clock::now_nanos(),
            started_at: Instant::now(),
            listening: RwLock::default(),
            clients: Mutex::default(),
            names: Mutex::default(),
            closed: Mutex::default(),
            local_queues: Mutex::default(),
            waiting: Arc::default(),
            open_sockets: AtomicUsize::new(0),
            pending_total: Arc::default(),
            shedding: Shedding::default(),
            next_cid: AtomicU64::new(1),
            event_seq: AtomicU64::new(1),
            lame_duck: AtomicBool::new(false),
            shut_down: AtomicBool::new(false),
            stop: Notify::new(),
            config,
        };
        let engine = Engine { shared: Arc::new(shared) };
        crate::system::start(&engine)?;
        Ok(engine)
    }

    /// Listens for clients. With `tls`, every client must start TLS after the plaintext INFO line; the
    /// configuration may be replaced at any time and holds for connections accepted afterwards. A client
    /// certificate counts as verified because the configuration's verifier let it pass: do not bring one that
    /// lets everything pass.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn listen(
        &self,
        address: SocketAddr,
        tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    ) -> Result<ListenerHandle, EngineError> {
        if self.shared.is_shut_down() {
            return Err(EngineError::ShutDown);
        }
        let listener = bind(address).map_err(|source| EngineError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| EngineError::Listen { address, source })?;
        let bound = Listening { address, tls: tls.is_some() };
        self.shared.listening.write().unwrap_or_else(PoisonError::into_inner).push(bound);
        tracing::info!(%address, tls = tls.is_some(), "listening for clients");
        tokio::spawn(accept(Arc::clone(&self.shared), listener, tls, address.port()));
        Ok(ListenerHandle::new(address))
    }

    /// Connects the embedding program to an account. `label` is shown in monitoring.
    ///
    /// # Errors
    /// The account is not configured.
    pub fn connect_in_process(&self, account: &str, label: &str) -> Result<InProcess, EngineError> {
        let found =
            self.shared.account(account).ok_or_else(|| EngineError::UnknownAccount(account.to_owned()))?;
        found.connections.fetch_add(1, Ordering::Relaxed);
        let profile = Profile {
            cid: self.shared.next_cid(),
            account: found,
            remote: None,
            user: label.to_owned(),
            name: label.to_owned(),
            lang: "rust".to_owned(),
            version: self.shared.config.version.clone(),
            tags: Vec::new(),
            tls: None,
            permissions: Permissions::default(),
            expires_unix: None,
            started: clock::now_nanos(),
            echo: true,
            headers: true,
            protocol: 1,
        };
        let client = Arc::new(Client::new(profile, self.shared.limits()));
        Ok(InProcess::new(Arc::clone(&self.shared), client))
    }

    /// Closes the connections that `which` chooses (reason `Kicked`) and tells how many there were.
    pub fn kick(&self, which: impl FnMut(&ConnectionInfo) -> bool) -> usize {
        self.close_where(CloseReason::Kicked, which)
    }

    /// Closes the connections that `which` chooses, for a reason of the caller's: credentials revoked, say.
    pub fn close_where(&self, reason: CloseReason, mut which: impl FnMut(&ConnectionInfo) -> bool) -> usize {
        let mut count = 0;
        for client in self.shared.all_clients() {
            let info = ConnectionInfo::of(&client);
            if which(&info) {
                tracing::info!(
                    reason = reason.log_reason(), cid = client.cid, user = ?client.user, name = ?client.name,
                    "connection closed by the server"
                );
                client.close(reason);
                count += 1;
            }
        }
        count
    }

    /// The connections of this moment.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.all_clients().iter().map(|client| ConnectionInfo::of(client)).collect()
    }

    /// The connections that call themselves so or were admitted as this user, in whatever account, the newest last. Costs
    /// the same however many others there are.
    pub fn connections_named(&self, name: &str) -> Vec<ConnectionInfo> {
        let ids = self.shared.lock_names().get(name).cloned().unwrap_or_default();
        let clients = self.shared.lock_clients();
        ids.iter().filter_map(|cid| clients.get(cid)).map(|client| ConnectionInfo::of(client)).collect()
    }

    /// Whether `publisher` may subscribe to `subject`: a service that answers somewhere else than to the
    /// requester asks this first. The embedding program may; connections that are gone may not.
    pub fn may_subscribe(&self, publisher: Publisher, subject: &str) -> bool {
        let Publisher::Connection(cid) = publisher else { return true };
        let clients = self.shared.lock_clients();
        clients.get(&cid).is_some_and(|client| client.permissions.subscription_allowed(subject.as_bytes()))
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The server's id, `N` and 55 more letters and digits.
    pub fn server_id(&self) -> &str {
        &self.shared.server_id
    }

    /// Stops accepting, tells clients to look for another server, then closes them evenly over
    /// [`EngineConfig::lame_duck_duration`]. Ends when all have gone.
    pub async fn lame_duck(&self) {
        let shared = &self.shared;
        if shared.lame_duck.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::info!("entering lame duck mode");
        shared.server_event("LAMEDUCK");
        for client in shared.all_clients() {
            if client.protocol >= 1 {
                client.send_control(&shared.lame_duck_info(&client));
            }
        }
        tokio::time::sleep(shared.config.lame_duck_grace).await;
        let clients = shared.all_clients();
        let pause =
            shared.config.lame_duck_duration / u32::try_from(clients.len().max(1)).unwrap_or(u32::MAX);
        for client in clients {
            client.close(CloseReason::ServerShutdown);
            tokio::time::sleep(pause).await;
        }
        self.shutdown().await;
    }

    /// Closes every connection and port; returns when they are closed or after two seconds.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        if !shared.shut_down.swap(true, Ordering::AcqRel) {
            shared.server_event("SHUTDOWN");
        }
        shared.stop.notify_waiters();
        for client in shared.all_clients() {
            client.close(CloseReason::ServerShutdown);
        }
        for queue in shared.lock_local_queues().iter().filter_map(Weak::upgrade) {
            queue.wake();
        }
        let gone = async {
            while shared.open_sockets.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                for client in shared.all_clients() {
                    client.close(CloseReason::ServerShutdown);
                }
                shared.stop.notify_waiters();
            }
        };
        tokio::time::timeout(Duration::from_secs(2), gone).await.ok();
    }
}

/// A bound socket that takes a storm of reconnects and can be bound again at once after a restart.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsConfig>, port: u16) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopped() => return,
        };
        let (socket, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(reason = "accept", %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if shared.lame_duck.load(Ordering::Acquire) {
            return;
        }
        let open = OpenSocket::new(&shared);
        let over = open.number > shared.config.max_connections;
        let place = shared.waiting.enter(shared.config.max_unauthenticated, over).await;
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        tokio::spawn(async move {
            opening::serve(shared, socket, remote, tls, place, port).await;
            drop(open);
        });
    }
}

/// Counts an open socket while it lives.
struct OpenSocket {
    shared: Arc<Shared>,
    number: usize,
}

impl OpenSocket {
    fn new(shared: &Arc<Shared>) -> OpenSocket {
        let number = shared.open_sockets.fetch_add(1, Ordering::AcqRel) + 1;
        OpenSocket { shared: Arc::clone(shared), number }
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.shared.open_sockets.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::Acquire)
    }

    /// Ends when the engine is shut down.
    pub(crate) async fn stopped(&self) {
        loop {
            let stop = self.stop.notified();
            if self.is_shut_down() {
                return;
            }
            stop.await;
        }
    }

    pub(crate) fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.accounts.iter().find(|account| account.name == name).cloned()
    }

    pub(crate) fn system_account(&self) -> Option<Arc<Account>> {
        self.account(self.config.system_account.as_deref()?)
    }

    pub(crate) fn name(&self) -> &str {
        if self.config.server_name.is_empty() { &self.server_id } else { &self.config.server_name }
    }

    pub(crate) fn next_cid(&self) -> u64 {
        self.next_cid.fetch_add(1, Ordering::Relaxed)
    }

    /// Bytes queued for all clients, give or take 64 KiB for each.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_total.load(Ordering::Relaxed)
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { pending: self.config.max_pending, total_now: Arc::clone(&self.pending_total) }
    }

    /// A fresh nonce: random bytes as unpadded base64url.
    pub(crate) fn nonce(&self) -> Result<String, EngineError> {
        Ok(URL_SAFE_NO_PAD.encode(random::<NONCE_BYTES>()?))
    }

    /// A name that cannot be guessed.
    pub(crate) fn random_name(&self) -> Result<String, EngineError> {
        Ok(URL_SAFE_NO_PAD.encode(random::<ANSWER_BYTES>()?))
    }

    /// A reply subject for a request that enters another account.
    pub(crate) fn answer_subject(&self) -> Result<Vec<u8>, EngineError> {
        let mut subject = ANSWER_PREFIX.to_vec();
        subject.extend_from_slice(self.server_id.as_bytes().get(1..9).unwrap_or_default());
        subject.push(b'.');
        subject.extend_from_slice(self.random_name()?.as_bytes());
        Ok(subject)
    }

    /// Subjects that only the engine and the embedding program publish on.
    pub(crate) fn is_reserved_subject(&self, subject: &[u8], client: &Client) -> bool {
        if client.is_local() || subject == b"$SYS.REQ.USER.INFO" {
            return false;
        }
        let system = self.config.system_account.as_deref() == Some(client.account.name.as_str());
        subject.starts_with(b"$JS.EVENT.")
            || (subject.starts_with(b"$SYS.") && !(system && subject.starts_with(b"$SYS.REQ.")))
    }

    pub(crate) fn lock_clients(&self) -> MutexGuard<'_, HashMap<u64, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_names(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<u64>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_local_queues(&self) -> MutexGuard<'_, Vec<Weak<LocalQueue>>> {
        self.local_queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_closed(&self) -> MutexGuard<'_, VecDeque<ClosedConnection>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register_local(&self, queue: &Arc<LocalQueue>) {
        let mut queues = self.lock_local_queues();
        if queues.len() >= 64 && queues.len() == queues.capacity() {
            queues.retain(|queue| queue.strong_count() > 0);
        }
        queues.push(Arc::downgrade(queue));
    }

    /// By connection id.
    pub(crate) fn all_clients(&self) -> Vec<Arc<Client>> {
        let mut clients: Vec<_> = self.lock_clients().values().cloned().collect();
        clients.sort_unstable_by_key(|client| client.cid);
        clients
    }

    pub(crate) fn connected(&self, client: &Arc<Client>) {
        self.counters.total_connections.fetch_add(1, Ordering::Relaxed);
        client.account.connections.fetch_add(1, Ordering::Relaxed);
        client.account.total_connections.fetch_add(1, Ordering::Relaxed);
        self.lock_clients().insert(client.cid, Arc::clone(client));
        {
            let mut names = self.lock_names();
            for name in [&client.name, &client.user] {
                if !name.is_empty() {
                    names.entry(name.clone()).or_default().insert(client.cid);
                }
            }
        }
        if self.is_shut_down() {
            client.close(CloseReason::ServerShutdown);
        }
        tracing::debug!(
            cid = client.cid, account = %client.account.name, user = ?client.user, name = ?client.name,
            "connected"
        );
        self.connect_event(client);
    }

    pub(crate) fn disconnected(&self, client: &Arc<Client>, reason: CloseReason) {
        client.account.connections.fetch_sub(1, Ordering::Relaxed);
        match reason {
            CloseReason::SlowConsumerPending | CloseReason::SlowConsumerDeadline => {
                self.counters.slow_consumers.fetch_add(1, Ordering::Relaxed);
                client.account.slow_consumers.fetch_add(1, Ordering::Relaxed);
                if let Some(suppressed) = self.may_log("slow_consumer", client) {
                    tracing::warn!(
                        reason = "slow_consumer", cid = client.cid, user = ?client.user, name = ?client.name,
                        remote = client.remote.map(tracing::field::display), how = reason.text(), suppressed,
                        "connection closed"
                    );
                }
            }
            CloseReason::StaleConnection => {
                self.counters.stale.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        if reason != CloseReason::ClientClosed {
            tracing::debug!(
                reason = reason.log_reason(),
                cid = client.cid,
                how = reason.text(),
                "disconnected"
            );
        }
        {
            let out = client.lock_out();
            self.counters.past_out_msgs.fetch_add(out.msgs, Ordering::Relaxed);
            self.counters.past_out_bytes.fetch_add(out.bytes, Ordering::Relaxed);
        }
        self.counters.past_in_msgs.fetch_add(client.in_msgs.load(Ordering::Relaxed), Ordering::Relaxed);
        self.counters.past_in_bytes.fetch_add(client.in_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.lock_clients().remove(&client.cid);
        {
            let mut names = self.lock_names();
            for name in [&client.name, &client.user] {
                if let Some(ids) = names.get_mut(name) {
                    ids.remove(&client.cid);
                    if ids.is_empty() {
                        names.remove(name);
                    }
                }
            }
        }
        let mut closed = self.lock_closed();
        while closed.len() >= self.config.closed_ring.max(1) {
            closed.pop_front();
        }
        if self.config.closed_ring > 0 {
            closed.push_back(ClosedConnection {
                connection: ConnectionInfo::of(client),
                reason,
                stop: clock::now_nanos(),
            });
        }
        drop(closed);
        self.disconnect_event(client, reason);
    }

    pub(crate) fn stats(&self) -> Stats {
        let counters = &self.counters;
        let past = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = Stats {
            total_connections: past(&counters.total_connections),
            subscriptions: self.accounts.iter().map(|account| account.subscriptions()).sum(),
            in_msgs: past(&counters.past_in_msgs),
            in_bytes: past(&counters.past_in_bytes),
            out_msgs: past(&counters.past_out_msgs),
            out_bytes: past(&counters.past_out_bytes),
            slow_consumers: past(&counters.slow_consumers),
            stale_connections: past(&counters.stale),
            denied: past(&counters.denied),
            connections: 0,
        };
        for client in self.all_clients() {
            stats.connections += 1;
            stats.in_msgs += client.in_msgs.load(Ordering::Relaxed);
            stats.in_bytes += client.in_bytes.load(Ordering::Relaxed);
            let out = client.lock_out();
            stats.out_msgs += out.msgs;
            stats.out_bytes += out.bytes;
        }
        stats
    }

    /// One line per refusal, thinned out per reason and address. `name` is the peer's own claim.
    pub(crate) fn log_denial(
        &self,
        remote: Option<SocketAddr>,
        reason: &'static str,
        detail: &str,
        name: &str,
    ) {
        let Some(remote) = remote else { return };
        if let Some(suppressed) = self.failures.may_log(reason, remote.ip(), Instant::now()) {
            tracing::warn!(reason, %remote, name = %printable(name), detail = %printable(detail), suppressed, "connection refused");
        }
    }

    /// Whether to write a line about a connection, and how many were left out before it.
    pub(crate) fn may_log(&self, reason: &'static str, client: &Client) -> Option<u32> {
        let Some(remote) = client.remote else { return Some(0) };
        self.failures.may_log(reason, remote.ip(), Instant::now())
    }

    /// One line per refused operation, thinned out like refused connections.
    pub(crate) fn log_violation(&self, client: &Client, reason: &'static str, text: &str) {
        let Some(remote) = client.remote else { return };
        if let Some(suppressed) = self.failures.may_log(reason, remote.ip(), Instant::now()) {
            tracing::warn!(
                reason, cid = client.cid, user = ?client.user, name = ?client.name,
                detail = %printable(text), suppressed, "operation refused"
            );
        }
    }
}

/// Bytes of the system's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], EngineError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|error| EngineError::Random(error.to_string()))?;
    Ok(bytes)
}
