//! Entropy of the RP2040: its ring oscillator, sampled, watched and whitened (docs/spec/08 §5).

use agent_embedded::board::NoEntropy;
use device_firmware::{Health, whiten};
use embassy_rp::pac;

/// Raw bytes for each 32 that are given out; the oscillator is slow and leans, so there are many.
const RAW: usize = 8192;

/// Fills `buffer` with random bytes.
pub fn fill(buffer: &mut [u8]) -> Result<(), NoEntropy> {
    let mut health = Health::default();
    whiten(buffer, RAW, || {
        let mut byte = 0;
        for _ in 0..u8::BITS {
            let bit = health.bit(pac::ROSC.randombit().read().randombit())?;
            byte = byte << 1 | u8::from(bit);
        }
        Ok(byte)
    })
}
