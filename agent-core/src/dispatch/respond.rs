//! A reply on its way out: RPC body, reply, secure reply, transport, PUB.

use super::judge::Return;
use crate::ed25519::SigningKey;
use crate::json::{self, SliceSink, Writer};
use crate::nats::Outgoing;
use crate::nats::sender::PublishError;
use crate::rpc::{StatusCode, TOO_LARGE};
use crate::wire::secure_reply::{self, Signed};
use crate::wire::{reply, transport};

/// The body of a reply.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Of the discovery agent.
    Pong,
    Rpc {
        code: StatusCode,
        text: &'a str,
        data: &'a [u8],
    },
}

/// Signs replies (`plugin.security.choria.sign_replies`).
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    pub key: &'a SigningKey,
    pub token: &'a str,
}

/// How the shell is connected when it replies.
#[derive(Debug, Clone, Copy, Default)]
pub struct Via<'a> {
    pub signer: Option<Signer<'a>>,
    /// URL of the connected broker, for the one hop of a reply's trace. Empty for none.
    pub broker: &'a str,
}

/// What all replies of a node have in common.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub identity: &'a str,
    /// Unix nanoseconds; a device without a clock sends 1.
    pub time: i64,
    pub via: Via<'a>,
    /// Largest payload the broker takes.
    pub max_payload: usize,
}

/// A reply that could not be written, not even its refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RespondError;

/// Appends the reply to `out`. Data that does not fit is replaced by a refusal that says so.
///
/// `scratch` holds the body and the reply document while they are hashed: about 2.4 times the data.
pub fn respond(
    out: &mut Outgoing<'_>,
    to: &Return<'_>,
    body: Body<'_>,
    context: &Context<'_>,
    scratch: &mut [u8],
) -> Result<(), RespondError> {
    if render(out, to, body, context, scratch).is_ok() {
        return Ok(());
    }
    let refusal = Body::Rpc { code: StatusCode::Aborted, text: TOO_LARGE, data: b"{}" };
    render(out, to, refusal, context, scratch).map_err(|_| RespondError)
}

fn render(
    out: &mut Outgoing<'_>,
    to: &Return<'_>,
    body: Body<'_>,
    context: &Context<'_>,
    scratch: &mut [u8],
) -> Result<(), PublishError<json::Error>> {
    let body_len = write_body(to, body, scratch).map_err(PublishError::Render)?;
    let (message, rest) =
        scratch.split_at_mut_checked(body_len).ok_or(PublishError::Render(json::Error::NoSpace))?;
    let fields = reply::Fields {
        message,
        request: to.request_id,
        sender: context.identity,
        agent: to.agent,
        time: context.time.max(1),
    };
    let mut sink = SliceSink::new(rest);
    reply::emit(&mut sink, &fields).map_err(PublishError::Render)?;
    let document = sink.finish().map_err(PublishError::Render)?;
    let signature = match &context.via.signer {
        Some(signer) => {
            Some(signer.key.sign_document(document).ok_or(PublishError::Render(json::Error::Type))?)
        }
        None => None,
    };
    let signed = match (&signature, &context.via.signer) {
        (Some(signature), Some(signer)) => Some(Signed { signature, token: signer.token }),
        _ => None,
    };
    let hop = [[context.via.broker, context.identity, context.via.broker]];
    let headers = transport::Headers {
        reply: None,
        sender: Some(context.identity),
        trace: if context.via.broker.is_empty() { &[] } else { &hop },
        federation: to.federation,
    };
    out.publish_with(to.subject, |room| {
        let limit = room.len().min(context.max_payload);
        let mut sink = SliceSink::new(room.get_mut(..limit).unwrap_or_default());
        secure_reply::emit_in_transport(&mut sink, &headers, document, signed)?;
        sink.finish().map(|written| written.len())
    })
}

fn write_body(to: &Return<'_>, body: Body<'_>, scratch: &mut [u8]) -> Result<usize, json::Error> {
    match body {
        Body::Pong => {
            scratch.get_mut(..4).ok_or(json::Error::NoSpace)?.copy_from_slice(b"pong");
            Ok(4)
        }
        Body::Rpc { code, text, data } => {
            let mut w = Writer::over(scratch);
            w.begin_object().field_str("action", to.action);
            w.field_i64("statuscode", i64::from(code.number())).field_str("statusmsg", text);
            w.field_raw("data", if data.is_empty() || data == b"null" { b"{}" } else { data });
            w.end_object();
            w.finish().map(|written| written.len())
        }
    }
}
