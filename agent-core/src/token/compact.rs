//! The compact form: three parts, their strict decoding, and the claims without their policy.

use super::reject::Reject;
use crate::encoding::{EncodingError, base64url};
use crate::json::{Error, Span, members};

/// Room for a decoded header; every header of ours has 27 bytes.
const HEADER: usize = 256;

/// A token split at its dots.
#[derive(Clone, Copy)]
pub(super) struct Compact<'t> {
    /// Header and claims as they were signed.
    pub(super) signed: &'t [u8],
    header: &'t [u8],
    pub(super) claims: &'t [u8],
    signature: &'t [u8],
}

impl<'t> Compact<'t> {
    /// One line end behind the token is allowed, nothing else around or inside.
    pub(super) fn split(token: &'t str) -> Result<Compact<'t>, Reject> {
        const PARTS: Reject = Reject::Malformed("not three parts joined by dots");
        let text = token.as_bytes();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let mut parts = text.split(|byte| *byte == b'.');
        match [parts.next(), parts.next(), parts.next(), parts.next()] {
            [Some(header), Some(claims), Some(signature), None]
                if !header.is_empty() && !claims.is_empty() =>
            {
                let len = header.len().saturating_add(claims.len()).saturating_add(1);
                Ok(Compact { signed: text.get(..len).unwrap_or_default(), header, claims, signature })
            }
            _ => Err(PARTS),
        }
    }

    /// The header must name EdDSA and nothing critical; key hints in it are ignored.
    pub(super) fn check_header(&self) -> Result<(), Reject> {
        const HEADER_BAD: Reject = Reject::Malformed("the header");
        let mut room = [0; HEADER];
        let length = base64url::decode_to_slice(self.header, &mut room).map_err(|_| HEADER_BAD)?;
        let header = room.get_mut(..length).ok_or(HEADER_BAD)?;
        let whole = Span::whole(header);
        let [algorithm, critical] = members(header, whole, &["alg", "crit"]).map_err(|_| HEADER_BAD)?;
        if critical.is_some() {
            return Err(Reject::Malformed("critical header members"));
        }
        let algorithm = algorithm.ok_or(HEADER_BAD)?.settle(header).map_err(|_| HEADER_BAD)?;
        if algorithm.text(header) == "EdDSA" { Ok(()) } else { Err(Reject::AlgorithmRefused) }
    }

    /// What is no base64 is malformed, as on hosts; what is no 64 bytes is no signature of ours.
    pub(super) fn signature(&self) -> Result<[u8; 64], Reject> {
        let mut signature = [0; 64];
        match base64url::decode_to_slice(self.signature, &mut signature) {
            Ok(64) => Ok(signature),
            Err(EncodingError::Malformed) => Err(Reject::Malformed("the signature")),
            Ok(_) | Err(EncodingError::NoSpace) => Err(Reject::SignatureBad),
        }
    }
}

/// The complete claims of a token, policy included, as JSON in `room`: for a policy engine, after verification.
pub fn decode_claims<'r>(token: &str, room: &'r mut [u8]) -> Result<&'r [u8], Reject> {
    let compact = Compact::split(token)?;
    let length = base64url::decode_to_slice(compact.claims, room).map_err(|error| match error {
        EncodingError::NoSpace => Reject::TooLarge,
        EncodingError::Malformed => Reject::Malformed("the claims"),
    })?;
    room.get(..length).ok_or(Reject::TooLarge)
}

/// Decodes claims into `room` with the text of a top-level `opa_policy` left out; answers the length of the rest and the
/// length of the policy.
pub(super) fn decode_condensed(claims: &[u8], room: &mut [u8]) -> Result<(usize, usize), Reject> {
    let mut filter = PolicyFilter::default();
    let mut length = 0_usize;
    for byte in base64url::bytes(claims) {
        let byte = byte.map_err(|_| Reject::Malformed("the claims"))?;
        if filter.keeps(byte) {
            *room.get_mut(length).ok_or(Reject::TooLarge)? = byte;
            length = length.saturating_add(1);
        } else if byte < 0x20 {
            return Err(Reject::Malformed("a control character in the policy"));
        }
    }
    Ok((length, filter.left_out))
}

/// Follows just enough of the grammar to know the value of one top-level member. What it keeps is still checked by the
/// scanner; only the inside of a string is ever left out.
#[derive(Default)]
struct PolicyFilter {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Bytes of the current top-level string that agree with the name; `None` when they do not.
    agreed: Option<usize>,
    state: State,
    left_out: usize,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Searching,
    /// The name was read, its value comes.
    Named,
    /// Inside the value.
    Leaving,
}

impl PolicyFilter {
    fn keeps(&mut self, byte: u8) -> bool {
        if self.in_string { self.inside(byte) } else { self.outside(byte) }
    }

    fn inside(&mut self, byte: u8) -> bool {
        const NAME: &[u8] = b"opa_policy";
        if byte == b'"' && !self.escaped {
            self.in_string = false;
            self.state = match self.state {
                State::Searching if self.agreed == Some(NAME.len()) => State::Named,
                _ => State::Searching,
            };
            return true;
        }
        self.escaped = byte == b'\\' && !self.escaped;
        if self.state == State::Leaving {
            self.left_out = self.left_out.saturating_add(1);
            return false;
        }
        self.agreed = self.agreed.filter(|at| NAME.get(*at) == Some(&byte)).map(|at| at.saturating_add(1));
        true
    }

    fn outside(&mut self, byte: u8) -> bool {
        match byte {
            b'"' => {
                self.in_string = true;
                self.escaped = false;
                self.agreed = (self.depth == 1).then_some(0);
                if self.state == State::Named {
                    self.state = State::Leaving;
                }
            }
            b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => {
                self.state = State::Searching;
                match byte {
                    b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        true
    }
}

impl From<Error> for Reject {
    fn from(error: Error) -> Reject {
        Reject::Malformed(match error {
            Error::Ambiguous { .. } => "claims that can be read in two ways",
            _ => "the claims",
        })
    }
}
