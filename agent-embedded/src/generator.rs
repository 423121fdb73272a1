//! Random numbers for TLS and the questions of time servers, stretched from what the board drew at start.

use agent_core::entropy::Entropy;
use rand_core::{CryptoRng, Error, RngCore};

/// SHA-256 over a secret seed and a counter: whoever sees its output learns nothing of what comes before or after. Its hash
/// is in the image anyway. Identity keys are drawn from the board itself.
#[derive(Debug)]
pub(crate) struct Generator(Entropy);

impl Generator {
    /// `seed`: 32 true random bytes, used for nothing else.
    pub(crate) fn new(seed: [u8; 32]) -> Generator {
        Generator(Entropy::new(seed))
    }
}

impl RngCore for Generator {
    fn next_u32(&mut self) -> u32 {
        self.0.u32()
    }

    fn next_u64(&mut self) -> u64 {
        u64::from(self.0.u32()) << 32 | u64::from(self.0.u32())
    }

    fn fill_bytes(&mut self, buffer: &mut [u8]) {
        for part in buffer.chunks_mut(32) {
            for (to, from) in part.iter_mut().zip(self.0.block()) {
                *to = from;
            }
        }
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(buffer);
        Ok(())
    }
}

impl CryptoRng for Generator {}
