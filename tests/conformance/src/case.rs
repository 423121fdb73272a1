//! A case as it stands in the file: `u32` length, one byte of kind, then fields of `u32` length and bytes; all little endian.

use crate::Source;

/// A clock that does not know the time.
pub const NEVER: i64 = i64::MIN;

/// What is asked of agent-core; the comment names the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// kind, trust, now, token
    Token = 1,
    /// kind, token
    Peek,
    /// trust, whether delegated callers may have any name, now, message
    Accept,
    /// trust, now, message to a candidate that knows its issuer
    Obey,
    /// message
    Request,
    /// request document
    Document,
    /// secure reply
    Reply,
    /// message, taken apart and written again: message, hops (count, then three texts each)
    Transport,
    /// subject, request id, agent, action, status, text, data, broker, seed or nothing, token, time, largest payload
    Respond,
    /// seed, nonce
    Nonce,
    /// name, language, version, token, seed or nothing, user, password, nonce or nothing, whether the token is repeated
    Connect,
    /// key, message, signature
    Signature,
    /// leaf, intermediate or nothing, pins (count, then kind and key), kind of name, name, now
    Certificate,
    /// leaf, pins, name, now, scheme, signature, hash of the transcript
    Proof,
    /// identity, agents, classes, facts, filter
    Filter,
    /// facts, path, operator, values
    Facts,
    /// text
    Expression,
    /// operation, bytes
    Encoding,
    /// bytes of a broker, size of a piece, largest payload
    Frames,
    /// document
    Json,
    /// `config` or an ending of policies, document
    Settings,
    /// whether it waits to be provisioned, access token
    Candidate,
    /// milliseconds, caller, action, inputs, 32 random bytes or nothing
    Call,
    /// whether it is a member, trust, whether delegated callers may have any name, who judges callers' policies (`nobody`,
    /// `device`, `signer`), not before, broker's first words
    Start,
    /// milliseconds, Unix nanoseconds, subject, message, blanks behind it
    Message,
    /// nothing
    Counters,
}

impl Kind {
    const ALL: [Kind; 26] = [
        Kind::Token,
        Kind::Peek,
        Kind::Accept,
        Kind::Obey,
        Kind::Request,
        Kind::Document,
        Kind::Reply,
        Kind::Transport,
        Kind::Respond,
        Kind::Nonce,
        Kind::Connect,
        Kind::Signature,
        Kind::Certificate,
        Kind::Proof,
        Kind::Filter,
        Kind::Facts,
        Kind::Expression,
        Kind::Encoding,
        Kind::Frames,
        Kind::Json,
        Kind::Settings,
        Kind::Candidate,
        Kind::Call,
        Kind::Start,
        Kind::Message,
        Kind::Counters,
    ];

    fn of(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why a run ends early. Never agent-core's doing: the file is broken, or nobody takes the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No case, or one that does not fit.
    Case,
    /// The line could not be written.
    Write,
}

impl From<core::fmt::Error> for Fault {
    fn from(_: core::fmt::Error) -> Fault {
        Fault::Write
    }
}

/// The fields of a case that are still to be read.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'c>(&'c [u8]);

impl<'c> Fields<'c> {
    pub(crate) fn bytes(&mut self) -> Result<&'c [u8], Fault> {
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or(Fault::Case)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Fault::Case)?;
        let (field, rest) = rest.split_at_checked(length).ok_or(Fault::Case)?;
        self.0 = rest;
        Ok(field)
    }

    pub(crate) fn text(&mut self) -> Result<&'c str, Fault> {
        core::str::from_utf8(self.bytes()?).map_err(|_| Fault::Case)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.bytes()?.try_into().map_err(|_| Fault::Case)
    }

    /// Nothing, or exactly so many bytes.
    pub(crate) fn maybe<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Fault> {
        let field = self.bytes()?;
        if field.is_empty() { Ok(None) } else { field.try_into().map(Some).map_err(|_| Fault::Case) }
    }

    pub(crate) fn number(&mut self) -> Result<i64, Fault> {
        self.array().map(i64::from_le_bytes)
    }

    /// A clock's; [`NEVER`] is a clock that does not know.
    pub(crate) fn time(&mut self) -> Result<Option<i64>, Fault> {
        self.number().map(|number| (number != NEVER).then_some(number))
    }

    pub(crate) fn size(&mut self) -> Result<usize, Fault> {
        self.number().and_then(|number| usize::try_from(number).map_err(|_| Fault::Case))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Fault> {
        self.number().map(|number| number != 0)
    }

    /// A count, and so many texts.
    pub(crate) fn texts<const N: usize>(&mut self) -> Result<heapless::Vec<&'c str, N>, Fault> {
        let mut texts = heapless::Vec::new();
        for _ in 0..self.size()? {
            texts.push(self.text()?).map_err(|_| Fault::Case)?;
        }
        Ok(texts)
    }
}

/// Reads the next case into `room`; its length, `None` at the end of the file.
pub(crate) fn next(source: &mut dyn Source, room: &mut [u8]) -> Result<Option<usize>, Fault> {
    let mut length = [0; 4];
    match source.read(&mut length) {
        0 => return Ok(None),
        4 => {}
        _ => return Err(Fault::Case),
    }
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| Fault::Case)?;
    let place = room.get_mut(..length).ok_or(Fault::Case)?;
    if source.read(place) == length { Ok(Some(length)) } else { Err(Fault::Case) }
}

/// The case of this length at the front of `room`.
pub(crate) fn open(room: &[u8], length: usize) -> Result<(Kind, Fields<'_>), Fault> {
    let (kind, fields) = room.get(..length).and_then(<[u8]>::split_first).ok_or(Fault::Case)?;
    Ok((Kind::of(*kind).ok_or(Fault::Case)?, Fields(fields)))
}
