//! An agent of one's own: a light. Copy this file to begin.

use agent_core::rpc::{Agent, AgentMeta, Call, ReplyWriter, Status, StatusCode};
use embedded_hal::digital::OutputPin;

/// The light at a pin.
#[derive(Debug)]
pub struct Blink<P> {
    pin: P,
    lit: bool,
    changes: u32,
}

impl<P: OutputPin> Blink<P> {
    /// `pin` is high when the light is on; it is off at first.
    pub fn new(pin: P) -> Blink<P> {
        Blink { pin, lit: false, changes: 0 }
    }

    fn switch(&mut self, lit: bool) -> Result<(), P::Error> {
        if self.lit != lit {
            if lit {
                self.pin.set_high()?
            } else {
                self.pin.set_low()?
            }
            self.lit = lit;
            self.changes = self.changes.saturating_add(1);
        }
        Ok(())
    }
}

impl<P: OutputPin> Agent for Blink<P> {
    const META: AgentMeta = agent_embedded::agents::meta("blink", "Switches a light", 5);

    async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
        let switched = match call.action {
            "on" => self.switch(true),
            "off" => self.switch(false),
            "status" => Ok(()),
            "set" => {
                let wanted = call.args().ok().and_then(|args| args.bool("lit").ok().flatten());
                let Some(lit) = wanted else {
                    return Status::fixed(
                        StatusCode::MissingData,
                        "Validation failed: input 'lit' is required",
                    );
                };
                self.switch(lit)
            }
            other => return out.unknown_action(Self::META.name, other),
        };
        if switched.is_err() {
            return Status::aborted("The light's pin cannot be set");
        }
        out.bool("lit", self.lit);
        out.uint("changes", self.changes.into());
        Status::ok()
    }
}
