//! Entropy of the RP2350: its random number generator with its own tests switched on, whitened (docs/spec/08 §5).

use agent_embedded::board::NoEntropy;
use device_firmware::whiten;
use embassy_rp::pac;
use embassy_time::{Duration, Instant};

/// Cycles between two samples of the ring oscillator; with few of them its bits depend on each other.
const SAMPLE: u32 = 1000;
/// Bytes that the generator makes at once.
const BLOCK: usize = 24;
/// Starts of the generator before it counts as broken: its tests refuse good bits now and then.
const ATTEMPTS: u32 = 8;
const PATIENCE: Duration = Duration::from_millis(200);

/// Fills `buffer` with random bytes.
pub fn fill(buffer: &mut [u8]) -> Result<(), NoEntropy> {
    let (mut block, mut last) = ([0; BLOCK], [0; BLOCK]);
    let mut used = BLOCK;
    whiten(buffer, 4 * BLOCK, || {
        if used == BLOCK {
            block = draw()?;
            // The same block twice is a generator that stands still.
            if block == last {
                return Err(NoEntropy);
            }
            last = block;
            used = 0;
        }
        let byte = block.get(used).copied().ok_or(NoEntropy)?;
        used += 1;
        Ok(byte)
    })
}

fn draw() -> Result<[u8; BLOCK], NoEntropy> {
    let trng = pac::TRNG;
    for _ in 0..ATTEMPTS {
        trng.trng_sw_reset().write(|w| w.set_trng_sw_reset(true));
        // the reset needs the time of a read
        let _done = trng.trng_sw_reset().read();
        trng.trng_config().write(|w| w.set_rnd_src_sel(3));
        trng.sample_cnt1().write(|w| *w = SAMPLE);
        // no test is bypassed
        trng.trng_debug_control().write(|_| ());
        trng.rnd_source_enable().write(|w| w.set_rnd_src_en(true));
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let state = trng.rng_isr().read();
            if state.autocorr_err() || state.crngt_err() || state.vn_err() {
                break;
            }
            if trng.trng_valid().read().ehr_valid() {
                let words = [
                    trng.ehr_data0().read(),
                    trng.ehr_data1().read(),
                    trng.ehr_data2().read(),
                    trng.ehr_data3().read(),
                    trng.ehr_data4().read(),
                    trng.ehr_data5().read(),
                ];
                trng.rnd_source_enable().write(|w| w.set_rnd_src_en(false));
                let mut block = [0; BLOCK];
                let bytes = words.iter().flat_map(|word| word.to_le_bytes());
                block.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                return Ok(block);
            }
        }
    }
    Err(NoEntropy)
}
