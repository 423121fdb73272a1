//! The board as the agent sees it: a serial line, the watchdog, the generator of random numbers.

use core::cell::RefCell;
use core::fmt;

use agent_core::rpc::ReplyWriter;
use agent_embedded::board::{Board, NoEntropy};
use device_firmware::{Health, Line, keep, whiten};
use embassy_time::Instant;
use esp_hal::Blocking;
use esp_hal::rng::{Trng, TrngSource};
use esp_hal::rtc_cntl::{Rtc, SocResetReason, reset_reason};
use esp_hal::system::{Cpu, software_reset};
use esp_hal::uart::UartTx;

/// Raw bytes for each 32 that are given out.
const RAW: usize = 512;

/// The ESP32-C3.
pub struct Esp {
    pub serial: Option<RefCell<UartTx<'static, Blocking>>>,
    pub watchdog: RefCell<Rtc<'static>>,
    /// Without it the generator is a shift register: it keeps the converter's noise switched on.
    #[expect(dead_code, reason = "held: when it is dropped, the noise goes")]
    pub noise: TrngSource<'static>,
}

/// Whether the watchdog ended the last run.
pub fn bitten() -> bool {
    matches!(
        reset_reason(Cpu::ProCpu),
        Some(SocResetReason::CoreRtcWdt | SocResetReason::Cpu0RtcWdt | SocResetReason::SysRtcWdt)
    )
}

impl Board for Esp {
    fn random(&self, buffer: &mut [u8]) -> Result<(), NoEntropy> {
        let trng = Trng::try_new().map_err(|_| NoEntropy)?;
        let mut health = Health::default();
        whiten(buffer, RAW, || {
            let mut byte = [0];
            trng.read(&mut byte);
            let [byte] = byte;
            for bit in 0..u8::BITS {
                health.bit(byte >> bit & 1 == 1)?;
            }
            Ok(byte)
        })
    }

    fn wall_nanos(&self) -> Option<i64> {
        None
    }

    fn reset(&self) -> ! {
        software_reset()
    }

    fn feed_watchdog(&self) {
        self.watchdog.borrow_mut().rwdt.feed();
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        let line = Line::new(line);
        keep(&line);
        let Some(serial) = &self.serial else { return };
        let mut rest = line.bytes();
        while let Ok(written @ 1..) = serial.borrow_mut().write(rest) {
            rest = rest.get(written..).unwrap_or_default();
        }
    }

    fn facts(&self, out: &mut ReplyWriter<'_>) {
        out.str("board", env!("CARGO_PKG_NAME"));
        out.str("architecture", "riscv32imc");
        out.uint("flash_kib", 4096);
        out.uint("ram_kib", 400);
        out.uint("uptime", Instant::now().as_secs());
    }
}
