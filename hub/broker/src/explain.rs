//! What would happen to a token, without a connection: for an operator who asks why something was refused.

use std::net::{IpAddr, Ipv4Addr};

use choria_token::Purpose;

use crate::admission::{Denial, PROVISIONER_USER, Placement, Policy, Presented, Transport};
use crate::nonce::Proof;

/// As whom the token would be presented.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The token's text; empty for a connection without one.
    pub token: &'a str,
    /// User name, for the provisioner and the system user.
    pub user: &'a str,
    /// Password that goes with it.
    pub password: Password,
    /// Name of the connection; matters to nodes that wait to be provisioned.
    pub name: &'a str,
    /// Where the connection comes from; matters to certificates without a token.
    pub address: IpAddr,
    /// How it is transported.
    pub transport: Transport,
    /// Who signed the connection's nonce.
    pub nonce: Nonce,
}

/// A client over TLS that holds the token's key, and the password of the user it names.
impl Default for Question<'_> {
    fn default() -> Self {
        Question {
            token: "",
            user: "",
            password: Password::Right,
            name: "",
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            transport: Transport::Tls,
            nonce: Nonce::Signed,
        }
    }
}

/// The password of a question. The broker's own is known from its configuration, so nobody needs to say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Password {
    /// The configured one.
    Right,
    /// Another one.
    Wrong,
    /// None.
    Missing,
}

/// Who signed the connection's nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nonce {
    /// The holder of the token's key.
    Signed,
    /// Somebody else.
    SignedByAnother,
    /// Nobody.
    Unsigned,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The token's kind, as far as it can be read.
    pub kind: Option<Purpose>,
    /// Where the connection would be placed, or the rule that refuses it.
    pub verdict: Result<Placement, Denial>,
    /// What the answer takes for granted.
    pub assumptions: Vec<&'static str>,
}

/// Follows the decision about such a connection at this time, seconds since 1970.
pub fn explain(policy: &Policy, question: &Question<'_>, now_unix: i64) -> Explanation {
    let kind = choria_token::purpose_of(question.token);
    let password = match question.password {
        Password::Right => policy.password_of(question.user),
        Password::Wrong => "\0not the password",
        Password::Missing => "",
    };
    let presented = Presented {
        address: question.address,
        transport: question.transport,
        leaf: false,
        token: question.token,
        user: question.user,
        password,
        name: question.name,
        asks_for_account: false,
        proof: match question.nonce {
            Nonce::Signed => Proof::assumed(),
            Nonce::SignedByAnother => Proof::signature("nonce", "AA"),
            Nonce::Unsigned => Proof::signature("nonce", ""),
        },
    };
    let verdict = policy.admit(&presented, now_unix);
    let mut assumptions = vec![match question.transport {
        Transport::Plain => "the connection is not encrypted",
        Transport::Tls => "the connection is encrypted and shows no client certificate",
        Transport::TlsVerified => {
            "the connection is encrypted and shows a client certificate of the broker's CA"
        }
    }];
    if kind.is_some_and(|kind| kind != Purpose::Provisioning) {
        assumptions.push(match question.nonce {
            Nonce::Signed => "the nonce is signed with the key of the token",
            Nonce::SignedByAnother => "the nonce is signed with another key than the token's",
            Nonce::Unsigned => "the nonce is not signed",
        });
    }
    if question.user == PROVISIONER_USER || policy.is_system_user(question.user) {
        assumptions.push(match question.password {
            Password::Right => "the password is the configured one",
            Password::Wrong => "the password is wrong",
            Password::Missing => "there is no password",
        });
    }
    Explanation { kind, verdict, assumptions }
}
