//! Which nodes match a filter (docs/spec/07 §6).

mod broadcast;
pub mod external;
pub mod flatfile;
pub mod inventory;

use std::time::Duration;

use choria_protocol::Filter;

use crate::verification::Verification;
use crate::{ClientError, Connection};

pub use broadcast::{Answer, PingOptions, PingSummary, ping};

/// How to look.
#[derive(Debug, Clone, Default)]
pub struct DiscoveryOptions {
    /// In place of the configured `discovery_timeout`.
    pub timeout: Option<Duration>,
    /// Ends 300 ms after the last answer; `None` as configured.
    pub windowed: Option<bool>,
    /// Believes answers whose signature does not verify, as peers do.
    pub skip_verification: bool,
}

/// A node that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredNode {
    pub identity: String,
    /// [`Verification::Unverified`] also for nodes taken from a list.
    pub verification: Verification,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    /// In the order they answered, each once.
    pub nodes: Vec<DiscoveredNode>,
    /// Answers that were not believed.
    pub invalid: usize,
    /// The filter named nodes, so nobody was asked.
    pub offline: bool,
}

impl Discovered {
    pub fn identities(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.identity.clone()).collect()
    }

    fn unasked(identities: impl IntoIterator<Item = String>) -> Self {
        Self {
            nodes: identities
                .into_iter()
                .map(|identity| DiscoveredNode { identity, verification: Verification::Unverified })
                .collect(),
            invalid: 0,
            offline: true,
        }
    }
}

/// Discovers by broadcast; a filter of literal identities needs no network and is answered at once.
pub async fn discover(
    connection: &Connection,
    filter: &Filter,
    options: &DiscoveryOptions,
) -> Result<Discovered, ClientError> {
    if let Some(identities) = filter.literal_identities() {
        if let Some(bad) = identities.iter().find(|name| !choria_token::names::valid_identity(name)) {
            return Err(ClientError::Discovery(format!(
                "invalid identity string \"{}\"",
                bad.escape_default()
            )));
        }
        return Ok(Discovered::unasked(identities.iter().cloned()));
    }
    broadcast::discover(connection, filter, options).await
}
