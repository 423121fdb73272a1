//! Random numbers from bytes that the shell brought in.

use sha2::{Digest, Sha256};

/// A generator that stretches 32 bytes of real entropy: SHA-256 over the seed and a counter.
///
/// Good enough for jitter and message ids. Keys never come from here: they are made from bytes that the shell draws
/// for that purpose alone.
#[derive(Clone)]
pub struct Entropy {
    seed: [u8; 32],
    counter: u64,
}

impl core::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Entropy")
    }
}

impl Entropy {
    #[must_use]
    pub const fn new(seed: [u8; 32]) -> Entropy {
        Entropy { seed, counter: 0 }
    }

    pub fn block(&mut self) -> [u8; 32] {
        self.counter = self.counter.wrapping_add(1);
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.counter.to_be_bytes());
        hash.finalize().into()
    }

    pub fn u32(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.block();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Evenly in `0 .. bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        let product = u64::from(self.u32()).saturating_mul(u64::from(bound));
        u32::try_from(product >> 32).unwrap_or(0)
    }

    /// The first 16 bytes of a block.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let block = self.block();
        let mut half = [0u8; 16];
        for (to, from) in half.iter_mut().zip(block) {
            *to = from;
        }
        half
    }
}
