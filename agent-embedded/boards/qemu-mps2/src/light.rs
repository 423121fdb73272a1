//! LED 0 as a pin.

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, OutputPin};

use crate::machine::{Register, read, write};

/// The LED of the board's FPGA.
#[derive(Debug)]
pub struct Light;

impl ErrorType for Light {
    type Error = Infallible;
}

impl OutputPin for Light {
    fn set_low(&mut self) -> Result<(), Infallible> {
        write(Register::Leds, read(Register::Leds) & !1);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        write(Register::Leds, read(Register::Leds) | 1);
        Ok(())
    }
}
