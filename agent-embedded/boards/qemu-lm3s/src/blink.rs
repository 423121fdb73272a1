//! An agent of one's own: a light. Copy this file to begin.

use agent_core::rpc::{Agent, AgentMeta, Call, ReplyWriter, Status, StatusCode};

/// The light. A real board holds its pin here.
#[derive(Debug, Default)]
pub struct Blink {
    lit: bool,
    changes: u32,
}

impl Agent for Blink {
    const META: AgentMeta = agent_embedded::agents::meta("blink", "Switches a light", 5);

    async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
        match call.action {
            "on" => self.switch(true),
            "off" => self.switch(false),
            "status" => {}
            "set" => {
                let wanted = call.args().ok().and_then(|args| args.bool("lit").ok().flatten());
                let Some(lit) = wanted else {
                    return Status::fixed(
                        StatusCode::MissingData,
                        "Validation failed: input 'lit' is required",
                    );
                };
                self.switch(lit);
            }
            other => return out.unknown_action(Self::META.name, other),
        }
        out.bool("lit", self.lit);
        out.uint("changes", self.changes.into());
        Status::ok()
    }
}

impl Blink {
    fn switch(&mut self, lit: bool) {
        if self.lit != lit {
            self.lit = lit;
            self.changes = self.changes.saturating_add(1);
        }
    }
}
