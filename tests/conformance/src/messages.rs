//! Messages taken apart in the receive buffer and written again, and replies built in the send buffer.

use core::fmt::Write;

use agent_core::dispatch::{self, Body, Context, Return, Signer, Via};
use agent_core::ed25519::SigningKey;
use agent_core::nats::Outgoing;
use agent_core::rpc::StatusCode;
use agent_core::wire::transport::Headers;
use agent_core::wire::{
    Span, reply as replies, request as requests, secure_reply, secure_request, transport as transports,
};

use crate::Buffers;
use crate::case::{Fault, Fields};
use crate::show::{Digest, Written};
use crate::tokens::received;

pub(crate) fn request(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let Some(buffer) = received(buffers.rx, fields.bytes()?) else {
        return Ok(write!(out, "refused too_large")?);
    };
    let outer = match transports::parse(buffer) {
        Ok(outer) => outer,
        Err(error) => return Ok(write!(out, "refused {} {error}", error.reason())?),
    };
    write!(out, "data={} reply={}", Digest(outer.data.of(buffer)), shown(outer.reply, buffer))?;
    let secure = match secure_request::parse(buffer, outer.data) {
        Ok(secure) => secure,
        Err(error) => return Ok(write!(out, " refused {} {error}", error.reason())?),
    };
    write!(out, " request={}", Digest(secure.request.of(buffer)))?;
    let again = Written::by(buffers.tx, |sink| {
        let signer = secure.signer.map(|signer| signer.text(buffer));
        let caller = secure.caller.text(buffer);
        secure_request::emit(sink, secure.request.of(buffer), secure.signature.of(buffer), caller, signer)
    });
    write!(out, " again={again} ")?;
    request_document(buffer, secure.request, buffers.tx, out)
}

pub(crate) fn document(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let Some(buffer) = received(buffers.rx, fields.bytes()?) else {
        return Ok(write!(out, "refused too_large")?);
    };
    let whole = Span::whole(buffer);
    request_document(buffer, whole, buffers.tx, out)
}

fn request_document(
    buffer: &mut [u8],
    within: Span,
    tx: &mut [u8],
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let request = match requests::parse(buffer, within) {
        Ok(request) => request,
        Err(error) => return Ok(write!(out, "refused {} {error}", error.reason())?),
    };
    let buffer = &*buffer;
    let again = Written::by(tx, |sink| {
        let fields = requests::Fields {
            message: request.message.of(buffer),
            id: request.id.text(buffer),
            sender: request.sender.text(buffer),
            caller: request.caller.text(buffer),
            collective: request.collective.text(buffer),
            agent: request.agent.text(buffer),
            ttl: request.ttl,
            time: request.time,
            filter: request.filter.map(|filter| filter.of(buffer)).unwrap_or(requests::EMPTY_FILTER),
        };
        requests::emit(sink, &fields)
    });
    Ok(write!(out, "ok body={} again={again}", Digest(request.message.of(buffer)))?)
}

fn shown(span: Option<Span>, buffer: &[u8]) -> &str {
    span.map(|span| span.text(buffer)).unwrap_or_default()
}

pub(crate) fn reply(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let Some(buffer) = received(buffers.rx, fields.bytes()?) else {
        return Ok(write!(out, "refused too_large")?);
    };
    let whole = Span::whole(buffer);
    let secure = match secure_reply::parse(buffer, whole) {
        Ok(secure) => secure,
        Err(error) => return Ok(write!(out, "refused {} {error}", error.reason())?),
    };
    write!(out, "reply={} signed={}", Digest(secure.reply.of(buffer)), secure.signature.is_some())?;
    let signature = secure.signature.map(|signature| signature.of(buffer));
    let signed =
        signature.map(|signature| secure_reply::Signed { signature, token: shown(secure.sender, buffer) });
    let again = Written::by(buffers.tx, |sink| secure_reply::emit(sink, secure.reply.of(buffer), signed));
    write!(out, " again={again}")?;
    let inner = match replies::parse(buffer, secure.reply) {
        Ok(inner) => inner,
        Err(error) => return Ok(write!(out, " refused {} {error}", error.reason())?),
    };
    let buffer = &*buffer;
    let again = Written::by(buffers.tx, |sink| {
        let fields = replies::Fields {
            message: inner.message.of(buffer),
            request: inner.request.text(buffer),
            sender: inner.sender.text(buffer),
            agent: inner.agent.text(buffer),
            time: inner.time,
        };
        replies::emit(sink, &fields)
    });
    Ok(write!(out, " body={} again={again}", Digest(inner.message.of(buffer)))?)
}

pub(crate) fn transport(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let message = fields.bytes()?;
    let places = fields.texts::<9>()?;
    let (hops, rest) = places.as_chunks::<3>();
    if !rest.is_empty() {
        return Err(Fault::Case);
    }
    let Some(buffer) = received(buffers.rx, message) else { return Ok(write!(out, "refused too_large")?) };
    let parsed = match transports::parse(buffer) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(write!(out, "refused {} {error}", error.reason())?),
    };
    let buffer = &*buffer;
    let headers = Headers {
        reply: parsed.reply.map(|reply| reply.text(buffer)),
        sender: parsed.sender.map(|sender| sender.text(buffer)),
        trace: hops,
        federation: parsed.federation.map(|federation| federation.headers(buffer)),
    };
    let data = parsed.data.of(buffer);
    let again =
        Written::by(buffers.tx, |sink| transports::emit(sink, &headers, &mut |inner| inner.put(data)));
    let home = headers.federation.and_then(|federation| federation.reply).unwrap_or_default();
    Ok(write!(out, "ok data={} home={home} again={again}", Digest(data))?)
}

pub(crate) fn respond(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let (subject, request_id, agent, action) =
        (fields.text()?, fields.text()?, fields.text()?, fields.text()?);
    let (status, text, data) = (fields.number()?, fields.text()?, fields.bytes()?);
    let (broker, seed, token) = (fields.text()?, fields.maybe::<32>()?, fields.text()?);
    let (time, max_payload) = (fields.number()?, fields.size()?);
    let to = Return { subject, request_id, agent, action, federation: None };
    let code = StatusCode::from_number(status.unsigned_abs());
    let body = if agent == "discovery" { Body::Pong } else { Body::Rpc { code, text, data } };
    let key = seed.and_then(|seed| SigningKey::from_seed(&seed));
    let via = Via { signer: key.as_ref().map(|key| Signer { key, token }), broker };
    let context = Context { identity: "n1.example.net", time, via, max_payload };
    let mut sent = Outgoing::new(buffers.tx);
    match dispatch::respond(&mut sent, &to, body, &context, buffers.scratch) {
        Ok(()) => Ok(write!(out, "ok sent={}", Digest(sent.finish()))?),
        Err(_) => Ok(write!(out, "refused")?),
    }
}
