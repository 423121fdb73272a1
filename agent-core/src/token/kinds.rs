//! What each kind of token says.

use super::agents::AgentList;
use super::claims::{Claim, Claims};
use super::permissions::Permissions;
use super::reject::Reject;
use crate::json;

/// The kinds of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Client,
    Server,
    Provisioning,
}

impl Kind {
    /// `purpose` decides when present; only without it does `sub` count, for provisioning tokens of 2022.
    pub(super) fn of(claims: &Claims<'_>) -> Result<Option<Kind>, Reject> {
        let provisions = claims.text(Claim::Subject)?.is_some_and(|sub| sub == "choria_provisioning");
        Ok(match (claims.some_text(Claim::Purpose)?, provisions) {
            (Some("choria_provisioning"), _) | (None, true) => Some(Kind::Provisioning),
            // One kind by its purpose and another by its subject: somebody else would read it differently.
            (Some(_), true) => None,
            (Some("choria_client_id"), false) => Some(Kind::Client),
            (Some("choria_server"), false) => Some(Kind::Server),
            _ => None,
        })
    }
}

/// Who a client is and what it may do.
#[derive(Debug, Clone, Copy)]
pub struct ClientClaims<'s> {
    /// The caller id, e.g. `up=alice`.
    pub caller_id: &'s str,
    /// `ou`, empty when absent.
    pub organization: &'s str,
    pub permissions: Permissions,
    pub agents: Option<AgentList<'s>>,
    /// Length of the policy's text in the claims; zero without one. The text itself stays in the token.
    pub policy_bytes: usize,
    /// A JSON object of strings, for policies.
    pub user_properties: Option<&'s [u8]>,
    /// JSON lists of subjects the broker allows on top.
    pub publish_subjects: Option<&'s [u8]>,
    pub subscribe_subjects: Option<&'s [u8]>,
}

/// Who a server is.
#[derive(Debug, Clone, Copy)]
pub struct ServerClaims<'s> {
    pub identity: &'s str,
    /// `ou`, empty when absent.
    pub organization: &'s str,
    /// A JSON list of names.
    pub collectives: Option<&'s [u8]>,
    pub permissions: Permissions,
}

/// Where and how a fresh node asks to be provisioned.
#[derive(Clone, Copy)]
pub struct ProvisioningClaims<'s> {
    /// What the provisioner must show before it may configure the node. A secret.
    pub token: &'s str,
    pub secure: bool,
    /// Comma separated broker URLs.
    pub urls: &'s str,
    pub srv_domain: &'s str,
    pub provision_by_default: bool,
    pub registration_file: &'s str,
    pub facts_file: &'s str,
    pub user: &'s str,
    /// A secret.
    pub password: &'s str,
    pub organization: &'s str,
    pub protocol_two: bool,
    pub may_update: bool,
    /// Site data, a JSON object.
    pub extensions: Option<&'s [u8]>,
}

impl core::fmt::Debug for ProvisioningClaims<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ProvisioningClaims")
            .field("urls", &self.urls)
            .field("srv_domain", &self.srv_domain)
            .field("secure", &self.secure)
            .field("organization", &self.organization)
            .finish_non_exhaustive()
    }
}

/// A kind of claims that can be taken out of a token.
pub(super) trait Read<'s>: Sized {
    const KIND: Kind;
    fn read(claims: &Claims<'s>) -> Result<Self, Reject>;
}

impl<'s> Read<'s> for ClientClaims<'s> {
    const KIND: Kind = Kind::Client;

    fn read(claims: &Claims<'s>) -> Result<Self, Reject> {
        let caller_id = claims.some_text(Claim::CallerId)?.ok_or(Reject::ClaimInvalid("callerid"))?;
        if caller_id.len() > 255 || caller_id.bytes().any(|b| matches!(b, 0..=b' ' | 0x7f | b'*' | b'>')) {
            return Err(Reject::ClaimInvalid("callerid"));
        }
        Ok(ClientClaims {
            caller_id,
            organization: claims.text(Claim::Organization)?.unwrap_or_default(),
            permissions: Permissions::read(claims.raw(Claim::Permissions, json::Kind::Object)?)?,
            agents: claims.raw(Claim::Agents, json::Kind::Array)?.map(AgentList::over),
            policy_bytes: match claims.text(Claim::Policy)? {
                // A name spelled with escapes is not left out on the way in, so its text is still here.
                Some(text) => claims.policy_bytes().max(text.len()),
                None => 0,
            },
            user_properties: claims.raw(Claim::UserProperties, json::Kind::Object)?,
            publish_subjects: claims.raw(Claim::PublishSubjects, json::Kind::Array)?,
            subscribe_subjects: claims.raw(Claim::SubscribeSubjects, json::Kind::Array)?,
        })
    }
}

impl<'s> Read<'s> for ServerClaims<'s> {
    const KIND: Kind = Kind::Server;

    fn read(claims: &Claims<'s>) -> Result<Self, Reject> {
        if claims.public_key()?.is_none() {
            return Err(Reject::KeyMissing);
        }
        Ok(ServerClaims {
            identity: claims.some_text(Claim::Identity)?.ok_or(Reject::ClaimInvalid("identity"))?,
            organization: claims.text(Claim::Organization)?.unwrap_or_default(),
            collectives: claims.raw(Claim::Collectives, json::Kind::Array)?,
            permissions: Permissions::read(claims.raw(Claim::Permissions, json::Kind::Object)?)?,
        })
    }
}

impl<'s> Read<'s> for ProvisioningClaims<'s> {
    const KIND: Kind = Kind::Provisioning;

    fn read(claims: &Claims<'s>) -> Result<Self, Reject> {
        let text = |claim| claims.text(claim).map(Option::unwrap_or_default);
        Ok(ProvisioningClaims {
            token: text(Claim::Token)?,
            secure: claims.flag(Claim::Secure)?,
            urls: text(Claim::Urls)?,
            srv_domain: text(Claim::SrvDomain)?,
            provision_by_default: claims.flag(Claim::Default)?,
            registration_file: text(Claim::Registration)?,
            facts_file: text(Claim::Facts)?,
            user: text(Claim::User)?,
            password: text(Claim::Password)?,
            organization: claims.some_text(Claim::Organization)?.unwrap_or("choria"),
            protocol_two: claims.flag(Claim::ProtocolTwo)?,
            may_update: claims.flag(Claim::Update)?,
            extensions: claims.raw(Claim::Extensions, json::Kind::Object)?,
        })
    }
}
