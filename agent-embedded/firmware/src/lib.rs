//! What every board of real hardware shares (docs/spec/08 §7): how it starts, what its image was given, what ended its last
//! run, its name, its lines of text and the last of them. A board adds its chip: pins, network, entropy, watchdog, flash.
#![cfg_attr(not(test), no_std)]

mod blink;
mod health;
mod line;
mod log;
mod machine;
mod mishap;
mod name;
mod start;

pub use blink::Blink;
pub use health::{Health, whiten};
pub use line::Line;
pub use log::{DeviceLog, keep};
pub use machine::{baked, mishap, remember};
pub use mishap::{Cause, Mishap};
pub use name::{Name, hardware_address, name};
pub use start::{Given, give_up, network, prepare, start};
