//! Milliseconds since the start, from SysTick, and embassy's timers on them.

use core::cell::{Cell, RefCell};
use core::task::Waker;

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use critical_section::Mutex;
use embassy_time_driver::{Driver, time_driver_impl};
use embassy_time_queue_utils::Queue;

struct Milliseconds {
    now: Mutex<Cell<u64>>,
    queue: Mutex<RefCell<Queue>>,
}

time_driver_impl!(static CLOCK: Milliseconds = Milliseconds {
    now: Mutex::new(Cell::new(0)),
    queue: Mutex::new(RefCell::new(Queue::new())),
});

impl Driver for Milliseconds {
    fn now(&self) -> u64 {
        critical_section::with(|cs| self.now.borrow(cs).get())
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            self.queue.borrow(cs).borrow_mut().schedule_wake(at, waker);
        });
    }
}

#[cortex_m_rt::exception]
fn SysTick() {
    critical_section::with(|cs| {
        let now = CLOCK.now.borrow(cs).get() + 1;
        CLOCK.now.borrow(cs).set(now);
        CLOCK.queue.borrow(cs).borrow_mut().next_expiration(now);
    });
}

/// Starts the clock; `frequency` is the processor's, in kHz.
pub fn start(mut syst: SYST, frequency: u32) {
    syst.set_clock_source(SystClkSource::Core);
    syst.set_reload(frequency.saturating_sub(1));
    syst.clear_current();
    syst.enable_counter();
    syst.enable_interrupt();
}
