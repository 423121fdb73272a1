//! From a body to the bytes that are published.

use choria_host::{clock, random};
use choria_protocol::{Federation, Filter, Headers, Request, SecureRequest, Transport, subjects};
use choria_token::ksuid;

use crate::{ClientError, Connection};

impl Connection {
    /// A request of ours, made now.
    ///
    /// # Errors
    /// Names that cannot be part of a subject.
    pub fn new_request(
        &self,
        agent: &str,
        body: Vec<u8>,
        filter: Filter,
        ttl_seconds: i64,
    ) -> Result<Request, ClientError> {
        if !subjects::is_token(agent) {
            return Err(ClientError::Request(format!("'{}' is no agent name", agent.escape_default())));
        }
        let caller = self.caller();
        Ok(Request {
            message: body,
            id: ksuid::new(clock::unix_seconds(), &random::array()),
            sender: self.config().identity.clone(),
            caller: if caller.is_empty() {
                format!("choria={}", self.config().identity)
            } else {
                caller.to_owned()
            },
            collective: self.collective().to_owned(),
            agent: agent.to_owned(),
            ttl: ttl_seconds,
            time: clock::unix_nanos(),
            filter,
        })
    }

    /// Where replies to this request go. Brokers grant it by the name in the token, whatever a signer makes of it.
    pub fn reply_subject(&self, request_id: &str) -> String {
        format!("{}.{request_id}", self.inbox_prefix())
    }

    /// The payload to publish.
    pub fn transport(&self, secure: &SecureRequest, reply_subject: &str) -> Result<Vec<u8>, ClientError> {
        self.federated_transport(secure, reply_subject, None)
    }

    pub(crate) fn federated_transport(
        &self,
        secure: &SecureRequest,
        reply_subject: &str,
        federation: Option<Federation>,
    ) -> Result<Vec<u8>, ClientError> {
        let own = self.config().identity.clone();
        let broker = {
            let info = self.nats().server_info();
            format!("nats://{}:{}", info.host, info.port)
        };
        let transport = Transport {
            data: secure.to_bytes()?,
            headers: Headers {
                reply: reply_subject.to_owned(),
                sender: own.clone(),
                trace: vec![[broker.clone(), own, broker]],
                federation,
            },
        };
        let payload = transport.to_bytes()?;
        let limit = self.nats().server_info().max_payload;
        if limit > 0 && payload.len() > limit {
            return Err(ClientError::Request(format!(
                "the message is {} bytes, the broker takes {limit}",
                payload.len()
            )));
        }
        Ok(payload)
    }
}
