//! The claims of any token, found once and held in the caller's scratch.

use super::compact::{Compact, decode_condensed};
use super::reject::Reject;
use crate::encoding::hex;
use crate::json::{self, Member, Span, members};

/// Every claim we know; a second or case-variant one of these ends the token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Claim {
    Purpose,
    Tcs,
    PublicKey,
    IssuerExpiry,
    Issuer,
    Subject,
    Expiry,
    NotBefore,
    IssuedAt,
    Id,
    Organization,
    CallerId,
    Agents,
    UserProperties,
    Policy,
    Permissions,
    PublishSubjects,
    SubscribeSubjects,
    Identity,
    Collectives,
    Token,
    Secure,
    Urls,
    SrvDomain,
    Default,
    Registration,
    Facts,
    User,
    Password,
    Extensions,
    ProtocolTwo,
    Update,
}

/// Wire names in the order of [`Claim`].
const NAMES: [&str; 32] = [
    "purpose",
    "tcs",
    "public_key",
    "issexp",
    "iss",
    "sub",
    "exp",
    "nbf",
    "iat",
    "jti",
    "ou",
    "callerid",
    "agents",
    "user_properties",
    "opa_policy",
    "permissions",
    "pub_subjects",
    "sub_subjects",
    "identity",
    "collectives",
    "cht",
    "chs",
    "chu",
    "chsrv",
    "chpd",
    "chrd",
    "chf",
    "chusr",
    "chpwd",
    "extensions",
    "v2",
    "update",
];

/// Claims whose strings are unescaped in place.
#[derive(Clone, Copy)]
pub(super) struct Claims<'s> {
    bytes: &'s [u8],
    members: [Option<Member>; 32],
    policy_bytes: usize,
}

impl<'s> Claims<'s> {
    pub(super) fn read(compact: &Compact<'_>, scratch: &'s mut [u8]) -> Result<Claims<'s>, Reject> {
        let (length, policy_bytes) = decode_condensed(compact.claims, scratch)?;
        let scratch = scratch.get_mut(..length).ok_or(Reject::TooLarge)?;
        let whole = Span::whole(scratch);
        let mut members = members(scratch, whole, &NAMES)?;
        for member in members.iter_mut().flatten() {
            if member.kind == json::Kind::String {
                member.span = member.settle(scratch)?;
            }
        }
        Ok(Claims { bytes: scratch, members, policy_bytes })
    }

    /// Bytes of the policy's text in the claims; zero without one.
    pub(super) fn policy_bytes(&self) -> usize {
        self.policy_bytes
    }

    fn member(&self, claim: Claim) -> Option<Member> {
        self.members.get(claim as usize).copied().flatten()
    }

    /// A string; absent is `None`, another type an error.
    pub(super) fn text(&self, claim: Claim) -> Result<Option<&'s str>, Reject> {
        match self.member(claim) {
            None => Ok(None),
            Some(member) if member.kind == json::Kind::String => Ok(Some(member.span.text(self.bytes))),
            Some(_) => Err(Reject::Malformed("a claim of the wrong type")),
        }
    }

    /// A string that is not empty.
    pub(super) fn some_text(&self, claim: Claim) -> Result<Option<&'s str>, Reject> {
        Ok(self.text(claim)?.filter(|text| !text.is_empty()))
    }

    pub(super) fn date(&self, claim: Claim) -> Result<Option<i64>, Reject> {
        match self.member(claim) {
            None => Ok(None),
            Some(member) => {
                member.date(self.bytes).map(Some).map_err(|_| Reject::Malformed("a date that is no date"))
            }
        }
    }

    pub(super) fn flag(&self, claim: Claim) -> Result<bool, Reject> {
        match self.member(claim).map(|member| member.kind) {
            None | Some(json::Kind::False) => Ok(false),
            Some(json::Kind::True) => Ok(true),
            Some(_) => Err(Reject::Malformed("a claim of the wrong type")),
        }
    }

    /// The JSON of a claim that must be of `kind`.
    pub(super) fn raw(&self, claim: Claim, kind: json::Kind) -> Result<Option<&'s [u8]>, Reject> {
        match self.member(claim) {
            None => Ok(None),
            Some(member) if member.kind == kind => Ok(Some(member.span.of(self.bytes))),
            Some(_) => Err(Reject::Malformed("a claim of the wrong type")),
        }
    }

    /// The holder's key, if the token names one.
    pub(super) fn public_key(&self) -> Result<Option<[u8; 32]>, Reject> {
        self.some_text(Claim::PublicKey)?
            .map(|text| hex::decode_array(text.as_bytes()).map_err(|_| Reject::ClaimInvalid("public_key")))
            .transpose()
    }
}
