//! The secure request: a request, who asks, and the proof (docs/spec/01 §2.2).

use serde::{Deserialize, Serialize};

use crate::{
    ProtocolError, Request,
    encode::{self, check_protocol, emit_layer, parse_layer, require},
    ids,
};

const LAYER: &str = "secure request";
const KEYS: &[&str] = &["protocol", "request", "signature", "caller", "signer"];

/// Stands in the signature field where nothing is signed: requests to the signer service, and provisioning
/// without validation (docs/spec/01 §2.2).
pub const INSECURE_SIGNATURE: &[u8] = b"insecure";

/// A request with its signature and tokens. Nothing in here has been verified.
#[derive(Clone, PartialEq, Eq)]
pub struct SecureRequest {
    /// The exact bytes of the request JSON, which the signature covers.
    pub request: Vec<u8>,
    /// 64 bytes of Ed25519 over `request`, or [`INSECURE_SIGNATURE`].
    pub signature: Vec<u8>,
    /// Token of the caller. Not covered by the signature. Empty only where nothing is validated.
    pub caller: String,
    /// Token of the delegate that signed, when it was not the caller.
    pub signer: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    protocol: String,
    #[serde(with = "encode::bytes")]
    request: Vec<u8>,
    #[serde(with = "encode::bytes")]
    signature: Vec<u8>,
    caller: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
}

impl SecureRequest {
    /// Parses the JSON of a secure request; a line end after a token is dropped, as peers do.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let wire: Wire = parse_layer(LAYER, KEYS, bytes)?;
        check_protocol(LAYER, ids::SECURE_REQUEST, &wire.protocol)?;
        require(LAYER, "request", !wire.request.is_empty())?;
        require(LAYER, "signature", !wire.signature.is_empty())?;
        Ok(Self {
            request: wire.request,
            signature: wire.signature,
            caller: without_line_end(wire.caller),
            signer: wire.signer.filter(|signer| !signer.is_empty()).map(without_line_end),
        })
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, ProtocolError> {
        require(LAYER, "request", !self.request.is_empty())?;
        require(LAYER, "signature", !self.signature.is_empty())?;
        require(LAYER, "caller", !self.caller.is_empty())?;
        emit_layer(
            LAYER,
            &Wire {
                protocol: ids::SECURE_REQUEST.to_owned(),
                request: self.request.clone(),
                signature: self.signature.clone(),
                caller: self.caller.trim().to_owned(),
                signer: self.signer.as_ref().map(|signer| signer.trim().to_owned()),
            },
        )
    }

    /// Whether the signature field only says that nothing was signed.
    pub fn is_insecure(&self) -> bool {
        self.signature == INSECURE_SIGNATURE
    }

    /// Parses the carried request. That proves nothing about who sent it.
    pub fn request(&self) -> Result<Request, ProtocolError> {
        Request::parse(&self.request)
    }
}

fn without_line_end(mut token: String) -> String {
    let kept = token.trim_end_matches(['\r', '\n']).len();
    token.truncate(kept);
    token
}

/// Tokens stay out of logs.
impl std::fmt::Debug for SecureRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecureRequest")
            .field("request_bytes", &self.request.len())
            .field("insecure", &self.is_insecure())
            .field("delegated", &self.signer.is_some())
            .finish_non_exhaustive()
    }
}
