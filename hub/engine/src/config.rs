//! What an engine is configured with, and its bounds (`docs/spec/10 §9`).

use std::time::Duration;

/// Settings of an engine. `EngineConfig::default()` is a complete, bounded configuration.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// `server_name` in INFO; empty: the server id.
    pub server_name: String,
    /// `version` in INFO: a semantic version that clients compare to learn what the server can do.
    pub version: String,
    /// Name of the network in INFO and server lists; empty: none.
    pub cluster_name: String,
    /// `host:port` entries that clients may reconnect to; empty: not advertised.
    pub connect_urls: Vec<String>,
    /// Whether INFO says that streams are available here.
    pub jetstream: bool,
    /// Name of the account whose users may call `$SYS` services; `None`: no system account.
    pub system_account: Option<String>,
    /// Largest payload of a message, headers included, bytes.
    pub max_payload: usize,
    /// Largest argument part of a control line, bytes.
    pub max_control_line: usize,
    /// Largest argument part of the CONNECT line of a connection that is not yet authenticated, bytes.
    pub max_connect_line: usize,
    /// Connections at one time, in all.
    pub max_connections: usize,
    /// Connections that have not authenticated yet, at one time.
    pub max_unauthenticated: usize,
    /// Bytes that all connections that have not authenticated may make the engine hold, together.
    pub max_unauthenticated_bytes: usize,
    /// Subscriptions of one connection; 0: no limit.
    pub max_subscriptions: usize,
    /// Longest subject of a subscription, bytes.
    pub max_subject: usize,
    /// Tokens in the subject of a subscription.
    pub max_subject_tokens: usize,
    /// Time from the end of the TLS handshake to a complete CONNECT.
    pub auth_timeout: Duration,
    /// Time for the TLS handshake, waiting for a free slot not counted.
    pub tls_timeout: Duration,
    /// TLS handshakes and credential checks that may compute at the same time; 0: four per core.
    pub handshakes: usize,
    /// Longest time that a client may take for what is queued for it, or for as much of it as the largest message.
    pub write_deadline: Duration,
    /// Time between PINGs of an idle connection.
    pub ping_interval: Duration,
    /// PINGs without an answer after which a connection is stale.
    pub max_pings_out: u32,
    /// Bytes queued for one client.
    pub max_pending: usize,
    /// Bytes queued for all clients together.
    pub max_pending_total: usize,
    /// Time in which lame duck mode closes its clients, after `lame_duck_grace`.
    pub lame_duck_duration: Duration,
    /// Time between telling clients that the server goes and closing the first of them.
    pub lame_duck_grace: Duration,
    /// How failed authentications of one address are slowed down.
    pub failures: FailurePolicy,
    /// Closed connections that monitoring remembers.
    pub closed_ring: usize,
}

/// Delay of the answer to an address whose credentials keep failing (`docs/spec/10 §9`). Successful peers are
/// never slowed.
#[derive(Debug, Clone)]
pub struct FailurePolicy {
    /// Failures within `window` before delays begin.
    pub free: u32,
    pub window: Duration,
    /// Longest delay of one answer.
    pub max_delay: Duration,
    /// Answers delayed at one time; beyond that the connection is closed at once.
    pub max_delayed: usize,
    /// Whether loopback addresses are never delayed.
    pub exempt_loopback: bool,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        FailurePolicy {
            free: 20,
            window: Duration::from_secs(60),
            max_delay: Duration::from_secs(2),
            max_delayed: 1000,
            exempt_loopback: true,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            server_name: String::new(),
            version: String::from("2.11.0"),
            cluster_name: String::new(),
            connect_urls: Vec::new(),
            jetstream: false,
            system_account: None,
            max_payload: 1024 * 1024,
            max_control_line: 4096,
            max_connect_line: 64 * 1024,
            max_connections: 50_000,
            max_unauthenticated: 4096,
            max_unauthenticated_bytes: 64 * 1024 * 1024,
            max_subscriptions: 4096,
            max_subject: 1024,
            max_subject_tokens: 32,
            auth_timeout: Duration::from_secs(2),
            tls_timeout: Duration::from_secs(2),
            handshakes: 0,
            write_deadline: Duration::from_secs(10),
            ping_interval: Duration::from_secs(120),
            max_pings_out: 2,
            max_pending: 64 * 1024 * 1024,
            max_pending_total: 1024 * 1024 * 1024,
            lame_duck_duration: Duration::from_secs(20),
            lame_duck_grace: Duration::from_secs(10),
            failures: FailurePolicy::default(),
            closed_ring: 10_000,
        }
    }
}

/// A named, isolated subject space, and what it takes from others.
#[derive(Debug, Clone, Default)]
pub struct AccountConfig {
    pub name: String,
    pub imports: Vec<Import>,
}

impl AccountConfig {
    /// An account without imports.
    pub fn named(name: impl Into<String>) -> AccountConfig {
        AccountConfig { name: name.into(), imports: Vec::new() }
    }

    /// Adds an import.
    pub fn import(mut self, import: Import) -> AccountConfig {
        self.imports.push(import);
        self
    }
}

/// Something that an account takes from another one.
#[derive(Debug, Clone)]
pub enum Import {
    /// Messages published in account `from` on subjects matching `subject` also reach subscribers here, on
    /// `prefix.subject` when `prefix` is not empty.
    Stream { from: String, subject: String, prefix: String },
    /// A request published here on `subject` is answered by account `account`, where it arrives as `to`.
    /// Wildcards of `subject` fill those of `to` in order. One answer per request.
    Service { account: String, subject: String, to: String },
}

impl Import {
    /// A stream import that keeps its subjects.
    pub fn stream(from: impl Into<String>, subject: impl Into<String>) -> Import {
        Import::Stream { from: from.into(), subject: subject.into(), prefix: String::new() }
    }

    /// A service import.
    pub fn service(account: impl Into<String>, subject: impl Into<String>, to: impl Into<String>) -> Import {
        Import::Service { account: account.into(), subject: subject.into(), to: to.into() }
    }
}
