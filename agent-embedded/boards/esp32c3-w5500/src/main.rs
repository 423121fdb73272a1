//! An ESP32-C3 with a WIZnet W5500 on its SPI (docs/spec/08 §9): its radio needs an allocator, and nothing here has one.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod board;

use core::cell::RefCell;

use agent_embedded::board::Board as _;
use agent_embedded::flash::{FlashStore, ROOM};
use device_firmware::{
    Blink, Cause, DeviceLog, give_up, hardware_address, mishap, name, network, prepare, remember, start,
};
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_executor::Spawner;
use embassy_net_wiznet::chip::W5500;
use embassy_net_wiznet::{Device, State};
use embassy_time::Delay;
use embedded_hal_bus::spi::ExclusiveDevice;
use esp_hal::Async;
use esp_hal::efuse::base_mac_address;
use esp_hal::gpio::{Input, InputConfig, Level, Output, OutputConfig, Pull};
use esp_hal::rng::TrngSource;
use esp_hal::rtc_cntl::{Rtc, RwdtStage};
use esp_hal::spi::master::{Config, Spi};
use esp_hal::time::{Duration, Rate};
use esp_hal::timer::timg::TimerGroup;
use esp_hal::uart::UartTx;
use esp_storage::FlashStorage;
use static_cell::ConstStaticCell;

use crate::board::{Esp, bitten};

/// The credential store: partition `nvs` of the usual partition table, which nothing else of this program uses.
const STORE: core::ops::Range<u32> = 0x9000..0xf000;
const PATIENCE: Duration = Duration::from_secs(8);

// The times are none: the same source gives the same image.
esp_bootloader_esp_idf::esp_app_desc!(
    env!("CARGO_PKG_VERSION"),
    env!("CARGO_PKG_NAME"),
    "00:00:00",
    "1970-01-01",
    esp_bootloader_esp_idf::ESP_IDF_COMPATIBLE_VERSION,
    esp_bootloader_esp_idf::MMU_PAGE_SIZE,
    0,
    u16::MAX,
    esp_bootloader_esp_idf::SECURE_VERSION
);

agent_embedded::agents! {
    struct Mine { blink: Blink<Output<'static>>, log: DeviceLog }
}

type Bus = ExclusiveDevice<Spi<'static, Async>, Output<'static>, Delay>;

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

#[esp_rtos::main]
async fn main(spawner: Spawner) {
    static FRAMES: ConstStaticCell<State<2, 2>> = ConstStaticCell::new(State::new());
    static RECORDS: ConstStaticCell<[u8; ROOM]> = ConstStaticCell::new([0; ROOM]);
    let p = esp_hal::init(esp_hal::Config::default());
    esp_rtos::start(TimerGroup::new(p.TIMG0).timer0, p.FROM_CPU_INTR0);
    let mut watchdog = Rtc::new(p.RTC_TIMER);
    watchdog.rwdt.set_timeout(RwdtStage::Stage0, PATIENCE);
    watchdog.rwdt.enable();
    let serial = UartTx::new(p.UART0, Default::default()).ok();
    let board = Esp {
        serial: serial.map(|serial| RefCell::new(serial.with_tx(p.GPIO21))),
        watchdog: RefCell::new(watchdog),
        noise: TrngSource::new(p.RNG, p.ADC1),
    };
    let given = prepare(&board, mishap(bitten())).await;
    let chip = base_mac_address();
    let name = name(env!("CARGO_PKG_NAME"), chip.as_bytes());

    let fast = Config::default().with_frequency(Rate::from_mhz(40));
    let Ok(spi) = Spi::new(p.SPI2, fast) else { give_up(&board, "the SPI does not start").await };
    let spi = spi.with_sck(p.GPIO4).with_mosi(p.GPIO6).with_miso(p.GPIO5).into_async();
    let select = Output::new(p.GPIO7, Level::High, OutputConfig::default());
    let Ok(bus) = ExclusiveDevice::new(spi, select, Delay);
    let interrupt = Input::new(p.GPIO10, InputConfig::default().with_pull(Pull::Up));
    let reset = Output::new(p.GPIO3, Level::High, OutputConfig::default());
    let address = hardware_address(chip.as_bytes());
    let made = embassy_net_wiznet::new(address, FRAMES.take(), bus, interrupt, reset).await;
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
    let flash = BlockingAsync::new(FlashStorage::new(p.FLASH));
    let Some(mut store) = FlashStore::new(flash, STORE, RECORDS.take()) else {
        give_up(&board, "the store is no whole pages of flash").await
    };
    let light = Output::new(p.GPIO8, Level::Low, OutputConfig::default());
    let mut own = Mine { blink: Blink::new(light), log: DeviceLog };
    start(&board, &mut store, &mut own, stack, &name, given).await
}

/// A record, and a new start. Exceptions of the processor end here, too.
#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    remember(Cause::of_panic(info));
    esp_hal::system::software_reset()
}
