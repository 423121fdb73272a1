use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::account::Account;
use crate::authenticator::Permissions;
use crate::client::{Client, Limits, Profile};
use crate::config::AccountConfig;
use crate::subscription::Sid;

fn client() -> Arc<Client> {
    let accounts = Account::build(vec![AccountConfig::named("a")]).unwrap();
    let profile = Profile {
        cid: 1,
        account: Arc::clone(&accounts[0]),
        remote: None,
        user: String::new(),
        name: String::new(),
        lang: String::new(),
        version: String::new(),
        tags: Vec::new(),
        tls: None,
        permissions: Permissions::default(),
        expires_unix: None,
        started: 0,
        echo: true,
        headers: true,
        protocol: 1,
    };
    Arc::new(Client::new(profile, Limits { pending: 1, total_now: Arc::default() }))
}

fn sub(client: &Arc<Client>, subject: &str, queue: &str, sid: usize) -> Arc<Sub> {
    Arc::new(Sub {
        client: Arc::clone(client),
        sid: Sid::new(sid.to_string().as_bytes()),
        subject: subject.as_bytes().into(),
        queue: queue.as_bytes().into(),
        filtered: false,
        max: 0.into(),
        delivered: 0.into(),
        slot: 0.into(),
        shadow: None,
        local: None,
    })
}

fn token() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("*")]
}

prop_compose! {
    fn pattern()(tokens in prop::collection::vec(token(), 1..4), tail in any::<bool>()) -> String {
        let mut text = tokens.join(".");
        if tail { text.push_str(".>"); }
        text
    }
}

prop_compose! {
    fn literal()(tokens in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("")], 1..5)) -> String {
        tokens.join(".")
    }
}

proptest! {
    /// The table finds exactly what asking every pattern would find, also after removals.
    #[test]
    fn agrees_with_a_list(
        patterns in prop::collection::vec((pattern(), any::<bool>(), any::<bool>()), 0..25),
        subject in literal(),
    ) {
        let owner = client();
        let mut table = Sublist::default();
        let subs: Vec<_> = patterns
            .iter()
            .enumerate()
            .map(|(at, (text, queued, _))| sub(&owner, text, if *queued { "q" } else { "" }, at))
            .collect();
        for sub in &subs {
            table.insert(Arc::clone(sub));
        }
        prop_assert_eq!(table.len(), subs.len());
        // Matching in between fills the snapshots that removals must drop.
        table.matches(subject.as_bytes());
        for (sub, (_, _, remove)) in subs.iter().zip(&patterns) {
            if *remove {
                prop_assert!(table.remove(sub));
                prop_assert!(!table.remove(sub));
            }
        }
        let found = table.matches(subject.as_bytes());
        let wanted = |queued: bool| {
            let valid = subject.split('.').all(|token| !token.is_empty());
            patterns
                .iter()
                .filter(|(text, q, removed)| {
                    *q == queued && !removed && valid && subject::matches(text.as_bytes(), subject.as_bytes())
                })
                .count()
        };
        prop_assert_eq!(found.plain().count(), wanted(false));
        prop_assert_eq!(found.queues.iter().map(|group| group.len()).sum::<usize>(), wanted(true));
        for sub in &subs {
            table.remove(sub);
        }
        prop_assert_eq!(table.len(), 0);
        prop_assert!(table.literals.is_empty() && table.patterns.is_empty());
    }
}

/// 50,000 nodes with seven subscriptions each: five shared subjects, a subject and a reply pattern of their own.
#[test]
fn a_fleet_subscribes_and_leaves_in_linear_time() {
    let owner = client();
    let mut table = Sublist::default();
    let began = Instant::now();
    let mut subs = Vec::new();
    for node in 0..50_000 {
        for agent in ["rpcutil", "discovery", "choria_util", "scout", "registration"] {
            subs.push(sub(&owner, &format!("c.broadcast.agent.{agent}"), "", subs.len()));
        }
        subs.push(sub(&owner, &format!("c.node.n{node}"), "", subs.len()));
        subs.push(sub(&owner, &format!("c.reply.h{node}.>"), "", subs.len()));
    }
    for sub in &subs {
        table.insert(Arc::clone(sub));
    }
    assert_eq!(table.matches(b"c.broadcast.agent.scout").plain_count(), 50_000);
    assert_eq!(table.matches(b"c.node.n77").plain_count(), 1);
    assert_eq!(table.matches(b"c.reply.h77.x").plain_count(), 1);
    for sub in &subs {
        assert!(table.remove(sub));
    }
    assert_eq!(table.len(), 0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
