//! The board as the agent sees it: the watchdog, and what QEMU lends it of the host.

use core::ffi::CStr;
use core::fmt;

use agent_core::rpc::ReplyWriter;
use agent_embedded::board::{Board, NoEntropy};
use device_firmware::{Line, keep};
use embassy_time::Instant;

use crate::machine;

/// An MPS2 in QEMU.
#[derive(Debug)]
pub struct Mps2;

impl Board for Mps2 {
    fn random(&self, buffer: &mut [u8]) -> Result<(), NoEntropy> {
        if device_qemu::random(buffer) { Ok(()) } else { Err(NoEntropy) }
    }

    fn wall_nanos(&self) -> Option<i64> {
        None
    }

    fn reset(&self) -> ! {
        self.say(format_args!("stack {} bytes at most", device_qemu::stack_high_water()));
        cortex_m::peripheral::SCB::sys_reset()
    }

    fn feed_watchdog(&self) {
        machine::feed_watchdog();
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        let line = Line::new(line);
        keep(&line);
        // the host wants a zero byte behind it
        let mut text = [0; 192];
        text.iter_mut().zip(line.bytes()).for_each(|(to, from)| *to = *from);
        if let Ok(text) = CStr::from_bytes_until_nul(&text) {
            device_qemu::print(text);
        }
    }

    fn facts(&self, out: &mut ReplyWriter<'_>) {
        out.str("board", env!("CARGO_PKG_NAME"));
        out.str("architecture", "armv7m");
        out.uint("flash_kib", 4096);
        out.uint("ram_kib", 4096);
        out.uint("uptime", Instant::now().as_secs());
        out.uint("stack_high_water", device_qemu::stack_high_water() as u64);
        out.bool("led", machine::read(machine::Register::Leds) & 1 == 1);
    }
}
