//! Links agent-core into an image that has no operating system and no allocator.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use agent_core as _;
use ed25519_compact as _;
use panic_halt as _;

#[cortex_m_rt::entry]
fn main() -> ! {
    loop {}
}
