//! Agent `choria_provision` on a device: the machine of agent-core, with flash (docs/spec/08 §7.1).

use agent_core::provision::{Configuration, Effect, Moment, Next, Outcome, Provision, Settings};
use agent_core::rpc::{Call, ReplyWriter, Status};

use crate::board::{Key, Store, StoreFailed};
use crate::image::Image;
use crate::settings;

/// The marker of a complete set; what it holds does not matter.
const COMMITTED: &[u8] = b"1";

/// What one call works with.
pub(crate) struct Surroundings<'s, 'i, S> {
    pub(crate) store: &'s mut S,
    pub(crate) image: &'i Image<'i>,
    /// Access token of the provisioning token (`cht`).
    pub(crate) token: &'s str,
    pub(crate) active: bool,
    /// Room for the packed configuration.
    pub(crate) config: &'s mut [u8],
    /// The `provisioned` event is due.
    pub(crate) announce: bool,
}

/// Runs one call.
pub(crate) async fn handle<'a, S: Store>(
    machine: &mut Provision,
    around: &mut Surroundings<'_, '_, S>,
    call: &Call<'a>,
    moment: &Moment,
    out: &mut ReplyWriter<'_>,
    scratch: &'a mut [u8],
) -> Status {
    let settings = Settings {
        token: around.token,
        active: around.active,
        jwt: around.active.then_some(around.image.provisioning_jwt),
        directory: "/",
        config_path: "flash",
        allow_update: false,
        accept_private_key: false,
    };
    let mut next = machine.start(call, &settings, moment, out, scratch);
    loop {
        let effect = match next {
            Next::Reply(status) => return status,
            Next::Effect(effect) => effect,
        };
        let outcome = perform(&effect, around, out).await.unwrap_or_else(Outcome::Failed);
        next = machine.resume(outcome, call, &settings, out);
    }
}

async fn perform<S: Store>(
    effect: &Effect<'_>,
    around: &mut Surroundings<'_, '_, S>,
    out: &mut ReplyWriter<'_>,
) -> Result<Outcome<'static>, &'static str> {
    let failed = StoreFailed::message;
    let store = &mut *around.store;
    match effect {
        // A new seed makes the token worthless, and the set incomplete.
        Effect::EraseToken => {
            store.erase(Key::Committed).await.map_err(failed)?;
            store.erase(Key::ServerToken).await.map_err(failed)?;
            Ok(Outcome::Done)
        }
        Effect::StoreSeed(seed) => {
            store.set(Key::Seed, &seed.0).await.map(|()| Outcome::Done).map_err(failed)
        }
        Effect::Configure(configuration) => configure(configuration, around, out).await,
        Effect::CheckConfig => match store.get(Key::Committed, around.config).await.map_err(failed)? {
            Some(_) => Ok(Outcome::Done),
            None => Err("not configured, restart cannot continue"),
        },
        Effect::Reprovision => {
            for key in [Key::Committed, Key::ServerToken, Key::Config, Key::Seed] {
                store.erase(key).await.map_err(failed)?;
            }
            Ok(Outcome::Done)
        }
        Effect::AnnounceProvisioned => {
            around.announce = true;
            Ok(Outcome::Done)
        }
        Effect::MakeCsr(_) => {
            Err("no certificate requests: protocol version 2 only")
        }
        Effect::Update { .. } => Err("this device cannot replace its own program"),
    }
}

/// Token, then configuration, then the marker that makes the set count: an interruption at any write leaves a blank device.
async fn configure<S: Store>(
    configuration: &Configuration<'_>,
    around: &mut Surroundings<'_, '_, S>,
    out: &mut ReplyWriter<'_>,
) -> Result<Outcome<'static>, &'static str> {
    let packed = settings::pack(&configuration.settings, around.image.issuers, around.config);
    let (len, lines, left_out) = packed.map_err(settings::Unfit::message)?;
    let policies = [configuration.action_policies, configuration.opa_policies];
    let policies: usize = policies.iter().flatten().map(|set| set.entries().count()).sum();
    if policies > 0 {
        out.text("warning", format_args!("{policies} policies are ignored: this device evaluates none"));
    }
    if left_out > 0 {
        out.uint("ignored_settings", left_out.into());
    }
    let (store, failed) = (&mut *around.store, StoreFailed::message);
    store.erase(Key::Committed).await.map_err(failed)?;
    if configuration.server_jwt.is_empty() {
        return Err("the configuration brings no server token");
    }
    if configuration.server_jwt.len() > crate::space::TOKEN {
        return Err("the server token is too large for this device");
    }
    store.set(Key::ServerToken, configuration.server_jwt.as_bytes()).await.map_err(failed)?;
    store.set(Key::Config, around.config.get(..len).unwrap_or_default()).await.map_err(failed)?;
    store.set(Key::Committed, COMMITTED).await.map_err(failed)?;
    Ok(Outcome::Lines(lines))
}
