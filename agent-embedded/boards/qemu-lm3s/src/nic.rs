//! The Ethernet controller as embassy-net wants it (docs/spec/08 §2).

use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;
use static_cell::ConstStaticCell;

use crate::machine::{Register, read, unmask_ethernet, write};

/// An Ethernet frame without its checksum, in whole words.
const FRAME: usize = 1516;
const SHORTEST: usize = 60;

static WAKER: AtomicWaker = AtomicWaker::new();
/// One frame to read and one to write, both at once: an answer is built while its question is read. Static, because every
/// future that they were moved through would count them again.
static FRAMES: ConstStaticCell<[[u8; FRAME]; 2]> = ConstStaticCell::new([[0; FRAME]; 2]);

/// The controller has a frame for us.
pub fn interrupted() {
    write(Register::InterruptMask, 0);
    WAKER.wake();
}

/// The controller, and its frames.
#[derive(Debug)]
pub struct Nic {
    incoming: &'static mut [u8; FRAME],
    outgoing: &'static mut [u8; FRAME],
}

impl Nic {
    /// Takes the controller. Once.
    pub fn start() -> Nic {
        write(Register::ReceiveControl, 0x15);
        write(Register::TransmitControl, 0x07);
        unmask_ethernet();
        let [incoming, outgoing] = FRAMES.take();
        Nic { incoming, outgoing }
    }
}

/// A frame that is still in the controller.
#[derive(Debug)]
pub struct Received<'n>(&'n mut [u8; FRAME]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        // The first word has the length, which counts itself and the checksum, and the first two bytes.
        let first = read(Register::Data);
        let length = (first & 0xffff) as usize;
        let length = length.saturating_sub(6).min(FRAME);
        let mut bytes = self.0.iter_mut();
        let mut left = length + 4;
        for byte in first.to_le_bytes().into_iter().skip(2) {
            if let Some(to) = bytes.next() {
                *to = byte;
            }
            left = left.saturating_sub(1);
        }
        while left > 0 {
            for byte in read(Register::Data).to_le_bytes() {
                if let Some(to) = bytes.next() {
                    *to = byte;
                }
                left = left.saturating_sub(1);
            }
        }
        f(self.0.get_mut(..length).unwrap_or_default())
    }
}

/// Room for a frame.
#[derive(Debug)]
pub struct ToSend<'n>(&'n mut [u8; FRAME]);

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let length = len.clamp(SHORTEST, FRAME);
        self.0.fill(0);
        let result = f(self.0.get_mut(..len.min(FRAME)).unwrap_or_default());
        let mut bytes = self.0.iter().copied().take(length);
        let mut next = || bytes.next().unwrap_or_default();
        let count = (length - 14) as u32;
        write(Register::Data, count | u32::from(next()) << 16 | u32::from(next()) << 24);
        for _ in 0..(length - 2).div_ceil(4) {
            write(Register::Data, u32::from_le_bytes([next(), next(), next(), next()]));
        }
        write(Register::Transmit, 1);
        result
    }
}

impl Driver for Nic {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Received<'_>, ToSend<'_>)> {
        WAKER.register(cx.waker());
        write(Register::Interrupt, 1);
        if read(Register::PacketsWaiting) == 0 {
            write(Register::InterruptMask, 1);
            return None;
        }
        Some((Received(self.incoming), ToSend(self.outgoing)))
    }

    fn transmit(&mut self, _: &mut Context<'_>) -> Option<ToSend<'_>> {
        Some(ToSend(self.outgoing))
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = 1514;
        capabilities.max_burst_size = Some(1);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        let [a, b, c, d] = read(Register::AddressLow).to_le_bytes();
        let [e, f, ..] = read(Register::AddressHigh).to_le_bytes();
        HardwareAddress::Ethernet([a, b, c, d, e, f])
    }
}
