//! The board as the agent sees it: a serial line, the watchdog, the chip's number.

use core::cell::RefCell;
use core::fmt;

use agent_core::rpc::ReplyWriter;
use agent_embedded::board::{Board, NoEntropy};
use device_firmware::{Line, keep};
use embassy_rp::Peri;
use embassy_rp::flash::{Blocking, Flash};
use embassy_rp::peripherals::{FLASH, PIN_0, UART0, WATCHDOG};
use embassy_rp::uart::{Blocking as Plain, Config, UartTx};
use embassy_rp::watchdog::{ResetReason, Watchdog};
use embassy_time::{Duration, Instant};

/// The longest that the RP2040's watchdog waits is 8.3 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// An RP2040 or RP2350.
pub struct Rp {
    serial: RefCell<UartTx<'static, Plain>>,
    watchdog: RefCell<Watchdog>,
}

impl Rp {
    /// Starts the watchdog. The second value: whether it was the watchdog that ended the last run.
    pub fn new(
        serial: Peri<'static, UART0>,
        pin: Peri<'static, PIN_0>,
        watchdog: Peri<'static, WATCHDOG>,
    ) -> (Rp, bool) {
        let serial = UartTx::new_blocking(serial, pin, Config::default());
        let mut watchdog = Watchdog::new(watchdog);
        let bitten = watchdog.reset_reason() == Some(ResetReason::TimedOut);
        watchdog.pause_on_debug(true);
        watchdog.start(PATIENCE);
        (Rp { serial: RefCell::new(serial), watchdog: RefCell::new(watchdog) }, bitten)
    }
}

/// What no other chip has: the RP2040 takes the number of its flash, the RP2350 has one of its own.
#[cfg(not(feature = "rp2350"))]
pub fn chip_number<const BYTES: usize>(flash: &mut Flash<'static, FLASH, Blocking, BYTES>) -> [u8; 8] {
    let mut number = [0; 8];
    // A chip that cannot say leaves zeros: the name is then the same for all such, and the broker has one of them.
    let _none = flash.blocking_unique_id(&mut number).is_err();
    number
}

#[cfg(feature = "rp2350")]
pub fn chip_number<const BYTES: usize>(_: &mut Flash<'static, FLASH, Blocking, BYTES>) -> [u8; 8] {
    embassy_rp::otp::get_chipid().unwrap_or_default().to_be_bytes()
}

impl Board for Rp {
    fn random(&self, buffer: &mut [u8]) -> Result<(), NoEntropy> {
        crate::entropy::fill(buffer)
    }

    fn wall_nanos(&self) -> Option<i64> {
        None
    }

    fn reset(&self) -> ! {
        // By the watchdog's own hand: a reset of the processor alone would leave the chip saying that the watchdog bit, as it
        // did after the last bite, and an asked-for restart would be a mishap.
        self.watchdog.borrow_mut().trigger_reset();
        loop {
            cortex_m::asm::nop();
        }
    }

    fn feed_watchdog(&self) {
        self.watchdog.borrow_mut().feed(PATIENCE);
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        let line = Line::new(line);
        keep(&line);
        // Nobody may listen.
        let _sent = self.serial.borrow_mut().blocking_write(line.bytes()).is_ok();
    }

    fn facts(&self, out: &mut ReplyWriter<'_>) {
        out.str("board", env!("CARGO_PKG_NAME"));
        out.str("architecture", if cfg!(feature = "rp2350") { "armv8m" } else { "armv6m" });
        out.uint("flash_kib", 2048);
        out.uint("ram_kib", if cfg!(feature = "rp2350") { 520 } else { 264 });
        out.uint("uptime", Instant::now().as_secs());
    }
}
