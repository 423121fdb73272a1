//! The accounts of a broker and what they take from each other, docs/spec/02 §4.

use nats_engine::{AccountConfig, Import};

use crate::admission::{ACCOUNT_CHORIA, ACCOUNT_PROVISIONING, ACCOUNT_SYSTEM};

/// Events of waiting nodes and their provisioner that the fleet may see: a waiting node holds a bearer token, so what it
/// says about other components is not believed (docs/spec/10 E5).
const NARROW_EVENTS: [&str; 2] =
    ["choria.lifecycle.event.*.provision_mode_server", "choria.lifecycle.event.*.provisioner"];
const WIDE_EVENTS: [&str; 1] = ["choria.lifecycle.>"];

/// All accounts. `wide_lifecycle` takes every lifecycle event out of account `provisioning`, as older brokers do.
pub(crate) fn accounts(provisioning: bool, wide_lifecycle: bool) -> Vec<AccountConfig> {
    let mut choria = AccountConfig::named(ACCOUNT_CHORIA);
    let mut accounts = vec![AccountConfig::named(ACCOUNT_SYSTEM)];
    if provisioning {
        let events: &[&str] = if wide_lifecycle { &WIDE_EVENTS } else { &NARROW_EVENTS };
        for subject in events {
            choria = choria.import(Import::stream(ACCOUNT_PROVISIONING, *subject));
        }
        // The leader election of provisioners is held in the bucket of account choria.
        let key = "$KV.CHORIA_LEADER_ELECTION.provisioner";
        accounts.push(
            AccountConfig::named(ACCOUNT_PROVISIONING)
                .import(Import::service(
                    ACCOUNT_CHORIA,
                    "choria.streams.STREAM.INFO.KV_CHORIA_LEADER_ELECTION",
                    "$JS.API.STREAM.INFO.KV_CHORIA_LEADER_ELECTION",
                ))
                .import(Import::service(ACCOUNT_CHORIA, key, key))
                .import(Import::service(ACCOUNT_CHORIA, format!("choria.streams.{key}"), key)),
        );
    }
    accounts.push(choria);
    accounts
}
