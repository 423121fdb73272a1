//! What a reply is worth: its hash, its signature, and whether its sender is who it says (docs/spec/01 §7.1, 10 C4).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use choria_host::clock;
use choria_protocol::{ProtocolError, Reply, SecureReply, Transport};
use choria_token::{PublicKey, ServerClaims, Verified, Verifier};
use sha2::{Digest as _, Sha256};

/// Verified node tokens remembered between requests; a token is about a kilobyte.
const REMEMBERED: usize = 65_536;

/// How far a reply can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// Signed by the node it names, and the token is by a configured issuer.
    Verified,
    /// Not signed, or no issuer is configured: only its hash was checked.
    Unverified,
    /// Signed, but the proof does not hold; the word is the reason. Such a reply is not to be believed.
    Invalid(&'static str),
}

/// A reply that arrived for a request.
#[derive(Debug, Clone)]
pub struct Received {
    pub reply: Reply,
    /// Identity in the transport header; nothing proves it.
    pub transport_sender: String,
    pub verification: Verification,
}

/// Why a message was not taken for a reply.
#[derive(Debug, thiserror::Error)]
pub enum NoReply {
    #[error(transparent)]
    Malformed(#[from] ProtocolError),
    #[error("the message answers another request")]
    OtherRequest,
    #[error("the sender's identity is not a valid name")]
    BadSender,
}

impl NoReply {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(error) => error.reason(),
            Self::OtherRequest => "subject_mismatch",
            Self::BadSender => "claim_invalid",
        }
    }
}

/// Checks replies. Tokens of nodes are verified once and remembered until they expire.
#[derive(Debug)]
pub struct ReplyVerifier {
    verifier: Option<Verifier>,
    known: Mutex<HashMap<[u8; 32], Arc<Node>>>,
}

#[derive(Debug)]
struct Node {
    token: Verified<ServerClaims>,
    key: PublicKey,
}

impl ReplyVerifier {
    /// With no verifier every reply stays [`Verification::Unverified`].
    pub fn new(verifier: Option<Verifier>) -> Self {
        Self { verifier, known: Mutex::new(HashMap::new()) }
    }

    /// Reads one message and checks everything that can be checked.
    ///
    /// # Errors
    /// The message is malformed, altered, or for another request; it is to be dropped and counted.
    pub fn read(&self, payload: &[u8], request_id: &str) -> Result<Received, NoReply> {
        let transport = Transport::parse(payload)?;
        let secure = SecureReply::parse(&transport.data)?;
        let reply = secure.reply()?;
        if reply.request != request_id {
            return Err(NoReply::OtherRequest);
        }
        if !choria_token::names::valid_identity(&reply.sender) {
            return Err(NoReply::BadSender);
        }
        let verification = self.verify(&secure, &reply.sender);
        Ok(Received { reply, transport_sender: transport.headers.sender, verification })
    }

    fn verify(&self, secure: &SecureReply, sender: &str) -> Verification {
        let Some(verifier) = &self.verifier else { return Verification::Unverified };
        let (signature, token) = match (&secure.signature, &secure.sender) {
            (Some(signature), Some(token)) => (signature, token),
            (None, None) => return Verification::Unverified,
            _ => return Verification::Invalid("secure_bad"),
        };
        let node = match self.node(verifier, token) {
            Ok(node) => node,
            Err(reason) => return Verification::Invalid(reason),
        };
        if node.token.claims().identity != sender {
            return Verification::Invalid("caller_mismatch");
        }
        if node.key.verify(&secure.reply, signature) {
            Verification::Verified
        } else {
            Verification::Invalid("sig_bad")
        }
    }

    fn node(&self, verifier: &Verifier, token: &str) -> Result<Arc<Node>, &'static str> {
        let now = clock::unix_seconds();
        let id: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let remembered = self.known.lock().ok().and_then(|known| known.get(&id).cloned());
        if let Some(node) = remembered {
            return node.token.check_times(now).map(|()| node).map_err(|reject| reject.reason());
        }
        let token = verifier.verify_server(token, now).map_err(|reject| reject.reason())?;
        let key = *token.holder().ok_or("key_missing")?;
        let node = Arc::new(Node { token, key });
        if let Ok(mut known) = self.known.lock() {
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(id, Arc::clone(&node));
        }
        Ok(node)
    }
}
