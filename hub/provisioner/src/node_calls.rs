//! Requests to single nodes over one connection: one subscription for every reply there will ever be, and a map from
//! request id to whoever waits (`docs/spec/04 §10.6`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_nats::{Client, Message};
use choria_client::Identity;
use choria_host::{clock, random};
use choria_protocol::rpc::{RpcReply, RpcRequest};
use choria_protocol::{
    Filter, Headers, ProtocolError, Request, SecureReply, SecureRequest, Transport, subjects,
};
use choria_token::ksuid;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// The collective of nodes that are no members yet.
pub const COLLECTIVE: &str = "provisioning";

/// How long a request is good for, seconds.
const TTL: i64 = 60;

/// Replies that may wait for a caller that is busy: one is right, more are lies.
const PLACES: usize = 4;

/// Replies of a discovery that may wait; beyond it they are dropped and found by the next round.
const DISCOVERY_PLACES: usize = 65_536;

/// A discovery ends this long after its last reply.
const DISCOVERY_WINDOW: Duration = Duration::from_millis(300);

/// A discovery ends after this long whatever comes in.
const DISCOVERY_END: Duration = Duration::from_secs(30);

/// The text that nodes answer with their name.
const PING: &[u8] = b"cGluZw==";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("nobody listens on that name")]
    Nobody,
    #[error("no answer within {}", choria_host::duration::human(*.0))]
    Timeout(Duration),
    #[error("the request cannot be made: {0}")]
    Make(#[from] ProtocolError),
    #[error("the provisioner has no seed to sign requests with")]
    NoSeed,
    #[error("the request is {size} bytes and the node reads at most {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("the request cannot be sent: {0}")]
    Send(String),
    #[error("the connection to the broker is gone")]
    Closed,
}

/// What a node is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    pub agent: &'static str,
    pub action: &'static str,
    pub data: &'q Value,
    /// Bytes of the largest message that the node reads, where it says so: a larger request is not sent.
    pub limit: Option<usize>,
}

/// What a node answered.
#[derive(Debug)]
pub struct NodeAnswer {
    /// 0 is success.
    pub code: i64,
    pub message: String,
    pub data: Value,
}

/// The shared side of all requests; cheap to clone.
#[derive(Clone)]
pub struct NodeCalls(Arc<Inner>);

struct Inner {
    client: Client,
    /// Who asks; replaced when the files change.
    caller: RwLock<Identity>,
    /// The identity of this host.
    sender: String,
    waiting: Mutex<HashMap<String, mpsc::Sender<Message>>>,
    metrics: Metrics,
}

impl std::fmt::Debug for NodeCalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeCalls")
    }
}

/// Takes the name out of the map however the wait ends.
struct Place<'a> {
    inner: &'a Inner,
    id: &'a str,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(self.id);
    }
}

impl NodeCalls {
    /// Subscribes to the replies. The returned future hands them out until the connection is gone for good.
    pub async fn start(
        client: Client,
        caller: Identity,
        sender: &str,
        metrics: Metrics,
    ) -> Result<(NodeCalls, impl Future<Output = ()> + Send + use<>), CallError> {
        let pattern = subjects::reply(COLLECTIVE, caller.caller(), "*");
        let mut replies =
            client.subscribe(pattern).await.map_err(|error| CallError::Send(error.to_string()))?;
        client.flush().await.map_err(|error| CallError::Send(error.to_string()))?;
        let inner = Arc::new(Inner {
            client,
            caller: RwLock::new(caller),
            sender: sender.to_string(),
            waiting: Mutex::default(),
            metrics,
        });
        let router = inner.clone();
        let route = async move {
            while let Some(message) = replies.next().await {
                router.route(message);
            }
        };
        Ok((NodeCalls(inner), route))
    }

    /// Signs with other credentials from now on. The caller must be the same: replies are found by it.
    pub fn renew(&self, caller: Identity) {
        let mut current = self.0.caller.write().unwrap_or_else(PoisonError::into_inner);
        if current.caller() == caller.caller() {
            *current = caller;
        } else {
            tracing::warn!(
                caller = caller.caller(),
                "the token file names another caller; restart to use it"
            );
        }
    }

    /// Asks one node. Only an answer of that node to this very request counts.
    pub async fn call(
        &self,
        target: &str,
        question: Question<'_>,
        wait: Duration,
    ) -> Result<NodeAnswer, CallError> {
        let body = RpcRequest {
            agent: question.agent.to_string(),
            action: question.action.to_string(),
            data: question.data.as_object().cloned().unwrap_or_default(),
        };
        let id = new_request_id();
        let (sender, mut replies) = mpsc::channel(PLACES);
        let _place = self.0.place(&id, sender);
        let message = self.0.message(question.agent, body.to_bytes()?, &id)?;
        let size = message.bytes.len();
        if let Some(limit) = question.limit.filter(|limit| size > *limit) {
            return Err(CallError::TooLarge { size, limit });
        }
        self.0.publish(&subjects::node(COLLECTIVE, target), message).await?;
        let answer = async {
            loop {
                let message = replies.recv().await.ok_or(CallError::Closed)?;
                if nobody_listens(&message) {
                    return Err(CallError::Nobody);
                }
                match read_answer(&message.payload, target, &id) {
                    Some(answer) => return Ok(answer),
                    None => self.0.metrics.unexpected_replies.inc(),
                }
            }
        };
        tokio::time::timeout(wait, answer).await.map_err(|_| CallError::Timeout(wait))?
    }

    /// Asks who is there; `found` hears each name, possibly twice. Ends when no more answers come.
    pub async fn discover(&self, mut found: impl FnMut(&str)) -> Result<usize, CallError> {
        let id = new_request_id();
        let (sender, mut replies) = mpsc::channel(DISCOVERY_PLACES);
        let _place = self.0.place(&id, sender);
        let subject = subjects::broadcast(COLLECTIVE, "discovery");
        let message = self.0.message("discovery", PING.to_vec(), &id)?;
        self.0.publish(&subject, message).await?;
        let end = tokio::time::Instant::now() + DISCOVERY_END;
        let mut window = Duration::from_secs(2);
        let mut count = 0;
        while let Ok(reply) =
            tokio::time::timeout_at(end.min(tokio::time::Instant::now() + window), replies.recv()).await
        {
            let message = reply.ok_or(CallError::Closed)?;
            if nobody_listens(&message) {
                break;
            }
            match read_name(&message.payload, &id) {
                Some(name) => {
                    count += 1;
                    found(&name);
                }
                None => self.0.metrics.unexpected_replies.inc(),
            }
            window = DISCOVERY_WINDOW;
        }
        Ok(count)
    }
}

impl Inner {
    fn place<'a>(&'a self, id: &'a str, sender: mpsc::Sender<Message>) -> Place<'a> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_string(), sender);
        Place { inner: self, id }
    }

    fn route(&self, message: Message) {
        let id = message.subject.as_str().rsplit_once('.').map_or("", |(_, id)| id);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        // never waits: one slow reader must not hold up the rest
        if waiting.is_none_or(|sender| sender.try_send(message).is_err()) {
            self.metrics.unexpected_replies.inc();
        }
    }

    /// A request with all its layers, signed.
    fn message(&self, agent: &str, body: Vec<u8>, id: &str) -> Result<Outgoing, CallError> {
        let caller = self.caller.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut filter = Filter::default();
        filter.add_agent(if agent == "discovery" { "choria_provision" } else { agent });
        let request = Request {
            message: body,
            id: id.to_string(),
            sender: self.sender.clone(),
            caller: caller.caller().to_string(),
            collective: COLLECTIVE.to_string(),
            agent: agent.to_string(),
            ttl: TTL,
            time: clock::unix_nanos(),
            filter,
        }
        .to_bytes()?;
        let signature = caller.seed().ok_or(CallError::NoSeed)?.sign(&request).to_vec();
        let secure = SecureRequest { request, signature, caller: caller.token().to_string(), signer: None };
        let reply = subjects::reply(COLLECTIVE, caller.caller(), id);
        let headers = Headers { reply: reply.clone(), sender: self.sender.clone(), ..Headers::default() };
        let transport = Transport { data: secure.to_bytes()?, headers };
        Ok(Outgoing { reply, bytes: transport.to_bytes()? })
    }

    async fn publish(&self, subject: &str, message: Outgoing) -> Result<(), CallError> {
        // The reply subject is in the transport, where nodes look for it. It is given to the broker as well, because a
        // broker then says at once when nobody listens, instead of leaving us to wait for a name that somebody invented.
        self.client
            .publish_with_reply(subject.to_string(), message.reply, message.bytes.into())
            .await
            .map_err(|error| CallError::Send(error.to_string()))
    }
}

/// A message that is ready to go.
struct Outgoing {
    reply: String,
    bytes: Vec<u8>,
}

fn nobody_listens(message: &Message) -> bool {
    message.payload.is_empty() && message.status == Some(async_nats::StatusCode::NO_RESPONDERS)
}

fn new_request_id() -> String {
    ksuid::new(clock::unix_seconds(), &random::array())
}

/// The answer, if it is of `target` and to request `id` in every layer that says so.
fn read_answer(payload: &[u8], target: &str, id: &str) -> Option<NodeAnswer> {
    let transport = Transport::parse(payload).ok()?;
    let reply = SecureReply::parse(&transport.data).ok()?.reply().ok()?;
    if transport.headers.sender != target || reply.sender != target || reply.request != id {
        return None;
    }
    let body = RpcReply::parse(&reply.message).ok()?;
    Some(NodeAnswer { code: i64::from(body.statuscode), message: body.statusmsg, data: body.data })
}

/// The name in a discovery reply; the transport's sender counts, and the reply must agree.
fn read_name(payload: &[u8], id: &str) -> Option<String> {
    let transport = Transport::parse(payload).ok()?;
    let reply = SecureReply::parse(&transport.data).ok()?.reply().ok()?;
    (reply.request == id && reply.sender == transport.headers.sender).then_some(transport.headers.sender)
}
