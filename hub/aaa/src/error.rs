//! What stops the service from starting or reloading. A refused login or signature is no error but an answer.

use std::path::PathBuf;

/// A failure of the service itself. Each text names the thing, the place and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
pub enum AaaError {
    #[error("could not read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{} is not valid JSON: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("setting '{key}': {reason}")]
    Setting { key: &'static str, reason: String },
    #[error("{} can be written by group or others; run 'chmod go-w' on it: whoever writes it decides who may do what", path.display())]
    OpenFile { path: PathBuf },
    #[error("user list {origin}: {reason}")]
    Users { origin: String, reason: String },
    #[error(transparent)]
    Client(#[from] choria_client::ClientError),
    #[error(transparent)]
    Tls(#[from] choria_host::tls::TlsError),
    #[error(transparent)]
    Key(#[from] choria_token::KeyError),
    #[error(transparent)]
    Issue(#[from] choria_token::IssueError),
    #[error("{}: {source}", path.display())]
    Secret { path: PathBuf, source: choria_host::private_file::PrivateFileError },
    #[error("the delegation token {} cannot be used: {reason}", path.display())]
    Delegation { path: PathBuf, reason: String },
    #[error("could not listen on {address}: {source}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("audit log {}: {source}", path.display())]
    Audit { path: PathBuf, source: std::io::Error },
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("{part} ended: {reason}")]
    PartEnded { part: &'static str, reason: String },
}
