//! Why a token is refused, with the words of the hosts' verifier (`docs/spec/10 §8`).

/// Refusal of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// Not a compact JWS of the strict form, or claims that can be read in two ways.
    Malformed(&'static str),
    /// Another algorithm than EdDSA.
    AlgorithmRefused,
    /// A token of another kind.
    KindMismatch,
    /// No organization in `ou` although issuers are configured by organization.
    OrganizationMissing,
    /// No issuer is configured for the organization.
    OrganizationUnknown,
    /// The signature is not by the expected key.
    SignatureBad,
    /// A chained token lacks something, or has not the form of the trust chain.
    ChainIncomplete(&'static str),
    /// A signature or binding of the trust chain does not hold.
    ChainForged(&'static str),
    /// The chain issuer's own token has expired.
    IssuerExpired,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    Early,
    /// A claim is present but cannot be accepted.
    ClaimInvalid(&'static str),
    /// The token names no public key.
    KeyMissing,
    /// The claims, without policy, do not fit the scratch lent by the caller.
    TooLarge,
}

impl Reject {
    /// The stable word for logs, counters and tests.
    pub fn reason(&self) -> &'static str {
        match self {
            Reject::Malformed(_) => "token_malformed",
            Reject::AlgorithmRefused => "alg_refused",
            Reject::KindMismatch => "kind_mismatch",
            Reject::OrganizationMissing => "ou_missing",
            Reject::OrganizationUnknown => "ou_unknown",
            Reject::SignatureBad => "sig_bad",
            Reject::ChainIncomplete(_) => "chain_incomplete",
            Reject::ChainForged(_) => "chain_forged",
            Reject::IssuerExpired => "issuer_expired",
            Reject::Expired => "token_expired",
            Reject::Early => "token_early",
            Reject::ClaimInvalid(_) => "claim_invalid",
            Reject::KeyMissing => "key_missing",
            Reject::TooLarge => "limit",
        }
    }

    /// Whether another configured key could still accept the token.
    pub(super) fn depends_on_key(self) -> bool {
        matches!(self, Reject::SignatureBad | Reject::ChainForged(_))
    }
}

impl core::fmt::Display for Reject {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Reject::Malformed(what) => write!(f, "the token is malformed: {what}"),
            Reject::AlgorithmRefused => f.write_str("the token is not signed with EdDSA"),
            Reject::KindMismatch => f.write_str("the token is of another kind"),
            Reject::OrganizationMissing => f.write_str("the token names no organization in 'ou'"),
            Reject::OrganizationUnknown => {
                f.write_str("no issuer is configured for the token's organization")
            }
            Reject::SignatureBad => f.write_str("the token's signature is not by the configured issuer"),
            Reject::ChainIncomplete(what) => write!(f, "the token's trust chain is incomplete: {what}"),
            Reject::ChainForged(what) => write!(f, "the token's trust chain does not hold: {what}"),
            Reject::IssuerExpired => f.write_str("the issuer of the token has expired"),
            Reject::Expired => f.write_str("the token has expired"),
            Reject::Early => f.write_str("the token is not valid yet"),
            Reject::ClaimInvalid(claim) => write!(f, "claim '{claim}' of the token is not acceptable"),
            Reject::KeyMissing => f.write_str("the token holds no public key"),
            Reject::TooLarge => f.write_str("the token's claims exceed this node's buffer"),
        }
    }
}

impl core::error::Error for Reject {}
