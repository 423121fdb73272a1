//! One call at a time: checks, effects, reply.

use ed25519_compact::x25519;

use super::configure::{check_config, check_policies};
use super::effects::{After, Configuration, Csr, Effect, Next, Outcome, Seed};
use super::guard::{Lock, TokenGuard};
use crate::encoding::hex;
use crate::json::Object;
use crate::nonce::{public_key, sign_nonce};
use crate::rpc::{Call, ReplyWriter, Status, StatusCode};

/// What the node knows about its provisioning.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Access token (`cht`). Empty: every call is refused.
    pub token: &'a str,
    /// The node is in provisioning mode.
    pub active: bool,
    /// Text of the provisioning token.
    pub jwt: Option<&'a str>,
    /// Where seed and token go; a device answers `/`.
    pub directory: &'a str,
    /// Named in the reply of `configure`.
    pub config_path: &'a str,
    /// `release_update` is allowed.
    pub allow_update: bool,
    /// A private key may come with `configure`; never on a device.
    pub accept_private_key: bool,
}

/// Time and randomness of one call.
#[derive(Clone, Copy)]
pub struct Moment {
    pub now_ms: u64,
    /// 32 bytes drawn for a key of this call, `None` when the source failed.
    pub key_material: Option<[u8; 32]>,
    /// For the splay of a restart.
    pub random: u32,
}

impl core::fmt::Debug for Moment {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Moment").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

/// How far provisioning has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody has asked yet.
    Unprovisioned,
    /// A provisioner has identified itself.
    Locked,
    /// The node has a key that waits for its token.
    Keyed,
    /// Configuration and token are stored.
    Configured,
    /// A restart or shutdown has begun; further ones are acknowledged and ignored.
    Leaving,
    /// The node is a member of the fleet; only `restart`, `reprovision` and `shutdown` exist.
    Member,
}

impl State {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Unprovisioned => "unprovisioned",
            State::Locked => "locked",
            State::Keyed => "keyed",
            State::Configured => "configured",
            State::Leaving => "leaving",
            State::Member => "member",
        }
    }
}

#[derive(Clone, Copy)]
enum Pending {
    Nothing,
    EraseForSeed { seed: [u8; 32] },
    StoreSeed { seed: [u8; 32] },
    Csr,
    Configure,
    Announce { lines: u32 },
    CheckRestart { delay_ms: u32 },
    Reprovision { delay_ms: u32 },
    Update,
}

/// The agent's state. One per node; calls are serialized by the shell.
pub struct Provision {
    state: State,
    lock: Lock,
    guard: TokenGuard,
    /// Private half of the last key agreement offer.
    agreement: Option<[u8; 32]>,
    pending: Pending,
    after: Option<After>,
}

impl core::fmt::Debug for Provision {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Provision").field("state", &self.state.name()).finish_non_exhaustive()
    }
}

const WRONG_TOKEN: Status = Status::aborted("Incorrect provision token supplied");
const NO_LOCK: Status = Status::aborted("Could not obtain provisioning lock");
const NOT_HERE: Status = Status::aborted("Only allowed while the server is in provisioning mode");
const BAD_DATA: Status = Status::fixed(
    StatusCode::InvalidData,
    "Could not parse request data: it is not a JSON object with the expected types",
);
const NO_RANDOM: Status = Status::aborted("No secure random numbers are available, cannot make a key");

impl Provision {
    /// `active` is [`Settings::active`] at start.
    #[must_use]
    pub fn new(active: bool) -> Provision {
        Provision {
            state: if active { State::Unprovisioned } else { State::Member },
            lock: Lock::default(),
            guard: TokenGuard::default(),
            agreement: None,
            pending: Pending::Nothing,
            after: None,
        }
    }

    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What to do now that the reply is on the wire.
    pub const fn take_after(&mut self) -> Option<After> {
        self.after.take()
    }

    /// Begins a call. `scratch` receives what has to be unescaped and lives as long as the effect.
    pub fn start<'a>(
        &mut self,
        call: &Call<'a>,
        settings: &Settings<'_>,
        moment: &Moment,
        out: &mut ReplyWriter<'_>,
        scratch: &'a mut [u8],
    ) -> Next<'a> {
        self.pending = Pending::Nothing;
        if !super::ACTIONS.contains(&call.action) {
            return Next::Reply(out.unknown_action(super::META.name, call.action));
        }
        let Ok(args) = call.args() else { return Next::Reply(BAD_DATA) };
        let mut text = [0u8; 512];
        let Ok(token) = args.str("token", &mut text) else { return Next::Reply(BAD_DATA) };
        if !self.guard.check(
            settings.token,
            token.unwrap_or_default(),
            call.sender,
            call.caller,
            moment.now_ms,
        ) {
            return Next::Reply(WRONG_TOKEN);
        }
        let provisioning_only =
            matches!(call.action, "configure" | "gen25519" | "gencsr" | "jwt" | "release_update");
        if provisioning_only {
            if !settings.active {
                return Next::Reply(NOT_HERE);
            }
            if !self.lock.take(call.sender, call.caller, moment.now_ms) {
                return Next::Reply(NO_LOCK);
            }
            if self.state == State::Unprovisioned {
                self.state = State::Locked;
            }
        }
        match call.action {
            "jwt" => Next::Reply(self.jwt(settings, moment, out)),
            "gen25519" => self.gen25519(&args, moment),
            "gencsr" => {
                self.pending = Pending::Csr;
                Next::Effect(Effect::MakeCsr(Csr { args }))
            }
            "configure" => self.configure(call, args, settings, out, scratch),
            "restart" => self.restart(&args, moment, out),
            "reprovision" if settings.active => Next::Reply(Status::aborted(
                "Server is already in provisioning mode, cannot enable provisioning mode again",
            )),
            "reprovision" => {
                self.pending = Pending::Reprovision { delay_ms: splay_ms(moment, 10).saturating_add(2000) };
                Next::Effect(Effect::Reprovision)
            }
            "shutdown" => {
                let delay_ms = splay_ms(moment, 10);
                let seconds = Seconds(delay_ms / 1000);
                out.text("message", format_args!("Shutting Choria Server down after {seconds}"));
                self.leave(After::Shutdown { delay_ms });
                Next::Reply(Status::ok())
            }
            _ => self.release_update(&args, settings, scratch),
        }
    }

    /// Goes on after an effect.
    pub fn resume<'a>(
        &mut self,
        outcome: Outcome<'_>,
        call: &Call<'a>,
        settings: &Settings<'_>,
        out: &mut ReplyWriter<'_>,
    ) -> Next<'a> {
        let pending = core::mem::replace(&mut self.pending, Pending::Nothing);
        if let (Outcome::Failed(why), false) = (outcome, matches!(pending, Pending::Announce { .. })) {
            out.clear();
            return Next::Reply(out.fail(StatusCode::Aborted, format_args!("{why}")));
        }
        match pending {
            Pending::EraseForSeed { seed } => {
                self.pending = Pending::StoreSeed { seed };
                Next::Effect(Effect::StoreSeed(Seed(seed)))
            }
            Pending::StoreSeed { seed } => Next::Reply(self.key_proof(&seed, call, settings, out)),
            Pending::Configure => {
                let lines = if let Outcome::Lines(lines) = outcome { lines } else { 0 };
                self.state = State::Configured;
                self.pending = Pending::Announce { lines };
                Next::Effect(Effect::AnnounceProvisioned)
            }
            Pending::Announce { lines } => {
                out.text("message", format_args!("Wrote {lines} lines to {}", settings.config_path));
                Next::Reply(Status::ok())
            }
            Pending::CheckRestart { delay_ms } => {
                out.text(
                    "message",
                    format_args!("Restarting Choria Server after {}", Seconds(delay_ms / 1000)),
                );
                self.leave(After::Restart { delay_ms });
                Next::Reply(Status::ok())
            }
            Pending::Reprovision { delay_ms } => {
                out.text("message", format_args!("Restarting after {}", Seconds(delay_ms / 1000)));
                self.leave(After::Restart { delay_ms });
                Next::Reply(Status::ok())
            }
            Pending::Update => {
                out.text("message", format_args!("Restarting Choria Server after 2s"));
                self.leave(After::Restart { delay_ms: 2000 });
                Next::Reply(Status::ok())
            }
            Pending::Csr => Next::Reply(Status::ok()),
            Pending::Nothing => Next::Reply(Status::fixed(StatusCode::UnknownError, "Nothing was under way")),
        }
    }

    fn leave(&mut self, after: After) {
        if self.state != State::Leaving {
            self.state = State::Leaving;
            self.after = Some(after);
        }
    }

    fn jwt(&mut self, settings: &Settings<'_>, moment: &Moment, out: &mut ReplyWriter<'_>) -> Status {
        let Some(jwt) = settings.jwt else {
            return Status::aborted("No provisioning token is set, cannot show it");
        };
        let Some(material) = moment.key_material else { return NO_RANDOM };
        let Ok(public) = x25519::SecretKey::new(material).recover_public_key() else { return NO_RANDOM };
        let mut text = [0u8; 64];
        let Ok(public) = hex::encode_to_slice(&*public, &mut text) else { return NO_RANDOM };
        self.agreement = Some(material);
        out.str("jwt", jwt);
        out.str("ecdh_public", public);
        Status::ok()
    }

    fn gen25519<'a>(&mut self, args: &Object<'_>, moment: &Moment) -> Next<'a> {
        let mut text = [0u8; 128];
        let fine = match args.str("nonce", &mut text) {
            Ok(Some(nonce)) => crate::nonce::is_nonce(nonce),
            _ => false,
        };
        if !fine {
            return Next::Reply(Status::aborted("The nonce must be 8 to 64 letters, digits, '-' and '_'"));
        }
        let Some(seed) = moment.key_material else { return Next::Reply(NO_RANDOM) };
        self.pending = Pending::EraseForSeed { seed };
        Next::Effect(Effect::EraseToken)
    }

    fn key_proof(
        &mut self,
        seed: &[u8; 32],
        call: &Call<'_>,
        settings: &Settings<'_>,
        out: &mut ReplyWriter<'_>,
    ) -> Status {
        let mut text = [0u8; 128];
        let signature = call.args().ok().and_then(|args| {
            args.str("nonce", &mut text).ok().flatten().and_then(|nonce| sign_nonce(seed, nonce).ok())
        });
        let (Some(signature), Some(public)) = (signature, public_key(seed)) else {
            return Status::aborted("Could not sign the nonce");
        };
        let (mut key_text, mut signature_text) = ([0u8; 64], [0u8; 128]);
        let (Ok(key), Ok(proof)) = (
            hex::encode_to_slice(&public, &mut key_text),
            hex::encode_to_slice(&signature, &mut signature_text),
        ) else {
            return Status::aborted("Could not sign the nonce");
        };
        out.str("public_key", key);
        out.str("directory", settings.directory);
        out.str("signature", proof);
        self.state = State::Keyed;
        Status::ok()
    }

    fn configure<'a>(
        &mut self,
        call: &Call<'a>,
        args: Object<'a>,
        settings: &Settings<'_>,
        out: &mut ReplyWriter<'_>,
        scratch: &'a mut [u8],
    ) -> Next<'a> {
        let config = match args.str("config", scratch) {
            Ok(Some(config)) => config,
            Ok(None) => return Next::Reply(Status::aborted(super::ConfigReject::Empty.message())),
            Err(_) => return Next::Reply(BAD_DATA),
        };
        let refuse = |out: &mut ReplyWriter<'_>, reject: super::ConfigReject| {
            Next::Reply(out.fail(StatusCode::Aborted, format_args!("{}", reject.message())))
        };
        let settings_object = match check_config(config.as_bytes()) {
            Ok(object) => object,
            Err(reject) => return refuse(out, reject),
        };
        let shared_secret = match self.shared_secret(&args, settings) {
            Ok(secret) => secret,
            Err(status) => return Next::Reply(status),
        };
        let (Ok(action_policies), Ok(opa_policies)) =
            (args.object("action_policies"), args.object("opa_policies"))
        else {
            return refuse(out, super::ConfigReject::PolicyType);
        };
        for (policies, ending) in [(&action_policies, ".policy"), (&opa_policies, ".rego")] {
            if let Some(policies) = policies
                && let Err(reject) = check_policies(policies, ending)
            {
                return refuse(out, reject);
            }
        }
        let server_jwt = match args.get("server_jwt") {
            Ok(None) => "",
            Ok(Some(value)) => match value.as_text().and_then(|text| text.plain()) {
                Some(token) => token,
                None => return Next::Reply(BAD_DATA),
            },
            Err(_) => return Next::Reply(BAD_DATA),
        };
        self.pending = Pending::Configure;
        Next::Effect(Effect::Configure(Configuration {
            settings: settings_object,
            args,
            server_jwt,
            shared_secret,
            action_policies,
            opa_policies,
            request_id: call.request_id,
            caller: call.caller,
            sender: call.sender,
        }))
    }

    /// The key agreement of `docs/spec/04 §8`, only when a private key comes along.
    fn shared_secret(&self, args: &Object<'_>, settings: &Settings<'_>) -> Result<Option<Seed>, Status> {
        let present = |name: &str| match args.get(name) {
            Ok(None) => Ok(false),
            Ok(Some(value)) => match value.as_text() {
                Some(text) => Ok(!text.raw().is_empty()),
                None if value.kind() == crate::json::Kind::Null => Ok(false),
                None => Err(BAD_DATA),
            },
            Err(_) => Err(BAD_DATA),
        };
        if !present("key")? {
            return Ok(None);
        }
        if !settings.accept_private_key {
            return Err(Status::aborted("private keys are not accepted by this device"));
        }
        if !present("ecdh_public")? {
            return Err(Status::aborted("EDCH Public Key not supplied while providing a private key"));
        }
        let mut text = [0u8; 64];
        let agreed = || -> Option<[u8; 32]> {
            let theirs = args.str("ecdh_public", &mut text).ok()??;
            let theirs = hex::decode_array::<32>(theirs.as_bytes()).ok()?;
            // Multiplication refuses low-order points, which would make the secret known to everyone.
            let secret = x25519::PublicKey::new(theirs).dh(&x25519::SecretKey::new(self.agreement?)).ok()?;
            (*secret != [0u8; 32]).then_some(*secret)
        };
        let mut agreed = agreed;
        agreed()
            .map(|secret| Some(Seed(secret)))
            .ok_or(Status::aborted("Could not agree on a key with the provisioner"))
    }

    fn restart<'a>(&mut self, args: &Object<'_>, moment: &Moment, out: &mut ReplyWriter<'_>) -> Next<'a> {
        let splay = match args.get("splay") {
            Ok(value) => match value.map(|value| (value.kind(), value.as_i64())) {
                None | Some((crate::json::Kind::Null, _)) => 10,
                Some((_, Some(number))) => u32::try_from(number).unwrap_or(10).min(86_400),
                Some((_, None)) => return Next::Reply(BAD_DATA),
            },
            Err(_) => return Next::Reply(BAD_DATA),
        };
        if self.state == State::Leaving {
            out.str("message", "Restarting Choria Server is already under way");
            return Next::Reply(Status::ok());
        }
        let splay = if splay == 0 { 10 } else { splay };
        self.pending = Pending::CheckRestart { delay_ms: splay_ms(moment, splay).saturating_add(2000) };
        Next::Effect(Effect::CheckConfig)
    }

    fn release_update<'a>(
        &mut self,
        args: &Object<'a>,
        settings: &Settings<'_>,
        scratch: &'a mut [u8],
    ) -> Next<'a> {
        if !settings.allow_update {
            return Next::Reply(Status::aborted("The provisioning token does not allow updates"));
        }
        let half = scratch.len() / 2;
        let (first, second) = scratch.split_at_mut(half);
        match (args.str("repository", first), args.str("version", second)) {
            (Ok(Some(repository)), Ok(Some(version))) => {
                self.pending = Pending::Update;
                Next::Effect(Effect::Update { repository, version })
            }
            _ => Next::Reply(BAD_DATA),
        }
    }
}

/// Whole seconds in `0 .. seconds`, as milliseconds.
fn splay_ms(moment: &Moment, seconds: u32) -> u32 {
    let picked = u64::from(moment.random).saturating_mul(u64::from(seconds)) >> 32;
    u32::try_from(picked).unwrap_or(0).saturating_mul(1000)
}

/// Prints as the original does: `2s`, `1m5s`, `2h0m1s`.
struct Seconds(u32);

impl core::fmt::Display for Seconds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        match (hours, minutes) {
            (0, 0) => write!(f, "{seconds}s"),
            (0, _) => write!(f, "{minutes}m{seconds}s"),
            _ => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}
