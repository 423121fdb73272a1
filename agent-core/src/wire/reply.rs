//! The reply of one node (`docs/spec/01 §2.3`).

use super::{Layer, Span, WireError};
use crate::json::{Error, Sink, Writer, members};

const LAYER: Layer = Layer::Reply;

/// A parsed reply; every range points into the buffer it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    /// The body, decoded.
    pub message: Span,
    /// The id of the request answered.
    pub request: Span,
    /// The identity of the replying node.
    pub sender: Span,
    pub agent: Span,
    /// When the reply was made, Unix nanoseconds.
    pub time: i64,
}

/// Parses the document in `within`; `message` is decoded over its own text.
pub fn parse(buffer: &mut [u8], within: Span) -> Result<Reply, WireError> {
    const NAMES: [&str; 6] = ["protocol", "message", "request", "sender", "agent", "time"];
    let [protocol, message, request, sender, agent, time] =
        members(buffer, within, &NAMES).map_err(LAYER.json())?;
    LAYER.check_protocol(buffer, protocol)?;
    Ok(Reply {
        request: LAYER.text(buffer, request, "request")?,
        sender: LAYER.text(buffer, sender, "sender")?,
        agent: LAYER.text(buffer, agent, "agent")?,
        time: LAYER.positive(buffer, time, "time")?,
        message: LAYER.base64(buffer, message, "message")?,
    })
}

/// A reply to be written.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    pub message: &'a [u8],
    pub request: &'a str,
    pub sender: &'a str,
    pub agent: &'a str,
    pub time: i64,
}

/// Writes the document that is then hashed and signed.
pub fn emit(out: &mut dyn Sink, fields: &Fields<'_>) -> Result<(), Error> {
    let mut w = Writer::new(out);
    w.begin_object().field_str("protocol", LAYER.protocol());
    w.key("message").base64(fields.message);
    w.field_str("request", fields.request)
        .field_str("sender", fields.sender)
        .field_str("agent", fields.agent);
    w.field_i64("time", fields.time).end_object();
    w.end()
}
