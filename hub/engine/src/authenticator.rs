//! The boundary to whoever decides about access: what a connection presents, and what it may become.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;

use crate::connect::ConnectOptions;
use crate::pace::Pace;

/// Decides who may connect, and as whom. Called once per connection, off the message path, on a thread that may
/// compute for a while; at most [`crate::EngineConfig::handshakes`] calls run at the same time.
pub trait Authenticator: Send + Sync + 'static {
    /// Whether INFO carries a nonce for clients to sign. A fresh nonce is made for every connection either way.
    fn nonce_required(&self) -> bool {
        true
    }

    /// Whether credentials are needed at all; only with `false` may a client leave out CONNECT.
    fn required(&self) -> bool {
        true
    }

    /// Judges a connection.
    ///
    /// # Errors
    /// A [`Denial`] closes the connection; the peer never learns its reason.
    fn authenticate(&self, candidate: &Candidate<'_>) -> Result<Admission, Denial>;

    /// Whether a connection with these [`Admission::tags`] would still be let in. Asked once for each, as soon as
    /// [`crate::Engine::close_where`] can find it: what is revoked while a connection is judged would pass it by otherwise.
    fn still_admits(&self, _tags: &[String]) -> bool {
        true
    }
}

/// A connection that asks to be let in.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub remote: SocketAddr,
    /// Present when the connection is encrypted.
    pub tls: Option<PeerTls<'a>>,
    /// The nonce of this connection's INFO, as text: its ASCII bytes are what a client signs.
    pub nonce: &'a str,
    pub connect: &'a ConnectOptions,
    pub kind: PeerKind,
}

/// The TLS side of a candidate.
#[derive(Debug, Clone, Copy)]
pub struct PeerTls<'a> {
    /// A client certificate was presented and verified against the configured authority.
    pub verified: bool,
    /// The peer's chain, its own certificate first; empty without one.
    pub certificates: &'a [CertificateDer<'static>],
}

/// What speaks on the connection. Leaf nodes and routes do not exist here; a CONNECT that claims to be one is
/// marked, so that it can be refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    Client,
    /// The CONNECT line has the fields of a server-to-server connection.
    Leaf,
}

/// What an admitted connection is.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// Name of a configured account.
    pub account: String,
    /// Shown in monitoring and logs; never a secret.
    pub user: String,
    pub permissions: Permissions,
    /// When the session ends, seconds since 1970; `None`: never.
    pub expires_unix: Option<i64>,
    /// Labels shown in monitoring.
    pub tags: Vec<String>,
    /// Subscriptions of this connection; `None`: the engine's limit.
    pub max_subscriptions: Option<usize>,
    /// Refused when its account has so many connections already.
    pub max_account_connections: Option<usize>,
    /// How fast it may publish; `None`: as fast as it can.
    pub pace: Option<Pace>,
}

/// Subjects a connection may use. The default allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Permissions {
    pub publish: Rules,
    pub subscribe: Rules,
}

/// An allow and a deny list of subject patterns. Deny wins. No allow list: all that is not denied. For publishing
/// an empty allow list allows nothing; for subscribing it counts as no list. A subscribe entry may name a queue
/// after one space.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rules {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// A refusal. The engine logs it in one line; the wire only says `Authorization Violation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// One stable word for logs and counters.
    pub reason: &'static str,
    /// One sentence for the operator's log; never a token or password.
    pub detail: String,
}

impl Denial {
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Denial {
        Denial { reason, detail: detail.into() }
    }
}

/// Lets everybody into one account with every permission: for tests and private networks.
#[derive(Debug, Clone)]
pub struct Open {
    account: String,
}

impl Open {
    pub fn new(account: impl Into<String>) -> Open {
        Open { account: account.into() }
    }
}

impl Authenticator for Open {
    fn nonce_required(&self) -> bool {
        false
    }

    fn required(&self) -> bool {
        false
    }

    fn authenticate(&self, candidate: &Candidate<'_>) -> Result<Admission, Denial> {
        Ok(Admission {
            account: self.account.clone(),
            user: candidate.connect.user.clone(),
            ..Admission::default()
        })
    }
}
