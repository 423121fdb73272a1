//! Names of the NATS subjects that requests and replies travel on (docs/spec/01 §5).
//!
//! Parts are inserted as they are: collectives, identities and agent names are checked where they enter
//! the process (`choria_token::names`), and [`is_token`] is there for those who take them from elsewhere.

use md5::{Digest as _, Md5};

/// `C.broadcast.agent.A`: every server with the agent.
pub fn broadcast(collective: &str, agent: &str) -> String {
    format!("{collective}.broadcast.agent.{agent}")
}

/// `C.broadcast.service.A`: one host of the service.
pub fn service(collective: &str, agent: &str) -> String {
    format!("{collective}.broadcast.service.{agent}")
}

/// `C.node.I`: one server.
pub fn node(collective: &str, identity: &str) -> String {
    format!("{collective}.node.{identity}")
}

/// `C.reply.H.R`: where replies to one request of one caller go.
pub fn reply(collective: &str, caller: &str, request_id: &str) -> String {
    format!("{}.{request_id}", inbox_prefix(collective, caller))
}

/// `C.reply.H`: prefix of everything private to the caller; brokers let nobody else subscribe to it.
pub fn inbox_prefix(collective: &str, caller: &str) -> String {
    format!("{collective}.reply.{}", private_network_id(caller))
}

/// `choria.federation.F.federation`: requests for another network.
pub fn federation(federation: &str) -> String {
    format!("choria.federation.{federation}.federation")
}

/// `choria.lifecycle.event.T.K`: lifecycle events, never prefixed by a collective.
pub fn lifecycle(event_type: &str, component: &str) -> String {
    format!("choria.lifecycle.event.{event_type}.{component}")
}

/// Lower-case hex MD5 of the caller id (or server identity). It makes a subject token of a name and is no check
/// of anything; the broker grants it by the name in the verified token.
pub fn private_network_id(name: &str) -> String {
    hex::encode(Md5::digest(name.as_bytes()))
}

/// Whether `text` can stand between two dots of a subject without changing its meaning: not empty, no dot,
/// no wildcard, no space or control character.
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && !text.chars().any(|c| matches!(c, '.' | '*' | '>') || c.is_whitespace() || c.is_control())
}

/// Whether `text` is one or more tokens with dots between, such as a node identity.
pub fn is_tokens(text: &str) -> bool {
    text.len() <= 255 && text.split('.').all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        assert!(
            is_token("rpcutil") && !is_token("a.b") && !is_token("") && !is_token("*") && !is_token("a b")
        );
        assert!(
            is_tokens("n1.example.net")
                && !is_tokens("n1..net")
                && !is_tokens("n1.>")
                && !is_tokens("a.\r\nPUB")
        );
    }
}
