//! One action on many nodes, replies as they come (docs/spec/07 §4.3 to §4.5).

use std::collections::HashSet;
use std::time::Duration;

use choria_host::random;
use choria_protocol::ddl::Ddl;
use choria_protocol::rpc::{RpcReply, RpcRequest, StatusCode};
use choria_protocol::{Federation, Filter, Request, SecureRequest, subjects};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::discovery::{self, DiscoveryOptions};
use crate::inbox::Inbox;
use crate::targets::{self, Amount};
use crate::verification::Verification;
use crate::{ClientError, Connection, LimitMethod};

/// Targets of one message to a federation broker (docs/spec/01 §2.9).
const FEDERATED_TARGETS: usize = 200;

/// How to ask.
#[derive(Debug, Clone, Default)]
pub struct RpcOptions {
    /// Who is asked. `None`: whoever `filter` discovers by broadcast.
    pub targets: Option<Vec<String>>,
    /// Travels with the request, and is what discovery looks for.
    pub filter: Filter,
    /// In place of the discovery timeout plus the agent's own.
    pub timeout: Option<Duration>,
    /// Ends a request when no reply has come for so long, once there was one.
    pub quiet_after: Option<Duration>,
    pub limit: Option<Amount>,
    pub limit_method: Option<LimitMethod>,
    /// Makes a random limit repeatable.
    pub limit_seed: Option<u64>,
    /// Nodes asked at a time.
    pub batch: Option<Amount>,
    /// Between batches; a second when not given.
    pub batch_sleep: Option<Duration>,
    /// Stops when this many of a finished batch did not succeed.
    pub batch_abort: Option<Amount>,
    /// Replies go to this subject and are not awaited.
    pub reply_to: Option<String>,
    /// Is told of every group of nodes as it is asked, for callers that may stop a request before it has a [`Summary`].
    pub asking: Option<std::sync::mpsc::Sender<Asking>>,
    /// Replies without a valid signature are dropped and counted.
    pub require_signed: bool,
    /// Sends inputs as they are; for agents whose real inputs exceed their DDL (docs/spec/04 §7).
    pub skip_validation: bool,
}

/// Nodes that a request is being sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    pub request_id: String,
    pub nodes: Vec<String>,
}

/// What one node answered.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeReply {
    pub identity: String,
    pub action: String,
    pub status: StatusCode,
    pub message: String,
    /// An object from well-behaved agents.
    pub data: Value,
    pub verification: Verification,
    /// Since the request was published.
    pub at: Duration,
    /// When the node made the reply, Unix nanoseconds by its own clock.
    pub time: i64,
}

/// How a request went.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub request_id: String,
    /// Nodes that were asked.
    pub targets: Vec<String>,
    pub ok: usize,
    pub failed: usize,
    /// Asked, but silent.
    pub missing: Vec<String>,
    /// Not asked, or not again: the first of each 1,000 names.
    pub unexpected: Vec<String>,
    pub duplicates: usize,
    /// Dropped: malformed, altered, badly signed, or for another request.
    pub invalid: usize,
    /// Dropped because too many bytes were waiting.
    pub flooded: usize,
    pub verified: usize,
    pub unverified: usize,
    /// Zero when targets were given.
    pub discovery_time: Duration,
    pub publish_time: Duration,
    pub request_time: Duration,
    pub batches: usize,
    /// Nodes that were never asked, because a batch went wrong.
    pub not_contacted: Vec<String>,
    /// What the DDL says about inputs that were accepted nonetheless.
    pub warnings: Vec<choria_protocol::ddl::InputWarning>,
}

impl Summary {
    pub fn responses(&self) -> usize {
        self.ok + self.failed
    }

    /// Whether every node that was asked succeeded.
    pub fn all_ok(&self) -> bool {
        self.failed == 0 && self.missing.is_empty() && self.not_contacted.is_empty()
    }
}

/// Names kept of nodes that answered uninvited.
const UNEXPECTED_KEPT: usize = 1000;

/// Calls an action; `on_reply` sees every reply that counts, as it comes.
///
/// # Errors
/// Inputs that the DDL refuses, before anything is sent; [`ClientError::NothingDiscovered`]; a signer that says
/// no; a broken connection. Nodes that fail or stay silent are no errors: see [`Summary`].
pub async fn call(
    connection: &Connection,
    ddl: &Ddl,
    action: &str,
    data: Map<String, Value>,
    options: RpcOptions,
    on_reply: impl FnMut(NodeReply),
) -> Result<Summary, ClientError> {
    // boxed: the state of a request is large, and callers need not carry it
    Box::pin(run(connection, ddl, action, data, options, on_reply)).await
}

async fn run(
    connection: &Connection,
    ddl: &Ddl,
    action: &str,
    data: Map<String, Value>,
    options: RpcOptions,
    mut on_reply: impl FnMut(NodeReply),
) -> Result<Summary, ClientError> {
    let declared = ddl.action(action)?;
    let warnings = if options.skip_validation { Vec::new() } else { declared.validate(&data)? };
    if let Some(subject) = &options.reply_to
        && !subjects::is_tokens(subject)
    {
        return Err(ClientError::Request(format!(
            "'{}' is no subject to reply to",
            subject.escape_default()
        )));
    }
    let body = RpcRequest { agent: ddl.name().to_owned(), action: action.to_owned(), data }.to_bytes()?;
    let agent_time = Duration::from_secs(ddl.metadata.timeout_or_default());
    let timeout = options.timeout.unwrap_or(connection.config().discovery_timeout.saturating_add(agent_time));

    if ddl.metadata.service {
        return service_call(connection, ddl.name(), body, &options, timeout, warnings, &mut on_reply).await;
    }

    let mut filter = options.filter.clone();
    if connection.config().require_client_filter && filter.is_empty_but_agent() && options.targets.is_none() {
        return Err(ClientError::FilterRequired);
    }
    filter.add_agent(ddl.name());

    let discovery_started = Instant::now();
    let (mut nodes, discovery_time) = match options.targets.clone() {
        Some(nodes) => (nodes, Duration::ZERO),
        None => {
            let found = discovery::discover(connection, &filter, &DiscoveryOptions::default()).await?;
            (found.identities(), discovery_started.elapsed())
        }
    };
    let mut seen = HashSet::with_capacity(nodes.len());
    nodes.retain(|node| seen.insert(node.clone()));
    drop(seen);
    if let Some(bad) = nodes.iter().find(|node| !choria_token::names::valid_identity(node)) {
        return Err(ClientError::Request(format!("invalid identity string \"{}\"", bad.escape_default())));
    }
    if nodes.is_empty() {
        return Err(ClientError::NothingDiscovered);
    }
    if let Some(amount) = options.limit {
        let method = options.limit_method.unwrap_or(connection.config().limit_method);
        let seed = options
            .limit_seed
            .filter(|seed| *seed > 0)
            .unwrap_or_else(|| u64::from_le_bytes(random::array()));
        nodes = targets::limit(nodes, amount, method, seed)?;
    }

    let ttl = connection.config().ttl;
    let first = connection.new_request(ddl.name(), body, filter, ttl)?;
    let mut summary = Summary {
        request_id: first.id.clone(),
        targets: nodes.clone(),
        discovery_time,
        warnings,
        ..Summary::default()
    };
    if let Some(subject) = &options.reply_to {
        let started = Instant::now();
        let secure = connection.sign(&first).await?;
        tell(&options, &first, &nodes);
        publish(connection, &first, &secure, subject, &nodes).await?;
        summary.publish_time = started.elapsed();
        summary.batches = 1;
        return Ok(summary);
    }

    let reply_subject = connection.reply_subject(&first.id);
    let mut inbox = Inbox::open(connection, reply_subject.clone()).await?;
    let started = Instant::now();
    let size = options.batch.map_or(nodes.len(), |batch| batch.of(nodes.len()).max(1));
    let mut collector = Collector::new(&options, &mut on_reply, started);
    for (number, group) in nodes.chunks(size).enumerate() {
        let mut request = first.clone();
        if number > 0 {
            tokio::time::sleep(options.batch_sleep.unwrap_or(Duration::from_secs(1))).await;
            // an old signature would be refused once its time to live has passed
            request.time = choria_host::clock::unix_nanos();
        }
        let publishing = Instant::now();
        let secure = connection.sign(&request).await?;
        collector.expect(group);
        tell(&options, &request, group);
        publish(connection, &request, &secure, &reply_subject, group).await?;
        summary.publish_time += publishing.elapsed();
        summary.batches += 1;
        let before = collector.ok;
        collector.collect(connection, &mut inbox, &request.id, publishing, timeout).await?;
        let unsuccessful = group.len().saturating_sub(collector.ok - before);
        let abort = options.batch_abort.map(|abort| match abort {
            Amount::Nodes(nodes) => nodes,
            share @ Amount::Percent(_) => share.of(group.len()).max(1),
        });
        if abort.is_some_and(|limit| unsuccessful >= limit) {
            summary.not_contacted = nodes.iter().skip((number + 1) * size).cloned().collect();
            break;
        }
    }
    collector.finish(&mut summary, &nodes);
    summary.flooded = inbox.dropped();
    summary.request_time = started.elapsed();
    Ok(summary)
}

async fn service_call(
    connection: &Connection,
    agent: &str,
    body: Vec<u8>,
    options: &RpcOptions,
    timeout: Duration,
    warnings: Vec<choria_protocol::ddl::InputWarning>,
    on_reply: &mut impl FnMut(NodeReply),
) -> Result<Summary, ClientError> {
    if options.targets.is_some() || !options.filter.is_empty_but_agent() {
        return Err(ClientError::Request(format!(
            "{agent} is a service: one of its hosts answers, so it takes neither filters nor targets"
        )));
    }
    let request = connection.new_request(agent, body, Filter::default(), connection.config().ttl)?;
    let reply_subject = options.reply_to.clone().unwrap_or_else(|| connection.reply_subject(&request.id));
    let secure = connection.sign(&request).await?;
    let mut summary = Summary { request_id: request.id.clone(), warnings, batches: 1, ..Summary::default() };
    let mut inbox = match options.reply_to {
        None => Some(Inbox::open(connection, reply_subject.clone()).await?),
        Some(_) => None,
    };
    tell(options, &request, &[]);
    let started = Instant::now();
    let subject = subjects::service(&request.collective, agent);
    if connection.config().brokers.federations.is_empty() {
        connection.publish(subject, connection.transport(&secure, &reply_subject)?).await?;
    } else {
        publish_federated(connection, &request, &secure, &reply_subject, &[subject]).await?;
    }
    summary.publish_time = started.elapsed();
    if let Some(inbox) = &mut inbox {
        let mut collector = Collector::new(options, on_reply, started);
        collector.anybody = true;
        collector.collect(connection, inbox, &request.id, started, timeout).await?;
        collector.finish(&mut summary, &[]);
        if summary.responses() == 0 {
            return Err(ClientError::NoResponses);
        }
    }
    summary.request_time = started.elapsed();
    Ok(summary)
}

/// Says who is about to be asked. Before a request is published, since a node may act on it when its caller stops amid a
/// group.
fn tell(options: &RpcOptions, request: &Request, nodes: &[String]) {
    if let Some(asking) = &options.asking {
        let told = asking.send(Asking { request_id: request.id.clone(), nodes: nodes.to_vec() });
        drop(told); // whoever no longer listens need not know
    }
}

/// Years away, for a wait that the clock cannot count to the end of.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// `start` and a duration of any length.
pub(crate) fn after(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).or_else(|| start.checked_add(FAR)).unwrap_or(start)
}

/// Publishes the same bytes to every node, flushed once.
async fn publish(
    connection: &Connection,
    request: &Request,
    secure: &SecureRequest,
    reply_subject: &str,
    nodes: &[String],
) -> Result<(), ClientError> {
    let subjects: Vec<String> = nodes.iter().map(|node| subjects::node(&request.collective, node)).collect();
    if !connection.config().brokers.federations.is_empty() {
        return publish_federated(connection, request, secure, reply_subject, &subjects).await;
    }
    let payload = bytes::Bytes::from(connection.transport(secure, reply_subject)?);
    for subject in subjects {
        connection
            .nats()
            .publish(subject, payload.clone())
            .await
            .map_err(|e| ClientError::Broker(e.to_string()))?;
    }
    connection.flush().await
}

/// Lets federation brokers do the publishing, a few hundred targets at a time (docs/spec/01 §2.6).
pub(crate) async fn publish_federated(
    connection: &Connection,
    request: &Request,
    secure: &SecureRequest,
    reply_subject: &str,
    subjects: &[String],
) -> Result<(), ClientError> {
    for targets in subjects.chunks(FEDERATED_TARGETS) {
        let federation =
            Federation { request: request.id.clone(), reply: String::new(), targets: targets.to_vec() };
        let payload =
            bytes::Bytes::from(connection.federated_transport(secure, reply_subject, Some(federation))?);
        for name in &connection.config().brokers.federations {
            connection
                .nats()
                .publish(subjects::federation(name), payload.clone())
                .await
                .map_err(|e| ClientError::Broker(e.to_string()))?;
        }
    }
    connection.flush().await
}

/// Counts replies; the cost of each is independent of how many nodes were asked.
struct Collector<'a, F> {
    options: &'a RpcOptions,
    on_reply: &'a mut F,
    started: Instant,
    outstanding: HashSet<String>,
    answered: HashSet<String>,
    /// The first answer ends it, whoever it is from.
    anybody: bool,
    ok: usize,
    failed: usize,
    unexpected: Vec<String>,
    duplicates: usize,
    invalid: usize,
    verified: usize,
    unverified: usize,
}

impl<'a, F: FnMut(NodeReply)> Collector<'a, F> {
    fn new(options: &'a RpcOptions, on_reply: &'a mut F, started: Instant) -> Self {
        Self {
            options,
            on_reply,
            started,
            outstanding: HashSet::new(),
            answered: HashSet::new(),
            anybody: false,
            ok: 0,
            failed: 0,
            unexpected: Vec::new(),
            duplicates: 0,
            invalid: 0,
            verified: 0,
            unverified: 0,
        }
    }

    fn expect(&mut self, nodes: &[String]) {
        self.outstanding.extend(nodes.iter().cloned());
    }

    /// Reads replies until all have come or time is up.
    async fn collect(
        &mut self,
        connection: &Connection,
        inbox: &mut Inbox,
        request_id: &str,
        published: Instant,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        let deadline = after(published, timeout);
        let before = self.ok + self.failed;
        let mut quiet = deadline;
        loop {
            let got = self.ok + self.failed > before;
            if (self.anybody && got) || (!self.anybody && self.outstanding.is_empty()) {
                return Ok(());
            }
            let until = if got { deadline.min(quiet) } else { deadline };
            let payload = match tokio::time::timeout_at(until, inbox.next()).await {
                Err(_) => return Ok(()),
                Ok(None) => return Err(ClientError::Broker("the connection was closed".to_owned())),
                Ok(Some(payload)) => payload,
            };
            let heard = self.ok + self.failed;
            self.take(connection, &payload, request_id);
            // what does not count as a reply does not prolong a request either
            if self.ok + self.failed > heard
                && let Some(pause) = self.options.quiet_after
            {
                quiet = after(Instant::now(), pause);
            }
        }
    }

    fn take(&mut self, connection: &Connection, payload: &[u8], request_id: &str) {
        let received = match connection.reply_verifier().read(payload, request_id) {
            Ok(received) => received,
            Err(error) => {
                self.invalid += 1;
                tracing::debug!(reason = error.reason(), "message dropped: {error}");
                return;
            }
        };
        let reply = received.reply;
        let acceptable = match received.verification {
            Verification::Verified => true,
            Verification::Unverified => !self.options.require_signed,
            Verification::Invalid(_) => false,
        };
        if !acceptable {
            self.invalid += 1;
            tracing::warn!(
                sender = reply.sender,
                reason = "sig_bad",
                "reply dropped: {:?}",
                received.verification
            );
            return;
        }
        // Only the first reply of a node counts: a second one may be anybody's (docs/spec/10 T-279).
        if self.answered.contains(&reply.sender) {
            self.duplicates += 1;
            return;
        }
        let body = match RpcReply::parse(&reply.message) {
            Ok(body) => body,
            Err(error) => {
                self.invalid += 1;
                tracing::debug!(sender = reply.sender, reason = error.reason(), "reply dropped: {error}");
                return;
            }
        };
        if !self.outstanding.remove(&reply.sender) && !self.anybody {
            if self.unexpected.len() < UNEXPECTED_KEPT {
                self.unexpected.push(reply.sender.clone());
            }
            return;
        }
        self.answered.insert(reply.sender.clone());
        if body.statuscode.is_ok() {
            self.ok += 1
        } else {
            self.failed += 1
        }
        if received.verification == Verification::Verified {
            self.verified += 1
        } else {
            self.unverified += 1
        }
        (self.on_reply)(NodeReply {
            identity: reply.sender,
            action: body.action,
            status: body.statuscode,
            message: body.statusmsg,
            data: body.data,
            verification: received.verification,
            at: self.started.elapsed(),
            time: reply.time,
        });
    }

    fn finish(self, summary: &mut Summary, nodes: &[String]) {
        summary.ok = self.ok;
        summary.failed = self.failed;
        summary.duplicates = self.duplicates;
        summary.invalid = self.invalid;
        summary.verified = self.verified;
        summary.unverified = self.unverified;
        summary.unexpected = self.unexpected;
        // in the order they were asked
        summary.missing = nodes.iter().filter(|node| self.outstanding.contains(*node)).cloned().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_of_any_length_has_an_end() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(5)), now + Duration::from_secs(5));
        assert!(after(now, Duration::from_secs(u64::MAX)) > now + Duration::from_secs(365 * 86_400));
        assert!(after(now, Duration::MAX) > now + Duration::from_secs(365 * 86_400));
    }
}
