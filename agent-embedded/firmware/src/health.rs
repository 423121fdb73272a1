//! Whether raw random bits look as if their source were alive, and what is made of them (docs/spec/08 §5).

use agent_embedded::board::NoEntropy;
use sha2::{Digest as _, Sha256};

/// As many equal bits in a row do not happen while an oscillator runs, slow as it may be against the reader.
const LONGEST_RUN: u32 = 256;
/// Bits that are counted together.
const WINDOW: u32 = 4096;
/// A source that is stuck to one side more than three times in four is no source.
const FEWEST: u32 = WINDOW / 4;

/// The two tests that every source must pass all the time (NIST SP 800-90B §4.4), with room for a poor one.
#[derive(Debug, Default)]
pub struct Health {
    last: bool,
    run: u32,
    seen: u32,
    ones: u32,
}

impl Health {
    /// Takes the next raw bit.
    ///
    /// # Errors
    /// The source has failed; none of its bits may be used.
    pub fn bit(&mut self, bit: bool) -> Result<bool, NoEntropy> {
        self.run = if bit == self.last { self.run.saturating_add(1) } else { 1 };
        self.last = bit;
        self.seen = self.seen.saturating_add(1);
        self.ones = self.ones.saturating_add(u32::from(bit));
        if self.run > LONGEST_RUN {
            return Err(NoEntropy);
        }
        if self.seen == WINDOW {
            let zeros = WINDOW.saturating_sub(self.ones);
            if self.ones < FEWEST || zeros < FEWEST {
                return Err(NoEntropy);
            }
            (self.seen, self.ones) = (0, 0);
        }
        Ok(bit)
    }
}

/// Fills `buffer` with SHA-256 of raw bytes: `raw_bytes` of them for every 32. `next` draws one.
///
/// # Errors
/// What `next` says.
pub fn whiten(
    buffer: &mut [u8],
    raw_bytes: usize,
    mut next: impl FnMut() -> Result<u8, NoEntropy>,
) -> Result<(), NoEntropy> {
    for part in buffer.chunks_mut(32) {
        let mut hash = Sha256::new();
        for _ in 0..raw_bytes {
            hash.update([next()?]);
        }
        part.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(bits: impl Iterator<Item = bool>) -> bool {
        let mut health = Health::default();
        bits.into_iter().all(|bit| health.bit(bit).is_ok())
    }

    #[test]
    fn a_source_that_stands_still_or_leans_is_found_out() {
        let mut state = 1_u32;
        let mut fair = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 31 == 1
        };
        assert!(passes((0..100_000).map(|_| fair())));
        assert!(!passes(core::iter::repeat_n(false, 1000)), "stopped");
        assert!(!passes(core::iter::repeat_n(true, 1000)), "stopped");
        assert!(!passes((0..100_000).map(|number| number % 8 == 0)), "leans");
        // sampled faster than it turns: each bit is seen a few times, which is poor and not dead
        let slow: Vec<bool> = (0..20_000).map(|_| fair()).flat_map(|bit| [bit; 5]).collect();
        assert!(passes(slow.into_iter()));
    }

    #[test]
    fn every_32_bytes_have_raw_bytes_of_their_own() {
        let (mut out, mut drawn) = ([0; 48], 0_usize);
        let counted = whiten(&mut out, 4096, || {
            drawn += 1;
            Ok((drawn % 251) as u8)
        });
        assert_eq!((counted, drawn), (Ok(()), 8192));
        assert_ne!(out[..16], out[32..]);
        let mut dies = 5000;
        let failed = whiten(&mut out, 4096, || {
            dies -= 1;
            if dies == 0 { Err(NoEntropy) } else { Ok(0) }
        });
        assert_eq!(failed, Err(NoEntropy));
    }
}
