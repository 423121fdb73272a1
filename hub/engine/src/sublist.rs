//! The table from subjects to subscriptions of one account.
//!
//! Literal subjects, which are nearly all, live in a hash map: one lookup, and adding or removing one of n
//! subscribers is O(1). Patterns live in a trie of tokens: a match visits at most two branches per token (the
//! literal and `*`). A node hands out an immutable snapshot of its subscribers that is made at the first match
//! after a change, so that ten thousand subscribers coming at once cost ten thousand steps and not their square.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use crate::subject;
use crate::subscription::Sub;

/// All subscriptions of an account.
#[derive(Debug, Default)]
pub(crate) struct Sublist {
    literals: HashMap<Box<[u8]>, Node>,
    patterns: Level,
    count: usize,
}

#[derive(Debug, Default)]
struct Level {
    children: HashMap<Box<[u8]>, Box<Branch>>,
    star: Option<Box<Branch>>,
    /// Subscribers of `>` at this level.
    rest: Node,
}

#[derive(Debug, Default)]
struct Branch {
    node: Node,
    next: Level,
}

#[derive(Debug, Default)]
struct Node {
    plain: Vec<Arc<Sub>>,
    queues: Vec<Group>,
    snapshot: OnceLock<Arc<Snapshot>>,
}

#[derive(Debug)]
struct Group {
    name: Box<[u8]>,
    members: Vec<Arc<Sub>>,
}

/// The subscribers of one node at one time.
#[derive(Debug)]
pub(crate) struct Snapshot {
    plain: Box<[Arc<Sub>]>,
    queues: Box<[QueueSnapshot]>,
}

#[derive(Debug)]
struct QueueSnapshot {
    name: Box<[u8]>,
    members: Box<[Arc<Sub>]>,
}

/// Everyone a subject reaches.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    nodes: Vec<Arc<Snapshot>>,
    /// Per queue name, all its members.
    pub(crate) queues: Vec<Box<[Arc<Sub>]>>,
}

impl Matches {
    pub(crate) fn plain(&self) -> impl Iterator<Item = &Arc<Sub>> {
        self.nodes.iter().flat_map(|node| node.plain.iter())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.nodes.iter().all(|node| node.plain.is_empty())
    }

    /// Plain subscribers, to choose between sharing a payload and copying it.
    pub(crate) fn plain_count(&self) -> usize {
        self.nodes.iter().map(|node| node.plain.len()).sum()
    }
}

impl Sublist {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn insert(&mut self, sub: Arc<Sub>) {
        self.count += 1;
        if !subject::has_wildcard(&sub.subject) {
            if let Some(node) = self.literals.get_mut(&sub.subject) {
                node.insert(sub);
            } else {
                self.literals.entry(sub.subject.clone()).or_default().insert(sub);
            }
            return;
        }
        let mut level = &mut self.patterns;
        let mut tokens = sub.subject.split(|b| *b == b'.').peekable();
        while let Some(token) = tokens.next() {
            if token == b">" {
                break;
            }
            let branch: &mut Branch = if token == b"*" {
                level.star.get_or_insert_default()
            } else if level.children.contains_key(token) {
                // The second lookup spares the key's allocation on the common path.
                let Some(branch) = level.children.get_mut(token) else { return };
                branch
            } else {
                level.children.entry(token.into()).or_default()
            };
            if tokens.peek().is_none() {
                branch.node.insert(Arc::clone(&sub));
                return;
            }
            level = &mut branch.next;
        }
        level.rest.insert(Arc::clone(&sub));
    }

    /// Removes `sub`; false when it was not there.
    pub(crate) fn remove(&mut self, sub: &Arc<Sub>) -> bool {
        let removed = if subject::has_wildcard(&sub.subject) {
            self.patterns.remove(sub, &sub.subject)
        } else {
            match self.literals.get_mut(&sub.subject) {
                None => false,
                Some(node) => {
                    let removed = node.remove(sub);
                    if node.is_empty() {
                        self.literals.remove(&sub.subject);
                    }
                    removed
                }
            }
        };
        self.count -= usize::from(removed);
        removed
    }

    /// Everyone a message on `subject` reaches.
    pub(crate) fn matches(&self, subject: &[u8]) -> Matches {
        let mut found = Matches::default();
        if let Some(node) = self.literals.get(subject) {
            node.collect(&mut found);
        }
        // A subject with an empty token is no subject: only patterns could catch it, and must not.
        if !subject.is_empty() && subject.split(|b| *b == b'.').all(|token| !token.is_empty()) {
            self.patterns.collect(Some(subject), &mut found);
        }
        found.merge_queues();
        found
    }

    /// Whether a message on `subject` reaches anyone.
    pub(crate) fn has_interest(&self, subject: &[u8]) -> bool {
        !self.matches(subject).is_empty()
    }
}

impl Level {
    /// `subject` is what is left of it, `None` at its end.
    fn collect(&self, subject: Option<&[u8]>, found: &mut Matches) {
        let Some(subject) = subject else { return };
        self.rest.collect(found);
        let (token, rest) = match memchr::memchr(b'.', subject) {
            Some(dot) => {
                let (token, rest) = subject.split_at_checked(dot).unwrap_or((subject, &[]));
                (token, rest.get(1..))
            }
            None => (subject, None),
        };
        for branch in [self.children.get(token), self.star.as_ref()].into_iter().flatten() {
            if rest.is_none() {
                branch.node.collect(found);
            } else {
                branch.next.collect(rest, found);
            }
        }
    }

    fn remove(&mut self, sub: &Arc<Sub>, subject: &[u8]) -> bool {
        let (token, rest) = match memchr::memchr(b'.', subject) {
            Some(dot) => {
                let (token, rest) = subject.split_at_checked(dot).unwrap_or((subject, &[]));
                (token, rest.get(1..))
            }
            None => (subject, None),
        };
        if token == b">" {
            return self.rest.remove(sub);
        }
        let branch = if token == b"*" { self.star.as_mut() } else { self.children.get_mut(token) };
        let Some(branch) = branch else { return false };
        let removed = match rest {
            None => branch.node.remove(sub),
            Some(rest) => branch.next.remove(sub, rest),
        };
        if branch.is_empty() {
            if token == b"*" {
                self.star = None;
            } else {
                self.children.remove(token);
            }
        }
        removed
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.star.is_none() && self.rest.is_empty()
    }
}

impl Branch {
    fn is_empty(&self) -> bool {
        self.node.is_empty() && self.next.is_empty()
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.queues.is_empty()
    }

    fn insert(&mut self, sub: Arc<Sub>) {
        self.snapshot.take();
        let list = if sub.queue.is_empty() {
            &mut self.plain
        } else {
            let at = match self.queues.iter().position(|group| group.name == sub.queue) {
                Some(at) => at,
                None => {
                    self.queues.push(Group { name: sub.queue.clone(), members: Vec::with_capacity(1) });
                    self.queues.len() - 1
                }
            };
            let Some(group) = self.queues.get_mut(at) else { return };
            &mut group.members
        };
        sub.slot.store(list.len(), Ordering::Relaxed);
        if list.capacity() == 0 {
            // One subscriber is the common case; the default growth would keep room for four.
            list.reserve_exact(1);
        }
        list.push(sub);
    }

    fn remove(&mut self, sub: &Arc<Sub>) -> bool {
        self.snapshot.take();
        if sub.queue.is_empty() {
            return remove_from(&mut self.plain, sub);
        }
        let Some(at) = self.queues.iter().position(|group| group.name == sub.queue) else { return false };
        let Some(group) = self.queues.get_mut(at) else { return false };
        let removed = remove_from(&mut group.members, sub);
        if group.members.is_empty() {
            self.queues.swap_remove(at);
        }
        removed
    }

    fn collect(&self, found: &mut Matches) {
        if self.is_empty() {
            return;
        }
        found.nodes.push(Arc::clone(self.snapshot.get_or_init(|| {
            Arc::new(Snapshot {
                plain: self.plain.as_slice().into(),
                queues: self
                    .queues
                    .iter()
                    .map(|group| QueueSnapshot {
                        name: group.name.clone(),
                        members: group.members.as_slice().into(),
                    })
                    .collect(),
            })
        })));
    }
}

/// O(1): the last one takes the place of the removed one.
fn remove_from(list: &mut Vec<Arc<Sub>>, sub: &Arc<Sub>) -> bool {
    let slot = sub.slot.load(Ordering::Relaxed);
    if !list.get(slot).is_some_and(|there| Arc::ptr_eq(there, sub)) {
        return false;
    }
    list.swap_remove(slot);
    if let Some(moved) = list.get(slot) {
        moved.slot.store(slot, Ordering::Relaxed);
    }
    if list.capacity() > 64 && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
    true
}

impl Matches {
    fn merge_queues(&mut self) {
        if self.nodes.iter().all(|node| node.queues.is_empty()) {
            return;
        }
        let mut groups: Vec<(&[u8], Vec<Arc<Sub>>)> = Vec::new();
        for group in self.nodes.iter().flat_map(|node| node.queues.iter()) {
            match groups.iter_mut().find(|(known, _)| *known == group.name.as_ref()) {
                Some((_, list)) => list.extend(group.members.iter().cloned()),
                None => groups.push((&group.name, group.members.to_vec())),
            }
        }
        self.queues = groups.into_iter().map(|(_, members)| members.into()).collect();
    }
}

#[cfg(test)]
#[path = "sublist_tests.rs"]
mod tests;
