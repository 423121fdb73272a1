//! From the board's own start to a running agent.

use core::pin::pin;

use agent_core::baked::Baked;
use agent_embedded::agents::Agents;
use agent_embedded::board::{Board, Store};
use agent_embedded::{Image, Space, within};
use embassy_futures::join::join;
use embassy_net::driver::Driver;
use embassy_net::{Config, DhcpConfig, Runner, Stack, StackResources};
use embassy_time::{Duration, Timer};
use static_cell::{ConstStaticCell, StaticCell};

use crate::machine;
use crate::mishap::Mishap;

/// A run this long without a mishap is a good one.
const GOOD_RUN: Duration = Duration::from_secs(10 * 60);
/// How long a device that falls over again and again keeps off the network, seconds.
const REST: u32 = 5 * 60;
/// Before a board tries anew what its hardware did not do, seconds. A chip may need its time after power comes; one that is
/// broken shall not fill the serial line.
const PAUSE: u32 = 10;

/// What the image was given, of a board that may use its network.
#[derive(Debug, Clone, Copy)]
pub struct Given(&'static Baked<'static>);

/// Says what ended the last run, rests when too many have ended so, and reads what the image was given. Before the board
/// touches its network: a device that falls over again and again sends nothing meanwhile (docs/spec/08 §7.7), and one whose
/// section is damaged never does (§10). The watchdog is fed from here on, and only by what makes progress. Once.
pub async fn prepare<B: Board>(board: &B, mishap: Option<Mishap>) -> Given {
    static BAKED: StaticCell<Baked<'static>> = StaticCell::new();
    if let Some(mishap) = mishap {
        board.say(format_args!("the last run ended: {} ({} in a row)", mishap.cause, mishap.in_a_row));
        if mishap.is_too_many() {
            board.say(format_args!("resting {REST} s"));
            rest(board, REST).await;
        }
    }
    match Baked::parse(machine::baked()) {
        Ok(baked) => {
            board.say(format_args!("baked {:016x}", u64::from_be_bytes(baked.digest)));
            Given(BAKED.init(baked))
        }
        Err(error) => {
            board.say(format_args!("not starting: {}", error.message()));
            // Nothing of it goes on until somebody writes another image.
            loop {
                rest(board, REST).await;
            }
        }
    }
}

async fn rest<B: Board>(board: &B, seconds: u32) {
    let _nothing = within(board, seconds, pin!(core::future::pending::<()>())).await;
}

/// Says what part of the hardware a device cannot be without, and starts anew after a pause. No mishap: nothing is counted.
pub async fn give_up<B: Board>(board: &B, told: &str) -> ! {
    board.say(format_args!("{told}"));
    rest(board, PAUSE).await;
    board.reset()
}

/// The network, with an address by DHCP; the first label of `name` is the name that the router sees. Once.
pub fn network<D: Driver>(
    _: &Given,
    driver: D,
    name: &str,
    seed: u64,
) -> (Stack<'static>, Runner<'static, D>) {
    // addresses, names, and one connection
    static SOCKETS: StaticCell<StackResources<3>> = StaticCell::new();
    let mut dhcp = DhcpConfig::default();
    dhcp.hostname = name.split('.').next().and_then(|label| label.try_into().ok());
    embassy_net::new(driver, Config::dhcpv4(dhcp), SOCKETS.init_with(StackResources::new), seed)
}

/// Runs the agent for ever. `name` is for a device whose image has none. Once.
pub async fn start<B: Board, S: Store, A: Agents>(
    board: &B,
    store: &mut S,
    own: &mut A,
    stack: Stack<'static>,
    name: &str,
    given: Given,
) -> ! {
    // const: made at build time, or it would be made on the stack first
    static SPACE: ConstStaticCell<Space> = ConstStaticCell::new(Space::new());
    let image = Image::of(given.0, name);
    while within(board, REST, pin!(stack.wait_config_up())).await.is_none() {}
    board.say(format_args!("address"));
    let run = agent_embedded::run(board, store, own, &image, stack, SPACE.take());
    let (never, ()) = join(run, forgive()).await;
    never
}

/// What was before a good run counts no longer.
async fn forgive() {
    Timer::after(GOOD_RUN).await;
    machine::goes_well();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mishap::Cause;
    use core::future::Future;
    use core::task::{Context, Waker};

    #[test]
    fn ten_good_minutes_end_a_row_of_mishaps() {
        let clock = embassy_time::MockDriver::get();
        for number in 1..=4 {
            machine::remember(Cause::Watchdog);
            assert_eq!(machine::mishap(false).map(|mishap| mishap.in_a_row), Some(number));
        }
        let mut forgiving = pin!(forgive());
        let mut context = Context::from_waker(Waker::noop());
        assert!(forgiving.as_mut().poll(&mut context).is_pending());
        clock.advance(GOOD_RUN - Duration::from_millis(1));
        assert!(forgiving.as_mut().poll(&mut context).is_pending());
        machine::remember(Cause::Watchdog);
        assert_eq!(machine::mishap(false).map(|mishap| mishap.in_a_row), Some(5), "too early");
        clock.advance(Duration::from_millis(1));
        assert!(forgiving.as_mut().poll(&mut context).is_ready());
        machine::remember(Cause::Watchdog);
        assert_eq!(machine::mishap(false).map(|mishap| mishap.in_a_row), Some(1));
    }
}
