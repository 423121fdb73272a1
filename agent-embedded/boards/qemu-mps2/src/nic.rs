//! The board's LAN9118 as embassy-net wants it.

use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;
use static_cell::ConstStaticCell;

use crate::machine::{Register, read, unmask_ethernet, write};

/// An Ethernet frame, its checksum included, in whole words.
const FRAME: usize = 1520;
const CHECKSUM: usize = 4;

/// Interrupt: a frame has been received.
const RECEIVED: u32 = 1 << 3;
/// Interrupts reach the processor, by a line that is high while one is pending.
const TO_THE_PROCESSOR: u32 = 1 << 8 | 1 << 4 | 1;
const TRANSMITTER_ON: u32 = 1 << 1;
/// A buffer that is a whole frame.
const FIRST_AND_LAST: u32 = 1 << 13 | 1 << 12;

/// Registers of the controller's MAC, which are reached through two others.
const MAC_CONTROL: u32 = 1;
const MAC_ADDRESS_HIGH: u32 = 2;
const MAC_ADDRESS_LOW: u32 = 3;
const MAC_BUSY: u32 = 1 << 31;
const MAC_READ: u32 = 1 << 30;
/// The MAC sends and receives.
const MAC_ON: u32 = 1 << 3 | 1 << 2;

static WAKER: AtomicWaker = AtomicWaker::new();
/// One frame to read and one to write, both at once: an answer is built while its question is read.
static FRAMES: ConstStaticCell<[[u8; FRAME]; 2]> = ConstStaticCell::new([[0; FRAME]; 2]);

/// The controller has a frame for us.
pub fn interrupted() {
    write(Register::InterruptEnable, 0);
    WAKER.wake();
}

/// The controller, and its frames.
#[derive(Debug)]
pub struct Nic {
    incoming: &'static mut [u8; FRAME],
    outgoing: &'static mut [u8; FRAME],
    address: [u8; 6],
}

impl Nic {
    /// Takes the controller. Once.
    pub fn start() -> Nic {
        write(Register::InterruptConfiguration, TO_THE_PROCESSOR);
        write(Register::TransmitConfiguration, TRANSMITTER_ON);
        write(Register::MacData, MAC_ON);
        write(Register::MacCommand, MAC_BUSY | MAC_CONTROL);
        unmask_ethernet();
        let [a, b, c, d] = mac(MAC_ADDRESS_LOW).to_le_bytes();
        let [e, f, ..] = mac(MAC_ADDRESS_HIGH).to_le_bytes();
        let [incoming, outgoing] = FRAMES.take();
        Nic { incoming, outgoing, address: [a, b, c, d, e, f] }
    }

    /// As QEMU was told.
    pub fn address(&self) -> [u8; 6] {
        self.address
    }
}

fn mac(register: u32) -> u32 {
    write(Register::MacCommand, MAC_BUSY | MAC_READ | register);
    read(Register::MacData)
}

/// A frame that is still in the controller.
#[derive(Debug)]
pub struct Received<'n>(&'n mut [u8; FRAME]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        let length = (read(Register::ReceiveStatus) >> 16 & 0x3fff) as usize;
        let mut bytes = self.0.iter_mut();
        // all of it, or the next frame would begin with its rest
        for _ in 0..length.div_ceil(4) {
            let word = read(Register::ReceiveData).to_le_bytes();
            word.into_iter().zip(bytes.by_ref()).for_each(|(from, to)| *to = from);
        }
        f(self.0.get_mut(..length.saturating_sub(CHECKSUM)).unwrap_or_default())
    }
}

/// Room for a frame.
#[derive(Debug)]
pub struct ToSend<'n>(&'n mut [u8; FRAME]);

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let length = len.min(FRAME);
        self.0.fill(0);
        let result = f(self.0.get_mut(..length).unwrap_or_default());
        write(Register::TransmitData, FIRST_AND_LAST | length as u32);
        write(Register::TransmitData, length as u32);
        let mut bytes = self.0.iter().copied();
        let mut next = || bytes.next().unwrap_or_default();
        for _ in 0..length.div_ceil(4) {
            write(Register::TransmitData, u32::from_le_bytes([next(), next(), next(), next()]));
        }
        // how it went is nobody's business; the controller has room for so many answers
        for _ in 0..read(Register::TransmitUsed) >> 16 & 0xff {
            read(Register::TransmitStatus);
        }
        result
    }
}

impl Driver for Nic {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Received<'_>, ToSend<'_>)> {
        WAKER.register(cx.waker());
        write(Register::Interrupts, RECEIVED);
        if read(Register::ReceiveUsed) >> 16 & 0xff == 0 {
            write(Register::InterruptEnable, RECEIVED);
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
        HardwareAddress::Ethernet(self.address)
    }
}
