//! Tokens that were verified before, so that a fleet that reconnects costs one signature check per node (its nonce)
//! and not four.
//!
//! A cache belongs to one set of configured keys: a reload makes a new one. What depends on the moment (times, the
//! nonce's signature) is checked on every use, never remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use choria_token::claims::Claims;
use choria_token::{Reject, Verified, Verifier};
use sha2::{Digest as _, Sha256};

/// Entries of one generation; two are kept.
const GENERATION: usize = 8192;

/// Verified tokens of one kind.
#[derive(Debug)]
pub(crate) struct TokenCache<T: Claims> {
    entries: Mutex<Generations<T>>,
}

#[derive(Debug)]
struct Generations<T: Claims> {
    young: HashMap<[u8; 32], Verified<T>>,
    old: HashMap<[u8; 32], Verified<T>>,
}

impl<T: Claims> Default for TokenCache<T> {
    fn default() -> Self {
        TokenCache { entries: Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }) }
    }
}

impl<T: Claims + Clone> TokenCache<T> {
    /// As [`Verifier::verify`]. The verifier must be the same on every call.
    pub(crate) fn verify(
        &self,
        verifier: &Verifier,
        token: &str,
        now_unix: i64,
    ) -> Result<Verified<T>, Reject> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(verified) = self.get(&key) {
            verified.check_times(now_unix)?;
            return Ok(verified);
        }
        let verified = verifier.verify::<T>(token, now_unix)?;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.young.len() >= GENERATION {
            entries.old = std::mem::take(&mut entries.young);
        }
        entries.young.insert(key, verified.clone());
        Ok(verified)
    }

    fn get(&self, key: &[u8; 32]) -> Option<Verified<T>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.young.get(key).or_else(|| entries.old.get(key)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use choria_token::{ClientClaims, Issuer, Key, Seed};
    use std::time::Duration;

    #[test]
    fn a_remembered_token_still_expires() {
        let org = Seed::generate().unwrap();
        let verifier = Verifier::single(Key::Ed25519(org.public()));
        let claims = ClientClaims::new("up=x", &Seed::generate().unwrap().public());
        let token = Issuer::Org(org).issue_client(claims, Duration::from_secs(10), 1_800_000_000).unwrap();
        let cache = TokenCache::<ClientClaims>::default();
        assert!(cache.verify(&verifier, &token, 1_800_000_000).is_ok());
        assert!(cache.verify(&verifier, &token, 1_800_000_009).is_ok());
        assert_eq!(cache.verify(&verifier, &token, 1_800_000_010).unwrap_err().reason(), "token_expired");
        assert_eq!(cache.verify(&verifier, &token, 1_799_999_999).unwrap_err().reason(), "token_early");
    }

    #[test]
    fn what_is_refused_is_not_remembered() {
        let verifier = Verifier::single(Key::Ed25519(Seed::generate().unwrap().public()));
        let other = Issuer::Org(Seed::generate().unwrap());
        let claims = ClientClaims::new("up=x", &Seed::generate().unwrap().public());
        let token = other.issue_client(claims, Duration::from_secs(10), 1_800_000_000).unwrap();
        let cache = TokenCache::<ClientClaims>::default();
        for _ in 0..2 {
            assert_eq!(cache.verify(&verifier, &token, 1_800_000_000).unwrap_err().reason(), "sig_bad");
        }
    }
}
