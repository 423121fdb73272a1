//! A Raspberry Pi microcontroller with a WIZnet W5500: W5500-EVB-Pico (RP2040) and W5500-EVB-Pico2 (RP2350), docs/spec/08 §9.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod board;
#[cfg_attr(feature = "rp2350", path = "trng.rs")]
#[cfg_attr(not(feature = "rp2350"), path = "rosc.rs")]
mod entropy;

use agent_embedded::board::Board as _;
use agent_embedded::flash::{FlashStore, ROOM};
use device_firmware::{Blink, DeviceLog, give_up, hardware_address, mishap, name, network, prepare, start};
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_executor::Spawner;
use embassy_net_wiznet::chip::W5500;
use embassy_net_wiznet::{Device, State};
use embassy_rp::dma;
use embassy_rp::flash::{Blocking, Flash};
use embassy_rp::gpio::{Input, Level, Output, Pull};
use embassy_rp::peripherals::{DMA_CH0, DMA_CH1, FLASH, SPI0};
use embassy_rp::spi::{self, Async, Spi};
use embassy_time::Delay;
use embedded_hal_bus::spi::ExclusiveDevice;
use static_cell::ConstStaticCell;

use crate::board::{Rp, chip_number};

/// The board's flash chip, 2 MiB.
const FLASH_BYTES: usize = 2 * 1024 * 1024;
/// The credential store: region STORE of memory.x, as bytes of flash.
const STORE: core::ops::Range<u32> = 0x1f_c000..0x20_0000;

embassy_rp::bind_interrupts!(struct Interrupts {
    DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>, dma::InterruptHandler<DMA_CH1>;
});

agent_embedded::agents! {
    struct Mine { blink: Blink<Output<'static>>, log: DeviceLog }
}

type Bus = ExclusiveDevice<Spi<'static, SPI0, Async>, Output<'static>, Delay>;

#[embassy_executor::task]
async fn ethernet(
    runner: embassy_net_wiznet::Runner<'static, W5500, Bus, Input<'static>, Output<'static>>,
) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn addresses(mut runner: embassy_net::Runner<'static, Device<'static>>) -> ! {
    runner.run().await
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    static FRAMES: ConstStaticCell<State<2, 2>> = ConstStaticCell::new(State::new());
    static RECORDS: ConstStaticCell<[u8; ROOM]> = ConstStaticCell::new([0; ROOM]);
    let p = embassy_rp::init(Default::default());
    let (board, bitten) = Rp::new(p.UART0, p.PIN_0, p.WATCHDOG);
    let given = prepare(&board, mishap(bitten)).await;
    let mut flash = Flash::<FLASH, Blocking, FLASH_BYTES>::new_blocking(p.FLASH);
    let chip = chip_number(&mut flash);
    let name = name(env!("CARGO_PKG_NAME"), &chip);

    let mut fast = spi::Config::default();
    fast.frequency = 40_000_000;
    let spi = Spi::new(p.SPI0, p.PIN_18, p.PIN_19, p.PIN_16, p.DMA_CH0, p.DMA_CH1, Interrupts, fast);
    let Ok(bus) = ExclusiveDevice::new(spi, Output::new(p.PIN_17, Level::High), Delay);
    let (interrupt, reset) = (Input::new(p.PIN_21, Pull::Up), Output::new(p.PIN_20, Level::High));
    let made = embassy_net_wiznet::new(hardware_address(&chip), FRAMES.take(), bus, interrupt, reset).await;
    let Ok((device, runner)) = made else { give_up(&board, "the W5500 does not answer").await };
    let mut seed = [0; 8];
    if board.random(&mut seed).is_err() {
        give_up(&board, "no entropy").await
    }
    let (stack, addresses_runner) = network(&given, device, &name, u64::from_le_bytes(seed));
    if let (Ok(ethernet), Ok(addresses)) = (ethernet(runner), addresses(addresses_runner)) {
        spawner.spawn(ethernet);
        spawner.spawn(addresses);
    }
    let Some(mut store) = FlashStore::new(BlockingAsync::new(flash), STORE, RECORDS.take()) else {
        give_up(&board, "the store is no whole pages of flash").await
    };
    let mut own = Mine { blink: Blink::new(Output::new(p.PIN_25, Level::Low)), log: DeviceLog };
    start(&board, &mut store, &mut own, stack, &name, given).await
}
