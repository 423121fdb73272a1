//! An account: an isolated subject space, its subscriptions and its imports (`docs/spec/09 §A11`).

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::{AccountConfig, Import};
use crate::error::EngineError;
use crate::subject;
use crate::sublist::{Matches, Sublist};
use crate::subscription::Sub;

/// Counters of changes to literal subscriptions: a subscription to one subject leaves most cached routes valid.
const SHARDS: usize = 64;

/// One account at run time.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) index: usize,
    pub(crate) streams: Vec<StreamImport>,
    pub(crate) services: Vec<ServiceImport>,
    table: RwLock<Sublist>,
    hasher: RandomState,
    patterns_changed: AtomicU64,
    literals_changed: [AtomicU64; SHARDS],
    pub(crate) connections: AtomicU64,
    pub(crate) total_connections: AtomicU64,
    pub(crate) in_msgs: AtomicU64,
    pub(crate) in_bytes: AtomicU64,
    pub(crate) slow_consumers: AtomicU64,
}

/// Messages of another account that subscribers here also see.
#[derive(Debug)]
pub(crate) struct StreamImport {
    pub(crate) from: usize,
    /// The pattern in this account.
    pub(crate) here: Box<[u8]>,
    /// With its dot; empty: none.
    pub(crate) prefix: Box<[u8]>,
}

/// Requests here that another account answers.
#[derive(Debug)]
pub(crate) struct ServiceImport {
    pub(crate) account: usize,
    pub(crate) subject: Box<[u8]>,
    pub(crate) to: Box<[u8]>,
}

/// The state of an account's table as far as one subject is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    patterns: u64,
    literals: u64,
}

impl Account {
    /// Turns configurations into accounts, imports resolved.
    pub(crate) fn build(configs: Vec<AccountConfig>) -> Result<Vec<Arc<Account>>, EngineError> {
        for (at, config) in configs.iter().enumerate() {
            if configs.iter().take(at).any(|other| other.name == config.name) {
                return Err(EngineError::AccountTwice(config.name.clone()));
            }
        }
        let index_of = |name: &str| {
            configs
                .iter()
                .position(|config| config.name == name)
                .ok_or_else(|| EngineError::UnknownAccount(name.to_owned()))
        };
        let mut accounts = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            let (mut streams, mut services) = (Vec::new(), Vec::new());
            for import in &config.imports {
                match import {
                    Import::Stream { from, subject, prefix } => {
                        let mut dotted = prefix.clone().into_bytes();
                        if !dotted.is_empty() {
                            check_subject(&config.name, prefix, subject::valid_literal)?;
                            dotted.push(b'.');
                        }
                        check_subject(&config.name, subject, subject::valid_pattern)?;
                        streams.push(StreamImport {
                            from: index_of(from)?,
                            here: [dotted.as_slice(), subject.as_bytes()].concat().into(),
                            prefix: dotted.into(),
                        });
                    }
                    Import::Service { account, subject, to } => {
                        check_subject(&config.name, subject, subject::valid_pattern)?;
                        check_subject(&config.name, to, subject::valid_pattern)?;
                        if subject::wildcard_shape(subject.as_bytes())
                            != subject::wildcard_shape(to.as_bytes())
                        {
                            return Err(EngineError::ImportShape {
                                account: config.name.clone(),
                                subject: subject.clone(),
                                to: to.clone(),
                            });
                        }
                        services.push(ServiceImport {
                            account: index_of(account)?,
                            subject: subject.as_bytes().into(),
                            to: to.as_bytes().into(),
                        });
                    }
                }
            }
            accounts.push(Arc::new(Account {
                name: config.name.clone(),
                index,
                streams,
                services,
                table: RwLock::default(),
                hasher: RandomState::new(),
                patterns_changed: AtomicU64::new(0),
                literals_changed: [const { AtomicU64::new(0) }; SHARDS],
                connections: AtomicU64::new(0),
                total_connections: AtomicU64::new(0),
                in_msgs: AtomicU64::new(0),
                in_bytes: AtomicU64::new(0),
                slow_consumers: AtomicU64::new(0),
            }));
        }
        for account in &accounts {
            for import in &account.services {
                check_cycle(&accounts, account.index, import, 0)?;
            }
        }
        Ok(accounts)
    }

    /// The version that a route for `subject` must have to be current. Read it before matching.
    pub(crate) fn version(&self, subject: &[u8]) -> Version {
        Version {
            patterns: self.patterns_changed.load(Ordering::Acquire),
            literals: self.shard(subject).map_or(0, |shard| shard.load(Ordering::Acquire)),
        }
    }

    fn shard(&self, subject: &[u8]) -> Option<&AtomicU64> {
        let hash = self.hasher.hash_one(subject);
        self.literals_changed.get(usize::try_from(hash % SHARDS as u64).unwrap_or(0))
    }

    /// Where the version of a route for `subject` is counted, to be asked again without hashing.
    pub(crate) fn shard_index(&self, subject: &[u8]) -> usize {
        usize::try_from(self.hasher.hash_one(subject) % SHARDS as u64).unwrap_or(0)
    }

    pub(crate) fn version_of(&self, shard: usize) -> Version {
        Version {
            patterns: self.patterns_changed.load(Ordering::Acquire),
            literals: self.literals_changed.get(shard).map_or(0, |shard| shard.load(Ordering::Acquire)),
        }
    }

    pub(crate) fn matches(&self, subject: &[u8]) -> Matches {
        self.table.read().unwrap_or_else(PoisonError::into_inner).matches(subject)
    }

    pub(crate) fn has_interest(&self, subject: &[u8]) -> bool {
        self.table.read().unwrap_or_else(PoisonError::into_inner).has_interest(subject)
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn insert(&self, sub: Arc<Sub>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let subject = sub.subject.clone();
        table.insert(sub);
        self.changed(&subject);
    }

    pub(crate) fn remove(&self, sub: &Arc<Sub>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.remove(sub) {
            self.changed(&sub.subject);
        }
    }

    /// Removes many at the cost of one lock.
    pub(crate) fn remove_all<'a>(&self, subs: impl Iterator<Item = &'a Arc<Sub>>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for sub in subs {
            if table.remove(sub) {
                self.changed(&sub.subject);
            }
        }
    }

    /// Called with the table locked, after the change: a reader that sees the old version sees the old table or
    /// the new one, and one that sees the new version sees the new table.
    fn changed(&self, subject: &[u8]) {
        if subject::has_wildcard(subject) {
            self.patterns_changed.fetch_add(1, Ordering::Release);
        } else if let Some(shard) = self.shard(subject) {
            shard.fetch_add(1, Ordering::Release);
        }
    }
}

fn check_subject(account: &str, subject: &str, valid: fn(&[u8]) -> bool) -> Result<(), EngineError> {
    if valid(subject.as_bytes()) {
        return Ok(());
    }
    Err(EngineError::ImportSubject { account: account.to_owned(), subject: subject.to_owned() })
}

/// Follows service imports; a chain that comes back to its beginning would never end.
fn check_cycle(
    accounts: &[Arc<Account>],
    start: usize,
    import: &ServiceImport,
    depth: usize,
) -> Result<(), EngineError> {
    let Some(next) = accounts.get(import.account) else { return Ok(()) };
    if import.account == start || depth > accounts.len() {
        return Err(EngineError::ImportCycle {
            account: accounts.get(start).map(|account| account.name.clone()).unwrap_or_default(),
            subject: String::from_utf8_lossy(&import.subject).into_owned(),
        });
    }
    for further in &next.services {
        if subject::overlaps(&import.to, &further.subject) {
            check_cycle(accounts, start, further, depth + 1)?;
        }
    }
    Ok(())
}
