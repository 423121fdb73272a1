//! Encodings, what a broker says, and JSON that could be read in two ways.

use core::fmt::Write;

use agent_core::encoding::{EncodingError, base62, base64, base64url, hex};
use agent_core::ids;
use agent_core::json::check_unambiguous;
use agent_core::nats::{Frame, Limits, Parser};

use crate::Buffers;
use crate::case::{Fault, Fields};
use crate::show::{Digest, Hex};

pub(crate) fn encoding(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let (operation, input) = (fields.text()?, fields.bytes()?);
    let text = core::str::from_utf8(input);
    let room = buffers.tx.as_mut_slice();
    let encoded = |out: &mut dyn Write, text: Result<&str, EncodingError>| match text {
        Ok(text) => write!(out, "ok {text}"),
        Err(error) => write!(out, "refused {error:?}"),
    };
    match operation {
        "base64" => encoded(out, base64::encode_to_slice(input, room))?,
        "base64url" => encoded(out, base64url::encode_to_slice(input, room))?,
        "hex" => encoded(out, hex::encode_to_slice(input, room))?,
        "base62" => {
            let text = base62::encode(input.try_into().map_err(|_| Fault::Case)?);
            encoded(out, core::str::from_utf8(&text).map_err(|_| EncodingError::Malformed))?;
        }
        "md5" => write!(out, "ok {}", ids::private_network_id(text.map_err(|_| Fault::Case)?).as_str())?,
        "sha256" => {
            write!(out, "ok {}", ids::private_network_id_sha256(text.map_err(|_| Fault::Case)?).as_str())?;
        }
        "ksuid" => match ids::ksuid_time(text.map_err(|_| Fault::Case)?) {
            Some(seconds) => write!(out, "ok {seconds}")?,
            None => write!(out, "refused")?,
        },
        _ => {
            let decoded = match operation {
                "from base64" => base64::decode_to_slice(input, room),
                "from base64url" => base64url::decode_to_slice(input, room),
                "from hex" => hex::decode_to_slice(input, room),
                "from base62" => base62::decode(input).map(|bytes| {
                    room.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                    bytes.len()
                }),
                _ => return Err(Fault::Case),
            };
            match decoded {
                Ok(length) => write!(out, "ok {}", Hex(room.get(..length).unwrap_or_default()))?,
                Err(error) => write!(out, "refused {error:?}")?,
            }
        }
    }
    Ok(())
}

pub(crate) fn frames(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let (bytes, piece, payload) = (fields.bytes()?, fields.size()?, fields.size()?);
    let mut parser = Parser::new(Limits { info: 4096, payload });
    let rx = buffers.rx.as_mut_slice();
    for piece in bytes.chunks(piece.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() {
            let (taken, frame) = match parser.feed(rest, rx) {
                Ok(fed) => fed,
                Err(error) => return Ok(write!(out, "refused {error:?}")?),
            };
            rest = rest.get(taken..).unwrap_or_default();
            let text = |span: agent_core::nats::Span| Digest(span.of(rx)).0.escape_ascii();
            match frame {
                None => {}
                Some(Frame::Info(json)) => write!(out, "info {} ", Digest(json.of(rx)))?,
                Some(Frame::Message { subject, sid, reply, headers, payload }) => write!(
                    out,
                    "msg {} {sid} {} {} {} ",
                    text(subject),
                    text(reply),
                    Digest(headers.of(rx)),
                    Digest(payload.of(rx))
                )?,
                Some(Frame::TooLarge { subject, sid, size }) => {
                    write!(out, "large {} {sid} {size} ", text(subject))?;
                }
                Some(Frame::Ping) => write!(out, "ping ")?,
                Some(Frame::Pong) => write!(out, "pong ")?,
                Some(Frame::Ok) => write!(out, "+ok ")?,
                Some(Frame::Error(message)) => write!(out, "-err {} ", text(message))?,
            }
        }
    }
    Ok(write!(out, "end")?)
}

pub(crate) fn json(fields: &mut Fields<'_>, out: &mut dyn Write) -> Result<(), Fault> {
    match check_unambiguous(fields.bytes()?, &mut [0; 64]) {
        Ok(()) => Ok(write!(out, "ok")?),
        Err(error) => Ok(write!(out, "refused {error}")?),
    }
}
