//! The embedded engine's question who may connect, answered by the [`Policy`] of the moment.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use choria_host::clock;
use choria_token::PublicKey;
use nats_engine::{Admission, Authenticator, Candidate, PeerKind};

use crate::admission::{Denial, Placement, Policy, Presented, Transport, trusted_by};
use crate::config::SessionExpiry;
use crate::nonce::Proof;
use crate::permissions::{Permissions, Rules};

/// Answers the engine. The policy may be replaced while the engine runs.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    policy: ArcSwap<Policy>,
    session_expiry: SessionExpiry,
    revoked: RwLock<BTreeSet<Vouched>>,
}

/// The tags of sessions whose tokens rest on one key of one organization.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Vouched {
    organization: String,
    key: String,
}

impl Vouched {
    pub(crate) fn by(org: &str, key: &PublicKey) -> Vouched {
        Vouched { organization: format!("ou:{org}"), key: trusted_by(key) }
    }

    pub(crate) fn are_in(&self, tags: &[String]) -> bool {
        tags.contains(&self.organization) && tags.contains(&self.key)
    }
}

impl Doorkeeper {
    pub(crate) fn new(policy: Policy, session_expiry: SessionExpiry) -> Doorkeeper {
        Doorkeeper { policy: ArcSwap::from_pointee(policy), session_expiry, revoked: RwLock::default() }
    }

    /// Holds for connections from now on. Tokens that were verified with other keys are forgotten; sessions that were judged
    /// by the policy before and rest on a key that is `gone` end as soon as they begin.
    pub(crate) fn replace(&self, policy: Policy, gone: &[Vouched], trusted: &[Vouched]) {
        self.policy.store(Arc::new(policy));
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        revoked.extend(gone.iter().cloned());
        revoked.retain(|key| !trusted.contains(key));
    }
}

impl Authenticator for Doorkeeper {
    fn authenticate(&self, candidate: &Candidate<'_>) -> Result<Admission, nats_engine::Denial> {
        let connect = candidate.connect;
        let presented = Presented {
            address: candidate.remote.ip(),
            transport: match &candidate.tls {
                None => Transport::Plain,
                Some(tls) if tls.verified => Transport::TlsVerified,
                Some(_) => Transport::Tls,
            },
            leaf: candidate.kind == PeerKind::Leaf,
            token: &connect.auth_token,
            user: &connect.user,
            password: &connect.pass,
            name: &connect.name,
            asks_for_account: !connect.account.is_empty() || connect.new_account,
            proof: Proof::signature(candidate.nonce, &connect.sig),
        };
        let mut placement = self.policy.load().admit(&presented, clock::unix_seconds())?;
        for warning in &placement.warnings {
            tracing::warn!(
                component = "network", address = %candidate.remote, name = %connect.name, path = placement.path.as_str(),
                "{warning}"
            );
        }
        if self.session_expiry == SessionExpiry::None {
            placement.expires = None;
        }
        Ok(placement.into())
    }

    fn still_admits(&self, tags: &[String]) -> bool {
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        !revoked.iter().any(|key| key.are_in(tags))
    }
}

impl From<Denial> for nats_engine::Denial {
    fn from(denial: Denial) -> Self {
        nats_engine::Denial { reason: denial.reason, detail: denial.detail }
    }
}

impl From<Placement> for Admission {
    fn from(placement: Placement) -> Self {
        Admission {
            account: placement.account.to_owned(),
            user: placement.user,
            permissions: placement.permissions.into(),
            expires_unix: placement.expires,
            tags: placement.tags,
            max_subscriptions: placement.limits.as_ref().map(|limits| limits.subscriptions),
            max_account_connections: placement.limits.as_ref().map(|limits| limits.connections),
            pace: placement.limits.map(|limits| limits.pace),
        }
    }
}

impl From<Permissions> for nats_engine::Permissions {
    fn from(permissions: Permissions) -> Self {
        let rules = |rules: Rules| nats_engine::Rules { allow: rules.allow, deny: rules.deny };
        nats_engine::Permissions {
            publish: rules(permissions.publish),
            subscribe: rules(permissions.subscribe),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use choria_host::settings::Settings;
    use choria_token::Seed;

    use super::*;
    use crate::config::BrokerConfig;

    #[test]
    fn a_key_that_is_gone_ends_what_the_policy_before_let_in_until_it_is_back() {
        let policy = || {
            let text = "plugin.choria.broker_network = true\nplugin.choria.network.disable_tls = true\n";
            let settings = Settings::parse(text, Path::new("broker.conf")).expect("settings");
            BrokerConfig::without_tls(&settings).expect("a configuration").policy().expect("a policy")
        };
        let (old, other) =
            (Seed::generate().expect("a seed").public(), Seed::generate().expect("a seed").public());
        let tags = |key: &PublicKey| vec!["ou:choria".to_owned(), "jti:1".to_owned(), trusted_by(key)];
        let doorkeeper = Doorkeeper::new(policy(), SessionExpiry::Token);
        assert!(doorkeeper.still_admits(&tags(&old)));
        doorkeeper.replace(policy(), &[Vouched::by("choria", &old)], &[Vouched::by("choria", &other)]);
        assert!(!doorkeeper.still_admits(&tags(&old)));
        assert!(doorkeeper.still_admits(&tags(&other)) && doorkeeper.still_admits(&[]));
        doorkeeper.replace(policy(), &[], &[]);
        assert!(!doorkeeper.still_admits(&tags(&old)), "still gone");
        doorkeeper.replace(policy(), &[], &[Vouched::by("choria", &old)]);
        assert!(doorkeeper.still_admits(&tags(&old)));
    }
}
