//! What a microcontroller takes of a configuration (`docs/spec/08 §7.1`) [ours].
//!
//! A device says in its facts how large a request may be, and nobody else does: that is how it is known here. It evaluates no
//! policies, has no files and uses few settings. All that it would leave out costs room in its one buffer, twice over, so it
//! is left out here.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::helper::HelperReply;

/// Settings that a device uses, as `agent-embedded/src/settings.rs` keeps them.
const SETTINGS: [&str; 13] = [
    "identity",
    "collectives",
    "main_collective",
    "plugin.choria.middleware_hosts",
    "plugin.choria.server.provision",
    "plugin.security.issuer.names",
    "plugin.security.choria.sign_replies",
    "rpcauthorization",
    "rpcauthprovider",
    "registration",
    "registerinterval",
    "loglevel",
    "plugin.choria.network.client_port",
];

/// A node whose facts say that it is a microcontroller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Bytes of the largest message that it reads; a larger one is dropped unread.
    pub rx_limit: usize,
}

/// What is sent to a device, and how much is not.
#[derive(Debug)]
pub struct Portion<'r> {
    pub settings: BTreeMap<&'r str, &'r str>,
    pub settings_left_out: usize,
    pub policies_left_out: usize,
    /// `key`, `certificate`, `ca` and `ssldir`.
    pub files_left_out: usize,
}

impl Device {
    /// The fact `agent_core.rx_limit` of an inventory.
    pub fn of(inventory: &Value) -> Option<Device> {
        let limit = inventory.get("facts")?.get("agent_core")?.get("rx_limit")?.as_u64()?;
        Some(Device { rx_limit: usize::try_from(limit).unwrap_or(usize::MAX) })
    }
}

impl<'r> Portion<'r> {
    /// What a device uses of a helper's answer.
    pub fn of(reply: &'r HelperReply) -> Portion<'r> {
        let all = reply.configuration.iter();
        let settings: BTreeMap<&str, &str> = all
            .filter(|(name, _)| is_used(name))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let files = [&reply.certificate, &reply.ca, &reply.ssldir];
        let files = files.into_iter().filter(|file| !file.is_empty()).count();
        Portion {
            settings_left_out: reply.configuration.len().saturating_sub(settings.len()),
            policies_left_out: reply.action_policies.len().saturating_add(reply.opa_policies.len()),
            files_left_out: files.saturating_add(usize::from(reply.key.is_some())),
            settings,
        }
    }

    /// Whether the device gets all that the helper wanted it to have.
    pub fn is_all(&self) -> bool {
        (self.settings_left_out, self.policies_left_out, self.files_left_out) == (0, 0, 0)
    }
}

fn is_used(name: &str) -> bool {
    SETTINGS.contains(&name) || (name.starts_with("plugin.security.issuer.") && name.ends_with(".public"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_device_says_what_it_takes() {
        let device = json!({"facts": {"agent_core": {"rx_limit": 11_776, "profile": "small"}}});
        assert_eq!(Device::of(&device), Some(Device { rx_limit: 11_776 }));
        for other in [
            json!({}),
            json!({"facts": {"agent_core": "small"}}),
            json!({"facts": {"agent_core": {"rx_limit": "many"}}}),
            json!({"facts": {"agent_core": {"rx_limit": -1}}}),
            json!({"agent_core": {"rx_limit": 1}}),
        ] {
            assert_eq!(Device::of(&other), None, "{other}");
        }
    }

    #[test]
    fn a_portion_counts_what_is_missing() {
        let reply = HelperReply::parse(
            br#"{"configuration":{"identity":"d1","plugin.security.issuer.names":"choria",
                 "plugin.security.issuer.choria.public":"00","plugin.security.choria.token_file":"/server.jwt",
                 "plugin.security.choria.seed_file":"/server.seed"},
                 "ca":"PEM","ssldir":"/ssl","key":"PEM","action_policies":{"a.policy":"x"},"opa_policies":{"b.rego":"y"}}"#,
        )
        .unwrap();
        let portion = Portion::of(&reply);
        let names: Vec<&str> = portion.settings.keys().copied().collect();
        assert_eq!(
            names,
            ["identity", "plugin.security.issuer.choria.public", "plugin.security.issuer.names"]
        );
        assert_eq!((portion.settings_left_out, portion.policies_left_out, portion.files_left_out), (2, 2, 3));
        assert!(!portion.is_all());
        let all = HelperReply::parse(br#"{"configuration":{"identity":"d1"}}"#).unwrap();
        assert!(Portion::of(&all).is_all());
    }

    /// The device keeps the same list in a workspace of its own.
    #[test]
    fn the_list_is_the_devices() {
        let source = include_str!("../../../agent-embedded/src/settings.rs");
        let (_, list) = source.split_once("const KEPT").unwrap();
        let (list, _) = list.split_once("];").unwrap();
        let kept: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(kept, SETTINGS);
        for issuer in [r#""plugin.security.issuer.""#, r#"".public""#] {
            assert!(source.contains(issuer), "{issuer}");
        }
    }
}
