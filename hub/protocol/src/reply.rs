//! The reply of one node (docs/spec/01 §2.3).

use serde::{Deserialize, Serialize};

use crate::{
    ProtocolError,
    encode::{self, check_protocol, emit_layer, parse_layer, require},
    ids,
};

const LAYER: &str = "reply";
const KEYS: &[&str] = &["protocol", "message", "request", "sender", "agent", "time"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The body; for RPC the JSON of [`crate::rpc::RpcReply`].
    pub message: Vec<u8>,
    /// Id of the request this answers.
    pub request: String,
    /// Identity of the node.
    pub sender: String,
    pub agent: String,
    /// When the reply was made, Unix nanoseconds.
    pub time: i64,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    protocol: String,
    #[serde(with = "encode::bytes")]
    message: Vec<u8>,
    request: String,
    sender: String,
    agent: String,
    time: i64,
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let wire: Wire = parse_layer(LAYER, KEYS, bytes)?;
        check_protocol(LAYER, ids::REPLY, &wire.protocol)?;
        require(LAYER, "request", !wire.request.is_empty())?;
        require(LAYER, "sender", !wire.sender.is_empty())?;
        Ok(Self {
            message: wire.message,
            request: wire.request,
            sender: wire.sender,
            agent: wire.agent,
            time: wire.time,
        })
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, ProtocolError> {
        require(LAYER, "request", !self.request.is_empty())?;
        require(LAYER, "sender", !self.sender.is_empty())?;
        emit_layer(
            LAYER,
            &Wire {
                protocol: ids::REPLY.to_owned(),
                message: self.message.clone(),
                request: self.request.clone(),
                sender: self.sender.clone(),
                agent: self.agent.clone(),
                time: self.time,
            },
        )
    }
}
