//! A request with its signature and the tokens that speak for it (`docs/spec/01 §2.2`).

use super::{Base64Sink, Layer, Span, WireError};
use crate::json::{Error, Sink, Writer, members};

const LAYER: Layer = Layer::SecureRequest;

/// The signature bytes of a request that is not signed: to the signer service, and while provisioning insecurely.
pub const INSECURE: &[u8] = b"insecure";

/// A parsed secure request; every range points into the buffer it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct SecureRequest {
    /// The request document, decoded: the signed bytes.
    pub request: Span,
    /// 64 bytes of Ed25519, or [`INSECURE`]; empty when absent.
    pub signature: Span,
    /// The caller's token.
    pub caller: Span,
    /// The token of the delegated signer.
    pub signer: Option<Span>,
}

/// Parses the message in `within`; `request` and `signature` are decoded over their own text.
pub fn parse(buffer: &mut [u8], within: Span) -> Result<SecureRequest, WireError> {
    const NAMES: [&str; 5] = ["protocol", "request", "signature", "caller", "signer"];
    let [protocol, request, signature, caller, signer] =
        members(buffer, within, &NAMES).map_err(LAYER.json())?;
    LAYER.check_protocol(buffer, protocol)?;
    let caller = LAYER.text(buffer, caller, "caller")?;
    let signer = LAYER.optional(buffer, signer, "signer")?;
    Ok(SecureRequest {
        caller: without_line_end(buffer, caller),
        signer: signer.map(|signer| without_line_end(buffer, signer)),
        signature: LAYER.optional_base64(buffer, signature, "signature")?.unwrap_or_default(),
        request: LAYER.base64(buffer, request, "request")?,
    })
}

/// Token files end in a line break here and there, and peers send them as they are.
fn without_line_end(buffer: &[u8], token: Span) -> Span {
    let text = token.of(buffer);
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    token.shortened(text.strip_suffix(b"\r").unwrap_or(text).len())
}

/// Writes a secure request around a finished request document.
pub fn emit(
    out: &mut dyn Sink,
    request: &[u8],
    signature: &[u8],
    caller: &str,
    signer: Option<&str>,
) -> Result<(), Error> {
    let mut w = Writer::new(out);
    w.begin_object().field_str("protocol", LAYER.protocol());
    w.key("request").filled_str(|sink| {
        let mut encoder = Base64Sink::new(sink);
        encoder.put(request)?;
        encoder.finish()
    });
    w.key("signature").base64(signature);
    w.field_str("caller", caller.trim_ascii_end());
    if let Some(signer) = signer {
        w.field_str("signer", signer.trim_ascii_end());
    }
    w.end_object();
    w.end()
}
