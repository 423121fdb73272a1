//! Why a token is refused, with the stable words of docs/spec/10 §8.

use choria_host::clock::rfc3339_seconds;

/// Refusal of a token. [`Reject::reason`] is the word for logs and counters; the text is for a person. Neither holds
/// the token's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Not a compact JWS of the strict form, or claims that can be read in two ways.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// An algorithm that is not accepted, or that does not belong to the configured key.
    #[error("the token's signature algorithm {0:?} is not accepted with the configured key")]
    AlgorithmRefused(String),
    /// A token of another kind.
    #[error("this is not a {expected} token, its purpose is {found:?}")]
    KindMismatch {
        /// The purpose that was asked for.
        expected: &'static str,
        /// The purpose the token has.
        found: String,
    },
    /// No organization in the token although issuers are configured by organization.
    #[error("the token names no organization in 'ou'")]
    OrganizationMissing,
    /// No issuer is configured for the organization.
    #[error(
        "no issuer is configured for organization {0:?}; set plugin.security.issuer.{0}.public to trust its tokens"
    )]
    OrganizationUnknown(String),
    /// The signature is not by the configured key.
    #[error("the token's signature is not by the configured issuer")]
    SignatureBad,
    /// A chained token lacks something, or it has not the form of the trust chain.
    #[error("the token's trust chain is incomplete: {0}")]
    ChainIncomplete(&'static str),
    /// A signature or binding of the trust chain does not hold.
    #[error("the token's trust chain does not hold: {0}")]
    ChainForged(&'static str),
    /// The chain issuer's own token has expired.
    #[error("the issuer of the token expired at {}", rfc3339_seconds(*.0))]
    IssuerExpired(i64),
    /// `exp` has passed.
    #[error("the token expired at {}", rfc3339_seconds(*.0))]
    Expired(i64),
    /// `nbf` has not come.
    #[error("the token is not valid before {}", rfc3339_seconds(*.0))]
    Early(i64),
    /// A claim is present but cannot be accepted.
    #[error("claim '{0}' of the token is not acceptable")]
    ClaimInvalid(&'static str),
    /// A server token without the server's public key.
    #[error("the token holds no public key")]
    KeyMissing,
}

impl Reject {
    /// The stable word for logs, counters and tests.
    pub fn reason(&self) -> &'static str {
        match self {
            Reject::Malformed(_) => "token_malformed",
            Reject::AlgorithmRefused(_) => "alg_refused",
            Reject::KindMismatch { .. } => "kind_mismatch",
            Reject::OrganizationMissing => "ou_missing",
            Reject::OrganizationUnknown(_) => "ou_unknown",
            Reject::SignatureBad => "sig_bad",
            Reject::ChainIncomplete(_) => "chain_incomplete",
            Reject::ChainForged(_) => "chain_forged",
            Reject::IssuerExpired(_) => "issuer_expired",
            Reject::Expired(_) => "token_expired",
            Reject::Early(_) => "token_early",
            Reject::ClaimInvalid(_) => "claim_invalid",
            Reject::KeyMissing => "key_missing",
        }
    }

    /// Whether another of several configured keys could still accept the token.
    pub(crate) fn depends_on_key(&self) -> bool {
        matches!(self, Reject::SignatureBad | Reject::ChainForged(_) | Reject::AlgorithmRefused(_))
    }
}
