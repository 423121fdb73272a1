//! The only unsafe code that images for QEMU share: calls to the debugger, which QEMU answers, the stack's paint, interrupts,
//! and the executor's loop.
//!
//! Calls get pointers to live buffers and their lengths; QEMU reads and writes within them (docs/spec/08 §2).
#![allow(unsafe_code, reason = "semihosting; see the module's comment")]

use core::arch::asm;
use core::ffi::CStr;
use core::ptr::read_volatile;

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;

/// A call to the debugger.
fn call(operation: usize, argument: usize) -> isize {
    let result: isize;
    // SAFETY: the callers below pass what the operation expects: a pointer to live arguments, or a number.
    unsafe {
        asm!("bkpt #0xab", inlateout("r0") operation => result, in("r1") argument, options(nostack));
    }
    result
}

const OPEN: usize = 0x01;
const CLOSE: usize = 0x02;
const WRITE0: usize = 0x04;
const WRITE: usize = 0x05;
const READ: usize = 0x06;
const SEEK: usize = 0x0a;
const REMOVE: usize = 0x0e;
const RENAME: usize = 0x0f;
const TIME: usize = 0x11;
const EXIT: usize = 0x18;
const APPLICATION_EXIT: usize = 0x2_0026;
const RUN_TIME_ERROR: usize = 0x2_0023;

/// How a file of the host is opened.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    Read = 1,
    /// Reading and writing what is there.
    Update = 3,
    /// Made anew.
    Write = 5,
}

/// A file of the host, below the folder that QEMU was started in where its name has no `/` in front.
#[derive(Debug)]
pub struct File(isize);

impl File {
    /// `None` where the host refuses.
    pub fn open(name: &CStr, mode: Mode) -> Option<File> {
        let block = [name.as_ptr() as usize, mode as usize, name.count_bytes()];
        let handle = call(OPEN, block.as_ptr() as usize);
        (handle >= 0).then_some(File(handle))
    }

    /// Bytes read.
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        let block = [self.0 as usize, buffer.as_mut_ptr() as usize, buffer.len()];
        let left = call(READ, block.as_ptr() as usize);
        usize::try_from(left).map_or(0, |left| buffer.len().saturating_sub(left))
    }

    /// True when all was written.
    pub fn write(&self, bytes: &[u8]) -> bool {
        let block = [self.0 as usize, bytes.as_ptr() as usize, bytes.len()];
        call(WRITE, block.as_ptr() as usize) == 0
    }

    /// Goes on at this byte.
    pub fn seek(&self, at: usize) -> bool {
        let block = [self.0 as usize, at];
        call(SEEK, block.as_ptr() as usize) == 0
    }

    /// True when all that was written has reached the host.
    pub fn close(self) -> bool {
        let block = [self.0];
        call(CLOSE, block.as_ptr() as usize) == 0
    }
}

/// Whether the host has such a file.
pub fn exists(name: &CStr) -> bool {
    File::open(name, Mode::Read).map(File::close).is_some()
}

pub fn remove(name: &CStr) -> bool {
    let block = [name.as_ptr() as usize, name.count_bytes()];
    call(REMOVE, block.as_ptr() as usize) == 0
}

pub fn rename(from: &CStr, to: &CStr) -> bool {
    let block = [from.as_ptr() as usize, from.count_bytes(), to.as_ptr() as usize, to.count_bytes()];
    call(RENAME, block.as_ptr() as usize) == 0
}

/// Random bytes of the host; false when it gives none.
pub fn random(buffer: &mut [u8]) -> bool {
    let Some(file) = File::open(c"/dev/urandom", Mode::Read) else { return false };
    let length = file.read(buffer);
    file.close();
    length == buffer.len()
}

/// Unix seconds of the host.
pub fn host_seconds() -> i64 {
    i64::from(call(TIME, 0) as u32)
}

/// Text for QEMU's stderr.
pub fn print(text: &CStr) {
    call(WRITE0, text.as_ptr() as usize);
}

/// Ends QEMU.
pub fn exit(success: bool) -> ! {
    call(EXIT, if success { APPLICATION_EXIT } else { RUN_TIME_ERROR });
    loop {
        cortex_m::asm::wfi();
    }
}

unsafe extern "C" {
    static mut __sheap: u32;
    static mut _stack_start: u32;
}

/// The most that the stack has ever held, bytes: what cortex-m-rt painted and nobody has overwritten is free.
pub fn stack_high_water() -> usize {
    const PAINT: u32 = 0xcccc_cccc;
    let (low, high) = (&raw const __sheap, &raw const _stack_start);
    let mut at = low;
    // SAFETY: from the end of static data to the top of RAM, all of it this program's; volatile, since the stack is in use.
    while at < high && unsafe { read_volatile(at) } == PAINT {
        at = at.wrapping_add(1);
    }
    (high as usize).saturating_sub(at as usize)
}

#[derive(Clone, Copy)]
struct Interrupt(u16);

// SAFETY: the number is the interrupt's and does not change.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

/// Lets the chip's interrupt of this number through.
pub fn unmask(interrupt: u16) {
    // SAFETY: images for QEMU keep interrupts away as a whole, and rely on the mask of none.
    unsafe { NVIC::unmask(Interrupt(interrupt)) }
}

#[cfg(feature = "tasks")]
#[unsafe(export_name = "__pender")]
fn pender(_context: *mut ()) {
    // Whoever wakes a task does so in an interrupt, and that ends the wait below.
}

/// Runs the executor for ever, asleep while there is nothing to do, so that many devices share a host.
#[cfg(feature = "tasks")]
pub fn run(executor: &'static embassy_executor::raw::Executor) -> ! {
    loop {
        // SAFETY: called from here only, never from within itself.
        unsafe { executor.poll() };
        // A wake-up between the two waits for the next tick, a millisecond at most.
        cortex_m::asm::wfi();
    }
}
