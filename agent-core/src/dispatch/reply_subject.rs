//! Where a reply may go (`docs/spec/10` N8).

use super::gate::Inbox;
use crate::nats::subject::is_literal;

/// What stands between a collective and the rest of a reply subject.
const REPLY: &str = ".reply.";

/// How strictly a request's reply subject is looked at (`plugin.choria.server.reply_check`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyCheck {
    /// `<known collective>.reply.<hash of the caller id>.…`, or a target that the operator listed.
    #[default]
    Caller,
    /// `<known collective>.reply.…`.
    Prefix,
    /// Any subject that can stand on the wire.
    Off,
}

/// Whether a reply may be published to `subject`.
pub(super) fn allowed(
    subject: &str,
    check: ReplyCheck,
    collectives: &[&str],
    extra: &[&str],
    federation: bool,
    inbox: &Inbox,
) -> bool {
    if !is_literal(subject) {
        return false;
    }
    if check == ReplyCheck::Off || extra.contains(&subject) {
        return true;
    }
    if federation && is_federation(subject) {
        return true;
    }
    // by bytes: a search for text would bring 2 KiB of it into a device
    let at = subject.as_bytes().windows(REPLY.len()).position(|part| part == REPLY.as_bytes());
    let Some((collective, rest)) = at.and_then(|at| subject.split_at_checked(at)) else { return false };
    let Some(rest) = rest.strip_prefix(REPLY) else { return false };
    if !collectives.contains(&collective) {
        return false;
    }
    let Some((owner, id)) = rest.split_once('.') else { return check == ReplyCheck::Prefix };
    check == ReplyCheck::Prefix
        || (!id.is_empty() && (owner == inbox.md5.as_str() || owner == inbox.sha256.as_str()))
}

/// `choria.federation.<name>.collective`.
fn is_federation(subject: &str) -> bool {
    subject
        .strip_prefix("choria.federation.")
        .and_then(|rest| rest.strip_suffix(".collective"))
        .is_some_and(|name| !name.is_empty() && !name.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_233_t_234_t_236_only_the_callers_inbox() {
        let inbox = Inbox::of("up=alice");
        let own = std::format!("choria.reply.{}.req1", inbox.md5.as_str());
        let newer = std::format!("choria.reply.{}.req1", inbox.sha256.as_str());
        let other = std::format!("choria.reply.{}.req1", Inbox::of("up=bob").md5.as_str());
        let foreign = std::format!("elsewhere.reply.{}.req1", inbox.md5.as_str());
        let check = |subject: &str, federation| {
            allowed(subject, ReplyCheck::Caller, &["choria"], &["ops.collect"], federation, &inbox)
        };
        assert!(check(&own, false) && check(&newer, false) && check("ops.collect", false));
        for bad in [
            other.as_str(),
            foreign.as_str(),
            "",
            "choria.reply.x",
            "$JS.API.STREAM.DELETE.X",
            "choria.lifecycle.event.x.y",
            "choria.node.n2",
            "choria.reply.*.x",
            "choria.reply.a b",
            "choria.federation.x.collective",
        ] {
            assert!(!check(bad, false), "{bad}");
        }
        assert!(check("choria.federation.x.collective", true));
        assert!(!check("choria.federation.a.b.collective", true));
        assert!(allowed(&other, ReplyCheck::Prefix, &["choria"], &[], false, &inbox));
        assert!(!allowed("choria.node.n2", ReplyCheck::Prefix, &["choria"], &[], false, &inbox));
        assert!(allowed("any.where", ReplyCheck::Off, &[], &[], false, &inbox));
        choria_rows::row(233, "the inbox of another caller, of another collective", "refused");
        choria_rows::row(234, "stream API, life cycle, node, wildcard, blank", "refused");
        choria_rows::row(236, "a target that the operator listed", "allowed; any other is refused");
    }
}
