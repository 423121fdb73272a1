//! Protocol v2 messages, one file each with its parser and its writer beside each other (`docs/spec/01 §2`).
//!
//! A message stays in the one buffer it arrived in. Every layer first finds all its members, then decodes base64 over its
//! own text; what comes out are [`Span`]s into that buffer. The signature of a request must be checked between
//! [`secure_request::parse`] and [`request::parse`], because the latter overwrites the signed bytes: [`crate::secure`]
//! keeps that order.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod base64_sink;
pub mod reply;
pub mod request;
pub mod secure_reply;
pub mod secure_request;
pub mod transport;

pub use crate::json::Span;
use crate::json::{Error, Member};
pub use base64_sink::Base64Sink;

/// Which message a fault was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    Transport,
    SecureRequest,
    Request,
    SecureReply,
    Reply,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Json(Error),
    /// The `protocol` member is missing or names another message.
    Protocol,
    /// The member is missing or empty.
    Missing(&'static str),
    /// The member has the wrong type, range or encoding.
    Invalid(&'static str),
}

/// A message that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireError {
    pub layer: Layer,
    pub fault: Fault,
}

impl WireError {
    /// The stable word for logs and counters (`docs/spec/10 §8`).
    pub fn reason(&self) -> &'static str {
        match (self.layer, self.fault) {
            (_, Fault::Json(Error::Ambiguous { .. })) => "json_ambiguous",
            (Layer::Transport, _) => "transport_bad",
            _ => "secure_bad",
        }
    }
}

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let layer = match self.layer {
            Layer::Transport => "transport",
            Layer::SecureRequest => "secure request",
            Layer::Request => "request",
            Layer::SecureReply => "secure reply",
            Layer::Reply => "reply",
        };
        match self.fault {
            Fault::Json(error) => write!(f, "the {layer} message is refused: {error}"),
            Fault::Protocol => write!(f, "the {layer} message does not carry its protocol id"),
            Fault::Missing(name) => write!(f, "the {layer} message lacks a value for '{name}'"),
            Fault::Invalid(name) => write!(f, "the {layer} message has an unusable '{name}'"),
        }
    }
}

impl core::error::Error for WireError {}

impl Layer {
    fn fault(self, fault: Fault) -> WireError {
        WireError { layer: self, fault }
    }

    fn json(self) -> impl Fn(Error) -> WireError {
        move |error| self.fault(Fault::Json(error))
    }

    /// The protocol id of the layer.
    pub fn protocol(self) -> &'static str {
        match self {
            Layer::Transport => "io.choria.protocol.v2.transport",
            Layer::SecureRequest => "io.choria.protocol.v2.secure_request",
            Layer::Request => "io.choria.protocol.v2.request",
            Layer::SecureReply => "io.choria.protocol.v2.secure_reply",
            Layer::Reply => "io.choria.protocol.v2.reply",
        }
    }

    fn check_protocol(self, buffer: &mut [u8], member: Option<Member>) -> Result<(), WireError> {
        let id = member
            .map(|member| member.settle(buffer))
            .transpose()
            .map_err(|_| self.fault(Fault::Protocol))?;
        if id.is_some_and(|id| id.of(buffer) == self.protocol().as_bytes()) {
            Ok(())
        } else {
            Err(self.fault(Fault::Protocol))
        }
    }

    fn optional(
        self,
        buffer: &mut [u8],
        member: Option<Member>,
        name: &'static str,
    ) -> Result<Option<Span>, WireError> {
        let span = member.map(|member| member.settle(buffer)).transpose();
        Ok(span.map_err(|_| self.fault(Fault::Invalid(name)))?.filter(|span| !span.is_empty()))
    }

    fn text(self, buffer: &mut [u8], member: Option<Member>, name: &'static str) -> Result<Span, WireError> {
        self.optional(buffer, member, name)?.ok_or(self.fault(Fault::Missing(name)))
    }

    fn optional_base64(
        self,
        buffer: &mut [u8],
        member: Option<Member>,
        name: &'static str,
    ) -> Result<Option<Span>, WireError> {
        let span = member.map(|member| member.settle_base64(buffer)).transpose();
        Ok(span.map_err(|_| self.fault(Fault::Invalid(name)))?.filter(|span| !span.is_empty()))
    }

    fn base64(
        self,
        buffer: &mut [u8],
        member: Option<Member>,
        name: &'static str,
    ) -> Result<Span, WireError> {
        self.optional_base64(buffer, member, name)?.ok_or(self.fault(Fault::Missing(name)))
    }

    /// A whole number of at least one.
    fn positive(self, buffer: &[u8], member: Option<Member>, name: &'static str) -> Result<i64, WireError> {
        let member = member.ok_or(self.fault(Fault::Missing(name)))?;
        let value = member.integer(buffer).map_err(|_| self.fault(Fault::Invalid(name)))?;
        if value >= 1 { Ok(value) } else { Err(self.fault(Fault::Invalid(name))) }
    }
}
