#![doc = include_str!("../README.md")]

mod account;
mod authenticator;
mod client;
mod clock;
mod close;
mod config;
mod connect;
mod connections;
mod engine;
mod error;
mod events;
mod failures;
mod headers;
mod in_process;
mod info;
mod monitor;
mod monitor_http;
mod opening;
mod pace;
pub mod parser;
pub mod permissions;
mod preauth;
mod router;
mod server_id;
mod session;
mod shedding;
mod stream;
pub mod subject;
mod sublist;
mod subscription;
mod system;

pub use authenticator::{
    Admission, Authenticator, Candidate, Denial, Open, PeerKind, PeerTls, Permissions, Rules,
};
pub use close::CloseReason;
pub use config::{AccountConfig, EngineConfig, FailurePolicy, Import};
pub use connect::{ConnectError, ConnectOptions};
pub use connections::ConnectionInfo;
pub use engine::{Engine, ListenerHandle, Stats};
pub use error::EngineError;
pub use headers::Headers;
pub use in_process::{InMessage, InProcess, Publisher, Subscription};
pub use monitor_http::{Page, Pages};
pub use pace::{Pace, Rate, SubjectPace};
