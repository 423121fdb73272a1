//! The device of the tests: a Cortex-M3 with 256 KiB of flash and 64 KiB of RAM, in QEMU (docs/spec/08 §2).
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod blink;
mod board;
mod files;
mod machine;
mod nic;

use agent_core::baked::Baked;
use agent_embedded::board::Board as _;
use agent_embedded::{Image, Space};
use embassy_executor::{Spawner, raw};
use embassy_net::{Config, Runner, Stack, StackResources};
use static_cell::{ConstStaticCell, StaticCell};

use crate::board::Lm3s;
use crate::files::Files;
use crate::nic::Nic;

/// The processor's clock at reset, kHz.
const FREQUENCY_KHZ: u32 = 12_500;
/// For addresses, for one connection, and for names.
const SOCKETS: usize = if cfg!(feature = "dns") { 3 } else { 2 };

agent_embedded::agents! {
    struct Mine { blink: blink::Blink }
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Nic>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn agent(stack: Stack<'static>) {
    // const: made at build time, or it would be made on the stack first
    static SPACE: ConstStaticCell<Space> = ConstStaticCell::new(Space::new());
    let board = Lm3s::new();
    let baked = baked();
    let image = Image::of(baked, "lm3s");
    board.say(format_args!("baked {:016x}", u64::from_be_bytes(baked.digest)));
    stack.wait_config_up().await;
    board.say(format_args!("address"));
    let mut own = Mine { blink: blink::Blink::default() };
    agent_embedded::run(&board, &mut Files::open(), &mut own, &image, stack, SPACE.take()).await
}

/// What the image was given. Not a part of the task: what reading it takes of the stack would be taken for ever.
#[inline(never)]
fn baked() -> &'static Baked<'static> {
    static BAKED: StaticCell<Baked<'static>> = StaticCell::new();
    match Baked::parse(machine::baked()) {
        Ok(baked) => BAKED.init(baked),
        Err(error) => {
            Lm3s::print(format_args!("not starting: {}", error.message()));
            device_qemu::exit(false)
        }
    }
}

#[cortex_m_rt::entry]
fn main() -> ! {
    device_qemu::run(start())
}

/// Network and agent as tasks. Not a part of `main`, whose stack is never given back.
#[inline(never)]
fn start() -> &'static raw::Executor {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    static RESOURCES: StaticCell<StackResources<SOCKETS>> = StaticCell::new();
    if let Some(peripherals) = cortex_m::Peripherals::take() {
        device_qemu::start_clock(peripherals.SYST, FREQUENCY_KHZ);
    }
    let mut seed = [0_u8; 8];
    if Lm3s::new().random(&mut seed).is_err() {
        device_qemu::exit(false);
    }
    let (stack, runner) = embassy_net::new(
        Nic::start(),
        Config::dhcpv4(Default::default()),
        RESOURCES.init_with(StackResources::new),
        u64::from_le_bytes(seed),
    );
    let executor: &'static raw::Executor = EXECUTOR.init_with(|| raw::Executor::new(core::ptr::null_mut()));
    let spawner: Spawner = executor.spawner();
    match (network(runner), agent(stack)) {
        (Ok(network), Ok(agent)) => {
            spawner.spawn(network);
            spawner.spawn(agent);
        }
        _ => device_qemu::exit(false),
    }
    executor
}

/// The end of a test; a real board would remember the place and start anew.
fn fault(pc: u32) -> ! {
    Lm3s::print(format_args!("fault at {pc:08x}"));
    device_qemu::exit(false)
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    // What it says would cost 10 KiB of flash.
    Lm3s::print(format_args!("panic"));
    device_qemu::exit(false)
}
