//! Signatures: of nonces and the CONNECT that carries them, of documents, of certificates.

use core::fmt::Write;

use agent_core::ed25519;
use agent_core::nats::Outgoing;
use agent_core::nonce::{NonceRefused, public_key, sign_nonce};
use agent_core::session::{Client, Credentials, write_connect};
use agent_core::x509pin::{self, Leaf, Pin, Refused, ServerName};

use crate::Buffers;
use crate::case::{Fault, Fields};
use crate::show::Hex;

/// Most pins of a case.
const PINS: usize = 4;

pub(crate) fn nonce(fields: &mut Fields<'_>, out: &mut dyn Write) -> Result<(), Fault> {
    let (seed, nonce) = (fields.array::<32>()?, fields.text()?);
    match sign_nonce(&seed, nonce) {
        Ok(signature) => {
            Ok(write!(out, "ok {} by {}", Hex(&signature), Hex(&public_key(&seed).unwrap_or_default()))?)
        }
        Err(NonceRefused) => Ok(write!(out, "refused {}", NonceRefused::REASON)?),
    }
}

pub(crate) fn connect(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let client = Client { name: fields.text()?, lang: fields.text()?, version: fields.text()? };
    let (token, seed) = (fields.text()?, fields.maybe::<32>()?);
    let (user, pass, nonce) = (fields.text()?, fields.text()?, fields.text()?);
    let given = |text| Some(text).filter(|text: &&str| !text.is_empty());
    let credentials = Credentials {
        token: given(token),
        seed: seed.as_ref(),
        user: given(user),
        pass: given(pass),
        repeat_token: fields.flag()?,
    };
    let mut sent = Outgoing::new(buffers.tx);
    match write_connect(&mut sent, &client, &credentials, given(nonce), true) {
        Ok(()) => {
            let text = core::str::from_utf8(sent.finish()).map_err(|_| Fault::Case)?;
            Ok(write!(out, "{}", text.strip_suffix("\r\nPING\r\n").unwrap_or("no PING"))?)
        }
        Err(error) => Ok(write!(out, "refused {error:?}")?),
    }
}

pub(crate) fn signature(fields: &mut Fields<'_>, out: &mut dyn Write) -> Result<(), Fault> {
    let (key, message, signature) = (fields.array::<32>()?, fields.bytes()?, fields.bytes()?);
    let holds = ed25519::verify(&key, &[message], signature);
    Ok(write!(out, "{}", if holds { "ok" } else { "refused sig_bad" })?)
}

fn pins(fields: &mut Fields<'_>) -> Result<heapless::Vec<Pin, PINS>, Fault> {
    let mut pins = heapless::Vec::new();
    for _ in 0..fields.size()? {
        let pin = match fields.text()? {
            "ed25519" => Pin::CaEd25519(fields.array()?),
            "p256" => Pin::CaP256(fields.array()?),
            "leaf" => Pin::LeafSha256(fields.array()?),
            _ => return Err(Fault::Case),
        };
        pins.push(pin).map_err(|_| Fault::Case)?;
    }
    Ok(pins)
}

fn name<'c>(fields: &mut Fields<'c>) -> Result<ServerName<'c>, Fault> {
    match fields.text()? {
        "dns" => Ok(ServerName::Dns(fields.text()?)),
        "ip" => Ok(ServerName::Ip(fields.array()?)),
        _ => Err(Fault::Case),
    }
}

fn leaf(fields: &mut Fields<'_>) -> Result<Result<Leaf, Refused>, Fault> {
    let (leaf, above) = (fields.bytes()?, fields.bytes()?);
    let (pins, name, now) = (pins(fields)?, name(fields)?, fields.time()?);
    Ok(x509pin::verify(leaf, (!above.is_empty()).then_some(above), &pins, name, now))
}

pub(crate) fn certificate(fields: &mut Fields<'_>, out: &mut dyn Write) -> Result<(), Fault> {
    match leaf(fields)? {
        Ok(leaf) => Ok(write!(out, "ok time_unverified={}", leaf.time_unverified)?),
        Err(refused) => Ok(write!(out, "refused {}", refused.reason())?),
    }
}

pub(crate) fn proof(fields: &mut Fields<'_>, out: &mut dyn Write) -> Result<(), Fault> {
    let leaf = leaf(fields)?;
    let (scheme, signature, transcript) = (fields.size()?, fields.bytes()?, fields.bytes()?);
    let scheme = u16::try_from(scheme).map_err(|_| Fault::Case)?;
    match leaf.and_then(|leaf| leaf.verify_certificate_verify(scheme, signature, transcript)) {
        Ok(()) => Ok(write!(out, "ok")?),
        Err(refused) => Ok(write!(out, "refused {}", refused.reason())?),
    }
}
