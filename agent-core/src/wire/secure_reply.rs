//! A reply with its hash and, when nodes sign, signature and token (`docs/spec/01 §2.4`).

use super::transport::{self, Headers};
use super::{Base64Sink, Fault, Layer, Span, WireError};
use crate::ids::sha256;
use crate::json::{Error, Sink, Writer, members};
use subtle::ConstantTimeEq as _;

const LAYER: Layer = Layer::SecureReply;

/// A parsed secure reply whose hash holds; every range points into the buffer it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct SecureReply {
    /// The reply document, decoded: the hashed and signed bytes.
    pub reply: Span,
    /// 64 bytes of Ed25519 by the node, over the reply document.
    pub signature: Option<Span>,
    /// The node's token.
    pub sender: Option<Span>,
}

/// Parses the message in `within` and checks the hash.
pub fn parse(buffer: &mut [u8], within: Span) -> Result<SecureReply, WireError> {
    const NAMES: [&str; 5] = ["protocol", "reply", "hash", "signature", "sender"];
    let [protocol, reply, hash, signature, sender] = members(buffer, within, &NAMES).map_err(LAYER.json())?;
    LAYER.check_protocol(buffer, protocol)?;
    let hash = LAYER.base64(buffer, hash, "hash")?;
    let reply = LAYER.base64(buffer, reply, "reply")?;
    if !bool::from(sha256(reply.of(buffer)).ct_eq(hash.of(buffer))) {
        return Err(LAYER.fault(Fault::Invalid("hash")));
    }
    Ok(SecureReply {
        reply,
        signature: LAYER.optional_base64(buffer, signature, "signature")?,
        sender: LAYER.optional(buffer, sender, "sender")?,
    })
}

/// What a signing node adds to a reply.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    pub signature: &'a [u8],
    pub token: &'a str,
}

/// Writes a secure reply around a finished reply document.
pub fn emit(out: &mut dyn Sink, reply: &[u8], signed: Option<Signed<'_>>) -> Result<(), Error> {
    let mut w = Writer::new(out);
    w.begin_object().field_str("protocol", LAYER.protocol());
    w.key("reply").filled_str(|sink| {
        let mut encoder = Base64Sink::new(sink);
        encoder.put(reply)?;
        encoder.finish()
    });
    w.key("hash").base64(&sha256(reply));
    if let Some(signed) = signed {
        w.key("signature").base64(signed.signature);
        w.field_str("sender", signed.token.trim_ascii_end());
    }
    w.end_object();
    w.end()
}

/// Writes the whole reply as it goes on the wire: transport around secure reply around the finished reply document.
pub fn emit_in_transport(
    out: &mut dyn Sink,
    headers: &Headers<'_>,
    reply: &[u8],
    signed: Option<Signed<'_>>,
) -> Result<(), Error> {
    transport::emit(out, headers, &mut |sink| emit(sink, reply, signed))
}
