//! Protocol messages as a client writes them, with every layer in the test's hand.

use std::time::Duration;

use anyhow::{Context as _, Result};
use choria_host::clock;
use choria_protocol::rpc::{RpcReply, RpcRequest};
use choria_protocol::{
    Filter, Headers, INSECURE_SIGNATURE, Reply, Request, SecureReply, SecureRequest, Transport, subjects,
};
use choria_token::ksuid;
use serde_json::Value;

use crate::forge::{Key, random};
use crate::liar::Liar;

/// Who asks: a name, its key and its token, which need not belong together.
#[derive(Debug, Clone)]
pub struct Caller {
    pub id: String,
    pub key: Key,
    pub token: String,
}

impl Caller {
    /// A caller whose token is what a test made of it.
    pub fn new(id: &str, key: &Key, token: String) -> Caller {
        Caller { id: id.to_owned(), key: key.clone(), token }
    }

    /// Subscription that all replies to this caller match.
    pub fn inbox(&self, collective: &str) -> String {
        format!("{}.>", subjects::inbox_prefix(collective, &self.id))
    }
}

/// A request to an agent, ready for its layers.
pub fn request(caller: &str, collective: &str, agent: &str, action: &str, data: &Value) -> Result<Request> {
    let body = RpcRequest {
        agent: agent.to_owned(),
        action: action.to_owned(),
        data: data.as_object().cloned().unwrap_or_default(),
    };
    let mut filter = Filter::default();
    filter.add_agent(agent);
    Ok(Request {
        message: body.to_bytes()?,
        id: ksuid::new(clock::unix_seconds(), &random()?),
        sender: "tests.example.net".to_owned(),
        caller: caller.to_owned(),
        collective: collective.to_owned(),
        agent: agent.to_owned(),
        ttl: 60,
        time: clock::unix_nanos(),
        filter,
    })
}

/// Signed by the caller's own key.
pub fn signed(request: &Request, caller: &Caller) -> Result<SecureRequest> {
    let bytes = request.to_bytes()?;
    let signature = caller.key.sign(&bytes).to_vec();
    Ok(SecureRequest { request: bytes, signature, caller: caller.token.clone(), signer: None })
}

/// Not signed at all, as requests to the signer and to waiting nodes are.
pub fn insecure(request: &Request, token: &str) -> Result<SecureRequest> {
    Ok(SecureRequest {
        request: request.to_bytes()?,
        signature: INSECURE_SIGNATURE.to_vec(),
        caller: token.to_owned(),
        signer: None,
    })
}

/// Sends a request and waits for one reply; `None` when nobody answered in time. The connection must have subscribed
/// to the inbox of the request's caller.
pub async fn ask(
    connection: &mut Liar,
    subject: &str,
    request: &Request,
    secure: &SecureRequest,
    limit: Duration,
) -> Result<Option<RpcReply>> {
    let reply = subjects::reply(&request.collective, &request.caller, &request.id);
    let headers = Headers { reply: reply.clone(), sender: request.sender.clone(), ..Headers::default() };
    let transport = Transport { data: secure.to_bytes()?, headers };
    let refused = connection.publish(subject, &transport.to_bytes()?).await?;
    anyhow::ensure!(refused.is_none(), "the broker refused the request: {refused:?}");
    let until = tokio::time::Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let Some(message) = connection.message(left).await? else { return Ok(None) };
        if message.subject == reply {
            return Ok(Some(read_reply(&message.payload)?));
        }
    }
}

/// A request that arrived at somebody who plays a node.
#[derive(Debug)]
pub struct Received {
    pub request: Request,
    reply: String,
}

impl Received {
    /// Reads a message without believing anything of it.
    pub fn parse(payload: &[u8]) -> Result<Received> {
        let transport = Transport::parse(payload)?;
        let request = SecureRequest::parse(&transport.data)?.request()?;
        Ok(Received { request, reply: transport.headers.reply })
    }

    /// Answers in this node's name with this body, unsigned as waiting nodes do.
    pub async fn answer(&self, connection: &mut Liar, sender: &str, body: Vec<u8>) -> Result<()> {
        let reply = Reply {
            message: body,
            request: self.request.id.clone(),
            sender: sender.to_owned(),
            agent: self.request.agent.clone(),
            time: clock::unix_nanos(),
        };
        let secure = SecureReply { reply: reply.to_bytes()?, signature: None, sender: None };
        let headers = Headers { sender: sender.to_owned(), ..Headers::default() };
        let bytes = Transport { data: secure.to_bytes()?, headers }.to_bytes()?;
        let refused = connection.publish(&self.reply, &bytes).await?;
        anyhow::ensure!(refused.is_none(), "the broker refused the reply: {refused:?}");
        Ok(())
    }
}

/// The body of a reply, all layers unpacked and none trusted.
pub fn read_reply(payload: &[u8]) -> Result<RpcReply> {
    let transport = Transport::parse(payload).context("a reply's transport")?;
    let reply: Reply = SecureReply::parse(&transport.data).context("a reply's envelope")?.reply()?;
    RpcReply::parse(&reply.message).context("a reply's body")
}
