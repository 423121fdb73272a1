//! The board as the agent sees it: everything that QEMU lends it.

use core::fmt::{self, Write as _};

use agent_core::rpc::ReplyWriter;
use agent_embedded::board::{Board, NoEntropy};
use embassy_time::Instant;

use crate::machine;

/// The LM3S6965 in QEMU.
#[derive(Debug)]
pub struct Lm3s {
    /// The host's clock is this board's.
    clock: bool,
}

impl Lm3s {
    /// A file `clock.none` in the folder that QEMU was started in makes it a board without a clock.
    pub fn new() -> Lm3s {
        Lm3s { clock: !device_qemu::exists(c"clock.none") }
    }

    /// Says something before there is a board, or after it.
    pub fn print(line: fmt::Arguments<'_>) {
        let mut text = Line { bytes: [0; 160], length: 0 };
        // A line that is cut off says enough.
        let _cut = write!(text, "{} {line}", Instant::now().as_millis()).is_err();
        let length = text.length;
        if let Some(end) = text.bytes.get_mut(length..) {
            end.iter_mut().zip(*b"\n\0").for_each(|(to, from)| *to = from);
        }
        if let Ok(text) = core::ffi::CStr::from_bytes_until_nul(&text.bytes) {
            device_qemu::print(text);
        }
    }
}

impl Board for Lm3s {
    fn random(&self, buffer: &mut [u8]) -> Result<(), NoEntropy> {
        // A file `entropy.none` in the folder that QEMU was started in is a source that has failed.
        if device_qemu::exists(c"entropy.none") {
            return Err(NoEntropy);
        }
        if device_qemu::random(buffer) { Ok(()) } else { Err(NoEntropy) }
    }

    fn wall_nanos(&self) -> Option<i64> {
        self.clock.then(|| device_qemu::host_seconds().saturating_mul(1_000_000_000))
    }

    fn reset(&self) -> ! {
        self.say(format_args!("stack {} bytes at most", device_qemu::stack_high_water()));
        machine::reset()
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        Lm3s::print(line);
    }

    fn facts(&self, out: &mut ReplyWriter<'_>) {
        out.str("board", "qemu-lm3s");
        out.str("architecture", "armv7m");
        out.uint("flash_kib", 256);
        out.uint("ram_kib", 64);
        out.uint("uptime", Instant::now().as_secs());
        out.uint("stack_high_water", device_qemu::stack_high_water() as u64);
    }
}

/// One line, without control characters, with room for its end.
struct Line {
    bytes: [u8; 160],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.length + 2 >= self.bytes.len() {
                return Err(fmt::Error);
            }
            let shown = if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' };
            if let Some(to) = self.bytes.get_mut(self.length) {
                *to = shown;
            }
            self.length += 1;
        }
        Ok(())
    }
}
