//! Runs the cases in the file `cases` and writes their outcomes, a line each, to the file `outcomes`; the last line says how
//! many there were and how much stack they took. Exit status 0 when all were run.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod machine;

use core::fmt::{self, Write as _};

use choria_conformance::{Source, Space, run};
use device_qemu::{File, Mode};
use ed25519_compact as _;
use sha2 as _;
use static_cell::ConstStaticCell;

struct Cases(File);

impl Source for Cases {
    fn read(&mut self, room: &mut [u8]) -> usize {
        self.0.read(room)
    }
}

/// Lines on their way to the host: a call for each piece of text would take longer than most cases.
struct Outcomes {
    file: File,
    waiting: [u8; 512],
    length: usize,
}

impl Outcomes {
    fn flush(&mut self) -> fmt::Result {
        let written = self.file.write(self.waiting.get(..self.length).unwrap_or_default());
        self.length = 0;
        if written { Ok(()) } else { Err(fmt::Error) }
    }
}

impl fmt::Write for Outcomes {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.length == self.waiting.len() {
                self.flush()?;
            }
            if let Some(to) = self.waiting.get_mut(self.length) {
                *to = byte;
            }
            self.length += 1;
        }
        Ok(())
    }
}

#[cortex_m_rt::entry]
fn main() -> ! {
    // const: made at build time, or it would be made on the stack first
    static SPACE: ConstStaticCell<Space> = ConstStaticCell::new(Space::new());
    let (Some(cases), Some(file)) = (File::open(c"cases", Mode::Read), File::open(c"outcomes", Mode::Write))
    else {
        device_qemu::exit(false)
    };
    let mut outcomes = Outcomes { file, waiting: [0; 512], length: 0 };
    let ran = run(SPACE.take(), &mut Cases(cases), &mut outcomes);
    let stack = device_qemu::stack_high_water();
    let said = match ran {
        Ok(count) => writeln!(outcomes, "{count} cases, stack {stack}"),
        Err(fault) => writeln!(outcomes, "ended early: {fault:?}"),
    };
    let whole = said.and_then(|()| outcomes.flush()).is_ok() && outcomes.file.close();
    device_qemu::exit(ran.is_ok() && whole)
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    device_qemu::exit(false)
}
