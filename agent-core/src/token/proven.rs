//! Signatures that were found good before: the second request of a caller costs one verification, not three to five
//! (`docs/spec/08 §7.4`).

use core::cell::Cell;

use sha2::{Digest as _, Sha256};

/// Signatures that are remembered.
const SLOTS: usize = 4;
/// Tokens whose signatures and chain held under a configured key, the latest few. Their claims and times are read anew each
/// time: nothing that can change is remembered, so a token that is over is refused whether it is known or not.
#[derive(Debug, Default)]
pub struct Proven {
    digests: [Cell<[u8; 32]>; SLOTS],
    next: Cell<u8>,
}

impl Proven {
    /// Of `token`, exactly these bytes, under `key`.
    pub(super) fn digest(key: &[u8; 32], token: &str) -> [u8; 32] {
        Sha256::new_with_prefix(key).chain_update(token).finalize().into()
    }

    /// A free slot is all zeros, which is the digest of nothing that anybody will find.
    pub(super) fn holds(&self, digest: &[u8; 32]) -> bool {
        self.digests.iter().any(|slot| slot.get() == *digest)
    }

    /// The oldest makes room.
    pub(super) fn remember(&self, digest: [u8; 32]) {
        let next = usize::from(self.next.get());
        if let Some(slot) = self.digests.get(next) {
            slot.set(digest);
        }
        let next = next.saturating_add(1);
        self.next.set(if next < SLOTS { u8::try_from(next).unwrap_or(0) } else { 0 });
    }
}
