//! Why a message was not accepted or could not be made.

use thiserror::Error;

/// A message that is not what it should be. [`ProtocolError::reason`] gives the stable log word of docs/spec/10 §8.
#[derive(Debug, Error)]
pub enum ProtocolError {
    #[error("{layer} is {size} bytes; at most {limit} are accepted")]
    Oversize { layer: &'static str, size: usize, limit: usize },
    #[error("{layer} is not valid: {source}")]
    Json {
        layer: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("{layer} has protocol '{found}' where '{expected}' is expected")]
    WrongProtocol { layer: &'static str, expected: &'static str, found: String },
    #[error("{layer} needs a value for '{field}'")]
    MissingValue { layer: &'static str, field: &'static str },
    #[error(
        "{layer} names '{key}' twice, or in another case: different readers would understand it differently"
    )]
    Ambiguous { layer: &'static str, key: String },
    #[error("{layer} carries a hash that does not match its content")]
    HashMismatch { layer: &'static str },
}

impl ProtocolError {
    /// The word that logs carry as `reason=` (docs/spec/10 §8).
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ambiguous { .. } => "json_ambiguous",
            Self::Oversize { .. } => "oversize",
            Self::HashMismatch { .. } => "sig_bad",
            Self::Json { layer, .. }
            | Self::WrongProtocol { layer, .. }
            | Self::MissingValue { layer, .. } => {
                if *layer == "transport" {
                    "transport_bad"
                } else {
                    "secure_bad"
                }
            }
        }
    }
}
