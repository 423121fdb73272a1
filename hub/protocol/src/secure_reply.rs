//! The secure reply: a reply, its hash and, by default, the node's signature (docs/spec/01 §2.4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    ProtocolError, Reply,
    encode::{self, check_protocol, emit_layer, parse_layer, require},
    ids,
};

const LAYER: &str = "secure reply";
const KEYS: &[&str] = &["protocol", "reply", "hash", "signature", "sender"];

/// A reply whose hash matches; the signature, if any, is still to be verified.
#[derive(Clone, PartialEq, Eq)]
pub struct SecureReply {
    /// The exact bytes of the reply JSON, which hash and signature cover.
    pub reply: Vec<u8>,
    /// Ed25519 by the node's seed over `reply`.
    pub signature: Option<Vec<u8>>,
    /// Server token of the node.
    pub sender: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    protocol: String,
    #[serde(with = "encode::bytes")]
    reply: Vec<u8>,
    hash: String,
    #[serde(with = "encode::optional_bytes", default, skip_serializing_if = "Option::is_none")]
    signature: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
}

impl SecureReply {
    /// Parses the JSON of a secure reply and checks its hash over the carried bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let wire: Wire = parse_layer(LAYER, KEYS, bytes)?;
        check_protocol(LAYER, ids::SECURE_REPLY, &wire.protocol)?;
        require(LAYER, "reply", !wire.reply.is_empty())?;
        if wire.hash != hash(&wire.reply) {
            return Err(ProtocolError::HashMismatch { layer: LAYER });
        }
        Ok(Self {
            reply: wire.reply,
            signature: wire.signature,
            sender: wire
                .sender
                .filter(|sender| !sender.is_empty())
                .map(|sender| sender.trim_end_matches(['\r', '\n']).to_owned()),
        })
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, ProtocolError> {
        require(LAYER, "reply", !self.reply.is_empty())?;
        emit_layer(
            LAYER,
            &Wire {
                protocol: ids::SECURE_REPLY.to_owned(),
                reply: self.reply.clone(),
                hash: hash(&self.reply),
                signature: self.signature.clone(),
                sender: self.sender.clone(),
            },
        )
    }

    /// Parses the carried reply.
    pub fn reply(&self) -> Result<Reply, ProtocolError> {
        Reply::parse(&self.reply)
    }
}

/// Base64 of the SHA-256; the published schema says hex, no peer writes that.
fn hash(reply: &[u8]) -> String {
    STANDARD.encode(Sha256::digest(reply))
}

/// Tokens stay out of logs.
impl std::fmt::Debug for SecureReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecureReply")
            .field("reply_bytes", &self.reply.len())
            .field("signed", &self.signature.is_some())
            .finish_non_exhaustive()
    }
}
