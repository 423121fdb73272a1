//! An ST NUCLEO-H743ZI2: Cortex-M7, Ethernet by RMII and an LAN8742A (docs/spec/08 §9).
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod board;
mod machine;

use core::cell::RefCell;

use agent_embedded::board::Board as _;
use agent_embedded::flash::{FlashStore, ROOM};
use device_firmware::{Blink, DeviceLog, give_up, hardware_address, mishap, name, network, prepare, start};
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_executor::Spawner;
use embassy_stm32::eth::{self, Ethernet, GenericPhy, Sma};
use embassy_stm32::flash::Flash;
use embassy_stm32::gpio::{Level, Output, Speed};
use embassy_stm32::peripherals::{ETH, ETH_SMA, RNG};
use embassy_stm32::rng::{self, Rng};
use embassy_stm32::time::Hertz;
use embassy_stm32::usart::UartTx;
use embassy_stm32::wdg::IndependentWatchdog;
use embassy_stm32::{Config, rcc};
use static_cell::ConstStaticCell;

use crate::board::{Nucleo, PATIENCE_US, bitten};

/// The credential store: region STORE of memory.x, as bytes of flash.
const STORE: core::ops::Range<u32> = 0x1c_0000..0x20_0000;

embassy_stm32::bind_interrupts!(struct Interrupts {
    ETH => eth::InterruptHandler;
    RNG => rng::InterruptHandler<RNG>;
});

agent_embedded::agents! {
    struct Mine { blink: Blink<Output<'static>>, log: DeviceLog }
}

type Nic = Ethernet<'static, ETH, GenericPhy<Sma<'static, ETH_SMA>>>;

#[embassy_executor::task]
async fn addresses(mut runner: embassy_net::Runner<'static, Nic>) -> ! {
    runner.run().await
}

/// 400 MHz from the 8 MHz of the debugger's crystal, 200 MHz for the buses; 48 MHz of its own for the random numbers. The
/// chip's own oscillator is off by minutes a day, and with it the time that a time server has said.
fn clocks() -> Config {
    let mut config = Config::default();
    config.rcc.hse = Some(rcc::Hse { freq: Hertz(8_000_000), mode: rcc::HseMode::Bypass });
    config.rcc.csi = true;
    config.rcc.hsi48 = Some(Default::default());
    config.rcc.pll1 = Some(rcc::Pll {
        source: rcc::PllSource::HSE,
        prediv: rcc::PllPreDiv::DIV1,
        mul: rcc::PllMul::MUL100,
        fracn: None,
        divp: Some(rcc::PllDiv::DIV2),
        divq: None,
        divr: None,
    });
    config.rcc.sys = rcc::Sysclk::PLL1_P;
    config.rcc.ahb_pre = rcc::AHBPrescaler::DIV2;
    config.rcc.apb1_pre = rcc::APBPrescaler::DIV2;
    config.rcc.apb2_pre = rcc::APBPrescaler::DIV2;
    config.rcc.apb3_pre = rcc::APBPrescaler::DIV2;
    config.rcc.apb4_pre = rcc::APBPrescaler::DIV2;
    config.rcc.voltage_scale = rcc::VoltageScale::Scale1;
    config
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    static RECORDS: ConstStaticCell<[u8; ROOM]> = ConstStaticCell::new([0; ROOM]);
    let bitten = bitten();
    let p = embassy_stm32::init(clocks());
    let mut watchdog = IndependentWatchdog::new(p.IWDG1, PATIENCE_US);
    watchdog.unleash();
    let board = Nucleo {
        serial: UartTx::new_blocking(p.USART3, p.PD8, Default::default()).ok().map(RefCell::new),
        watchdog: RefCell::new(watchdog),
        random: RefCell::new(Rng::new(p.RNG, Interrupts)),
    };
    let given = prepare(&board, mishap(bitten)).await;
    let chip = embassy_stm32::uid::uid();
    let name = name(env!("CARGO_PKG_NAME"), &chip);

    let mut seed = [0; 8];
    if board.random(&mut seed).is_err() {
        give_up(&board, "no entropy").await
    }
    let device: Nic = Ethernet::new(
        machine::frames(),
        p.ETH,
        Interrupts,
        p.PA1,
        p.PA7,
        p.PC4,
        p.PC5,
        p.PG13,
        p.PB13,
        p.PG11,
        hardware_address(&chip),
        p.ETH_SMA,
        p.PA2,
        p.PC1,
    );
    let (stack, runner) = network(&given, device, &name, u64::from_le_bytes(seed));
    if let Ok(addresses) = addresses(runner) {
        spawner.spawn(addresses);
    }
    let flash = BlockingAsync::new(Flash::new_blocking(p.FLASH));
    let Some(mut store) = FlashStore::new(flash, STORE, RECORDS.take()) else {
        give_up(&board, "the store is no whole pages of flash").await
    };
    let mut own = Mine { blink: Blink::new(Output::new(p.PB0, Level::Low, Speed::Low)), log: DeviceLog };
    start(&board, &mut store, &mut own, stack, &name, given).await
}
