//! Signatures that were found good before: the second request of a caller costs one verification, not three to five
//! (`docs/spec/08 §7.4`).

use core::cell::Cell;

use sha2::{Digest as _, Sha256};

/// Signatures that are remembered.
const SLOTS: usize = 4;
/// Bytes of a digest that are kept: nobody finds another token with the same.
const KEPT: usize = 16;

/// Tokens whose signatures and chain held under a configured key, the latest few. Their claims and times are read anew each
/// time: nothing that can change is remembered, so a token that is over is refused whether it is known or not.
#[derive(Debug, Default)]
pub struct Proven {
    digests: [Cell<[u8; KEPT]>; SLOTS],
    next: Cell<u8>,
}

impl Proven {
    /// Of `token`, exactly these bytes, under `key`.
    pub(super) fn digest(key: &[u8; 32], token: &str) -> [u8; KEPT] {
        let digest = Sha256::new_with_prefix(key).chain_update(token).finalize();
        digest.first_chunk().copied().unwrap_or_default()
    }

    pub(super) fn holds(&self, digest: &[u8; KEPT]) -> bool {
        *digest != [0; KEPT] && self.digests.iter().any(|slot| slot.get() == *digest)
    }

    /// The oldest makes room.
    pub(super) fn remember(&self, digest: [u8; KEPT]) {
        let next = usize::from(self.next.get());
        if let Some(slot) = self.digests.get(next) {
            slot.set(digest);
        }
        self.next.set(u8::try_from(next.saturating_add(1)).unwrap_or(0) % 4);
    }
}
