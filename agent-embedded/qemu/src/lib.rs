//! What every image for QEMU shares (docs/spec/08 §2): the host's files, text and clock by semihosting, the most that the
//! stack has held, and with `tasks` a clock and a loop for embassy's executor.
#![no_std]

mod machine;
#[cfg(feature = "tasks")]
mod time;

#[cfg(feature = "tasks")]
pub use machine::run;
pub use machine::{
    File, Mode, exists, exit, host_seconds, print, random, remove, rename, stack_high_water, unmask,
};
#[cfg(feature = "tasks")]
pub use time::start as start_clock;
