//! The board of the tests that runs what boards of real hardware share: their start, rest and records, the store on NOR flash,
//! the time server, the kept lines. QEMU's MPS2 with a Cortex-M3 (docs/spec/08 §9).
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod board;
mod light;
mod machine;
mod nic;
mod nor;
mod ruin;

use agent_embedded::board::Board as _;
use agent_embedded::flash::{FlashStore, ROOM};
use device_firmware::{Blink, DeviceLog, give_up, mishap, name, network, prepare, start};
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_executor::{Spawner, raw};
use embassy_net::Runner;
use static_cell::{ConstStaticCell, StaticCell};

use crate::board::Mps2;
use crate::light::Light;
use crate::nic::Nic;
use crate::nor::Nor;
use crate::ruin::Ruin;

/// The processor's clock, kHz.
const FREQUENCY_KHZ: u32 = 25_000;

agent_embedded::agents! {
    struct Mine { blink: Blink<Light>, log: DeviceLog, ruin: Ruin }
}

#[embassy_executor::task]
async fn addresses(mut runner: Runner<'static, Nic>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn device(spawner: Spawner) {
    static RECORDS: ConstStaticCell<[u8; ROOM]> = ConstStaticCell::new([0; ROOM]);
    machine::start_watchdog();
    let board = Mps2;
    // The chip does not say why it was reset: the watchdog's warning has left a record.
    let given = prepare(&board, mishap(false)).await;
    ruin::at_start(&board);

    let device = Nic::start();
    let chip = device.address();
    let name = name(env!("CARGO_PKG_NAME"), &chip);
    let mut seed = [0; 8];
    if board.random(&mut seed).is_err() {
        give_up(&board, "no entropy").await
    }
    let (stack, runner) = network(&given, device, &name, u64::from_le_bytes(seed));
    if let Ok(addresses) = addresses(runner) {
        spawner.spawn(addresses);
    }
    let store =
        Nor::open().and_then(|flash| FlashStore::new(BlockingAsync::new(flash), Nor::RANGE, RECORDS.take()));
    let Some(mut store) = store else { give_up(&board, "the store is no whole pages of flash").await };
    let mut own = Mine { blink: Blink::new(Light), log: DeviceLog, ruin: Ruin };
    start(&board, &mut store, &mut own, stack, &name, given).await
}

#[cortex_m_rt::entry]
fn main() -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    if let Some(peripherals) = cortex_m::Peripherals::take() {
        device_qemu::start_clock(peripherals.SYST, FREQUENCY_KHZ);
    }
    let executor: &'static raw::Executor = EXECUTOR.init_with(|| raw::Executor::new(core::ptr::null_mut()));
    let spawner = executor.spawner();
    if let Ok(device) = device(spawner) {
        spawner.spawn(device);
    }
    device_qemu::run(executor)
}
