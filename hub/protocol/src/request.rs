//! The request: what one caller asks of one agent (docs/spec/01 §2.1).

use serde::{Deserialize, Serialize};

use crate::{
    Filter, ProtocolError,
    encode::{self, check_protocol, emit_layer, parse_layer, require},
    ids,
};

const LAYER: &str = "request";
const KEYS: &[&str] = &[
    "protocol",
    "message",
    "id",
    "sender",
    "caller",
    "collective",
    "agent",
    "ttl",
    "time",
    "filter",
    "fact",
    "operator",
    "value",
    "cf_class",
    "identity",
    "compound",
    "expr",
];

/// One request. It is what gets signed; parse it from the carried bytes and keep those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The body; for RPC the JSON of [`crate::rpc::RpcRequest`].
    pub message: Vec<u8>,
    /// A KSUID of 27 characters made by the client.
    pub id: String,
    /// Identity of the host the request comes from.
    pub sender: String,
    /// Caller id, the claim of the client token.
    pub caller: String,
    pub collective: String,
    pub agent: String,
    /// Seconds this request is good for, before and after `time`.
    pub ttl: i64,
    /// Creation time, Unix nanoseconds.
    pub time: i64,
    pub filter: Filter,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    protocol: String,
    #[serde(with = "encode::bytes")]
    message: Vec<u8>,
    id: String,
    sender: String,
    caller: String,
    collective: String,
    agent: String,
    ttl: i64,
    time: i64,
    #[serde(default)]
    filter: Filter,
}

impl Request {
    /// Parses the JSON of a request.
    ///
    /// # Errors
    /// Wrong protocol id, a missing or empty field, `ttl` or `time` below 1, ambiguous or malformed JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let wire: Wire = parse_layer(LAYER, KEYS, bytes)?;
        check_protocol(LAYER, ids::REQUEST, &wire.protocol)?;
        let request = Self {
            message: wire.message,
            id: wire.id,
            sender: wire.sender,
            caller: wire.caller,
            collective: wire.collective,
            agent: wire.agent,
            ttl: wire.ttl,
            time: wire.time,
            filter: wire.filter,
        };
        request.check()?;
        Ok(request)
    }

    /// The JSON to sign and send, byte identical with what peers would write for the same values.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ProtocolError> {
        self.check()?;
        emit_layer(
            LAYER,
            &Wire {
                protocol: ids::REQUEST.to_owned(),
                message: self.message.clone(),
                id: self.id.clone(),
                sender: self.sender.clone(),
                caller: self.caller.clone(),
                collective: self.collective.clone(),
                agent: self.agent.clone(),
                ttl: self.ttl,
                time: self.time,
                filter: self.filter.clone(),
            },
        )
    }

    /// Whether `now` (Unix nanoseconds) lies within `ttl` of `time`, on both sides and strictly (docs/spec/01 §2.7).
    pub fn is_current(&self, now_nanos: i64) -> bool {
        let ttl = self.ttl.saturating_mul(1_000_000_000);
        self.time > now_nanos.saturating_sub(ttl) && self.time < now_nanos.saturating_add(ttl)
    }

    /// The body as agent `discovery` reads it: decoded once more when it is base64, raw otherwise (docs/spec/01 §2.8).
    pub fn discovery_body(&self) -> Vec<u8> {
        std::str::from_utf8(&self.message)
            .ok()
            .and_then(|text| encode::bytes::decode(text).ok())
            .unwrap_or_else(|| self.message.clone())
    }

    fn check(&self) -> Result<(), ProtocolError> {
        require(LAYER, "message", !self.message.is_empty())?;
        require(LAYER, "id", !self.id.is_empty())?;
        require(LAYER, "sender", !self.sender.is_empty())?;
        require(LAYER, "caller", !self.caller.is_empty())?;
        require(LAYER, "collective", !self.collective.is_empty())?;
        require(LAYER, "agent", !self.agent.is_empty())?;
        require(LAYER, "ttl", self.ttl >= 1)?;
        require(LAYER, "time", self.time >= 1)
    }
}
