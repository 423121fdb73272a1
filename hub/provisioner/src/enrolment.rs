//! One node from "waits" to "member", as a machine without sockets, clock or randomness of its own
//! (`docs/spec/04 §10.5`).
//!
//! The driver asks [`Enrolment::advance`] what to do, does it, and brings the answer back. Every wait, retry and
//! decision is in here, so a test can tell the whole story in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use choria_host::Secret;
use choria_token::{PublicKey, Verifier, is_published_test_key};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::{Features, KnownNames};
use crate::device::{Device, Portion};
use crate::helper::{HelperReply, HelperRequest, KeyProof};
use crate::private_key::{SealError, SealedKey, seal};
use crate::{ladder, rpm_version};

/// What is the same for every node.
#[derive(Debug)]
pub struct Rules {
    pub features: Features,
    /// The token of the provisioning agent.
    pub token: Option<Arc<Secret>>,
    /// Tried with a node that refuses the other, while one replaces the other.
    pub previous_token: Option<Arc<Secret>>,
    /// Verifies provisioning tokens; present when `features.jwt`.
    pub verifier: Option<Verifier>,
    pub upgrades_repository: String,
    pub upgrades_optional: bool,
    pub known_names: KnownNames,
}

/// What the provisioner knows about the candidate besides what the candidate says.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// A member of this name is connected; `None` when that cannot be known.
    pub online: Option<bool>,
    pub address: Option<String>,
    /// SHA-256, in hex, of the token the candidate connected with; `None` when that cannot be known.
    pub admitted_token_sha256: Option<String>,
}

/// The next thing to do.
#[derive(Debug)]
pub enum Step {
    /// Ask the node, after a pause, unless the request as sent is larger than `limit` bytes.
    Ask { agent: &'static str, action: &'static str, data: Value, pause: Duration, limit: Option<usize> },
    /// Look up whether this key or name is known, answer with [`Answer::Known`].
    LookUp { public_key: String },
    /// Run the helper.
    Decide(Box<HelperRequest>),
    /// Have a server token signed.
    Issue { public_key: String, org: Option<String>, reply: Box<HelperReply> },
    /// It is over.
    Finished(Outcome),
}

/// What came of a step.
#[derive(Debug)]
pub enum Answer {
    /// Nothing yet: the first call.
    Begin,
    /// The data of a reply with status 0.
    Replied(Value),
    /// A reply with another status.
    Refused {
        message: String,
        code: i64,
    },
    /// No usable reply; `gone` when the broker says that nobody listens.
    Silent {
        reason: String,
        gone: bool,
    },
    /// It was not asked: the request would be larger than the limit of the step.
    TooLarge {
        size: usize,
        limit: usize,
    },
    Known {
        key_of_other: Option<String>,
        known: bool,
    },
    Decided(Box<HelperReply>),
    /// The helper failed, or the token was not signed.
    Failed(String),
    /// A signed server token, and the reply that it was made for.
    Issued {
        token: String,
        reply: Box<HelperReply>,
    },
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `public_key` is the key the node was given a token for.
    Provisioned {
        public_key: Option<String>,
    },
    Deferred(String),
    ShutDown(String),
    /// The node restarts with another version and will ask again.
    Upgraded(String),
    /// Another provisioner holds the node's lock.
    OwnedByAnother,
    Unreachable(String),
    Failed(String),
}

/// Where the story is.
#[derive(Debug)]
enum State {
    Start,
    Jwt,
    Key { nonce: String },
    LookUp,
    Inventory,
    Deciding,
    ShuttingDown { msg: String },
    Issuing,
    Upgrading { reply: Box<HelperReply>, server_jwt: String },
    Configuring,
    Restarting,
    Over,
}

/// A request that may have to be repeated.
#[derive(Debug)]
struct Pending {
    agent: &'static str,
    action: &'static str,
    data: Value,
    left: u32,
    tried: u32,
}

/// One node's story.
#[derive(Debug)]
pub struct Enrolment<'r> {
    rules: &'r Rules,
    identity: String,
    surroundings: Surroundings,
    state: State,
    pending: Option<Pending>,
    answered: bool,
    uses_previous_token: bool,
    claims: Option<Value>,
    org: Option<String>,
    provisions_by_default: bool,
    node_ecdh: String,
    key: Option<KeyProof>,
    known: bool,
    inventory: String,
    version: String,
    upgradable: bool,
    /// What a microcontroller says of itself.
    device: Option<Device>,
}

/// What a step needs from outside the machine.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now_unix: i64,
    /// Fresh random bytes, used at most once.
    pub random: [u8; 48],
}

impl<'r> Enrolment<'r> {
    /// A story that has not begun.
    pub fn new(rules: &'r Rules, identity: &str, surroundings: Surroundings) -> Enrolment<'r> {
        Enrolment {
            rules,
            identity: identity.to_string(),
            surroundings,
            state: State::Start,
            pending: None,
            answered: false,
            uses_previous_token: false,
            claims: None,
            org: None,
            provisions_by_default: true,
            node_ecdh: String::new(),
            key: None,
            known: false,
            inventory: String::new(),
            version: String::new(),
            upgradable: false,
            device: None,
        }
    }

    /// The step that follows from the answer to the one before.
    pub fn advance(&mut self, answer: Answer, moment: Moment) -> Step {
        match self.try_advance(answer, moment) {
            Ok(step) => step,
            Err(outcome) => {
                self.state = State::Over;
                Step::Finished(outcome)
            }
        }
    }

    fn try_advance(&mut self, answer: Answer, moment: Moment) -> Result<Step, Outcome> {
        let data = match answer {
            Answer::Silent { reason, gone } => return self.again(reason, gone, moment),
            Answer::Refused { message, code } => return self.refused(&message, code, moment),
            Answer::Failed(reason) => return Err(Outcome::Failed(reason)),
            Answer::TooLarge { size, limit } => return Err(Outcome::Deferred(too_large(size, limit))),
            Answer::Replied(data) => {
                self.answered = true;
                self.pending = None;
                data
            }
            Answer::Known { key_of_other, known } => return self.looked_up(key_of_other, known),
            Answer::Decided(reply) => return self.decided(reply, moment),
            Answer::Issued { token, reply } => return self.issued(token, reply, moment),
            Answer::Begin => Value::Null,
        };
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start => self.begin(moment),
            State::Jwt => {
                self.verify_jwt(&data, moment.now_unix)?;
                self.ask_for_key_or_inventory(moment)
            }
            State::Key { nonce } => self.verify_key(&data, &nonce),
            State::Inventory => self.decide(&data),
            State::ShuttingDown { msg } => Err(Outcome::ShutDown(msg)),
            State::Upgrading { reply, .. } => Err(Outcome::Upgraded(reply.upgrade)),
            State::Configuring => {
                self.state = State::Restarting;
                Ok(self.ask("choria_provision", "restart", json!({ "token": self.token(), "splay": 1 }), 3))
            }
            State::Restarting => {
                Err(Outcome::Provisioned { public_key: self.key.take().map(|key| key.public_key) })
            }
            State::LookUp | State::Deciding | State::Issuing | State::Over => {
                Err(Outcome::Failed("the steps came out of order".to_string()))
            }
        }
    }

    fn begin(&mut self, moment: Moment) -> Result<Step, Outcome> {
        if self.surroundings.online == Some(true) {
            return Err(Outcome::Deferred("identity in use: a member of this name is connected".to_string()));
        }
        if self.rules.features.jwt {
            self.state = State::Jwt;
            return Ok(self.ask("choria_provision", "jwt", json!({ "token": self.token() }), 3));
        }
        self.ask_for_key_or_inventory(moment)
    }

    fn ask_for_key_or_inventory(&mut self, moment: Moment) -> Result<Step, Outcome> {
        if self.rules.features.ed25519 {
            let (nonce, _) = moment.random.split_at(16);
            let nonce = hex::encode(nonce);
            let data = json!({ "token": self.token(), "nonce": nonce });
            self.state = State::Key { nonce };
            return Ok(self.ask("choria_provision", "gen25519", data, 5));
        }
        self.ask_for_inventory()
    }

    fn ask_for_inventory(&mut self) -> Result<Step, Outcome> {
        self.state = State::Inventory;
        Ok(self.ask("rpcutil", "inventory", json!({}), 5))
    }

    /// The token the node shows must be ours, valid, and the one it connected with (`docs/spec/10` V4).
    fn verify_jwt(&mut self, data: &Value, now_unix: i64) -> Result<(), Outcome> {
        let failed =
            |reason: String| Outcome::Failed(format!("the provisioning token was refused: {reason}"));
        let text = data.get("jwt").and_then(Value::as_str).unwrap_or_default().trim();
        let verifier =
            self.rules.verifier.as_ref().ok_or_else(|| failed("no key verifies it".to_string()))?;
        let verified =
            verifier.verify_provisioning(text, now_unix).map_err(|reject| failed(reject.to_string()))?;
        let claims = verified.claims();
        let expected = self.token();
        if expected.is_empty() || !bool::from(claims.token.as_bytes().ct_eq(expected.as_bytes())) {
            return Err(failed("its `cht` is not the `token` of this provisioner".to_string()));
        }
        if self.surroundings.admitted_token_sha256.as_deref().is_some_and(|admitted| admitted != sha256(text))
        {
            return Err(failed("it is not the one the node connected with".to_string()));
        }
        self.org = Some(if claims.org.is_empty() { "choria".to_string() } else { claims.org.clone() });
        self.provisions_by_default = claims.default;
        self.claims = serde_json::to_value(claims).ok();
        self.node_ecdh = data.get("ecdh_public").and_then(Value::as_str).unwrap_or_default().to_string();
        Ok(())
    }

    /// The node holds the key it names (`docs/spec/10` V5).
    fn verify_key(&mut self, data: &Value, nonce: &str) -> Result<Step, Outcome> {
        let failed = |reason: &str| Outcome::Failed(format!("the node did not prove its key: {reason}"));
        let field = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        let (public_key, directory, signature) =
            (field("public_key"), field("directory"), field("signature"));
        if public_key.is_empty() || directory.is_empty() || signature.is_empty() {
            return Err(failed("public_key, directory or signature is missing"));
        }
        let key = PublicKey::from_hex(&public_key).map_err(|_| failed("public_key is not a key"))?;
        let bytes = hex::decode(&signature).map_err(|_| failed("signature is not hexadecimal"))?;
        if !key.verify(nonce.as_bytes(), &bytes) {
            return Err(failed("the signature is not over our nonce by that key"));
        }
        if is_published_test_key(&key) {
            return Err(failed("the key is published in test vectors, everybody has it"));
        }
        let public_key = key.to_hex();
        self.key = Some(KeyProof { public_key: public_key.clone(), directory, signature });
        self.state = State::LookUp;
        Ok(Step::LookUp { public_key })
    }

    fn looked_up(&mut self, key_of_other: Option<String>, known: bool) -> Result<Step, Outcome> {
        if let Some(other) = key_of_other {
            return Err(Outcome::Failed(format!("the key is enrolled under the name {other} already")));
        }
        if known && self.rules.known_names == KnownNames::Refuse {
            return Err(Outcome::Deferred(
                "the name is enrolled with another key, and `known_names` is refuse".into(),
            ));
        }
        self.known = known;
        self.ask_for_inventory()
    }

    fn decide(&mut self, data: &Value) -> Result<Step, Outcome> {
        self.inventory = data.to_string();
        self.device = Device::of(data);
        self.version = data.get("version").and_then(Value::as_str).unwrap_or_default().to_string();
        self.upgradable = data.get("upgradable").and_then(Value::as_bool).unwrap_or(false);
        self.state = State::Deciding;
        Ok(Step::Decide(Box::new(HelperRequest {
            identity: self.identity.clone(),
            csr: None,
            ed25519_pubkey: self.key.clone(),
            inventory: std::mem::take(&mut self.inventory),
            jwt: self.claims.clone(),
            known: self.known,
            online: self.surroundings.online,
            address: self.surroundings.address.clone(),
        })))
    }

    fn decided(&mut self, reply: Box<HelperReply>, moment: Moment) -> Result<Step, Outcome> {
        if reply.defer {
            return Err(Outcome::Deferred(reply.msg));
        }
        if reply.shutdown {
            self.state = State::ShuttingDown { msg: reply.msg };
            return Ok(self.ask("choria_provision", "shutdown", json!({ "token": self.token() }), 3));
        }
        reply.check().map_err(|error| Outcome::Failed(error.to_string()))?;
        if self.provisions_by_default && !reply.leaves_provisioning() {
            return Err(Outcome::Failed(
                "the helper's configuration does not set plugin.choria.server.provision to false; \
                 the node would ask to be provisioned for ever"
                    .to_string(),
            ));
        }
        match &self.key {
            Some(key) => {
                let public_key = key.public_key.clone();
                self.state = State::Issuing;
                Ok(Step::Issue { public_key, org: self.org.clone(), reply })
            }
            None => self.issued(String::new(), reply, moment),
        }
    }

    fn issued(
        &mut self,
        server_jwt: String,
        reply: Box<HelperReply>,
        moment: Moment,
    ) -> Result<Step, Outcome> {
        if self.rules.features.upgrades && !reply.upgrade.is_empty() && self.wants_upgrade(&reply.upgrade) {
            let data = json!({ "token": self.token(), "repository": self.rules.upgrades_repository,
                "version": reply.upgrade });
            self.state = State::Upgrading { reply, server_jwt };
            return Ok(self.ask("choria_provision", "release_update", data, 3));
        }
        self.configure(&server_jwt, &reply, moment)
    }

    fn wants_upgrade(&self, wanted: &str) -> bool {
        self.upgradable && !self.version.is_empty() && !rpm_version::same(&self.version, wanted)
    }

    fn configure(&mut self, server_jwt: &str, reply: &HelperReply, moment: Moment) -> Result<Step, Outcome> {
        let unwritable = |error: serde_json::Error| {
            Outcome::Failed(format!("the configuration cannot be written as JSON: {error}"))
        };
        let data = if self.device.is_some() {
            let portion = Portion::of(reply);
            if !portion.is_all() {
                tracing::info!(
                    identity = self.identity,
                    settings = portion.settings_left_out,
                    policies = portion.policies_left_out,
                    files = portion.files_left_out,
                    "left out of the configuration what a device does not take"
                );
            }
            let config = serde_json::to_string(&portion.settings).map_err(unwritable)?;
            json!({ "token": self.token(), "config": config, "server_jwt": server_jwt })
        } else {
            let sealed = self.seal_key(reply, moment).map_err(|error| Outcome::Failed(error.to_string()))?;
            // upstream sends every optional key, and nodes have only ever seen it so
            json!({
                "token": self.token(),
                "config": serde_json::to_string(&reply.configuration).map_err(unwritable)?,
                "certificate": reply.certificate,
                "ca": reply.ca,
                "ssldir": reply.ssldir,
                "key": sealed.pem,
                "ecdh_public": sealed.ecdh_public,
                "action_policies": policies(&reply.action_policies),
                "opa_policies": policies(&reply.opa_policies),
                "server_jwt": server_jwt,
            })
        };
        self.state = State::Configuring;
        Ok(self.ask("choria_provision", "configure", data, 5))
    }

    fn seal_key(&self, reply: &HelperReply, moment: Moment) -> Result<SealedKey, SealError> {
        let Some(key) = &reply.key else {
            return Ok(SealedKey { pem: String::new(), ecdh_public: String::new() });
        };
        let (mut secret, mut iv) = ([0u8; 32], [0u8; 16]);
        let (head, tail) = moment.random.split_at(32);
        secret.copy_from_slice(head);
        iv.copy_from_slice(tail);
        seal(key.expose(), &self.node_ecdh, secret, iv)
    }

    fn token(&self) -> &str {
        let token = if self.uses_previous_token { &self.rules.previous_token } else { &self.rules.token };
        token.as_deref().map(Secret::expose).unwrap_or_default()
    }

    fn ask(&mut self, agent: &'static str, action: &'static str, data: Value, tries: u32) -> Step {
        self.pending =
            Some(Pending { agent, action, data: data.clone(), left: tries.saturating_sub(1), tried: 1 });
        Step::Ask { agent, action, data, pause: Duration::ZERO, limit: self.limit() }
    }

    fn limit(&self) -> Option<usize> {
        self.device.map(|device| device.rx_limit)
    }

    fn refused(&mut self, message: &str, code: i64, moment: Moment) -> Result<Step, Outcome> {
        let first = !std::mem::replace(&mut self.answered, true);
        if first && !self.uses_previous_token && self.rules.previous_token.is_some() {
            // its provisioning token may be of the time before the change
            self.uses_previous_token = true;
            return self.begin(moment);
        }
        if code == 1 && message.contains("provisioning lock") {
            return Err(Outcome::OwnedByAnother);
        }
        let message = choria_host::one_line(message);
        self.again(format!("invalid response from {}: {message} ({code})", self.identity), false, moment)
    }

    /// The request failed: once more, or the end.
    fn again(&mut self, reason: String, gone: bool, moment: Moment) -> Result<Step, Outcome> {
        if gone && !self.answered {
            return Err(Outcome::Unreachable(reason));
        }
        let limit = self.limit();
        let Some(pending) = &mut self.pending else { return Err(Outcome::Failed(reason)) };
        let name = format!("{}#{}", pending.agent, pending.action);
        if pending.left > 0 {
            let [.., high, low] = moment.random;
            let pause = ladder::pause(pending.tried, u16::from_be_bytes([high, low]));
            pending.left -= 1;
            pending.tried += 1;
            if let State::Key { nonce } = &mut self.state {
                // a nonce is asked with once, so that an answer to an older request proves nothing
                *nonce = hex::encode(moment.random.split_at(16).0);
                if let Some(data) = pending.data.as_object_mut() {
                    data.insert("nonce".to_string(), Value::String(nonce.clone()));
                }
            }
            return Ok(Step::Ask {
                agent: pending.agent,
                action: pending.action,
                data: pending.data.clone(),
                pause,
                limit,
            });
        }
        let tries = pending.tried;
        self.pending = None;
        let spent = format!("{name}: maximum tries reached after {tries}: {reason}");
        match std::mem::replace(&mut self.state, State::Over) {
            State::Upgrading { reply, server_jwt } if self.rules.upgrades_optional => {
                tracing::warn!(identity = self.identity, "the upgrade failed and is optional: {spent}");
                self.configure(&server_jwt, &reply, moment)
            }
            _ if !self.answered => Err(Outcome::Unreachable(spent)),
            _ => Err(Outcome::Failed(spent)),
        }
    }
}

fn policies(policies: &BTreeMap<String, String>) -> BTreeMap<&String, &String> {
    policies.iter().filter(|(name, body)| !name.is_empty() && !body.is_empty()).collect()
}

fn too_large(size: usize, limit: usize) -> String {
    format!(
        "a request of {size} bytes is due (mostly its configuration) and it reads at most {limit} (fact agent_core.rx_limit): \
         let the helper give it fewer or shorter settings"
    )
}

/// SHA-256 in hex.
fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}
