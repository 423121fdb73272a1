//! Prepared policies by the SHA-256 of their text, least recently used out first.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use sha2::{Digest, Sha256};

use super::{Policy, PolicyError};

/// Entries of the process-wide cache: a site has some dozens of policies, a prepared one is about 10 KiB.
const SHARED_ENTRIES: usize = 128;

/// A bounded cache of checked policies and of refusals.
#[derive(Debug)]
pub struct PolicyCache {
    limit: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    clock: u64,
    by_hash: HashMap<[u8; 32], Entry>,
}

#[derive(Debug)]
struct Entry {
    used: u64,
    outcome: Result<Policy, PolicyError>,
}

impl PolicyCache {
    /// A cache of at most `limit` policies (at least one).
    pub fn new(limit: usize) -> PolicyCache {
        PolicyCache { limit: limit.max(1), entries: Mutex::default() }
    }

    /// The policy for `text`, parsed at most once while it stays in the cache.
    pub fn get(&self, text: &str) -> Result<Policy, PolicyError> {
        if text.len() > super::MAX_POLICY_BYTES {
            return Err(PolicyError::TooLong { size: text.len() });
        }
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.clock = entries.clock.wrapping_add(1);
            let now = entries.clock;
            if let Some(entry) = entries.by_hash.get_mut(&hash) {
                entry.used = now;
                return entry.outcome.clone();
            }
        }
        // Parsed outside the lock: one slow text must not hold up the callers of all others.
        let outcome = Policy::parse(text);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.by_hash.len() >= self.limit {
            let oldest = entries.by_hash.iter().min_by_key(|(_, entry)| entry.used).map(|(hash, _)| *hash);
            if let Some(oldest) = oldest {
                entries.by_hash.remove(&oldest);
            }
        }
        let used = entries.clock;
        entries.by_hash.insert(hash, Entry { used, outcome: outcome.clone() });
        outcome
    }
}

pub(super) fn shared() -> &'static PolicyCache {
    static SHARED: OnceLock<PolicyCache> = OnceLock::new();
    SHARED.get_or_init(|| PolicyCache::new(SHARED_ENTRIES))
}
