//! A compiled permission set: what a connection may publish, subscribe to and be sent (`docs/spec/09 §A7`).

use crate::authenticator::{Permissions, Rules};
use crate::subject;

/// Permissions of one connection, ready to be asked.
#[derive(Debug, Default)]
pub struct Compiled {
    publish: Lists,
    subscribe: Lists,
    /// Publishing is unrestricted.
    publish_all: bool,
}

#[derive(Debug, Default)]
struct Lists {
    allow: Option<Vec<Entry>>,
    deny: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    subject: Box<[u8]>,
    queue: Option<Box<[u8]>>,
}

/// The answer to a request to subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeDecision {
    Denied,
    Allowed,
    /// Allowed, but some messages that match are denied: each delivery must be checked.
    Filtered,
}

impl Compiled {
    /// The rules, taken apart once.
    pub fn new(permissions: &Permissions) -> Compiled {
        let publish = Lists::new(&permissions.publish);
        let mut subscribe = Lists::new(&permissions.subscribe);
        if subscribe.allow.as_ref().is_some_and(Vec::is_empty) {
            subscribe.allow = None;
        }
        let publish_all = publish.allow.is_none() && publish.deny.is_empty();
        Compiled { publish, subscribe, publish_all }
    }

    /// Whether a message may be published to `subject`.
    pub fn may_publish(&self, subject: &[u8]) -> bool {
        self.publish_all
            || (self.publish.allow.as_ref().is_none_or(|list| any_matches(list, subject))
                && !any_matches(&self.publish.deny, subject))
    }

    /// Whether a subscription to `pattern`, as member of `queue` if that is not empty, is allowed.
    pub fn may_subscribe(&self, pattern: &[u8], queue: &[u8]) -> SubscribeDecision {
        let applies = |entry: &Entry| match &entry.queue {
            None => true,
            Some(rule) => !queue.is_empty() && subject::matches(rule, queue),
        };
        let allowed = match &self.subscribe.allow {
            None => true,
            Some(list) => list.iter().any(|e| applies(e) && subject::covers(&e.subject, pattern)),
        };
        if !allowed || self.subscribe.deny.iter().any(|e| applies(e) && subject::covers(&e.subject, pattern))
        {
            return SubscribeDecision::Denied;
        }
        if self.subscribe.deny.iter().any(|e| applies(e) && subject::overlaps(&e.subject, pattern)) {
            return SubscribeDecision::Filtered;
        }
        SubscribeDecision::Allowed
    }

    /// Whether a message on `subject` may be delivered to a subscription that is [`SubscribeDecision::Filtered`].
    pub fn may_receive(&self, subject: &[u8]) -> bool {
        !any_matches(&self.subscribe.deny, subject)
    }

    /// Whether messages sent to `subject` would be allowed to reach this connection.
    pub fn subscription_allowed(&self, subject: &[u8]) -> bool {
        self.may_subscribe(subject, b"") != SubscribeDecision::Denied
    }
}

impl Lists {
    fn new(rules: &Rules) -> Lists {
        let entries = |list: &Vec<String>| list.iter().map(|text| Entry::new(text)).collect();
        Lists { allow: rules.allow.as_ref().map(entries), deny: entries(&rules.deny) }
    }
}

impl Entry {
    fn new(text: &str) -> Entry {
        match text.split_once(' ') {
            Some((subject, queue)) => {
                Entry { subject: subject.as_bytes().into(), queue: Some(queue.trim().as_bytes().into()) }
            }
            None => Entry { subject: text.as_bytes().into(), queue: None },
        }
    }
}

fn any_matches(list: &[Entry], subject: &[u8]) -> bool {
    list.iter().any(|entry| subject::matches(&entry.subject, subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: Option<&[&str]>, deny: &[&str]) -> Rules {
        Rules {
            allow: allow.map(|list| list.iter().map(ToString::to_string).collect()),
            deny: deny.iter().map(ToString::to_string).collect(),
        }
    }

    fn subscribe(allow: Option<&[&str]>, deny: &[&str]) -> Compiled {
        Compiled::new(&Permissions { publish: Rules::default(), subscribe: rules(allow, deny) })
    }

    #[test]
    fn deny_wins_and_an_empty_publish_list_denies_all() {
        let set = |allow, deny: &[&str]| {
            Compiled::new(&Permissions { publish: rules(allow, deny), subscribe: Rules::default() })
        };
        assert!(set(None, &[]).may_publish(b"a"));
        assert!(!set(Some(&[]), &[]).may_publish(b"a"));
        let some = set(Some(&["a.>"]), &["a.secret"]);
        assert!(some.may_publish(b"a.b") && !some.may_publish(b"a.secret") && !some.may_publish(b"b"));
    }

    #[test]
    fn subscriptions_must_be_covered() {
        let set = subscribe(Some(&["*.reply.h.>"]), &[]);
        assert_eq!(set.may_subscribe(b"choria.reply.h.>", b""), SubscribeDecision::Allowed);
        assert_eq!(set.may_subscribe(b"choria.reply.h.*", b"q"), SubscribeDecision::Allowed);
        for wider in [b">".as_slice(), b"*.reply.>", b"choria.reply.*.>", b"choria.reply.other.>"] {
            assert_eq!(set.may_subscribe(wider, b""), SubscribeDecision::Denied);
        }
    }

    #[test]
    fn a_narrower_deny_filters_instead_of_refusing() {
        let set = subscribe(None, &["*.reply.>"]);
        assert_eq!(set.may_subscribe(b">", b""), SubscribeDecision::Filtered);
        assert_eq!(set.may_subscribe(b"a.b.c", b""), SubscribeDecision::Allowed);
        assert_eq!(set.may_subscribe(b"a.reply.x", b""), SubscribeDecision::Denied);
        assert!(set.may_receive(b"a.b") && !set.may_receive(b"a.reply.x"));
    }

    #[test]
    fn queue_entries_allow_only_their_queue() {
        let set = subscribe(Some(&["jobs workers.*"]), &[]);
        assert_eq!(set.may_subscribe(b"jobs", b"workers.a"), SubscribeDecision::Allowed);
        assert_eq!(set.may_subscribe(b"jobs", b"other"), SubscribeDecision::Denied);
        assert_eq!(set.may_subscribe(b"jobs", b""), SubscribeDecision::Denied);
    }

    #[test]
    fn an_empty_subscribe_list_is_no_list() {
        assert_eq!(subscribe(Some(&[]), &[]).may_subscribe(b"a", b""), SubscribeDecision::Allowed);
    }
}
