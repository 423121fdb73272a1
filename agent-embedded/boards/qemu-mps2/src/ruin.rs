//! How a run of this board ends when a test wants it: in a panic, in a fault, or in a main loop that makes no progress.

use agent_core::rpc::{Agent, AgentMeta, Call, ReplyWriter, Status};
use agent_embedded::board::Board;

/// The agent `ruin`: each action ends the run in its way.
#[derive(Debug)]
pub struct Ruin;

impl Agent for Ruin {
    const META: AgentMeta = agent_embedded::agents::meta("ruin", "Ends the run", 5);

    async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
        match call.action {
            "panic" => panic!("asked to"),
            "fault" => cortex_m::asm::udf(),
            "hang" => hang(),
            other => out.unknown_action(Self::META.name, other),
        }
    }
}

/// A file `hang` in the folder that QEMU was started in stops the main loop before there is a network.
pub fn at_start(board: &impl Board) {
    if device_qemu::exists(c"hang") {
        board.say(format_args!("hanging"));
        hang();
    }
}

fn hang() -> ! {
    loop {
        cortex_m::asm::nop();
    }
}
