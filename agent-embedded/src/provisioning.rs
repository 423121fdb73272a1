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
        Effect::MakeCsr(_) => Err("no certificate requests: protocol version 2 only"),
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use agent_core::provision::Seed;
    use agent_core::rpc::ReplyWriter;
    use std::collections::BTreeMap;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    /// Storage that fails after so many changes.
    #[derive(Default)]
    struct Memory {
        values: BTreeMap<u8, Vec<u8>>,
        left: Option<usize>,
    }

    impl Memory {
        fn change(&mut self) -> Result<(), StoreFailed> {
            match &mut self.left {
                Some(0) => Err(StoreFailed::Write),
                Some(left) => {
                    *left -= 1;
                    Ok(())
                }
                None => Ok(()),
            }
        }

        fn has(&self, key: Key) -> bool {
            self.values.contains_key(&(key as u8))
        }
    }

    impl Store for Memory {
        async fn get<'b>(&mut self, key: Key, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>, StoreFailed> {
            let Some(value) = self.values.get(&(key as u8)) else { return Ok(None) };
            let place = buffer.get_mut(..value.len()).ok_or(StoreFailed::TooLarge)?;
            place.copy_from_slice(value);
            Ok(Some(place))
        }

        async fn set(&mut self, key: Key, value: &[u8]) -> Result<(), StoreFailed> {
            self.change()?;
            self.values.insert(key as u8, value.to_vec());
            Ok(())
        }

        async fn erase(&mut self, key: Key) -> Result<(), StoreFailed> {
            self.change()?;
            self.values.remove(&(key as u8));
            Ok(())
        }
    }

    pub(crate) const IMAGE: Image<'static> = Image {
        provisioning_jwt: "a.b.c",
        issuers: &[],
        pins: &[],
        server_name: None,
        urls: &[],
        identity: "d1.example.net",
        built: 0,
        trust_signer_for_policies: false,
        require_clock: true,
        time_server: None,
    };

    /// One call of the agent: whether it was served, and what it said.
    pub(crate) fn call<S: Store>(
        store: &mut S,
        machine: &mut Provision,
        action: &str,
        data: &str,
        random: bool,
    ) -> (bool, String) {
        let call = Call {
            agent: "choria_provision",
            action,
            data: data.as_bytes(),
            caller: "provisioner",
            request_id: "1",
            sender: "p.example.net",
            collective: "provisioning",
            ttl_seconds: 60,
            time_nanos: 1,
            caller_token: "",
            signer_token: "",
        };
        let (mut room, mut reply, mut scratch) = ([0; 1024], [0; 1024], [0; 4096]);
        let mut out = ReplyWriter::new(&mut reply);
        let mut around = Surroundings {
            store,
            image: &IMAGE,
            token: "s3cret",
            // only a member is sent back
            active: action != "reprovision",
            config: &mut room,
            announce: false,
        };
        let moment = Moment { now_ms: 1, key_material: random.then_some([7; 32]), random: 0 };
        let work = handle(machine, &mut around, &call, &moment, &mut out, &mut scratch);
        let status = embassy_futures::block_on(work);
        let finished = out.finish(status);
        let data = String::from_utf8_lossy(finished.data).into_owned();
        (finished.code.number() == 0, format!("{} {data}", finished.text))
    }

    const CONFIGURE: &str =
        r#"{"token":"s3cret","server_jwt":"x.y.z","config":"{\"identity\":\"d1.example.net\"}"}"#;

    #[test]
    fn a_set_counts_only_when_all_of_it_is_stored() {
        for left in 0..8 {
            let mut store = Memory { left: Some(left), ..Memory::default() };
            let mut machine = Provision::new(true);
            let nonce = r#"{"token":"s3cret","nonce":"abcdefgh"}"#;
            call(&mut store, &mut machine, "gen25519", nonce, true);
            let (served, _) = call(&mut store, &mut machine, "configure", CONFIGURE, true);
            let whole = [Key::Seed, Key::ServerToken, Key::Config].into_iter().all(|key| store.has(key));
            assert!(!store.has(Key::Committed) || whole, "after {left} changes: a marker without the rest");
            assert_eq!(served, store.has(Key::Committed), "after {left} changes");
        }
    }

    #[test]
    fn a_new_key_takes_the_old_token_away() {
        let (mut store, mut machine) = (Memory::default(), Provision::new(true));
        store.values.insert(Key::ServerToken as u8, b"old".to_vec());
        store.values.insert(Key::Committed as u8, b"1".to_vec());
        let mut out = [0; 64];
        let mut around = Surroundings {
            store: &mut store,
            image: &IMAGE,
            token: "s3cret",
            active: true,
            config: &mut [0; 64],
            announce: false,
        };
        let mut writer = ReplyWriter::new(&mut out);
        for effect in [Effect::EraseToken, Effect::StoreSeed(Seed([1; 32]))] {
            embassy_futures::block_on(perform(&effect, &mut around, &mut writer)).unwrap();
        }
        assert!(!store.has(Key::ServerToken) && !store.has(Key::Committed) && store.has(Key::Seed));
        // T-308: without entropy there is no key
        let (served, said) =
            call(&mut store, &mut machine, "gen25519", r#"{"token":"s3cret","nonce":"abcdefgh"}"#, false);
        assert!(!served && said.contains("No secure random numbers"), "{said}");
    }

    /// T-298
    #[test]
    fn a_private_key_is_refused_and_nothing_is_stored() {
        let (mut store, mut machine) = (Memory::default(), Provision::new(true));
        let with_key = CONFIGURE.replacen('{', r#"{"key":"-----BEGIN","ecdh_public":"00","#, 1);
        let (served, said) = call(&mut store, &mut machine, "configure", &with_key, true);
        assert!(!served && said.contains("private keys are not accepted by this device"), "{said}");
        assert!(store.values.is_empty());
        let policies =
            CONFIGURE.replacen('{', r#"{"action_policies":{"x.policy":"policy default allow"},"#, 1);
        let (served, said) = call(&mut store, &mut machine, "configure", &policies, true);
        assert!(served && said.contains("1 policies are ignored"), "{said}");
    }
}
