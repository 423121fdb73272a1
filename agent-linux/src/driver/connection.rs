//! The task that owns a connection: it feeds the machine and does what the machine says.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use agent_core::dispatch::{Body, ClockRule, ReplyCheck, Rules};
use agent_core::machine::{Config, Core, Now};
use agent_core::nats::Limits;
use agent_core::replay::{ReplayCache, ReplaySlot};
use agent_core::rpc::StatusCode;
use agent_core::session::{Client, SessionConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::buffers::Shared;
use super::dial;
use super::host::{After, Answer, Called, Host, Notice};
use super::queue::{Bounds, Queue};
use crate::broker_target::Targets;

mod link;
mod parcel;

use link::Link;
use parcel::Parcel;

/// What a node has settled before it connects.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    pub identity: String,
    pub collectives: Vec<String>,
    /// `server`, `provision_mode_server` or `service_host`.
    pub component: String,
    pub version: String,
    pub legacy_events: bool,
    pub node_subjects: bool,
    pub ttl_cap_seconds: u32,
    pub reply_check: ReplyCheck,
    pub reply_targets: Vec<String>,
    pub federation: bool,
    /// Requests made before this Unix nanosecond are refused; 0 for none.
    pub not_before: i64,
    pub replay_slots: usize,
    /// `None` speaks plain TCP and refuses brokers that want TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub brokers: Targets,
    pub connect_timeout: Duration,
    pub ping_interval: Duration,
    /// Largest message received, with its subject; the buffer is this large.
    pub max_message: usize,
    pub bounds: Bounds,
    /// How long running calls may take to finish when the node ends.
    pub soft_shutdown: Duration,
    /// Send the token in CONNECT twice, as the original client library does.
    pub repeat_token: bool,
}

impl ConnectionConfig {
    /// The values of a provisioned server, all limits at their defaults.
    #[must_use]
    pub fn server(identity: &str, collectives: Vec<String>, brokers: Targets) -> ConnectionConfig {
        ConnectionConfig {
            identity: identity.to_owned(),
            collectives,
            component: "server".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            legacy_events: false,
            node_subjects: true,
            ttl_cap_seconds: agent_core::ttl::DEFAULT_CAP_SECONDS,
            reply_check: ReplyCheck::Caller,
            reply_targets: Vec::new(),
            federation: false,
            not_before: 0,
            replay_slots: agent_core::replay::SERVER_SLOTS,
            tls: None,
            brokers,
            connect_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(120),
            max_message: 1 << 20,
            bounds: Bounds::default(),
            soft_shutdown: Duration::from_secs(2),
            repeat_token: false,
        }
    }
}

/// Orders from the rest of the program.
#[derive(Debug)]
pub enum Command {
    /// Publish a message. While disconnected 10 KiB are kept, the rest is dropped and logged.
    Publish { subject: String, payload: Vec<u8> },
    /// [`Host::agents`] answers differently now.
    AgentsChanged,
    /// Finish what runs, say goodbye, end.
    Stop,
}

/// Why [`Connection::run`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Stopped,
    /// The provisioning agent asked for a new start after this wait.
    Restart {
        delay: Duration,
    },
    /// The provisioning agent asked for an end that is no failure.
    Shutdown,
}

/// Bytes of messages kept while there is no connection.
const OFFLINE_BYTES: usize = 10 * 1024;
const READ_CHUNK: usize = 8 * 1024;
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Before the next operation is rendered, what is collected goes out.
const FLUSH_AT: usize = 64 * 1024;

/// A connection to be run.
#[derive(Debug)]
pub struct Connection {
    config: ConnectionConfig,
    shared: Shared,
}

/// A finished call.
struct Done {
    caller: String,
    to: Parcel,
    answer: Answer,
}

/// A call that waits for its turn.
struct Job {
    called: Called,
    to: Parcel,
    timeout: Duration,
}

impl Connection {
    #[must_use]
    pub fn new(config: ConnectionConfig, shared: Shared) -> Connection {
        Connection { config, shared }
    }

    /// Runs until stopped. Must be called inside a [`tokio::task::LocalSet`].
    pub async fn run(&self, host: Rc<dyn Host>, mut commands: mpsc::UnboundedReceiver<Command>) -> Ended {
        let config = &self.config;
        let collectives: Vec<&str> = config.collectives.iter().map(String::as_str).collect();
        let targets: Vec<&str> = config.reply_targets.iter().map(String::as_str).collect();
        let mut slots = vec![ReplaySlot::FREE; config.replay_slots];
        let replay = ReplayCache::new(&mut slots, config.not_before, choria_host::random::array());
        let core =
            Core::new(core_config(config, &collectives, &targets), replay, choria_host::random::array());
        let (done_tx, mut done_rx) = mpsc::unbounded_channel::<Done>();
        let mut link = Link::new(config, &self.shared, core, host.as_ref());
        let mut queue: Queue<Job> = Queue::new(config.bounds);
        let mut offline: VecDeque<(String, Vec<u8>)> = VecDeque::new();
        let mut chunk = vec![0u8; READ_CHUNK];
        let mut ending: Option<(Ended, Instant)> = None;
        let mut stop_at: Option<(Ended, Instant)> = None;
        let mut commands_open = true;

        link.tick(&mut queue).await;
        loop {
            while let Some((caller, job)) = queue.take() {
                start(Rc::clone(&host), caller, job, done_tx.clone());
            }
            if link.is_ready() {
                while let Some((subject, payload)) = offline.pop_front() {
                    link.publish(&subject, &payload);
                }
            }
            link.flush().await;
            if let Some((ended, deadline)) = ending
                && (queue.is_idle() || Instant::now() >= deadline || !link.is_ready())
            {
                link.goodbye().await;
                return ended;
            }
            let wake = [link.deadline(), ending.map(|(_, at)| at), stop_at.map(|(_, at)| at)];
            let wake = wake.into_iter().flatten().min();
            tokio::select! {
                command = commands.recv(), if commands_open => match command {
                    Some(Command::Publish { subject, payload }) if link.is_ready() => link.publish(&subject, &payload),
                    Some(Command::Publish { subject, payload }) => keep(&mut offline, subject, payload),
                    Some(Command::AgentsChanged) => link.agents_changed(&mut queue).await,
                    Some(Command::Stop) => {
                        queue.clear_waiting();
                        ending = Some((Ended::Stopped, Instant::now() + config.soft_shutdown));
                    }
                    None => commands_open = false,
                },
                Some(done) = done_rx.recv() => {
                    queue.done(&done.caller);
                    link.answer(&done.to, &done.answer);
                    if done.answer.announce_provisioned {
                        link.announce_provisioned();
                    }
                    if let Some(after) = done.answer.after {
                        link.flush().await;
                        queue.clear_waiting();
                        match after {
                            After::Restart { delay_ms } => {
                                let delay = Duration::from_millis(delay_ms.into());
                                ending = Some((Ended::Restart { delay }, Instant::now() + config.soft_shutdown));
                            }
                            After::Shutdown { delay_ms } => {
                                let at = Instant::now() + Duration::from_millis(delay_ms.into());
                                stop_at = Some((Ended::Shutdown, at));
                            }
                        }
                    }
                },
                read = link.read(&mut chunk) => match read {
                    Ok(size) if size > 0 => link.received(chunk.get(..size).unwrap_or_default(), &mut queue).await,
                    _ => link.lost(&mut queue).await,
                },
                () = sleep_until(wake) => {
                    if let Some((ended, at)) = stop_at
                        && Instant::now() >= at
                    {
                        stop_at = None;
                        queue.clear_waiting();
                        ending = Some((ended, Instant::now() + config.soft_shutdown));
                    }
                    link.tick(&mut queue).await;
                }
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn keep(offline: &mut VecDeque<(String, Vec<u8>)>, subject: String, payload: Vec<u8>) {
    let kept: usize = offline.iter().map(|(subject, payload)| subject.len() + payload.len()).sum();
    if kept + subject.len() + payload.len() > OFFLINE_BYTES {
        tracing::warn!(subject, "not connected and the buffer is full, a message is dropped");
    } else {
        offline.push_back((subject, payload));
    }
}

/// Runs one call beside the connection, with its deadline.
fn start(host: Rc<dyn Host>, caller: String, job: Job, done: mpsc::UnboundedSender<Done>) {
    let Job { called, to, timeout } = job;
    tokio::task::spawn_local(async move {
        let answer = match tokio::time::timeout(timeout, host.call(called)).await {
            Ok(answer) => answer,
            Err(_) => {
                Answer::status(StatusCode::UnknownError, format!("Timeout after {}s", timeout.as_secs()))
            }
        };
        // The connection may have ended meanwhile; then nobody waits for the answer.
        done.send(Done { caller, to, answer }).ok();
    });
}

fn core_config<'c>(
    config: &'c ConnectionConfig,
    collectives: &'c [&'c str],
    targets: &'c [&'c str],
) -> Config<'c> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Config {
        identity: &config.identity,
        session: SessionConfig {
            client: Client { name: &config.identity, lang: "rust", version: &config.version },
            require_tls: config.tls.is_some(),
            servers: dial::pass(&config.brokers),
            connect_timeout_ms: millis(config.connect_timeout),
            ping_interval_ms: millis(config.ping_interval),
            pings_out: 2,
            limits: Limits { info: 32 * 1024, payload: config.max_message },
        },
        rules: Rules {
            collectives,
            ttl_cap_seconds: config.ttl_cap_seconds,
            reply_check: config.reply_check,
            reply_targets: targets,
            federation: config.federation,
            clock: ClockRule::Required,
        },
        component: &config.component,
        version: &config.version,
        legacy_events: config.legacy_events,
        node_subjects: config.node_subjects,
    }
}
