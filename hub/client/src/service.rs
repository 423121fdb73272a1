//! Answering requests: one action host of a Choria service, in a queue group with its like (docs/spec/03 §10.1).

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use choria_host::clock;
use choria_protocol::accept::{Accepted, Denied, RequestVerifier, accept_for_signer};
use choria_protocol::rpc::{RpcReply, RpcRequest, StatusCode};
use choria_protocol::{
    Headers, ProtocolError, Reply, Request, SIGNER_AGENT, SecureReply, SecureRequest, Transport, subjects,
};
use choria_token::{Purpose, peek_client, private_network_id, private_network_id_sha256, purpose_of};
use futures_util::StreamExt as _;
use tokio::sync::Semaphore;

use crate::{ClientError, Connection};

/// Requests served at once, and waiting beyond those (docs/spec/10 N14).
const RUNNING: usize = 64;
const WAITING: usize = 256;

/// Ids remembered against replays.
const REMEMBERED: usize = 8192;

/// Longest time to live honoured, in seconds: a longer one is cut (docs/spec/10 N7).
const TTL_CAP: i64 = 600;

/// How requests are verified.
#[derive(Debug, Clone)]
pub enum RequestPolicy {
    Verified(RequestVerifier),
    /// Envelopes are not verified. Only the signer service may host with this, and only requests to it pass.
    SignerService,
}

/// What is hosted.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    pub agent: String,
    pub collectives: Vec<String>,
    pub policy: RequestPolicy,
    /// A request that takes longer is answered as failed.
    pub timeout: Duration,
}

/// A request to answer. It has passed the policy, is current, new, and answers go where its caller may listen.
#[derive(Debug)]
pub struct ServiceRequest {
    pub accepted: Accepted,
    pub rpc: RpcRequest,
}

/// Hosts one service agent on a connection.
#[derive(Debug, Clone)]
pub struct Service {
    connection: Connection,
    options: ServiceOptions,
}

#[derive(Debug, thiserror::Error)]
enum Dropped {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Malformed(#[from] ProtocolError),
    #[error("the request is for agent or collective of another subject")]
    SubjectMismatch,
    #[error("the request is too old, or from the future")]
    Expired,
    #[error("the request was seen before")]
    Replayed,
    #[error("the reply subject is not the caller's own")]
    ReplyRefused,
    #[error("the body names another agent")]
    OtherAgent,
}

impl Dropped {
    fn reason(&self) -> &'static str {
        match self {
            Self::Denied(denied) => denied.reason(),
            Self::Malformed(error) => error.reason(),
            Self::SubjectMismatch | Self::OtherAgent => "subject_mismatch",
            Self::Expired => "ttl_expired",
            Self::Replayed => "replayed",
            Self::ReplyRefused => "reply_refused",
        }
    }
}

impl Service {
    /// # Errors
    /// Hosting another agent than `aaa_signer` without verification, names that are no subject tokens.
    pub fn new(connection: Connection, options: ServiceOptions) -> Result<Self, ClientError> {
        if matches!(options.policy, RequestPolicy::SignerService) && options.agent != SIGNER_AGENT {
            return Err(ClientError::Request(format!(
                "only {SIGNER_AGENT} may be hosted without verification"
            )));
        }
        let names = options.collectives.iter().chain([&options.agent]);
        if options.collectives.is_empty() || !names.into_iter().all(|name| subjects::is_token(name)) {
            return Err(ClientError::Request(format!(
                "service {} needs collectives with valid names",
                options.agent
            )));
        }
        Ok(Self { connection, options })
    }

    /// Serves until `shutdown` completes or the connection closes. Each request runs in a task of its own.
    pub async fn run<H, F>(self, handler: H, shutdown: impl Future<Output = ()>) -> Result<(), ClientError>
    where
        H: Fn(ServiceRequest) -> F + Send + Sync + 'static,
        F: Future<Output = RpcReply> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let mut subscriptions = Vec::new();
        for collective in &self.options.collectives {
            let subject = subjects::service(collective, &self.options.agent);
            let subscription = self
                .connection
                .nats()
                .queue_subscribe(subject, self.options.agent.clone())
                .await
                .map_err(|e| ClientError::Broker(e.to_string()))?;
            subscriptions.push(subscription);
        }
        self.connection.flush().await?;
        tracing::info!(agent = self.options.agent, collectives = ?self.options.collectives, "service is up");

        let mut messages = futures_util::stream::select_all(subscriptions);
        let admitted = Arc::new(Semaphore::new(RUNNING + WAITING));
        let running = Arc::new(Semaphore::new(RUNNING));
        let mut seen = Seen::default();
        let service = Arc::new(self);
        tokio::pin!(shutdown);
        loop {
            let message = tokio::select! {
                () = &mut shutdown => return Ok(()),
                message = messages.next() => message,
            };
            let Some(message) = message else {
                return Err(ClientError::Broker("the connection was closed".to_owned()));
            };
            let (request, reply_to) = match service.admit(&message.subject, &message.payload, &mut seen) {
                Ok(admitted) => admitted,
                Err(dropped) => {
                    tracing::warn!(
                        agent = service.options.agent,
                        reason = dropped.reason(),
                        "request dropped: {dropped}"
                    );
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&admitted).try_acquire_owned() else {
                tracing::warn!(
                    agent = service.options.agent,
                    reason = "busy",
                    "request dropped: too many are waiting"
                );
                continue;
            };
            let (service, handler, running) =
                (Arc::clone(&service), Arc::clone(&handler), Arc::clone(&running));
            tokio::spawn(async move {
                let _place = place;
                let Ok(_turn) = running.acquire().await else { return };
                service.answer(request, reply_to, &*handler).await;
            });
        }
    }

    /// Everything that has to hold before a request is served.
    fn admit(
        &self,
        subject: &str,
        payload: &[u8],
        seen: &mut Seen,
    ) -> Result<(ServiceRequest, ReplyTo), Dropped> {
        let transport = Transport::parse(payload)?;
        let secure = SecureRequest::parse(&transport.data)?;
        let accepted = match &self.options.policy {
            RequestPolicy::Verified(verifier) => verifier.accept(&secure, clock::unix_seconds())?,
            RequestPolicy::SignerService => accept_for_signer(&secure)?,
        };
        let request = accepted.request();
        if request.agent != self.options.agent
            || subject != subjects::service(&request.collective, &request.agent)
        {
            return Err(Dropped::SubjectMismatch);
        }
        let capped = Request { ttl: request.ttl.min(TTL_CAP), ..request.clone() };
        if !capped.is_current(clock::unix_nanos()) {
            return Err(Dropped::Expired);
        }
        let caller = match accepted.caller() {
            Some(token) => token.claims().caller_id.clone(),
            None => unverified_caller(&secure.caller).unwrap_or_else(|| request.caller.clone()),
        };
        let headers = transport.headers;
        if !self.may_reply_to(&headers, &caller) {
            return Err(Dropped::ReplyRefused);
        }
        let rpc = RpcRequest::parse(&request.message)?;
        if rpc.agent != self.options.agent {
            return Err(Dropped::OtherAgent);
        }
        if !seen.first_time(&caller, &request.id) {
            return Err(Dropped::Replayed);
        }
        Ok((ServiceRequest { accepted, rpc }, ReplyTo { headers }))
    }

    /// A reply may only go where its caller alone can listen, else anybody could make us write to any subject
    /// (docs/spec/10 N8). Through a federation the original reply subject is checked.
    fn may_reply_to(&self, headers: &Headers, caller: &str) -> bool {
        let own = |subject: &str| {
            self.options.collectives.iter().any(|collective| {
                [private_network_id(caller), private_network_id_sha256(caller)].iter().any(|id| {
                    subject
                        .strip_prefix(&format!("{collective}.reply.{id}."))
                        .is_some_and(subjects::is_tokens)
                })
            })
        };
        match headers
            .federation
            .as_ref()
            .map(|federation| federation.reply.as_str())
            .filter(|reply| !reply.is_empty())
        {
            None => own(&headers.reply),
            Some(original) => {
                let through = headers
                    .reply
                    .strip_prefix("choria.federation.")
                    .and_then(|rest| rest.strip_suffix(".collective"));
                own(original) && through.is_some_and(subjects::is_token)
            }
        }
    }

    async fn answer<H, F>(&self, request: ServiceRequest, reply_to: ReplyTo, handler: &H)
    where
        H: Fn(ServiceRequest) -> F,
        F: Future<Output = RpcReply>,
    {
        let id = request.accepted.request().id.clone();
        let action = request.rpc.action.clone();
        let reply = match tokio::time::timeout(self.options.timeout, handler(request)).await {
            Ok(reply) => reply,
            Err(_) => RpcReply {
                action,
                statuscode: StatusCode::Aborted,
                statusmsg: format!("{} took longer than {:?}", self.options.agent, self.options.timeout),
                data: serde_json::json!({}),
            },
        };
        if let Err(error) = self.send(&id, &reply, reply_to).await {
            tracing::warn!(agent = self.options.agent, request = id, "reply not sent: {error}");
        }
    }

    async fn send(&self, request_id: &str, reply: &RpcReply, reply_to: ReplyTo) -> Result<(), ClientError> {
        let config = self.connection.config();
        let identity = self.connection.identity()?;
        let is_server = purpose_of(identity.token()) == Some(Purpose::Server);
        let sender = if is_server { identity.caller().to_owned() } else { config.identity.clone() };
        let reply = Reply {
            message: reply.to_bytes()?,
            request: request_id.to_owned(),
            sender: sender.clone(),
            agent: self.options.agent.clone(),
            time: clock::unix_nanos(),
        }
        .to_bytes()?;
        // clients verify replies with server tokens; another kind would only look like a forgery
        let seed = identity
            .seed()
            .filter(|_| is_server && config.settings.bool("plugin.security.choria.sign_replies", true));
        let secure = SecureReply {
            signature: seed.map(|seed| seed.sign(&reply).to_vec()),
            sender: seed.map(|_| identity.token().to_owned()),
            reply,
        };
        let mut headers = reply_to.headers;
        let subject = std::mem::take(&mut headers.reply);
        headers.sender = sender;
        let transport = Transport { data: secure.to_bytes()?, headers };
        self.connection.publish(subject, transport.to_bytes()?).await
    }
}

/// The request's headers: the reply carries trace and federation on.
struct ReplyTo {
    headers: Headers,
}

fn unverified_caller(token: &str) -> Option<String> {
    peek_client(token).ok().map(|token| token.claims().caller_id.clone())
}

/// The last ids, oldest out first.
#[derive(Default)]
struct Seen {
    ids: HashSet<(String, String)>,
    order: VecDeque<(String, String)>,
}

impl Seen {
    fn first_time(&mut self, caller: &str, id: &str) -> bool {
        let entry = (caller.to_owned(), id.to_owned());
        if !self.ids.insert(entry.clone()) {
            return false;
        }
        self.order.push_back(entry);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}
