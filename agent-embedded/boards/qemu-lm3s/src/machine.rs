//! The only unsafe code of this board: registers, the personalised section.
//!
//! Addresses are those of the LM3S6965 that QEMU models (docs/spec/08 §2); reads and writes of its registers have no
//! effect on Rust's memory.
#![allow(unsafe_code, reason = "registers; see the module's comment")]

use core::ptr::{read_volatile, write_volatile};

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

pub fn unmask_ethernet() {
    device_qemu::unmask(ETHERNET_IRQ);
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
