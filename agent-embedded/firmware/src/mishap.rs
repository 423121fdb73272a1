//! What ended a run, in a few words of RAM that survive a reset (docs/spec/08 §7.7).

use core::fmt;
use core::panic::PanicInfo;

/// Mishaps in a row after which a device keeps off the network for a while.
const MANY: u32 = 5;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A panic: hash of the file's name, and the line.
    Panic { file: u32, line: u32 },
    /// The processor gave up at this address.
    Fault { pc: u32 },
    /// The main loop made no progress.
    Watchdog,
}

impl Cause {
    /// Of what a panic handler is given. The message is left out: showing it would cost 10 KiB of flash.
    pub fn of_panic(info: &PanicInfo<'_>) -> Cause {
        let (file, line) = info.location().map_or(("", 0), |place| (place.file(), place.line()));
        Cause::Panic { file: hash(file.as_bytes()), line }
    }

    const fn to_words(self) -> [u32; 3] {
        match self {
            Cause::Panic { file, line } => [1, file, line],
            Cause::Fault { pc } => [2, pc, 0],
            Cause::Watchdog => [3, 0, 0],
        }
    }

    const fn from_words(words: [u32; 3]) -> Option<Cause> {
        match words {
            [1, file, line] => Some(Cause::Panic { file, line }),
            [2, pc, _] => Some(Cause::Fault { pc }),
            [3, ..] => Some(Cause::Watchdog),
            _ => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Panic { file, line } => write!(f, "panic in file {file:08x}, line {line}"),
            Cause::Fault { pc } => write!(f, "fault at {pc:08x}"),
            Cause::Watchdog => f.write_str("watchdog"),
        }
    }
}

/// The record in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// Written on the way into a reset; `None` while a run is under way.
    pub(crate) cause: Option<Cause>,
    /// Runs in a row that ended in a mishap.
    pub(crate) in_a_row: u32,
}

impl Record {
    pub(crate) const WORDS: usize = 6;
    const MAGIC: u32 = 0x6d69_7368;
    /// Of a run without mishaps before it.
    pub(crate) const GOOD: Record = Record { cause: None, in_a_row: 0 };

    /// After power has been away, RAM holds anything: only a record with its checksum counts.
    pub(crate) fn from_words(words: [u32; Record::WORDS]) -> Option<Record> {
        let [magic, cause, first, second, in_a_row, check] = words;
        if magic != Record::MAGIC || check != checksum([cause, first, second, in_a_row]) {
            return None;
        }
        Some(Record { cause: Cause::from_words([cause, first, second]), in_a_row })
    }

    pub(crate) fn to_words(self) -> [u32; Record::WORDS] {
        let [cause, first, second] = self.cause.map_or([0; 3], Cause::to_words);
        let check = checksum([cause, first, second, self.in_a_row]);
        [Record::MAGIC, cause, first, second, self.in_a_row, check]
    }

    /// Of the run that starts now, and what ended the one before. `watchdog`: the chip says that its watchdog has reset it.
    pub(crate) fn at_start(kept: Option<Record>, watchdog: bool) -> (Record, Option<Mishap>) {
        let kept = kept.unwrap_or(Record::GOOD);
        let Some(cause) = kept.cause.or(watchdog.then_some(Cause::Watchdog)) else {
            return (Record::GOOD, None);
        };
        let in_a_row = kept.in_a_row.saturating_add(1);
        (Record { cause: None, in_a_row }, Some(Mishap { cause, in_a_row }))
    }
}

/// What ended the last run, and how many in a row have ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mishap {
    pub cause: Cause,
    pub in_a_row: u32,
}

impl Mishap {
    /// Whether to wait before the network is used: a device that falls over again and again leaves the broker alone.
    pub(crate) const fn is_too_many(self) -> bool {
        self.in_a_row >= MANY
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn checksum(words: [u32; 4]) -> u32 {
    words.iter().fold(0, |hash: u32, word| hash.rotate_left(7) ^ word.wrapping_mul(0x9e37_79b1)) ^ !0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_nothing_else_is_taken_for_one() {
        let causes = [Cause::Panic { file: 7, line: 9 }, Cause::Fault { pc: 0x1000_0400 }, Cause::Watchdog];
        for cause in causes.map(Some).into_iter().chain([None]) {
            let record = Record { cause, in_a_row: 3 };
            let words = record.to_words();
            assert_eq!(Record::from_words(words), Some(record));
            for word in 0..Record::WORDS {
                for bit in 0..32 {
                    let mut other = words;
                    other[word] ^= 1 << bit;
                    assert_eq!(Record::from_words(other), None, "bit {bit} of word {word}");
                }
            }
        }
        for noise in [0, u32::MAX, 0x5a5a_5a5a] {
            assert_eq!(Record::from_words([noise; Record::WORDS]), None);
        }
    }

    #[test]
    fn mishaps_in_a_row_are_counted_until_a_run_ends_well() {
        assert_eq!(Record::at_start(None, false), (Record::GOOD, None), "power has been away");
        let mut kept = None;
        for number in 1..=MANY {
            let (running, mishap) = Record::at_start(kept, true);
            assert_eq!(mishap, Some(Mishap { cause: Cause::Watchdog, in_a_row: number }));
            assert_eq!(mishap.is_some_and(Mishap::is_too_many), number == MANY);
            kept = Some(running);
        }
        let panicked = kept.map(|kept| Record { cause: Some(Cause::Panic { file: 1, line: 2 }), ..kept });
        let (running, mishap) = Record::at_start(panicked, false);
        assert_eq!(mishap.map(|mishap| mishap.in_a_row), Some(MANY + 1));
        let (running, mishap) = Record::at_start(Some(running), false);
        assert_eq!((running, mishap), (Record::GOOD, None), "a restart that was asked for");
    }
}
