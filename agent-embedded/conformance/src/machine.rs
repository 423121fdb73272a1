//! The only unsafe code of this image: the entry of a fault, which cortex-m-rt wants to be `unsafe`.
#![allow(unsafe_code, reason = "the handler's signature; nothing is done with the frame")]

/// A fault, or a panic of a build that turns one into the other.
#[cortex_m_rt::exception]
unsafe fn HardFault(_: &cortex_m_rt::ExceptionFrame) -> ! {
    device_qemu::exit(false)
}
