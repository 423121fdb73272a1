//! From the board's own start to a running agent.

use agent_core::baked::Baked;
use agent_embedded::agents::Agents;
use agent_embedded::board::{Board, Store};
use agent_embedded::{Image, Space};
use embassy_futures::join::join;
use embassy_futures::select::{Either, select};
use embassy_net::driver::Driver;
use embassy_net::{Config, DhcpConfig, Runner, Stack, StackResources};
use embassy_time::{Duration, Timer};
use static_cell::{ConstStaticCell, StaticCell};

use crate::machine;
use crate::mishap::Mishap;

/// A run this long without a mishap is a good one.
const GOOD_RUN: Duration = Duration::from_secs(10 * 60);
/// How long a device that falls over again and again keeps off the network.
const REST: Duration = Duration::from_secs(5 * 60);

/// The network, with an address by DHCP; the first label of `name` is the name that the router sees. Once.
pub fn network<D: Driver>(driver: D, name: &str, seed: u64) -> (Stack<'static>, Runner<'static, D>) {
    // addresses, names, and one connection
    static SOCKETS: StaticCell<StackResources<3>> = StaticCell::new();
    let mut dhcp = DhcpConfig::default();
    dhcp.hostname = name.split('.').next().and_then(|label| label.try_into().ok());
    embassy_net::new(driver, Config::dhcpv4(dhcp), SOCKETS.init_with(StackResources::new), seed)
}

/// Says what ended the last run, and rests when too many have ended so. Before the board touches its network: a device that
/// falls over again and again sends nothing meanwhile (docs/spec/08 §7.7).
pub async fn recover<B: Board>(board: &B, mishap: Option<Mishap>) {
    let Some(mishap) = mishap else { return };
    board.say(format_args!("the last run ended: {} ({} in a row)", mishap.cause, mishap.in_a_row));
    if mishap.is_too_many() {
        board.say(format_args!("resting {} s", REST.as_secs()));
        fed(board, Timer::after(REST)).await;
    }
}

/// Runs the agent for ever. `name` is for a device whose image has none. The watchdog is fed from here on, and only by what
/// makes progress. Once.
pub async fn start<B: Board, S: Store, A: Agents>(
    board: &B,
    store: &mut S,
    own: &mut A,
    stack: Stack<'static>,
    name: &str,
) -> ! {
    // const: made at build time, or it would be made on the stack first
    static SPACE: ConstStaticCell<Space> = ConstStaticCell::new(Space::new());
    let baked = match Baked::parse(machine::baked()) {
        Ok(baked) => baked,
        Err(error) => {
            board.say(format_args!("not starting: {}", error.message()));
            // Nothing of it goes on until somebody writes another image.
            loop {
                fed(board, Timer::after(REST)).await;
            }
        }
    };
    board.say(format_args!("baked {:016x}", u64::from_be_bytes(baked.digest)));
    let image = Image::of(&baked, name);
    fed(board, stack.wait_config_up()).await;
    board.say(format_args!("address"));
    let good = async {
        Timer::after(GOOD_RUN).await;
        machine::goes_well();
    };
    let (never, ()) = join(agent_embedded::run(board, store, own, &image, stack, SPACE.take()), good).await;
    never
}

/// Waits without the watchdog taking it for a hang.
async fn fed<B: Board, T>(board: &B, work: impl Future<Output = T>) -> T {
    let mut work = core::pin::pin!(work);
    loop {
        board.feed_watchdog();
        if let Either::First(done) = select(work.as_mut(), Timer::after_secs(1)).await {
            return done;
        }
    }
}
