//! What a node counts about its messages (`docs/spec/03 §2`, `§11.1`).

/// Counters since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub total: u64,
    /// Passed every check up to their age.
    pub validated: u64,
    pub unvalidated: u64,
    pub passed: u64,
    pub filtered: u64,
    pub ttl_expired: u64,
    pub replayed: u64,
    pub too_large: u64,
    pub replies: u64,
    /// Life-cycle events published.
    pub events: u64,
    /// Unix seconds of the last validated message, 0 for none.
    pub last_message: i64,
}
