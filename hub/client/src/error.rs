//! What can go wrong for an operator, and the exit code that says so to scripts (docs/spec/07 §2.4).

use std::path::PathBuf;

use choria_host::tls::{CertificateSummary, TlsError};
use choria_protocol::ddl::{DdlError, InputError};
use choria_protocol::{FilterError, ProtocolError};
use thiserror::Error;

/// A failure of the client. The text is one sentence for a person; [`ClientError::exit_code`] and
/// [`ClientError::hint`] are what a command adds.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("no client configuration was found, looked at: {}", paths(.0))]
    NoConfiguration(Vec<PathBuf>),
    #[error(transparent)]
    Settings(#[from] choria_host::settings::SettingsError),
    #[error("setting '{key}' is not usable: {reason}")]
    Setting { key: &'static str, reason: String },
    #[error("no token file defined")]
    NoTokenFile,
    #[error("there is no usable token: {reason}")]
    Token { path: PathBuf, reason: String },
    #[error("authentication token {} is not valid: it expired at {expired}", path.display())]
    TokenExpired { path: PathBuf, expired: String },
    #[error("authentication token {} is not valid: {reason}", path.display())]
    TokenNotValid { path: PathBuf, reason: String },
    #[error("there is no usable seed: {reason}")]
    Seed { path: PathBuf, reason: String },
    #[error("the seed {} does not belong to the token {}", seed.display(), token.display())]
    SeedMismatch { seed: PathBuf, token: PathBuf },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("no broker was found: {0}")]
    NoBrokers(String),
    #[error("could not connect to a broker within {after:.1?}, tried {tried}: {reason}", tried = .tried.join(", "))]
    Connect { tried: Vec<String>, after: std::time::Duration, reason: String },
    #[error("the broker's certificate was refused: {0}")]
    CertificateRefused(String),
    #[error("the broker refused the credentials of {caller}")]
    Unauthorized { caller: String },
    #[error(
        "the broker does not let {caller} ask there: the token has no permission to publish to {subject}"
    )]
    NotPermitted { caller: String, subject: String },
    #[error("the broker asked to sign something that is no nonce (nonce_bad); no credentials were sent")]
    NonceRefused,
    #[error("the connection to the broker failed: {0}")]
    Broker(String),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Ddl(#[from] DdlError),
    #[error("no DDL for agent '{agent}' was found{}", where_looked(.looked_at))]
    NoDdl { agent: String, looked_at: Vec<PathBuf> },
    #[error("invalid input: {0}")]
    Input(#[from] InputError),
    #[error("cannot set collective to '{0}', it is not on the list of known collectives")]
    UnknownCollective(String),
    #[error(
        "requests without a filter are refused by plugin.choria.require_client_filter; name nodes, classes or facts"
    )]
    FilterRequired,
    #[error("could not perform request: {0}")]
    Request(String),
    #[error("could not discover nodes: {0}")]
    Discovery(String),
    #[error("did not discover any nodes")]
    NothingDiscovered,
    #[error("no responses received")]
    NoResponses,
    #[error("no targets left after applying target limits of '{0}'")]
    NoTargetsLeft(String),
    #[error("'{text}' is no limit: give a number of nodes or a percentage such as 10%")]
    BadLimit { text: String },
    /// The signer said no. The wording is one that people search for.
    #[error(
        "could not perform request: error from remote signer: {reason} ({caller} asked for {what})",
        what = if action.is_empty() { agent.clone() } else { format!("{agent}#{action}") }
    )]
    SignerDenied { reason: String, caller: String, agent: String, action: String },
    #[error("could not perform remote signing request: {0}")]
    SignerFailed(String),
    #[error("the remote signer changed '{field}' of the request; it was not sent")]
    SignerAltered { field: &'static str },
    #[error("the {what} {url} must use https; only loopback addresses may use http")]
    PlainHttp { what: &'static str, url: String },
    #[error("could not reach {url}: {reason}")]
    Http { url: String, reason: String },
    #[error(
        "the certificate of {url} could not be verified: {reason}; its SHA-256 fingerprint is {fingerprint}, \
         confirm it or give it with --fingerprint"
    )]
    UntrustedServer { url: String, reason: String, fingerprint: String, certificate: Box<CertificateSummary> },
    #[error("please configure a login server URL using plugin.login.aaasvc.login.url")]
    NoLoginUrl,
    #[error("login failed: {0}")]
    LoginFailed(String),
    #[error("could not write {}: {reason}", path.display())]
    Write { path: PathBuf, reason: String },
    #[error("could not read {}: {reason}", path.display())]
    Read { path: PathBuf, reason: String },
}

fn paths(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no directory".to_owned();
    }
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn where_looked(folders: &[PathBuf]) -> String {
    if folders.is_empty() { String::new() } else { format!("; looked at {}", paths(folders)) }
}

impl ClientError {
    /// The exit code of a command that fails with this.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_)
            | Self::Filter(_)
            | Self::BadLimit { .. }
            | Self::UnknownCollective(_)
            | Self::Ddl(DdlError::UnknownAction { .. })
            | Self::NoDdl { .. } => 2,
            Self::NothingDiscovered | Self::NoResponses => 3,
            Self::NoTokenFile
            | Self::Token { .. }
            | Self::TokenExpired { .. }
            | Self::TokenNotValid { .. }
            | Self::Seed { .. }
            | Self::SeedMismatch { .. }
            | Self::Unauthorized { .. }
            | Self::NotPermitted { .. }
            | Self::NonceRefused
            | Self::SignerDenied { .. }
            | Self::LoginFailed(_) => 5,
            Self::UntrustedServer { .. } => 6,
            _ => 1,
        }
    }

    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoTokenFile => Some("set plugin.security.choria.token_file, then run 'choria login'"),
            Self::Unauthorized { .. } => {
                Some("run 'choria login', or ask whoever runs the broker: its log has the reason")
            }
            Self::Token { .. }
            | Self::TokenNotValid { .. }
            | Self::TokenExpired { .. }
            | Self::Seed { .. }
            | Self::SeedMismatch { .. } => {
                Some("run 'choria login', or ask the issuer of the token for a new one")
            }
            Self::Connect { .. } => {
                Some("is the broker running, and does plugin.choria.middleware_hosts name it?")
            }
            Self::SignerFailed(_) => Some("is the AAA service running?"),
            Self::NotPermitted { .. } => Some(
                "`choria jwt TOKEN-FILE` shows what the token permits; log in as a user who may manage the fleet",
            ),
            Self::CertificateRefused(_) => {
                Some("set plugin.security.choria.ca to the CA file that signed your brokers' certificates")
            }
            Self::SignerDenied { .. } => {
                Some("your token's policy does not allow it; `choria jwt TOKEN-FILE` shows the policy")
            }
            Self::LoginFailed(_) => {
                Some("check the user name and the password; the login service's log has the reason")
            }
            Self::NoConfiguration(_) => {
                Some("write one of them, or name a file with --config or CHORIA_CONFIG")
            }
            _ => None,
        }
    }
}
