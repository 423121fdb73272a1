//! The only unsafe code of this image: calls to the debugger, which QEMU answers, and the stack's paint.
//!
//! Calls get pointers to live buffers and their lengths; QEMU writes within them (docs/spec/08 §2).
#![allow(unsafe_code, reason = "semihosting; see the module's comment")]

use core::arch::asm;
use core::ffi::CStr;
use core::ptr::read_volatile;

/// A fault, or a panic of a build that turns one into the other.
#[cortex_m_rt::exception]
unsafe fn HardFault(_: &cortex_m_rt::ExceptionFrame) -> ! {
    exit(false)
}

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
const WRITE: usize = 0x05;
const READ: usize = 0x06;
const EXIT: usize = 0x18;
const APPLICATION_EXIT: usize = 0x2_0026;
const RUN_TIME_ERROR: usize = 0x2_0023;

/// A file of the host, in the folder that QEMU was started in.
#[derive(Debug)]
pub struct File(isize);

impl File {
    pub fn open(name: &CStr) -> Option<File> {
        File::with(name, 1)
    }

    /// Made anew.
    pub fn create(name: &CStr) -> Option<File> {
        File::with(name, 5)
    }

    fn with(name: &CStr, mode: usize) -> Option<File> {
        let block = [name.as_ptr() as usize, mode, name.count_bytes()];
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

    pub fn close(self) -> bool {
        let block = [self.0];
        call(CLOSE, block.as_ptr() as usize) == 0
    }
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
