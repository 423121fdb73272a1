//! Who may talk to the agent: the token check and the lock (`docs/spec/10` V8, V12).

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

/// How long a lock lasts after the last valid call, milliseconds.
const LOCK_MS: u64 = 120_000;
/// Wrong tokens of one caller before it has to wait.
const FAILURES: u8 = 5;
/// How long it has to wait, milliseconds.
const PENALTY_MS: u64 = 30_000;

/// Reserves the node for one provisioner at a time.
#[derive(Debug, Clone, Default)]
pub struct Lock {
    owner: Option<([u8; 32], u64)>,
}

fn fingerprint(sender: &str, caller: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(sender.as_bytes());
    hash.update([0]);
    hash.update(caller.as_bytes());
    hash.finalize().into()
}

impl Lock {
    /// Takes or extends the lock; false when somebody else has it.
    pub fn take(&mut self, sender: &str, caller: &str, now_ms: u64) -> bool {
        let key = fingerprint(sender, caller);
        match self.owner {
            Some((owner, until)) if owner != key && now_ms < until => false,
            _ => {
                self.owner = Some((key, now_ms.saturating_add(LOCK_MS)));
                true
            }
        }
    }

    #[must_use]
    pub fn is_held(&self, now_ms: u64) -> bool {
        self.owner.is_some_and(|(_, until)| now_ms < until)
    }
}

/// Counts wrong tokens per caller; the oldest of four callers is forgotten first.
#[derive(Debug, Clone, Default)]
pub struct TokenGuard {
    callers: [Failures; 4],
}

#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    caller: [u8; 32],
    count: u8,
    last_ms: u64,
}

impl TokenGuard {
    /// Whether `given` is the node's access token. An empty access token never matches.
    pub fn check(&mut self, wanted: &str, given: &str, sender: &str, caller: &str, now_ms: u64) -> bool {
        let key = fingerprint(sender, caller);
        let known = self.callers.iter_mut().find(|entry| entry.count > 0 && entry.caller == key);
        if let Some(entry) = known
            && entry.count >= FAILURES
        {
            if now_ms < entry.last_ms.saturating_add(PENALTY_MS) {
                return false;
            }
            entry.count = 0;
        }
        // Digests have one length, so the comparison tells nothing about the token's.
        let same = Sha256::digest(wanted.as_bytes()).ct_eq(&Sha256::digest(given.as_bytes()));
        if bool::from(same) && !wanted.is_empty() {
            return true;
        }
        self.count(key, now_ms);
        false
    }

    fn count(&mut self, key: [u8; 32], now_ms: u64) {
        let place = match self.callers.iter().position(|entry| entry.caller == key) {
            Some(at) => self.callers.get_mut(at),
            None => self.callers.iter_mut().min_by_key(|entry| (entry.count > 0, entry.last_ms)),
        };
        if let Some(entry) = place {
            if entry.caller != key {
                *entry = Failures { caller: key, ..Failures::default() };
            }
            entry.count = entry.count.saturating_add(1);
            entry.last_ms = now_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_provisioner_at_a_time() {
        let mut lock = Lock::default();
        assert!(lock.take("p1", "provisioner", 0));
        assert!(!lock.take("p2", "provisioner", 119_999));
        assert!(lock.take("p1", "provisioner", 119_999), "extended");
        assert!(!lock.take("p2", "provisioner", 130_000));
        assert!(lock.take("p2", "provisioner", 240_000));
    }

    #[test]
    fn t_143_t_144_five_wrong_tokens_cost_half_a_minute() {
        let mut guard = TokenGuard::default();
        for n in 0..5 {
            assert!(!guard.check("s3cret", "guess", "h", "up=mallory", n));
        }
        assert!(!guard.check("s3cret", "s3cret", "h", "up=mallory", 10), "even the right one now");
        assert!(guard.check("s3cret", "s3cret", "h", "up=other", 10), "others are not delayed");
        assert!(guard.check("s3cret", "s3cret", "h", "up=mallory", 30_010));
        assert!(!guard.check("", "", "h", "up=x", 0), "an empty token opens nothing");
        choria_rows::row(
            143,
            "five wrong tokens, then the right one; an empty one where none is configured",
            "refused until 30 s have passed, others are not delayed; refused",
        );
        choria_rows::row(
            144,
            "five wrong tokens, then the right one; an empty one where none is configured",
            "refused until 30 s have passed, others are not delayed; refused",
        );
    }
}
