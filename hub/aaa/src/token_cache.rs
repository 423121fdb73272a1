//! Verified caller tokens by the hash of their text.
//!
//! Verifying a chained token costs three signatures, most of what signing a request costs. The same token arrives with
//! every request of its user, so its verification is kept, and only the clock is looked at again. Refusals are not kept:
//! they are cheap to repeat and a cache of them would be the attacker's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use choria_token::{ClientClaims, Reject, Verified, Verifier};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Tokens kept.
const LIMIT: usize = 4096;

/// A caller's token, good when it was verified.
#[derive(Debug)]
pub(crate) struct Caller {
    pub token: Verified<ClientClaims>,
    /// The claims as policies see them.
    pub claims_json: Value,
}

/// Verifies tokens, each text once.
#[derive(Debug)]
pub(crate) struct TokenCache {
    verifiers: Vec<Verifier>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    clock: u64,
    by_hash: HashMap<[u8; 32], (u64, Arc<Caller>)>,
}

impl TokenCache {
    /// Tokens have to satisfy every one of `verifiers`.
    pub(crate) fn new(verifiers: Vec<Verifier>) -> TokenCache {
        TokenCache { verifiers, entries: Mutex::default() }
    }

    /// The caller that this token proves, at `now_unix`.
    pub(crate) fn verify(&self, token: &str, now_unix: i64) -> Result<Arc<Caller>, Reject> {
        if token.len() > choria_token::MAX_TOKEN {
            return Err(Reject::Malformed("too long"));
        }
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.clock = entries.clock.wrapping_add(1);
            let now = entries.clock;
            entries.by_hash.get_mut(&hash).map(|entry| {
                entry.0 = now;
                Arc::clone(&entry.1)
            })
        };
        if let Some(caller) = known {
            caller.token.check_times(now_unix)?;
            return Ok(caller);
        }
        let mut verified = None;
        for verifier in &self.verifiers {
            verified = Some(verifier.verify_client(token, now_unix)?);
        }
        let token = verified.ok_or(Reject::SignatureBad)?;
        let claims_json =
            serde_json::to_value(token.claims()).map_err(|_| Reject::Malformed("claims that are no JSON"))?;
        let caller = Arc::new(Caller { token, claims_json });
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.by_hash.len() >= LIMIT {
            let oldest = entries.by_hash.iter().min_by_key(|(_, (used, _))| *used).map(|(hash, _)| *hash);
            if let Some(oldest) = oldest {
                entries.by_hash.remove(&oldest);
            }
        }
        let used = entries.clock;
        entries.by_hash.insert(hash, (used, Arc::clone(&caller)));
        Ok(caller)
    }
}
