//! The outermost message: a secure request or reply and its headers (`docs/spec/01 §2.5`).

use super::{Base64Sink, Fault, Layer, Span, WireError};
use crate::json::{Error, Sink, Writer, members};

const LAYER: Layer = Layer::Transport;

/// A parsed transport message; every range points into the buffer it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct Transport {
    /// The decoded inner message.
    pub data: Span,
    /// The subject replies go to.
    pub reply: Option<Span>,
    /// The identity of the sending host.
    pub sender: Option<Span>,
    pub federation: Option<Federation>,
}

/// What a federation broker needs to bring the reply home.
#[derive(Debug, Clone, Copy)]
pub struct Federation {
    pub request: Option<Span>,
    pub reply: Option<Span>,
    /// The list of target subjects, as JSON.
    pub targets: Option<Span>,
}

impl Federation {
    /// As headers of a reply, which carries them back unchanged.
    pub fn headers<'b>(&self, buffer: &'b [u8]) -> FederationHeaders<'b> {
        FederationHeaders {
            request: self.request.map(|span| span.text(buffer)),
            reply: self.reply.map(|span| span.text(buffer)),
            targets: self.targets.map(|span| span.of(buffer)),
        }
    }
}

/// Parses the message that fills `buffer`; `data` is decoded over its own text.
pub fn parse(buffer: &mut [u8]) -> Result<Transport, WireError> {
    let whole = Span::whole(buffer);
    let [protocol, data, headers] =
        members(buffer, whole, &["protocol", "data", "headers"]).map_err(LAYER.json())?;
    let inside = match headers {
        Some(headers) => {
            members(buffer, headers.span, &["reply", "sender", "federation"]).map_err(LAYER.json())?
        }
        None => [None; 3],
    };
    let [reply, sender, federation] = inside;
    let federated = federation
        .map(|federation| members(buffer, federation.span, &["request", "reply", "targets"]))
        .transpose()
        .map_err(LAYER.json())?;

    LAYER.check_protocol(buffer, protocol)?;
    let federation = match federated {
        Some([request, home, targets]) => Some(Federation {
            request: LAYER.optional(buffer, request, "federation.request")?,
            reply: LAYER.optional(buffer, home, "federation.reply")?,
            targets: targets.map(|targets| targets.span),
        }),
        None => None,
    };
    Ok(Transport {
        reply: LAYER.optional(buffer, reply, "headers.reply")?,
        sender: LAYER.optional(buffer, sender, "headers.sender")?,
        federation,
        data: LAYER.base64(buffer, data, "data")?,
    })
}

/// The headers of an outgoing message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    pub reply: Option<&'a str>,
    pub sender: Option<&'a str>,
    /// Hops: where the message came in, who handled it, where it went out.
    pub trace: &'a [[&'a str; 3]],
    pub federation: Option<FederationHeaders<'a>>,
}

/// See [`Federation`].
#[derive(Debug, Clone, Copy, Default)]
pub struct FederationHeaders<'a> {
    pub request: Option<&'a str>,
    pub reply: Option<&'a str>,
    /// A JSON list of subjects.
    pub targets: Option<&'a [u8]>,
}

/// Writes the message; `data` writes the inner message into the sink it is given.
pub fn emit(
    out: &mut dyn Sink,
    headers: &Headers<'_>,
    data: &mut dyn FnMut(&mut dyn Sink) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut w = Writer::new(out);
    w.begin_object().field_str("protocol", LAYER.protocol());
    w.key("data").filled_str(|sink| {
        let mut encoder = Base64Sink::new(sink);
        data(&mut encoder)?;
        encoder.finish()
    });
    w.key("headers").begin_object();
    optional(&mut w, "reply", headers.reply);
    optional(&mut w, "sender", headers.sender);
    if !headers.trace.is_empty() {
        w.key("trace").begin_array();
        for hop in headers.trace {
            w.begin_array();
            for place in hop {
                w.str(place);
            }
            w.end_array();
        }
        w.end_array();
    }
    if let Some(federation) = &headers.federation {
        w.key("federation").begin_object();
        optional(&mut w, "request", federation.request);
        optional(&mut w, "reply", federation.reply);
        if let Some(targets) = federation.targets {
            w.field_raw("targets", targets);
        }
        w.end_object();
    }
    w.end_object().end_object();
    w.end()
}

fn optional<S: Sink>(w: &mut Writer<S>, name: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        w.field_str(name, value);
    }
}

/// The fault of a message that lacks a reply subject, for a receiver that needs one.
pub fn reply_missing() -> WireError {
    LAYER.fault(Fault::Missing("headers.reply"))
}
