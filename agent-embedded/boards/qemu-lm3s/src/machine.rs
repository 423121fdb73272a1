//! The only unsafe code of this board: registers, the debugger's calls, the executor's loop.
//!
//! Addresses are those of the LM3S6965 that QEMU models (docs/spec/08 §2); reads and writes of its registers have no
//! effect on Rust's memory. Semihosting calls get pointers to live buffers and their lengths.
#![allow(unsafe_code, reason = "registers and semihosting; see the module's comment")]

use core::arch::asm;
use core::ptr::{read_volatile, write_volatile};

use cortex_m::peripheral::NVIC;
use embassy_executor::raw;

/// The Ethernet controller.
const ETHERNET: usize = 0x4004_8000;
/// Its interrupt.
const ETHERNET_IRQ: u16 = 42;

/// Registers of the Ethernet controller, by offset.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub enum Register {
    /// Interrupts: pending when read, acknowledged when written.
    Interrupt = 0x00,
    InterruptMask = 0x04,
    ReceiveControl = 0x08,
    TransmitControl = 0x0c,
    Data = 0x10,
    /// The hardware address, little endian.
    AddressLow = 0x14,
    AddressHigh = 0x18,
    PacketsWaiting = 0x34,
    Transmit = 0x38,
}

pub fn read(register: Register) -> u32 {
    // SAFETY: a register of the controller, aligned; see the module's comment.
    unsafe { read_volatile((ETHERNET + register as usize) as *const u32) }
}

pub fn write(register: Register, value: u32) {
    // SAFETY: as in `read`.
    unsafe { write_volatile((ETHERNET + register as usize) as *mut u32, value) }
}

#[derive(Clone, Copy)]
struct Ethernet;

// SAFETY: the number is that of the controller's interrupt and does not change.
unsafe impl cortex_m::interrupt::InterruptNumber for Ethernet {
    fn number(self) -> u16 {
        ETHERNET_IRQ
    }
}

pub fn unmask_ethernet() {
    // SAFETY: no critical section relies on this interrupt's mask.
    unsafe { NVIC::unmask(Ethernet) }
}

/// A fault, or a panic of a build that turns one into the other to save flash.
#[cortex_m_rt::exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    crate::fault(frame.pc())
}

#[cortex_m_rt::exception]
unsafe fn DefaultHandler(interrupt: i16) {
    if interrupt == i16::try_from(ETHERNET_IRQ).unwrap_or(i16::MAX) {
        crate::nic::interrupted();
    }
}

/// A call to the debugger, which QEMU answers.
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
    Write = 5,
}

/// Opens a file of the host; the name ends with a zero byte.
pub fn open(name: &core::ffi::CStr, mode: Mode) -> Option<isize> {
    let block = [name.as_ptr() as usize, mode as usize, name.count_bytes()];
    let handle = call(OPEN, block.as_ptr() as usize);
    (handle >= 0).then_some(handle)
}

pub fn close(handle: isize) -> bool {
    let block = [handle];
    call(CLOSE, block.as_ptr() as usize) == 0
}

/// Bytes read.
pub fn read_file(handle: isize, buffer: &mut [u8]) -> usize {
    let block = [handle as usize, buffer.as_mut_ptr() as usize, buffer.len()];
    let left = call(READ, block.as_ptr() as usize);
    usize::try_from(left).map_or(0, |left| buffer.len().saturating_sub(left))
}

/// True when all was written.
pub fn write_file(handle: isize, bytes: &[u8]) -> bool {
    let block = [handle as usize, bytes.as_ptr() as usize, bytes.len()];
    call(WRITE, block.as_ptr() as usize) == 0
}

pub fn remove(name: &core::ffi::CStr) -> bool {
    let block = [name.as_ptr() as usize, name.count_bytes()];
    call(REMOVE, block.as_ptr() as usize) == 0
}

pub fn rename(from: &core::ffi::CStr, to: &core::ffi::CStr) -> bool {
    let block = [from.as_ptr() as usize, from.count_bytes(), to.as_ptr() as usize, to.count_bytes()];
    call(RENAME, block.as_ptr() as usize) == 0
}

/// Unix seconds of the host.
pub fn host_seconds() -> i64 {
    i64::from(call(TIME, 0) as u32)
}

pub fn print(text: &core::ffi::CStr) {
    call(WRITE0, text.as_ptr() as usize);
}

/// Ends QEMU.
pub fn exit(success: bool) -> ! {
    call(EXIT, if success { APPLICATION_EXIT } else { RUN_TIME_ERROR });
    loop {
        cortex_m::asm::wfi();
    }
}

/// Starts the program anew.
pub fn reset() -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}

/// The personalised section. Behind `black_box`, because an optimiser that sees 4 KiB of 0xFF reads nothing else.
pub fn baked() -> &'static [u8] {
    #[unsafe(link_section = ".baked")]
    #[used]
    static BAKED: [u8; 4096] = [0xff; 4096];
    core::hint::black_box(&BAKED)
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

#[unsafe(export_name = "__pender")]
fn pender(_context: *mut ()) {
    // Whoever wakes a task does so in an interrupt, and that ends the wait below.
}

/// Runs the executor for ever, asleep while there is nothing to do, so that many devices share a host.
pub fn run(executor: &'static raw::Executor) -> ! {
    loop {
        // SAFETY: called from here only, never from within itself.
        unsafe { executor.poll() };
        // A wake-up between the two waits for the next tick, a millisecond at most.
        cortex_m::asm::wfi();
    }
}
