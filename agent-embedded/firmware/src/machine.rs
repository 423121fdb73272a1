//! The only unsafe code that boards share: the personalised section, memory that a restart leaves alone, and how a run ends.
#![allow(unsafe_code, reason = "sections of the linker's, and memory that is not initialised; see below")]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{Ordering, compiler_fence};

use crate::mishap::{Cause, Mishap, Record};

/// The personalised section (docs/spec/08 §10). Behind `black_box`, because an optimiser that sees 4 KiB of 0xFF reads
/// nothing else.
pub fn baked() -> &'static [u8] {
    #[unsafe(link_section = ".baked")]
    #[used]
    static BAKED: [u8; 4096] = [0xff; 4096];
    core::hint::black_box(&BAKED)
}

/// Words in RAM that the start-up code does not clear.
struct Kept(UnsafeCell<MaybeUninit<[u32; Record::WORDS]>>);

// SAFETY: one core, and no interrupt touches it but the one that ends the program: see `read` and `write`.
unsafe impl Sync for Kept {}

#[unsafe(link_section = ".uninit.mishap")]
static KEPT: Kept = Kept(UnsafeCell::new(MaybeUninit::uninit()));

fn read() -> [u32; Record::WORDS] {
    // SAFETY: inside the static and aligned. RAM holds some value in every word, whatever happened before; volatile, so the
    // compiler does not assume that nobody wrote it.
    unsafe { KEPT.0.get().cast::<[u32; Record::WORDS]>().read_volatile() }
}

fn write(words: [u32; Record::WORDS]) {
    // SAFETY: as in `read`. The callers are the one executor and the end of the program, from which nothing returns.
    unsafe { KEPT.0.get().cast::<[u32; Record::WORDS]>().write_volatile(words) }
    compiler_fence(Ordering::SeqCst);
}

/// What ended the last run; it is told once. Called once, at start. `watchdog`: the chip says that its watchdog has reset it.
pub fn mishap(watchdog: bool) -> Option<Mishap> {
    let (record, mishap) = Record::at_start(Record::from_words(read()), watchdog);
    write(record.to_words());
    mishap
}

/// This run has gone well for long enough to forget what was before it.
pub(crate) fn goes_well() {
    write(Record::GOOD.to_words());
}

/// Leaves a record for the next run. Called on the way into a reset.
pub fn remember(cause: Cause) {
    let before = Record::from_words(read()).unwrap_or(Record::GOOD);
    write(Record { cause: Some(cause), ..before }.to_words());
}

/// The end of a program that is out of its mind: a record, and a new start. Never a halt (docs/spec/08 §7.7).
#[cfg(target_arch = "arm")]
mod end {
    use super::{Cause, remember};

    #[panic_handler]
    fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
        remember(Cause::of_panic(info));
        cortex_m::peripheral::SCB::sys_reset()
    }

    #[cortex_m_rt::exception]
    unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
        remember(Cause::Fault { pc: frame.pc() });
        cortex_m::peripheral::SCB::sys_reset()
    }
}
