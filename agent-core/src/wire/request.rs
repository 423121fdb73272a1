//! The request itself (`docs/spec/01 §2.1`).

use super::{Layer, Span, WireError};
use crate::json::{Error, Sink, Writer, members};

const LAYER: Layer = Layer::Request;

/// The filter upstream's clients send when nothing is filtered.
pub const EMPTY_FILTER: &[u8] = br#"{"fact":[],"cf_class":[],"agent":[],"identity":[],"compound":[]}"#;

/// A parsed request; every range points into the buffer it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The body, decoded.
    pub message: Span,
    pub id: Span,
    /// The identity of the host the request was made on.
    pub sender: Span,
    pub caller: Span,
    pub collective: Span,
    pub agent: Span,
    /// Seconds the request is valid; at least one, not capped here.
    pub ttl: i64,
    /// When the request was made, Unix nanoseconds.
    pub time: i64,
    /// The filter object, as JSON.
    pub filter: Option<Span>,
}

/// Parses the document in `within`; `message` is decoded over its own text, which ends the validity of a signature over
/// these bytes.
pub fn parse(buffer: &mut [u8], within: Span) -> Result<Request, WireError> {
    const NAMES: [&str; 10] =
        ["protocol", "message", "id", "sender", "caller", "collective", "agent", "ttl", "time", "filter"];
    let [protocol, message, id, sender, caller, collective, agent, ttl, time, filter] =
        members(buffer, within, &NAMES).map_err(LAYER.json())?;
    LAYER.check_protocol(buffer, protocol)?;
    Ok(Request {
        id: LAYER.text(buffer, id, "id")?,
        sender: LAYER.text(buffer, sender, "sender")?,
        caller: LAYER.text(buffer, caller, "caller")?,
        collective: LAYER.text(buffer, collective, "collective")?,
        agent: LAYER.text(buffer, agent, "agent")?,
        ttl: LAYER.positive(buffer, ttl, "ttl")?,
        time: LAYER.positive(buffer, time, "time")?,
        filter: filter.map(|filter| filter.span),
        message: LAYER.base64(buffer, message, "message")?,
    })
}

/// A request to be written.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    pub message: &'a [u8],
    pub id: &'a str,
    pub sender: &'a str,
    pub caller: &'a str,
    pub collective: &'a str,
    pub agent: &'a str,
    pub ttl: i64,
    pub time: i64,
    pub filter: &'a [u8],
}

/// Writes the document that is then signed.
pub fn emit(out: &mut dyn Sink, fields: &Fields<'_>) -> Result<(), Error> {
    let mut w = Writer::new(out);
    w.begin_object().field_str("protocol", LAYER.protocol());
    w.key("message").base64(fields.message);
    w.field_str("id", fields.id).field_str("sender", fields.sender).field_str("caller", fields.caller);
    w.field_str("collective", fields.collective).field_str("agent", fields.agent);
    w.field_i64("ttl", fields.ttl).field_i64("time", fields.time).field_raw("filter", fields.filter);
    w.end_object();
    w.end()
}
