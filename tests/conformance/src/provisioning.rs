//! The provisioning agent and what it takes for a configuration, with effects that are only told.

use core::fmt::Write;

use agent_core::json::Object;
use agent_core::provision::{
    Effect, Moment, Next, Outcome, Provision, Settings, check_config, check_policies,
};
use agent_core::rpc::{Call, ReplyWriter};

use crate::Buffers;
use crate::case::{Fault, Fields};
use crate::show::{Digest, Hex};

pub(crate) fn settings(fields: &mut Fields<'_>, out: &mut dyn Write) -> Result<(), Fault> {
    let (what, document) = (fields.text()?, fields.bytes()?);
    let verdict = if what == "config" {
        check_config(document).map(|settings| settings.entries().count())
    } else {
        let Ok(policies) = Object::parse(document) else { return Ok(write!(out, "refused")?) };
        check_policies(&policies, what).map(|()| policies.entries().count())
    };
    match verdict {
        Ok(count) => Ok(write!(out, "ok {count}")?),
        Err(reject) => Ok(write!(out, "refused {}", reject.message())?),
    }
}

/// A node that waits to be provisioned, or a member whose agent is asked all the same.
pub(crate) struct Candidate {
    machine: Provision,
    active: bool,
    access: heapless::String<64>,
}

impl Candidate {
    pub(crate) fn new() -> Candidate {
        Candidate { machine: Provision::new(true), active: true, access: heapless::String::new() }
    }

    pub(crate) fn begin(&mut self, fields: &mut Fields<'_>, out: &mut dyn Write) -> Result<(), Fault> {
        self.active = fields.flag()?;
        self.machine = Provision::new(self.active);
        self.access = heapless::String::try_from(fields.text()?).map_err(|_| Fault::Case)?;
        Ok(write!(out, "{}", self.machine.state().name())?)
    }

    pub(crate) fn call(
        &mut self,
        fields: &mut Fields<'_>,
        buffers: &mut Buffers<'_>,
        out: &mut dyn Write,
    ) -> Result<(), Fault> {
        let (now_ms, caller) = (fields.number()?.unsigned_abs(), fields.text()?);
        let (action, data, key_material) = (fields.text()?, fields.bytes()?, fields.maybe()?);
        let settings = Settings {
            token: &self.access,
            active: self.active,
            jwt: Some("eyJhbGciOiJFZERTQSJ9.e30.c2ln"),
            directory: "/",
            config_path: "/config",
            allow_update: false,
            accept_private_key: false,
        };
        let call = Call {
            agent: "choria_provision",
            action,
            data,
            caller,
            request_id: "req1",
            sender: "prov.example.net",
            collective: "provisioning",
            ttl_seconds: 60,
            time_nanos: 1,
            caller_token: "",
            signer_token: "",
        };
        let moment = Moment { now_ms, key_material, random: 0 };
        let mut writer = ReplyWriter::new(buffers.reply);
        let mut next = self.machine.start(&call, &settings, &moment, &mut writer, buffers.scratch);
        let status = loop {
            match next {
                Next::Effect(effect) => {
                    let outcome = told(&effect, out)?;
                    next = self.machine.resume(outcome, &call, &settings, &mut writer);
                }
                Next::Reply(status) => break status,
            }
        };
        let done = writer.finish(status);
        write!(out, "status={} {} data={}", done.code.number(), done.text, Digest(done.data))?;
        write!(out, " state={}", self.machine.state().name())?;
        if let Some(after) = self.machine.take_after() {
            write!(out, " after={after:?}")?;
        }
        Ok(())
    }
}

/// What a device would do now.
fn told(effect: &Effect<'_>, out: &mut dyn Write) -> Result<Outcome<'static>, Fault> {
    match effect {
        Effect::EraseToken => write!(out, "erase ")?,
        Effect::StoreSeed(seed) => write!(out, "seed={} ", Hex(&seed.0))?,
        Effect::MakeCsr(_) => {
            write!(out, "csr ")?;
            return Ok(Outcome::Failed("certificates are not supported"));
        }
        Effect::Configure(new) => {
            let lines = new.settings.entries().count();
            write!(out, "configure={lines} token={} ", Digest(new.server_jwt.as_bytes()))?;
            return Ok(Outcome::Lines(u32::try_from(lines).unwrap_or(u32::MAX)));
        }
        Effect::CheckConfig => write!(out, "check ")?,
        Effect::Reprovision => write!(out, "reprovision ")?,
        Effect::Update { .. } => write!(out, "update ")?,
        Effect::AnnounceProvisioned => write!(out, "announce ")?,
    }
    Ok(Outcome::Done)
}
