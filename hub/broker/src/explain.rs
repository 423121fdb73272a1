//! What would happen to a token, without a connection: for an operator who asks why something was refused.

use std::net::{IpAddr, Ipv4Addr};

use choria_token::Purpose;

use crate::admission::{Denial, PROVISIONER_USER, Placement, Policy, Presented, Transport};
use crate::nonce::Proof;

/// As whom the token would be presented.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'a> {
    /// The token's text.
    pub token: &'a str,
    /// User name, for the provisioner and the system user.
    pub user: &'a str,
    /// Password that goes with it.
    pub password: &'a str,
    /// Name of the connection; matters to nodes that wait to be provisioned.
    pub name: &'a str,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The token's kind, as far as it can be read.
    pub kind: Option<Purpose>,
    /// Where the connection would be placed, or the rule that refuses it.
    pub verdict: Result<Placement, Denial>,
    /// What the answer does not cover.
    pub assumptions: Vec<&'static str>,
}

/// Follows the decision for a token offered over TLS without a client certificate, at this time (seconds since 1970).
pub fn explain(policy: &Policy, question: &Question<'_>, now_unix: i64) -> Explanation {
    let kind = choria_token::purpose_of(question.token);
    let presented = Presented {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        transport: Transport::Tls,
        leaf: false,
        token: question.token,
        user: question.user,
        password: question.password,
        name: question.name,
        asks_for_account: false,
        proof: Proof::assumed(),
    };
    let mut assumptions = vec!["the connection is encrypted and shows no client certificate"];
    if kind != Some(Purpose::Provisioning) {
        assumptions.push("the nonce is signed with the key of the token");
    }
    if question.user == PROVISIONER_USER {
        assumptions.push("the password is the one given here");
    }
    Explanation { kind, verdict: policy.admit(&presented, now_unix), assumptions }
}
