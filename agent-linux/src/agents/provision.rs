//! Agent `choria_provision` on a server: the machine of agent-core, with files (docs/spec/04 §7).

use agent_core::provision::{After, META, Moment, Next, Outcome, Provision, Settings};
use agent_core::rpc::{Agent, AgentMeta, Call, ReplyWriter, Status};
use choria_host::{Secret, private_file, random};
use zeroize::Zeroizing;

use crate::config::{Mode, ServerConfig};
use crate::provision_files::{ProvisionFiles, Stored};

/// Room for what a request has to have unescaped.
const SCRATCH: usize = 256 * 1024;

/// The agent and its state; calls are serialized by `&mut`.
#[derive(Debug)]
pub struct ProvisionAgent {
    machine: Provision,
    files: ProvisionFiles,
    token: Secret,
    jwt: Option<Secret>,
    active: bool,
    directory: String,
    config_path: String,
    allow_update: bool,
    started: std::time::Instant,
    announce: bool,
}

impl ProvisionAgent {
    /// `None` where the node has no provisioning token: the agent is then not on air.
    pub fn new(config: &ServerConfig) -> Option<Self> {
        let token = Secret::new(config.provision_token.as_ref()?.expose().to_owned());
        let active = config.mode == Mode::Provisioning;
        let jwt = config.provisioning_jwt.as_ref().filter(|_| active).and_then(|path| {
            private_file::read_secret(path)
                .inspect_err(|error| tracing::warn!(%error, "action jwt has no token to show"))
                .ok()
        });
        Some(ProvisionAgent {
            machine: Provision::new(active),
            files: ProvisionFiles::new(&config.path).kept_settings(&config.settings, false),
            token,
            jwt,
            active,
            directory: config.directory().display().to_string(),
            config_path: config.path.display().to_string(),
            allow_update: config.allow_update,
            started: std::time::Instant::now(),
            announce: false,
        })
    }

    /// What to do once the reply is on the wire.
    pub fn take_after(&mut self) -> Option<After> {
        self.machine.take_after()
    }

    /// Whether the `provisioned` event is due; asks once.
    pub fn take_announcement(&mut self) -> bool {
        std::mem::take(&mut self.announce)
    }

    /// How far provisioning has come, for status and tests.
    pub fn state(&self) -> &'static str {
        self.machine.state().name()
    }
}

impl Agent for ProvisionAgent {
    const META: AgentMeta = META;

    async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
        let key = Zeroizing::new(random::array::<32>());
        let moment = Moment {
            now_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            key_material: Some(*key),
            random: u32::from_le_bytes(random::array()),
        };
        let settings = Settings {
            token: self.token.expose(),
            active: self.active,
            jwt: self.jwt.as_ref().map(Secret::expose),
            directory: &self.directory,
            config_path: &self.config_path,
            allow_update: self.allow_update,
            accept_private_key: false,
        };
        let mut scratch = Zeroizing::new(vec![0u8; SCRATCH]);
        let mut next = self.machine.start(&call, &settings, &moment, out, &mut scratch);
        loop {
            let effect = match next {
                Next::Reply(status) => return status,
                Next::Effect(effect) => effect,
            };
            let failure;
            let outcome = match self.files.perform(&effect) {
                Ok(Stored::Done) => Outcome::Done,
                Ok(Stored::Lines(lines)) => Outcome::Lines(lines),
                Ok(Stored::Announce) => {
                    self.announce = true;
                    Outcome::Done
                }
                Err(error) => {
                    failure = error.to_string();
                    tracing::error!(action = call.action, caller = call.caller, error = %failure, "provisioning step failed");
                    Outcome::Failed(&failure)
                }
            };
            next = self.machine.resume(outcome, &call, &settings, out);
        }
    }
}
