//! The claims of the three kinds of token. Field order is the order on the wire; names, types and meaning are those of
//! docs/spec/01 §6.2 to §6.5.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::names;

/// The organization of tokens that name none.
pub const DEFAULT_ORG: &str = "choria";

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Identifies an operator or a service.
    Client,
    /// Identifies a node.
    Server,
    /// Lets a new node ask to be provisioned. A bearer token.
    Provisioning,
}

impl Purpose {
    /// The `purpose` claim.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Client => "choria_client_id",
            Purpose::Server => "choria_server",
            Purpose::Provisioning => "choria_provisioning",
        }
    }

    /// The kind of this `purpose` claim.
    pub fn parse(text: &str) -> Option<Purpose> {
        [Purpose::Client, Purpose::Server, Purpose::Provisioning].into_iter().find(|p| p.as_str() == text)
    }
}

/// Claims common to all kinds, docs/spec/01 §6.2.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standard {
    /// Kind of the token; see [`Purpose`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub purpose: String,
    /// Trust chain signature, hexadecimal: one part in a chain issuer's token, two in what it issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcs: Option<String>,
    /// The holder's Ed25519 public key, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// When the chain issuer's own token expires, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub issexp: Option<i64>,
    /// `I-<org public key>`, `C-<issuer id>.<issuer public key>`, or free text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub iss: String,
    /// `choria_provisioning` in provisioning tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Not valid from this second on, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub exp: Option<i64>,
    /// Not valid before this second.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub nbf: Option<i64>,
    /// Issued at.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub iat: Option<i64>,
    /// Unique id, a KSUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
}

impl Standard {
    /// The earlier of `exp` and `issexp`, of those that are set.
    pub fn effective_expiry(&self) -> Option<i64> {
        match (self.exp, self.issexp) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether the token counts as expired at this time; one without any expiry does (docs/spec/01 §6.2).
    pub fn is_expired(&self, now_unix: i64) -> bool {
        self.effective_expiry().is_none_or(|at| at <= now_unix)
    }

    pub(crate) fn chained(&self) -> bool {
        self.iss.starts_with("C-")
    }
}

/// What a client may do, docs/spec/01 §6.3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientPermissions {
    /// Full streams API.
    #[serde(skip_serializing_if = "is_false")]
    pub streams_admin: bool,
    /// Use of streams.
    #[serde(skip_serializing_if = "is_false")]
    pub streams_user: bool,
    /// View lifecycle and autonomous agent events.
    #[serde(skip_serializing_if = "is_false")]
    pub events_viewer: bool,
    /// Take part in leader elections.
    #[serde(skip_serializing_if = "is_false")]
    pub election_user: bool,
    /// The system account without a client certificate.
    #[serde(skip_serializing_if = "is_false")]
    pub system_user: bool,
    /// Use governors; needs a streams permission.
    #[serde(skip_serializing_if = "is_false")]
    pub governor: bool,
    /// Everything.
    #[serde(skip_serializing_if = "is_false")]
    pub org_admin: bool,
    /// Send RPC requests.
    #[serde(skip_serializing_if = "is_false")]
    pub fleet_management: bool,
    /// Send RPC requests that a delegator signed.
    #[serde(skip_serializing_if = "is_false")]
    pub signed_fleet_management: bool,
    /// The token may outlive the usual maximum.
    #[serde(skip_serializing_if = "is_false")]
    pub service: bool,
    /// May sign the requests of others.
    #[serde(skip_serializing_if = "is_false")]
    pub authentication_delegator: bool,
    /// May enter the provisioning account.
    #[serde(skip_serializing_if = "is_false")]
    pub provisioner: bool,
}

/// A client token, docs/spec/01 §6.3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientClaims {
    /// Who the holder is, such as `up=alice`.
    #[serde(rename = "callerid")]
    pub caller_id: String,
    /// `agent`, `agent.action` or `*`, for the action list authorizer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// Organization; `choria` when absent.
    #[serde(rename = "ou", skip_serializing_if = "String::is_empty")]
    pub org: String,
    /// Properties for policies.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user_properties: BTreeMap<String, String>,
    /// A Rego policy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub opa_policy: String,
    /// What the holder may do.
    pub permissions: ClientPermissions,
    /// Further subjects to publish to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pub_subjects: Vec<String>,
    /// Further subjects to subscribe to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sub_subjects: Vec<String>,
    /// Common claims.
    #[serde(flatten)]
    pub standard: Standard,
}

/// What a server may do, docs/spec/01 §6.4.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerPermissions {
    /// Submit messages to streams.
    #[serde(skip_serializing_if = "is_false")]
    pub submission: bool,
    /// Use streams.
    #[serde(skip_serializing_if = "is_false")]
    pub streams: bool,
    /// Use governors; needs `streams`.
    #[serde(skip_serializing_if = "is_false")]
    pub governor: bool,
    /// Host services.
    #[serde(skip_serializing_if = "is_false")]
    pub service_host: bool,
}

/// A server token, docs/spec/01 §6.4.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerClaims {
    /// The server's identity; equals the one it is configured with.
    pub identity: String,
    /// Collectives it belongs to, at least one.
    pub collectives: Vec<String>,
    /// What it may do.
    pub permissions: ServerPermissions,
    /// Organization; `choria` when absent.
    #[serde(rename = "ou", skip_serializing_if = "String::is_empty")]
    pub org: String,
    /// Further subjects to publish to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pub_subjects: Vec<String>,
    /// Common claims.
    #[serde(flatten)]
    pub standard: Standard,
}

/// A provisioning token, docs/spec/01 §6.5 and docs/spec/04 §2.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProvisioningClaims {
    /// Access token of the provisioning agent. Secret.
    #[serde(rename = "cht")]
    pub token: String,
    /// Requests are validated during provisioning.
    #[serde(rename = "chs")]
    pub secure: bool,
    /// Broker URLs, joined by commas.
    #[serde(rename = "chu", skip_serializing_if = "String::is_empty")]
    pub urls: String,
    /// Domain whose SRV records name the brokers.
    #[serde(rename = "chsrv", skip_serializing_if = "String::is_empty")]
    pub srv_domain: String,
    /// Provision unless the configuration says otherwise.
    #[serde(rename = "chpd")]
    pub default: bool,
    /// File published as registration data while provisioning.
    #[serde(rename = "chrd", skip_serializing_if = "String::is_empty")]
    pub registration: String,
    /// Facts file used while provisioning.
    #[serde(rename = "chf", skip_serializing_if = "String::is_empty")]
    pub facts: String,
    /// NATS user.
    #[serde(rename = "chusr", skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// NATS password. Secret.
    #[serde(rename = "chpwd", skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// Site data; written as null when there is none.
    pub extensions: Option<Map<String, Value>>,
    /// Organization; `choria` when absent.
    #[serde(rename = "ou", skip_serializing_if = "String::is_empty")]
    pub org: String,
    /// Provision with protocol version 2.
    #[serde(skip_serializing_if = "is_false")]
    pub v2: bool,
    /// Permit upgrades over the air.
    #[serde(skip_serializing_if = "is_false")]
    pub update: bool,
    /// Common claims.
    #[serde(flatten)]
    pub standard: Standard,
}

impl ProvisioningClaims {
    /// The broker URLs one by one.
    pub fn url_list(&self) -> impl Iterator<Item = &str> {
        self.urls.split(',').map(str::trim).filter(|url| !url.is_empty())
    }
}

impl fmt::Debug for ProvisioningClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvisioningClaims")
            .field("token", &"*****")
            .field("secure", &self.secure)
            .field("urls", &self.urls)
            .field("srv_domain", &self.srv_domain)
            .field("default", &self.default)
            .field("username", &self.username)
            .field("password", &"*****")
            .field("org", &self.org)
            .field("v2", &self.v2)
            .field("update", &self.update)
            .field("standard", &self.standard)
            .finish_non_exhaustive()
    }
}

/// A kind of claims: what the readers, verifiers and issuers need to know about it.
pub trait Claims: Serialize + serde::de::DeserializeOwned + sealed::Sealed {
    /// The kind.
    const PURPOSE: Purpose;
    /// The common claims.
    fn standard(&self) -> &Standard;
    /// The common claims, to be filled in by an issuer.
    fn standard_mut(&mut self) -> &mut Standard;
    /// The organization.
    fn org(&self) -> &str;
    /// Who this is about: caller id, identity, or nothing for a provisioning token.
    fn subject_name(&self) -> &str;
    /// Fills in what an absent claim stands for, after reading.
    #[doc(hidden)]
    fn set_defaults(&mut self);
    /// The first claim without which the token means nothing, if it is missing.
    #[doc(hidden)]
    fn missing(&self) -> Option<&'static str>;
    /// The first claim that an issuer refuses to sign, docs/spec/10 K9.
    #[doc(hidden)]
    fn unfit(&self) -> Option<&'static str>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ClientClaims {}
    impl Sealed for super::ServerClaims {}
    impl Sealed for super::ProvisioningClaims {}
}

fn default_org(org: &mut String) {
    if org.is_empty() {
        DEFAULT_ORG.clone_into(org);
    }
}

fn valid_subjects(subjects: &[String]) -> bool {
    subjects.iter().all(|s| names::valid_subject(s))
}

impl Claims for ClientClaims {
    const PURPOSE: Purpose = Purpose::Client;
    fn standard(&self) -> &Standard {
        &self.standard
    }
    fn standard_mut(&mut self) -> &mut Standard {
        &mut self.standard
    }
    fn org(&self) -> &str {
        &self.org
    }
    fn subject_name(&self) -> &str {
        &self.caller_id
    }
    fn set_defaults(&mut self) {
        default_org(&mut self.org);
    }
    fn missing(&self) -> Option<&'static str> {
        // As nodes do: such a name would be more than one word of a subject, or of a line in a log.
        let odd = |b: u8| matches!(b, 0..=b' ' | 0x7f | b'*' | b'>');
        let id = &self.caller_id;
        (id.is_empty() || id.len() > 255 || id.bytes().any(odd)).then_some("callerid")
    }
    fn unfit(&self) -> Option<&'static str> {
        if !names::valid_caller_id(&self.caller_id) {
            Some("callerid")
        } else if !names::valid_org(&self.org) {
            Some("ou")
        } else if !valid_subjects(&self.pub_subjects) {
            Some("pub_subjects")
        } else if !valid_subjects(&self.sub_subjects) {
            Some("sub_subjects")
        } else {
            None
        }
    }
}

impl Claims for ServerClaims {
    const PURPOSE: Purpose = Purpose::Server;
    fn standard(&self) -> &Standard {
        &self.standard
    }
    fn standard_mut(&mut self) -> &mut Standard {
        &mut self.standard
    }
    fn org(&self) -> &str {
        &self.org
    }
    fn subject_name(&self) -> &str {
        &self.identity
    }
    fn set_defaults(&mut self) {
        default_org(&mut self.org);
    }
    fn missing(&self) -> Option<&'static str> {
        self.identity.is_empty().then_some("identity")
    }
    fn unfit(&self) -> Option<&'static str> {
        if !names::valid_identity(&self.identity) {
            Some("identity")
        } else if self.collectives.is_empty() || !self.collectives.iter().all(|c| names::valid_collective(c))
        {
            Some("collectives")
        } else if !names::valid_org(&self.org) {
            Some("ou")
        } else if !valid_subjects(&self.pub_subjects) {
            Some("pub_subjects")
        } else {
            None
        }
    }
}

impl Claims for ProvisioningClaims {
    const PURPOSE: Purpose = Purpose::Provisioning;
    fn standard(&self) -> &Standard {
        &self.standard
    }
    fn standard_mut(&mut self) -> &mut Standard {
        &mut self.standard
    }
    fn org(&self) -> &str {
        &self.org
    }
    fn subject_name(&self) -> &str {
        ""
    }
    fn set_defaults(&mut self) {
        default_org(&mut self.org);
    }
    fn missing(&self) -> Option<&'static str> {
        None
    }
    fn unfit(&self) -> Option<&'static str> {
        if self.token.is_empty() {
            Some("cht")
        } else if self.urls.is_empty() == self.srv_domain.is_empty() {
            Some("chu")
        } else if !names::valid_org(&self.org) {
            Some("ou")
        } else {
            None
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
fn is_false(value: &bool) -> bool {
    !*value
}

/// A date in seconds since 1970. Fractions are cut, as existing verifiers do; numbers that no clock can reach are
/// refused instead of rounded.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    use serde::de::Error as _;
    /// 2^53: whole numbers are exact in JSON up to here.
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    if let Some(whole) = number.as_i64() {
        return Ok(Some(whole));
    }
    match number.as_f64() {
        #[allow(clippy::cast_possible_truncation)] // within the range in which the cast is exact
        Some(seconds) if seconds.abs() < LIMIT => Ok(Some(seconds.floor() as i64)),
        _ => Err(D::Error::custom("a date is out of range")),
    }
}
