//! The embedded engine's question who may connect, answered by the [`Policy`] of the moment.

use std::sync::Arc;

use arc_swap::ArcSwap;
use choria_host::clock;
use nats_engine::{Admission, Authenticator, Candidate, PeerKind};

use crate::admission::{Denial, Placement, Policy, Presented, Transport};
use crate::config::SessionExpiry;
use crate::nonce::Proof;
use crate::permissions::{Permissions, Rules};

/// Answers the engine. The policy may be replaced while the engine runs.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    policy: ArcSwap<Policy>,
    session_expiry: SessionExpiry,
}

impl Doorkeeper {
    pub(crate) fn new(policy: Policy, session_expiry: SessionExpiry) -> Doorkeeper {
        Doorkeeper { policy: ArcSwap::from_pointee(policy), session_expiry }
    }

    /// Holds for connections from now on. Tokens that were verified with other keys are forgotten.
    pub(crate) fn replace(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
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
