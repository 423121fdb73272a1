//! Asking every node at once: `ping`, and discovery that is made of it (docs/spec/07 §4.2).

use std::collections::HashSet;
use std::time::Duration;

use choria_protocol::{DISCOVERY_AGENT, DISCOVERY_BODY, Filter, subjects};
use tokio::time::Instant;

use super::{Discovered, DiscoveredNode, DiscoveryOptions};
use crate::call::after;
use crate::inbox::Inbox;
use crate::verification::Verification;
use crate::{ClientError, Connection};

/// A windowed discovery ends this long after the last answer.
const WINDOW: Duration = Duration::from_millis(300);

/// Node names remembered in one discovery (docs/spec/10 §9).
const MAX_NODES: usize = 1_000_000;

/// How to ping.
#[derive(Debug, Clone, Default)]
pub struct PingOptions {
    /// In place of the configured `discovery_timeout`.
    pub timeout: Option<Duration>,
    /// Ends once so many have answered.
    pub expect: Option<usize>,
    /// Ends this long after the last answer, once there was one.
    pub window: Option<Duration>,
    pub skip_verification: bool,
}

/// A node that answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub identity: String,
    pub verification: Verification,
    /// Since the request was published.
    pub after: Duration,
}

/// What came of a ping beside the answers.
#[derive(Debug, Clone, Default)]
pub struct PingSummary {
    pub answers: usize,
    /// Malformed, altered, badly signed, or names that cannot be.
    pub invalid: usize,
    pub duplicates: usize,
    pub publish_time: Duration,
    pub total_time: Duration,
}

/// Asks every node that matches; `on_answer` sees each node once, as it answers.
pub async fn ping(
    connection: &Connection,
    filter: &Filter,
    options: &PingOptions,
    mut on_answer: impl FnMut(Answer),
) -> Result<PingSummary, ClientError> {
    let request = connection.new_request(
        DISCOVERY_AGENT,
        DISCOVERY_BODY.to_vec(),
        filter.clone(),
        connection.config().ttl,
    )?;
    let secure = connection.sign(&request).await?;
    let reply_subject = connection.reply_subject(&request.id);
    let mut inbox = Inbox::open(connection, reply_subject.clone()).await?;

    let started = Instant::now();
    let subject = subjects::broadcast(&request.collective, DISCOVERY_AGENT);
    if connection.config().brokers.federations.is_empty() {
        connection.publish(subject.clone(), connection.transport(&secure, &reply_subject)?).await?;
    } else {
        crate::call::publish_federated(
            connection,
            &request,
            &secure,
            &reply_subject,
            std::slice::from_ref(&subject),
        )
        .await?;
    }
    let mut summary = PingSummary { publish_time: started.elapsed(), ..PingSummary::default() };

    let mut deadline = after(started, options.timeout.unwrap_or(connection.config().discovery_timeout));
    let latest = after(deadline, Duration::from_secs(2));
    let mut seen = HashSet::new();
    while options.expect.is_none_or(|expected| summary.answers < expected) && seen.len() < MAX_NODES {
        let next = tokio::select! {
            next = tokio::time::timeout_at(deadline, inbox.next()) => next,
            refused = connection.refusal(&subject) => return Err(refused),
        };
        let payload = match next {
            Err(_) => break,
            Ok(None) => return Err(ClientError::Broker("the connection was closed".to_owned())),
            Ok(Some(payload)) => payload,
        };
        let received = match connection.reply_verifier().read(&payload, &request.id) {
            Ok(received) => received,
            Err(error) => {
                summary.invalid += 1;
                tracing::debug!(reason = error.reason(), "discovery answer dropped: {error}");
                continue;
            }
        };
        if let (Verification::Invalid(reason), false) = (&received.verification, options.skip_verification) {
            summary.invalid += 1;
            tracing::warn!(
                sender = received.reply.sender,
                reason,
                "discovery answer dropped: its signature is not good"
            );
            continue;
        }
        if !seen.insert(received.reply.sender.clone()) {
            summary.duplicates += 1;
            continue;
        }
        summary.answers += 1;
        if let Some(window) = options.window {
            deadline = after(Instant::now(), window).min(latest);
        }
        on_answer(Answer {
            identity: received.reply.sender,
            verification: received.verification,
            after: started.elapsed(),
        });
    }
    summary.invalid += inbox.dropped();
    summary.total_time = started.elapsed();
    Ok(summary)
}

pub(super) async fn discover(
    connection: &Connection,
    filter: &Filter,
    options: &DiscoveryOptions,
) -> Result<Discovered, ClientError> {
    let windowed = options.windowed.unwrap_or(connection.config().windowed_discovery);
    let ping_options = PingOptions {
        timeout: options.timeout,
        expect: None,
        window: windowed.then_some(WINDOW),
        skip_verification: options.skip_verification,
    };
    let mut nodes = Vec::new();
    let summary = ping(connection, filter, &ping_options, |answer| {
        nodes.push(DiscoveredNode { identity: answer.identity, verification: answer.verification });
    })
    .await?;
    Ok(Discovered { nodes, invalid: summary.invalid, offline: false })
}
