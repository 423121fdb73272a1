//! Protocol v2 messages as hosts read and write them: requests, replies, subjects, filters, DDL.
//!
//! ```text
//! Transport            JSON, the payload of one NATS message
//!  └ SecureRequest /   JSON, base64 in `data`: who asks, and the proof
//!    SecureReply
//!     └ Request /      JSON, base64 in `request` or `reply`: the signed bytes
//!       Reply
//!        └ body        bytes, base64 in `message`; for RPC the JSON of [`rpc`]
//! ```
//!
//! Every layer keeps the bytes it was parsed from: hashes and signatures are checked over the bytes that
//! were carried, never over a second serialization (docs/spec/01 §1.1). Nothing here opens a socket or reads a clock.

pub mod accept;
mod ambiguity;
mod encode;
mod error;
mod transport;

pub mod ddl;
pub mod device_room;
pub mod event;
pub mod filter;
pub mod reply;
pub mod request;
pub mod rpc;
pub mod secure_reply;
pub mod secure_request;
pub mod subjects;

pub use ambiguity::check_unambiguous;
pub use encode::to_json;
pub use error::ProtocolError;
pub use filter::{CombinedFilter, FactFilter, Filter, FilterError, parse_combined_filter, parse_fact_filter};
pub use reply::Reply;
pub use request::Request;
pub use secure_reply::SecureReply;
pub use secure_request::{INSECURE_SIGNATURE, SecureRequest};
pub use transport::{Federation, Headers, Transport};

/// The largest payload one NATS message may carry, in bytes (docs/spec/01 §2.9). No layer can be larger.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// The agent that signs requests for others; requests to it are never signed themselves (docs/spec/01 §2.2).
pub const SIGNER_AGENT: &str = "aaa_signer";

/// The agent behind `ping` and broadcast discovery. It is no RPC agent (docs/spec/03 §4).
pub const DISCOVERY_AGENT: &str = "discovery";

/// What a discovery request carries as its body: the base64 text of `ping`, which the JSON layer
/// encodes a second time (docs/spec/01 §2.8).
pub const DISCOVERY_BODY: &[u8] = b"cGluZw==";

/// How a message names its layer in `protocol`.
pub mod ids {
    pub const REQUEST: &str = "io.choria.protocol.v2.request";
    pub const REPLY: &str = "io.choria.protocol.v2.reply";
    pub const SECURE_REQUEST: &str = "io.choria.protocol.v2.secure_request";
    pub const SECURE_REPLY: &str = "io.choria.protocol.v2.secure_reply";
    pub const TRANSPORT: &str = "io.choria.protocol.v2.transport";
}
