//! The transport: what one NATS message carries (docs/spec/01 §2.5).

use serde::{Deserialize, Serialize};

use crate::{
    ProtocolError,
    encode::{self, check_protocol, emit_layer, parse_layer, require},
    ids,
};

const LAYER: &str = "transport";
const KEYS: &[&str] =
    &["protocol", "data", "headers", "reply", "sender", "trace", "federation", "request", "targets"];

/// A secure request or secure reply on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// JSON of the secure request or secure reply.
    pub data: Vec<u8>,
    pub headers: Headers,
}

/// Routing data. Nothing signs it: whoever may publish may write anything here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Headers {
    /// Subject that replies go to; only in requests.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reply: String,
    /// Identity of the sending host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sender: String,
    /// Hops as `[in, processor, out]`. The published schema calls this `seen-by`; peers write `trace`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<[String; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub federation: Option<Federation>,
}

/// What a federation broker needs to pass a message on (docs/spec/01 §2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Federation {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// The original reply subject while a federation broker owns the reply header.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reply: String,
    /// Subjects to publish to on the other side.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    protocol: String,
    #[serde(with = "encode::bytes")]
    data: Vec<u8>,
    #[serde(default)]
    headers: Headers,
}

impl Transport {
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let wire: Wire = parse_layer(LAYER, KEYS, bytes)?;
        check_protocol(LAYER, ids::TRANSPORT, &wire.protocol)?;
        require(LAYER, "data", !wire.data.is_empty())?;
        Ok(Self { data: wire.data, headers: wire.headers })
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, ProtocolError> {
        require(LAYER, "data", !self.data.is_empty())?;
        emit_layer(
            LAYER,
            &Wire {
                protocol: ids::TRANSPORT.to_owned(),
                data: self.data.clone(),
                headers: self.headers.clone(),
            },
        )
    }
}
