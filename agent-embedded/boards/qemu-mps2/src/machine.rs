//! The only unsafe code of this board: registers.
//!
//! Addresses are those of the MPS2 with the AN385 image that QEMU models (Arm DAI 0385); reads and writes of its registers
//! have no effect on Rust's memory.
#![allow(unsafe_code, reason = "registers; see the module's comment")]

use core::ptr::{read_volatile, write_volatile};

use device_firmware::{Cause, remember};

/// The Ethernet controller's interrupt.
const ETHERNET_IRQ: u16 = 13;
/// Ticks of 25 MHz until the watchdog warns; after as many again it resets the board. Eight seconds, as the RP2040's.
const PATIENCE: u32 = 8 * 25_000_000;

/// Registers, by address.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub enum Register {
    WatchdogLoad = 0x4000_8000,
    /// Bit 0: count and warn, bit 1: reset.
    WatchdogControl = 0x4000_8008,
    /// A write takes the warning back and starts anew.
    WatchdogClear = 0x4000_800c,
    Leds = 0x4002_8000,
    // The LAN9118.
    ReceiveData = 0x4020_0000,
    TransmitData = 0x4020_0020,
    ReceiveStatus = 0x4020_0040,
    TransmitStatus = 0x4020_0048,
    InterruptConfiguration = 0x4020_0054,
    /// Pending; written ones are taken back.
    Interrupts = 0x4020_0058,
    InterruptEnable = 0x4020_005c,
    TransmitConfiguration = 0x4020_0070,
    /// Frames received in bits 16 to 23.
    ReceiveUsed = 0x4020_007c,
    /// Results of sent frames in bits 16 to 23.
    TransmitUsed = 0x4020_0080,
    MacCommand = 0x4020_00a4,
    MacData = 0x4020_00a8,
}

pub fn read(register: Register) -> u32 {
    // SAFETY: a register of the board, aligned; see the module's comment.
    unsafe { read_volatile(register as usize as *const u32) }
}

pub fn write(register: Register, value: u32) {
    // SAFETY: as in `read`.
    unsafe { write_volatile(register as usize as *mut u32, value) }
}

pub fn unmask_ethernet() {
    device_qemu::unmask(ETHERNET_IRQ);
}

#[cortex_m_rt::exception]
unsafe fn DefaultHandler(interrupt: i16) {
    if interrupt == i16::try_from(ETHERNET_IRQ).unwrap_or(i16::MAX) {
        crate::nic::interrupted();
    }
}

/// Starts the watchdog.
pub fn start_watchdog() {
    write(Register::WatchdogLoad, PATIENCE);
    write(Register::WatchdogControl, 0b11);
}

pub fn feed_watchdog() {
    write(Register::WatchdogClear, 1);
}

/// The watchdog's warning: nothing goes on any more, and the reset follows.
#[cortex_m_rt::exception]
unsafe fn NonMaskableInt() -> ! {
    remember(Cause::Watchdog);
    loop {
        cortex_m::asm::nop();
    }
}
