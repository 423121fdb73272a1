//! Who may connect, and as whom: the decision of docs/spec/02 §2 as one function of what a connection presents and the
//! broker's [`Policy`]. Nothing else in the broker decides about access.

use std::net::IpAddr;

use choria_host::private_file::Secret;
use choria_token::claims::Claims;
use choria_token::{
    ClientClaims, ProvisioningClaims, PublicKey, Purpose, Reject, ServerClaims, Verified, Verifier, names,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::allow_list::AllowList;
use crate::nonce::{Proof, check_proof};
use crate::permissions::{self, NodeSubject, Permissions};
use crate::token_cache::TokenCache;
use crate::waiting_limits::WaitingLimits;

/// Account of all fleet traffic.
pub const ACCOUNT_CHORIA: &str = "choria";
/// Account of nodes that wait to be provisioned, and their provisioner.
pub const ACCOUNT_PROVISIONING: &str = "provisioning";
/// The engine's system account.
pub const ACCOUNT_SYSTEM: &str = "system";
/// The user name that enters account `provisioning` as its provisioner.
pub const PROVISIONER_USER: &str = "provisioner";

/// What a connection presents.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// Where it comes from.
    pub address: IpAddr,
    /// Its transport.
    pub transport: Transport,
    /// It claims to be a leaf node or another server.
    pub leaf: bool,
    /// `auth_token` of CONNECT, the only place a token is read from.
    pub token: &'a str,
    /// `user` of CONNECT.
    pub user: &'a str,
    /// `pass` of CONNECT.
    pub password: &'a str,
    /// `name` of CONNECT; a waiting node sends its identity.
    pub name: &'a str,
    /// CONNECT asked for an account of its own choice.
    pub asks_for_account: bool,
    /// What shows that the holder of the token's key is here.
    pub proof: Proof<'a>,
}

/// How a connection is transported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Not encrypted.
    Plain,
    /// TLS, without a client certificate.
    Tls,
    /// TLS with a client certificate that the broker's CA verified.
    TlsVerified,
}

/// What an admitted connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Its account.
    pub account: &'static str,
    /// Who it is, for logs and monitoring.
    pub user: String,
    /// Its subjects.
    pub permissions: Permissions,
    /// When its credentials end, seconds since 1970.
    pub expires: Option<i64>,
    /// The path of the decision, one of docs/spec/02 §2.8.
    pub path: Path,
    /// Labels for monitoring.
    pub tags: Vec<String>,
    /// What it may take of the broker, where less than usual.
    pub limits: Option<WaitingLimits>,
    /// What an operator should know although it was let in.
    pub warnings: Vec<&'static str>,
}

/// By which rule a connection was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// User `provisioner`, docs/spec/02 §2.1.
    Provisioner,
    /// The system user, §2.2 and §2.3.
    System,
    /// A client token, §2.4.
    Client,
    /// A server token, §2.4.
    Server,
    /// A verified certificate without a token, §2.4.
    Certificate,
    /// A provisioning token, §2.5.
    WaitingNode,
}

impl Path {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Path::Provisioner => "provisioner",
            Path::System => "system user",
            Path::Client => "client token",
            Path::Server => "server token",
            Path::Certificate => "verified certificate without a token",
            Path::WaitingNode => "provisioning token",
        }
    }
}

/// Why a connection is refused. The peer never learns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Stable word of docs/spec/10 §8.
    pub reason: &'static str,
    /// A sentence for the operator's log, without secrets.
    pub detail: String,
}

impl Denial {
    fn new(reason: &'static str, detail: impl Into<String>) -> Denial {
        Denial { reason, detail: detail.into() }
    }
}

impl From<Reject> for Denial {
    fn from(reject: Reject) -> Denial {
        Denial::new(reject.reason(), reject.to_string())
    }
}

/// Entry to account `provisioning`. Without it the account does not exist.
#[derive(Debug)]
pub struct ProvisioningPolicy {
    /// `plugin.choria.network.provisioning.client_password`.
    pub password: Secret,
    /// `…provisioning.client_password_previous`: accepted as well, while one replaces the other.
    pub previous_password: Option<Secret>,
    /// Keys of `…provisioning.signer_cert`, for tokens that the organization issuer did not sign.
    pub signer: Option<Verifier>,
    /// `…provisioning.provisioner_without_token`.
    pub without_token: bool,
    /// `…provisioning.require_signature`: the provisioner proves that it holds its token's key.
    pub require_signature: bool,
    /// `…provisioning.node_subject = name`: a waiting node hears only its own subject.
    pub own_node_subject: bool,
    /// `…provisioning.token_scope = provisioning`: a provisioner's token is good for nothing else.
    pub token_scope: bool,
    /// What each waiting node may take.
    pub limits: WaitingLimits,
}

/// The system user.
#[derive(Debug)]
pub struct SystemPolicy {
    /// `plugin.choria.network.system.user`.
    pub user: String,
    /// `plugin.choria.network.system.password`; without one nobody is the system user.
    pub password: Option<Secret>,
}

/// Whose tokens are believed.
#[derive(Debug, Clone)]
pub enum TokenTrust {
    /// Organization issuers.
    Issuers(Verifier),
    /// Signers of older deployments, for clients and for servers.
    Signers {
        /// `plugin.choria.network.client_signer_cert`.
        clients: Option<Verifier>,
        /// `plugin.choria.network.server_signer_cert`.
        servers: Option<Verifier>,
    },
}

/// What the broker's configuration says about access. Remembers verified tokens, so one lives as long as its keys.
#[derive(Debug)]
pub struct Policy {
    /// Whose tokens are believed.
    pub trust: TokenTrust,
    /// Whether connections must be encrypted.
    pub tls: bool,
    /// Account `provisioning`, when there is one.
    pub provisioning: Option<ProvisioningPolicy>,
    /// The system user, when there is one.
    pub system: Option<SystemPolicy>,
    /// `plugin.choria.network.client_hosts`.
    pub allow_list: AllowList,
    /// `plugin.choria.network.deny_server_connections`.
    pub deny_servers: bool,
    /// `plugin.choria.network.require_token_expiry` (docs/spec/10 K10).
    pub require_expiry: bool,
    /// Tokens verified before.
    pub verified: VerifiedTokens,
}

/// Tokens verified with a policy's keys.
#[derive(Debug, Default)]
pub struct VerifiedTokens {
    clients: TokenCache<ClientClaims>,
    servers: TokenCache<ServerClaims>,
    provisioning: TokenCache<ProvisioningClaims>,
}

impl Policy {
    fn issuer_mode(&self) -> bool {
        matches!(self.trust, TokenTrust::Issuers(_))
    }

    pub(crate) fn is_system_user(&self, user: &str) -> bool {
        self.system.as_ref().is_some_and(|system| !system.user.is_empty() && system.user == user)
    }

    /// The configured password of a user; empty where there is none.
    pub(crate) fn password_of(&self, user: &str) -> &str {
        let password = if user == PROVISIONER_USER {
            self.provisioning.as_ref().map(|provisioning| &provisioning.password)
        } else if self.is_system_user(user) {
            self.system.as_ref().and_then(|system| system.password.as_ref())
        } else {
            None
        };
        password.map_or("", Secret::expose)
    }

    /// Decides about one connection at this time, seconds since 1970.
    pub fn admit(&self, c: &Presented<'_>, now_unix: i64) -> Result<Placement, Denial> {
        if self.tls && c.transport == Transport::Plain {
            return Err(Denial::new("tls_required", "the connection is not encrypted"));
        }
        if c.leaf {
            return Err(Denial::new("leaf_refused", "leaf nodes and other servers are not accepted here"));
        }
        if c.asks_for_account {
            return Err(Denial::new(
                "connect_malformed",
                "CONNECT asks for an account; the credentials decide that",
            ));
        }
        if c.user == PROVISIONER_USER {
            return self.provisioner(c, now_unix);
        }
        match &self.system {
            Some(system) if self.is_system_user(c.user) => self.system_user(system, c, now_unix),
            _ => self.ordinary(c, now_unix),
        }
    }

    /// docs/spec/02 §2.1.
    fn provisioner(&self, c: &Presented<'_>, now_unix: i64) -> Result<Placement, Denial> {
        let Some(policy) = &self.provisioning else {
            return Err(Denial::new(
                "account_missing",
                "no provisioning account: its client_password is not set",
            ));
        };
        // both are compared, always: how long it takes says nothing
        let right = same_secret(c.password, policy.password.expose())
            | policy.previous_password.as_ref().is_some_and(|p| same_secret(c.password, p.expose()));
        if c.password.is_empty() || !right {
            return Err(Denial::new("password_bad", "user 'provisioner' sent a wrong password"));
        }
        let mut placement = Placement {
            account: ACCOUNT_PROVISIONING,
            user: PROVISIONER_USER.to_owned(),
            permissions: permissions::unlimited(),
            expires: None,
            path: Path::Provisioner,
            tags: Vec::new(),
            limits: None,
            warnings: Vec::new(),
        };
        if !self.issuer_mode() {
            return if c.transport == Transport::TlsVerified {
                Ok(placement)
            } else {
                Err(Denial::new(
                    "tls_client_cert",
                    "a provisioner needs a verified certificate where no issuer is set",
                ))
            };
        }
        if c.token.is_empty() {
            if policy.without_token {
                placement.warnings.push("provisioner admitted by password only (provisioner_without_token)");
                return Ok(placement);
            }
            return Err(Denial::new("no_credentials", "user 'provisioner' sent no token"));
        }
        let token = self.client_token(c, now_unix)?;
        if !token.claims().permissions.provisioner {
            return Err(Denial::new("permission_missing", "the token has no permission 'provisioner'"));
        }
        if c.proof.is_missing() && !policy.require_signature {
            placement
                .warnings
                .push("provisioner admitted without a signed nonce (require_signature = false)");
        } else {
            prove(&token, c)?;
        }
        placement.expires = token.expires();
        placement.tags = tags(&token);
        Ok(placement)
    }

    /// docs/spec/02 §2.2 and §2.3.
    fn system_user(
        &self,
        system: &SystemPolicy,
        c: &Presented<'_>,
        now_unix: i64,
    ) -> Result<Placement, Denial> {
        let mut expires = None;
        let mut labels = Vec::new();
        match c.transport {
            Transport::TlsVerified => {}
            Transport::Plain => {
                return Err(Denial::new("tls_required", "the system user needs an encrypted connection"));
            }
            Transport::Tls => {
                if c.token.is_empty() {
                    return Err(Denial::new(
                        "no_credentials",
                        "the system user sent neither certificate nor token",
                    ));
                }
                let token = self.client_token(c, now_unix)?;
                let may = &token.claims().permissions;
                if !may.system_user && !may.org_admin {
                    return Err(Denial::new(
                        "permission_missing",
                        "the token has no permission 'system_user'",
                    ));
                }
                prove(&token, c)?;
                expires = token.expires();
                labels = tags(&token);
            }
        }
        let right = system.password.as_ref().is_some_and(|expected| {
            !expected.expose().is_empty() && same_secret(c.password, expected.expose())
        });
        if !right {
            return Err(Denial::new("password_bad", "the system user sent a wrong password"));
        }
        Ok(Placement {
            account: ACCOUNT_SYSTEM,
            user: system.user.clone(),
            permissions: permissions::unlimited(),
            expires,
            path: Path::System,
            tags: labels,
            limits: None,
            warnings: Vec::new(),
        })
    }

    /// docs/spec/02 §2.4, and §2.5 for provisioning tokens.
    fn ordinary(&self, c: &Presented<'_>, now_unix: i64) -> Result<Placement, Denial> {
        if c.token.is_empty() {
            return self.certificate(c);
        }
        if c.transport == Transport::Plain {
            return Err(Denial::new("tls_required", "tokens are accepted over TLS only"));
        }
        match choria_token::read_purpose(c.token)? {
            Purpose::Client => self.client(c, now_unix),
            Purpose::Server => self.server(c, now_unix),
            Purpose::Provisioning => self.waiting_node(c, now_unix),
        }
    }

    fn client(&self, c: &Presented<'_>, now_unix: i64) -> Result<Placement, Denial> {
        let token = self.client_token(c, now_unix)?;
        prove(&token, c)?;
        let claims = token.claims();
        if claims.permissions.provisioner && self.provisioning.as_ref().is_some_and(|p| p.token_scope) {
            return Err(Denial::new(
                "permission_missing",
                "a provisioner's token connects as user 'provisioner' only (token_scope = provisioning)",
            ));
        }
        Ok(Placement {
            account: ACCOUNT_CHORIA,
            user: claims.caller_id.clone(),
            permissions: permissions::client(claims),
            expires: token.expires(),
            path: Path::Client,
            tags: tags(&token),
            limits: None,
            warnings: Vec::new(),
        })
    }

    fn server(&self, c: &Presented<'_>, now_unix: i64) -> Result<Placement, Denial> {
        let verifier = match &self.trust {
            TokenTrust::Issuers(verifier) | TokenTrust::Signers { servers: Some(verifier), .. } => verifier,
            TokenTrust::Signers { servers: None, .. } => {
                return Err(Denial::new(
                    "sig_bad",
                    "no server signer or Organization Issuer is set, denying all servers",
                ));
            }
        };
        let token = self.verified.servers.verify(verifier, c.token, now_unix)?;
        self.expiry_needed(&token)?;
        let claims = token.claims();
        if let Some(claim) = unfit_server(claims) {
            return Err(Reject::ClaimInvalid(claim).into());
        }
        prove(&token, c)?;
        let mut warnings = Vec::new();
        let permissions = if self.deny_servers {
            warnings.push("servers are not served here (deny_server_connections), the connection is mute");
            permissions::deny_all()
        } else {
            if claims.collectives.is_empty() {
                warnings.push("the token names no collective, the connection is mute");
            }
            permissions::server(claims)
        };
        Ok(Placement {
            account: ACCOUNT_CHORIA,
            user: claims.identity.clone(),
            permissions,
            expires: token.expires(),
            path: Path::Server,
            tags: tags(&token),
            limits: None,
            warnings,
        })
    }

    /// A certificate and no token: older networks, and plain NATS tools.
    fn certificate(&self, c: &Presented<'_>) -> Result<Placement, Denial> {
        if c.transport != Transport::TlsVerified {
            return Err(Denial::new(
                "no_credentials",
                "neither a token in auth_token nor a verified certificate",
            ));
        }
        let permissions = if !self.allow_list.is_empty() {
            if self.allow_list.contains(c.address) {
                permissions::unlimited()
            } else if self.deny_servers {
                permissions::deny_all()
            } else {
                permissions::default_server()
            }
        } else if self.issuer_mode() {
            permissions::pub_sub()
        } else {
            permissions::unlimited()
        };
        Ok(Placement {
            account: ACCOUNT_CHORIA,
            user: c.user.chars().filter(|ch| !ch.is_control()).take(256).collect(),
            permissions,
            expires: None,
            path: Path::Certificate,
            tags: Vec::new(),
            limits: None,
            warnings: Vec::new(),
        })
    }

    /// docs/spec/02 §2.5: a bearer token, so no nonce.
    fn waiting_node(&self, c: &Presented<'_>, now_unix: i64) -> Result<Placement, Denial> {
        let Some(policy) = &self.provisioning else {
            return Err(Denial::new(
                "account_missing",
                "no provisioning account: its client_password is not set",
            ));
        };
        if c.transport != Transport::Tls {
            return Err(Denial::new(
                "kind_mismatch",
                "a provisioning token does not go with a client certificate",
            ));
        }
        let verifier = match (&self.trust, &policy.signer) {
            (TokenTrust::Issuers(issuers), _) if choria_token::is_ed25519_signed(c.token) => issuers,
            (_, Some(signer)) => signer,
            (TokenTrust::Issuers(_), None) => {
                return Err(Denial::new(
                    "alg_refused",
                    "the token is not signed with Ed25519 and no signer_cert is set",
                ));
            }
            (TokenTrust::Signers { .. }, None) => {
                return Err(Denial::new("sig_bad", "no provisioning signer or Organization Issuer is set"));
            }
        };
        let token = self.verified.provisioning.verify(verifier, c.token, now_unix)?;
        let mut warnings = Vec::new();
        if token.expires().is_none() {
            warnings.push("the provisioning token never expires; issue one with a validity");
        }
        let node = if !policy.own_node_subject {
            NodeSubject::Any
        } else if names::valid_identity(c.name) {
            NodeSubject::Named(c.name)
        } else {
            warnings.push("the connection's name is no identity, so it gets no node subject");
            NodeSubject::Nothing
        };
        Ok(Placement {
            account: ACCOUNT_PROVISIONING,
            user: String::new(),
            permissions: permissions::provisioning_node(node),
            expires: token.expires(),
            path: Path::WaitingNode,
            tags: [tags(&token), vec![presented_token(c.token)]].concat(),
            limits: Some(policy.limits.clone()),
            warnings,
        })
    }

    /// A verified client token whose claims may become subjects and labels. Whether its holder is here is not known yet.
    fn client_token(&self, c: &Presented<'_>, now_unix: i64) -> Result<Verified<ClientClaims>, Denial> {
        let verifier = match &self.trust {
            TokenTrust::Issuers(verifier) | TokenTrust::Signers { clients: Some(verifier), .. } => verifier,
            TokenTrust::Signers { clients: None, .. } => {
                return Err(Denial::new(
                    "sig_bad",
                    "no client signer or Organization Issuer is set, denying all clients",
                ));
            }
        };
        let token = self.verified.clients.verify(verifier, c.token, now_unix)?;
        self.expiry_needed(&token)?;
        let claims = token.claims();
        let reserved = |subjects: &[String]| subjects.iter().any(|s| names::reserved_subject(s));
        let unfit = claims
            .unfit()
            .or_else(|| reserved(&claims.pub_subjects).then_some("pub_subjects"))
            .or_else(|| reserved(&claims.sub_subjects).then_some("sub_subjects"));
        match unfit {
            Some(claim) => Err(Reject::ClaimInvalid(claim).into()),
            None => Ok(token),
        }
    }

    fn expiry_needed<T: Claims>(&self, token: &Verified<T>) -> Result<(), Denial> {
        if self.require_expiry && token.expires().is_none() {
            return Err(Denial::new("token_no_exp", "the token has no expiry (require_token_expiry)"));
        }
        Ok(())
    }
}

/// The first claim of a server that must not become a subject. A server without collectives is let in, and is mute.
fn unfit_server(claims: &ServerClaims) -> Option<&'static str> {
    let without_collectives = claims.collectives.is_empty() && names::valid_org(&claims.org);
    match claims.unfit() {
        Some("collectives") if without_collectives => None,
        Some(claim) => Some(claim),
        None if claims.collectives.iter().any(|c| c == ACCOUNT_PROVISIONING) => Some("collectives"),
        None if claims.pub_subjects.iter().any(|s| names::reserved_subject(s)) => Some("pub_subjects"),
        None => None,
    }
}

/// The holder of the token's key signed this connection's nonce.
fn prove<T: Claims>(token: &Verified<T>, c: &Presented<'_>) -> Result<(), Denial> {
    let holder: &PublicKey =
        token.holder().ok_or_else(|| Denial::new("key_missing", "the token holds no public key"))?;
    check_proof(holder, &c.proof).map_err(|(reason, detail)| Denial::new(reason, detail))
}

/// Compares digests, so that neither content nor length shows in the time it takes.
fn same_secret(a: &str, b: &str) -> bool {
    Sha256::digest(a.as_bytes()).as_slice().ct_eq(Sha256::digest(b.as_bytes()).as_slice()).into()
}

/// How a session is labelled with the configured key that its token goes back to.
pub(crate) fn trusted_by(key: &PublicKey) -> String {
    format!("trusted:{}", key.to_hex())
}

/// The tag by which a provisioner in the same process knows the token that a waiting node came with.
pub fn presented_token(token: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(token.trim().as_bytes())))
}

fn tags<T: Claims>(token: &Verified<T>) -> Vec<String> {
    let mut tags = vec![format!("ou:{}", token.claims().org())];
    if let Some(jti) = token.claims().standard().jti.as_deref().filter(|jti| jti.len() <= 64) {
        tags.push(format!("jti:{}", jti.chars().filter(|c| c.is_ascii_graphic()).collect::<String>()));
    }
    if let Some(issuer) = token.chain_issuer() {
        tags.push(format!(
            "issuer:{}",
            issuer.jti.chars().filter(|c| c.is_ascii_graphic()).take(64).collect::<String>()
        ));
    }
    if let Some(key) = token.trusted_key() {
        tags.push(trusted_by(key));
    }
    tags
}
