//! The board as the agent sees it: the debugger's serial line, the watchdog, the generator of random numbers.

use core::cell::RefCell;
use core::fmt;

use agent_core::rpc::ReplyWriter;
use agent_embedded::board::{Board, NoEntropy};
use device_firmware::{Line, keep};
use embassy_futures::poll_once;
use embassy_stm32::mode::Blocking;
use embassy_stm32::pac::RCC;
use embassy_stm32::peripherals::{IWDG1, RNG};
use embassy_stm32::rng::Rng;
use embassy_stm32::usart::UartTx;
use embassy_stm32::wdg::IndependentWatchdog;
use embassy_time::{Duration, Instant};

/// An erasure of the store's flash takes up to 4 s, in which nothing runs.
pub const PATIENCE_US: u32 = 16_000_000;
/// A word takes the generator a few microseconds.
const PATIENCE: Duration = Duration::from_millis(20);

/// The STM32H743.
pub struct Nucleo {
    pub serial: Option<RefCell<UartTx<'static, Blocking>>>,
    pub watchdog: RefCell<IndependentWatchdog<'static, IWDG1>>,
    pub random: RefCell<Rng<'static, RNG>>,
}

/// Whether the watchdog ended the last run; the chip forgets it then.
pub fn bitten() -> bool {
    let bitten = RCC.rsr().read().iwdg1rstf();
    RCC.rsr().modify(|w| w.set_rmvf(true));
    bitten
}

impl Board for Nucleo {
    fn random(&self, buffer: &mut [u8]) -> Result<(), NoEntropy> {
        let mut random = self.random.borrow_mut();
        for word in buffer.chunks_mut(4) {
            let until = Instant::now() + PATIENCE;
            loop {
                // ready, or not yet; an error of seed or clock is never read over
                match poll_once(random.async_fill_bytes(word)) {
                    core::task::Poll::Ready(Ok(())) => break,
                    core::task::Poll::Ready(Err(_)) => return Err(NoEntropy),
                    core::task::Poll::Pending if Instant::now() > until => return Err(NoEntropy),
                    core::task::Poll::Pending => {}
                }
            }
        }
        Ok(())
    }

    fn wall_nanos(&self) -> Option<i64> {
        None
    }

    fn reset(&self) -> ! {
        cortex_m::peripheral::SCB::sys_reset()
    }

    fn feed_watchdog(&self) {
        self.watchdog.borrow_mut().pet();
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        let line = Line::new(line);
        keep(&line);
        if let Some(serial) = &self.serial {
            // Nobody may listen.
            let _sent = serial.borrow_mut().blocking_write(line.bytes()).is_ok();
        }
    }

    fn facts(&self, out: &mut ReplyWriter<'_>) {
        out.str("board", env!("CARGO_PKG_NAME"));
        out.str("architecture", "armv7em");
        out.uint("flash_kib", 2048);
        out.uint("ram_kib", 512);
        out.uint("uptime", Instant::now().as_secs());
    }
}
