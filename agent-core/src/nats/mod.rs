//! The NATS client protocol: what a broker sends, parsed incrementally, and what we send.

pub mod parser;
pub mod sender;
pub mod subject;

pub use parser::{Frame, Limits, Parser, ProtocolError, Span};
pub use sender::Outgoing;
