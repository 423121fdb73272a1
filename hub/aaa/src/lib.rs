//! Login, request signing, authorization and audit for operators (`docs/spec/05`).
//!
//! One process offers any of: `POST /choria/v1/login`, which turns a password into a token; `POST /choria/v1/sign` and
//! the Choria service `aaa_signer`, which sign a request when the caller's policy allows it. [`run`] does all that a
//! [`AaaConfig`] asks for, [`Aaa`] is the same with handles for tests and for processes that host more than this.
//!
//! The process keeps no state beyond counters: any number of copies may answer.

mod audit;
mod authorizer;
mod broker;
mod config;
mod crypt;
mod error;
mod http;
mod in_process;
mod issuing;
mod login;
mod metrics;
mod monitor;
mod refusal_log;
mod restart;
mod running;
mod services;
mod signer;
mod throttle;
mod token_cache;
mod user;
mod userlist;

pub use audit::{Audit, Record};
pub use authorizer::{Question, Verdict, action_list};
pub use config::{
    AaaConfig, AuditorConfig, AuthorizerKind, LoginLimits, SignerConfig, TlsFiles, UserlistConfig,
};
pub use crypt::{CryptError, DEFAULT_COST, crypt};
pub use error::AaaError;
pub use in_process::{Handlers, HttpRequest};
pub use metrics::Metrics;
pub use running::{Aaa, run};
pub use signer::{Collectives, Refusal, SignRequest, Signer, SignerParts, SignerState};
pub use user::UserRecord;
pub use userlist::{Userlist, Users};
