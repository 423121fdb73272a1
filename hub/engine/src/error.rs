//! Errors of the library's own calls. What goes wrong on a client's connection is never an error of the engine.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// Why a call on the engine failed.
#[derive(Debug, Error)]
pub enum EngineError {
    #[error("account {0:?} is configured twice; give each account one entry")]
    AccountTwice(String),
    #[error("account {0:?} is not configured; add it to the accounts of the engine")]
    UnknownAccount(String),
    #[error("import of account {account:?}: {subject:?} is not a valid subject")]
    ImportSubject { account: String, subject: String },
    #[error(
        "import of account {account:?}: {subject:?} and {to:?} have different wildcards; use the same ones in the same order"
    )]
    ImportShape { account: String, subject: String, to: String },
    #[error("service imports of account {account:?} lead back to it through {subject:?}; remove one of them")]
    ImportCycle { account: String, subject: String },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the engine has been shut down")]
    ShutDown,
    #[error("{0:?} is not a valid subject")]
    Subject(String),
    #[error("message of {size} bytes is over the limit of {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("header {0:?} holds a control character or a colon")]
    Header(String),
    #[error("nobody answers on {0:?}")]
    NoResponders(String),
    #[error("no answer on {0:?} in time")]
    Timeout(String),
    #[error("the system's random source failed: {0}")]
    Random(String),
}
