//! The request signer, `docs/spec/05 §7`: decides whether a request may be made, and signs it if so.
//!
//! The order matters. Nothing is believed before the token is verified and the proof fits the received bytes; nothing is
//! authorized that a node would read differently; nothing is signed that was not recorded.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use choria_host::clock;
use choria_host::private_file::read_secret;
use choria_protocol::rpc::RpcRequest;
use choria_protocol::{ProtocolError, Request, SecureRequest};
use choria_token::{Key, PublicKey, Reject, Seed, Verifier, peek_client};
use sha2::{Digest as _, Sha256};

use crate::audit::{Audit, Record};
use crate::authorizer::{Question, Verdict};
use crate::config::{AuthorizerKind, SignerConfig};
use crate::error::AaaError;
use crate::metrics::Metrics;
use crate::refusal_log::RefusalLog;
use crate::throttle::CallerRate;
use crate::token_cache::{Caller, TokenCache};
use crate::user::request_caller;

/// Largest request, bytes of JSON.
pub(crate) const MAX_REQUEST: usize = 192 * 1024;
/// Seconds a request may be good for. Refused, not cut: older nodes do not cut (docs/spec/10 S4).
const MAX_TTL: i64 = 600;
/// How far a request's time may be from our clock.
const CLOCK_WINDOW: i64 = 60 * 1_000_000_000;
/// Request ids remembered.
const REMEMBERED: usize = 16 * 1024;
/// The agent whose requests carry no RPC body and need no policy.
const DISCOVERY: &str = "discovery";

/// Why a request was not signed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the request is not usable: {0}")]
    Request(#[from] ProtocolError),
    #[error("the request is larger than {MAX_REQUEST} bytes")]
    Oversize,
    #[error("the token is refused: {0}")]
    Token(#[from] Reject),
    #[error("the token is good for {left} s, at most {limit} s are accepted")]
    TokenTooLong { left: i64, limit: i64 },
    #[error("the token never expires")]
    TokenNoExpiry,
    #[error("the token carries no public key")]
    KeyMissing,
    #[error("the request is not signed by the token's key")]
    Proof,
    #[error("the token's caller id cannot be used")]
    CallerId,
    #[error("the token allows neither fleet_management nor signed_fleet_management")]
    Permission,
    #[error("ttl {0} is outside 1 to {MAX_TTL} seconds")]
    Ttl(String),
    #[error("the request's time is {0} s away from our clock")]
    Time(i64),
    #[error("collective '{0}' is not one of the token's organization")]
    Collective(String),
    #[error("the body names agent '{body}', the envelope '{envelope}'")]
    AgentMismatch { body: String, envelope: String },
    #[error("the request id was used for another request")]
    Replayed,
    #[error("too many requests of this caller")]
    Rate,
    #[error("the policy does not allow it: {0}")]
    Denied(String),
    #[error("the policy cannot be used: {0}")]
    Policy(String),
    #[error("the decision could not be recorded")]
    Unrecorded,
    #[error("the delegation token has expired; replace it and reload")]
    DelegationExpired,
}

impl Refusal {
    /// The stable word of docs/spec/10 §8 for logs, audit and the answer's extra field.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Request(error) => error.reason(),
            Refusal::Oversize => "oversize",
            Refusal::Token(reject) => reject.reason(),
            Refusal::TokenTooLong { .. } | Refusal::CallerId => "claim_invalid",
            Refusal::TokenNoExpiry => "token_no_exp",
            Refusal::KeyMissing => "key_missing",
            Refusal::Proof => "sig_bad",
            Refusal::Permission => "permission_missing",
            Refusal::Ttl(_) => "ttl_cap",
            Refusal::Time(_) => "ttl_expired",
            Refusal::Collective(_) => "collective_unknown",
            Refusal::AgentMismatch { .. } => "agent_mismatch",
            Refusal::Replayed => "replayed",
            Refusal::Rate => "busy",
            Refusal::Denied(_) | Refusal::Policy(_) => "denied",
            Refusal::Unrecorded => "audit",
            Refusal::DelegationExpired => "delegator_refused",
        }
    }

    fn concerns_token(&self) -> bool {
        matches!(
            self,
            Refusal::Token(_) | Refusal::TokenTooLong { .. } | Refusal::TokenNoExpiry | Refusal::KeyMissing
        )
    }
}

/// What a caller sends.
#[derive(Clone, Copy)]
pub struct SignRequest<'a> {
    /// The JSON of the request.
    pub request: &'a [u8],
    pub token: &'a str,
    /// Hexadecimal Ed25519 over the bytes of `request`; empty when the caller sent none.
    pub signature: &'a str,
    /// For the audit: an address, or `broker`.
    pub from: &'a str,
}

/// Tokens stay out of logs.
impl std::fmt::Debug for SignRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignRequest")
            .field("bytes", &self.request.len())
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// What outlives a reload.
#[derive(Debug, Default)]
pub struct SignerState {
    rate: CallerRate,
    seen: Mutex<Seen>,
    refusals: RefusalLog,
}

#[derive(Debug, Default)]
struct Seen {
    by_id: HashMap<String, ([u8; 32], i64)>,
    order: VecDeque<String>,
}

/// The signer with its keys.
#[derive(Debug)]
pub struct Signer {
    tokens: TokenCache,
    delegation: Delegation,
    max_validity: i64,
    service_max_validity: i64,
    allow_bearer: bool,
    rate: u32,
    authorizer: AuthorizerKind,
    site: String,
    collectives: Collectives,
    audit: Audit,
    metrics: Arc<Metrics>,
    state: Arc<SignerState>,
}

#[derive(Debug)]
struct Delegation {
    seed: Seed,
    token: String,
    expires: Option<i64>,
}

/// Which collectives a token's organization may address.
#[derive(Debug)]
pub enum Collectives {
    /// The same for all: those of the service's own configuration.
    Common(Vec<String>),
    ByOrg(BTreeMap<String, Vec<String>>),
}

impl Collectives {
    fn allow(&self, org: &str, collective: &str) -> bool {
        match self {
            Collectives::Common(names) => names.iter().any(|name| name == collective),
            Collectives::ByOrg(orgs) => {
                orgs.get(org).is_some_and(|names| names.iter().any(|name| name == collective))
            }
        }
    }
}

/// The parts a signer is put together from, beside its configuration.
#[derive(Debug)]
pub struct SignerParts {
    pub authorizer: AuthorizerKind,
    pub site: String,
    pub collectives: Collectives,
    pub audit: Audit,
    pub metrics: Arc<Metrics>,
    pub state: Arc<SignerState>,
}

impl Signer {
    /// Loads keys and delegation token.
    ///
    /// # Errors
    /// Keys that cannot be read, a token that is no delegator's, or a seed that is not the token's.
    pub fn new(config: &SignerConfig, parts: SignerParts) -> Result<Signer, AaaError> {
        let listed = |text: &str| -> Vec<String> {
            text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
        };
        let keys = listed(&config.signing_certificate);
        let keys = keys.iter().map(|entry| Key::load(entry)).collect::<Result<Vec<_>, _>>()?;
        let mut verifiers = vec![Verifier::signing_certificates(keys)];
        if let Some(issuers) = config.issuer.as_deref().map(listed) {
            let issuers = issuers.iter().map(|entry| PublicKey::load(entry).map(Key::Ed25519));
            verifiers.push(Verifier::trusted_signers(issuers.collect::<Result<Vec<_>, _>>()?));
        }
        if config.allow_bearer_tokens {
            tracing::warn!(
                "allow_bearer_tokens is on: whoever sees a token can have requests signed with it, and every node sees \
                 the tokens of the requests it receives"
            );
        }
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Ok(Signer {
            tokens: TokenCache::new(verifiers),
            delegation: Delegation::load(config)?,
            max_validity: seconds(config.max_validity),
            service_max_validity: seconds(config.service_max_validity),
            allow_bearer: config.allow_bearer_tokens,
            rate: config.rate,
            authorizer: parts.authorizer,
            site: parts.site,
            collectives: parts.collectives,
            audit: parts.audit,
            metrics: parts.metrics,
            state: parts.state,
        })
    }

    /// Signs a request, or says why not. Takes some 0.2 ms of a core; policies may take up to 200 ms.
    ///
    /// # Errors
    /// The reason is for logs and audit; peers are told no more than that it was denied.
    pub fn sign(&self, asked: SignRequest<'_>) -> Result<Vec<u8>, Refusal> {
        let mut trail = Trail::default();
        let outcome = self.decide(asked, &mut trail);
        match &outcome {
            Ok(_) => self.metrics.signer_allowed.inc(),
            Err(refusal) => {
                if refusal.concerns_token() {
                    self.metrics.signer_invalid_token.inc();
                }
                match refusal {
                    Refusal::Unrecorded | Refusal::DelegationExpired => self.metrics.signer_errors.inc(),
                    _ => self.metrics.signer_denied.inc(),
                }
                if let Some(left_out) = self.state.refusals.may_log(refusal.reason(), asked.from) {
                    tracing::warn!(
                        reason = refusal.reason(),
                        caller = %trail.caller.escape_default(),
                        from = asked.from,
                        left_out,
                        "request denied: {refusal}"
                    );
                }
                if !matches!(refusal, Refusal::Unrecorded) {
                    // A denial stands whether it could be recorded or not.
                    let _recorded = self.audit.record(&Record {
                        allowed: false,
                        caller: &trail.caller,
                        caller_id: trail.caller_id.as_deref(),
                        request: asked.request,
                        reason: Some(refusal.reason()),
                        from: asked.from,
                    });
                }
            }
        }
        outcome
    }

    fn decide(&self, asked: SignRequest<'_>, trail: &mut Trail) -> Result<Vec<u8>, Refusal> {
        let now = clock::unix_seconds();
        if asked.request.len() > MAX_REQUEST {
            return Err(Refusal::Oversize);
        }
        let mut request = Request::parse(asked.request).map_err(|error| unparsable(asked.request, error))?;
        trail.caller.clone_from(&request.caller);

        let caller = self.tokens.verify(asked.token, now)?;
        let claims = caller.token.claims();
        self.check_validity(&caller, now)?;
        self.check_proof(&caller, asked)?;
        if !choria_token::names::valid_caller_id(&claims.caller_id) {
            return Err(Refusal::CallerId);
        }
        request.caller = request_caller(&claims.caller_id);
        trail.caller.clone_from(&request.caller);
        trail.caller_id = Some(claims.caller_id.clone());

        if !claims.permissions.fleet_management && !claims.permissions.signed_fleet_management {
            return Err(Refusal::Permission);
        }
        check_envelope(&request)?;
        let org = if claims.org.is_empty() { "choria" } else { claims.org.as_str() };
        if !self.collectives.allow(org, &request.collective) {
            return Err(Refusal::Collective(request.collective));
        }
        if !self.state.rate.take(&claims.caller_id, self.rate, Instant::now()) {
            return Err(Refusal::Rate);
        }
        if !self.state.first_or_same(&request, now)? {
            return Err(Refusal::Replayed);
        }
        self.authorize(&caller, &request)?;
        if self.delegation.expires.is_some_and(|at| at <= now) {
            return Err(Refusal::DelegationExpired);
        }
        let recorded = self.audit.record(&Record {
            allowed: true,
            caller: &request.caller,
            caller_id: trail.caller_id.as_deref(),
            request: asked.request,
            reason: None,
            from: asked.from,
        });
        if !recorded {
            return Err(Refusal::Unrecorded);
        }
        self.delegation.sign(&request)
    }

    fn check_validity(&self, caller: &Caller, now: i64) -> Result<(), Refusal> {
        let expires = caller.token.expires().ok_or(Refusal::TokenNoExpiry)?;
        let limit = if caller.token.claims().permissions.service {
            self.service_max_validity
        } else {
            self.max_validity
        };
        let left = expires.saturating_sub(now);
        if left > limit { Err(Refusal::TokenTooLong { left, limit }) } else { Ok(()) }
    }

    fn check_proof(&self, caller: &Caller, asked: SignRequest<'_>) -> Result<(), Refusal> {
        if asked.signature.is_empty() && self.allow_bearer {
            return Ok(());
        }
        let key = caller.token.holder().ok_or(Refusal::KeyMissing)?;
        let mut signature = [0u8; 64];
        hex::decode_to_slice(asked.signature, &mut signature).map_err(|_| Refusal::Proof)?;
        if key.verify(asked.request, &signature) { Ok(()) } else { Err(Refusal::Proof) }
    }

    fn authorize(&self, caller: &Caller, request: &Request) -> Result<(), Refusal> {
        let name = self.authorizer.name();
        if request.agent == DISCOVERY {
            self.metrics.authorized(name, DISCOVERY, true);
            return Ok(());
        }
        // Nodes route by the envelope; a policy that saw another agent would have allowed something else.
        let body = RpcRequest::parse(&request.message)?;
        if body.agent != request.agent {
            return Err(Refusal::AgentMismatch { body: shown(&body.agent), envelope: shown(&request.agent) });
        }
        let verdict = self.authorizer.decide(&Question {
            claims: caller.token.claims(),
            claims_json: &caller.claims_json,
            request,
            body: &body,
            site: &self.site,
        });
        let action = format!("{}.{}", body.agent, body.action);
        self.metrics.authorized(name, &action, verdict == Verdict::Allow);
        match verdict {
            Verdict::Allow => Ok(()),
            Verdict::Deny(reason) => Err(Refusal::Denied(reason)),
            Verdict::Error(reason) => {
                self.metrics.authorizer_errors.with_label_values(&[name]).inc();
                Err(Refusal::Policy(reason))
            }
        }
    }
}

/// What is known about a request so far.
#[derive(Default)]
struct Trail {
    caller: String,
    caller_id: Option<String>,
}

impl Delegation {
    fn load(config: &SignerConfig) -> Result<Delegation, AaaError> {
        let path = &config.signing_token;
        let bad = |reason: String| AaaError::Delegation { path: path.clone(), reason };
        let seed = Seed::load(&config.signing_seed)?;
        let token = read_secret(path).map_err(|source| AaaError::Secret { path: path.clone(), source })?;
        let claims = peek_client(token.expose()).map_err(|error| bad(error.to_string()))?.into_claims();
        if !claims.permissions.authentication_delegator {
            return Err(bad("it has no permission authentication_delegator; make one with 'choria jwt client --auth-delegation'".to_owned()));
        }
        let key = claims.standard.public_key.as_deref().and_then(|text| PublicKey::from_hex(text).ok());
        if key != Some(seed.public()) {
            return Err(bad(format!("{} is not its seed", config.signing_seed.display())));
        }
        let expires = claims.standard.effective_expiry();
        if expires.is_some_and(|at| at <= clock::unix_seconds()) {
            return Err(bad("it has expired".to_owned()));
        }
        Ok(Delegation { seed, token: token.expose().to_owned(), expires })
    }

    fn sign(&self, request: &Request) -> Result<Vec<u8>, Refusal> {
        let request = request.to_bytes()?;
        let signature = self.seed.sign(&request).to_vec();
        let secure = SecureRequest {
            request,
            signature,
            caller: self.token.clone(),
            signer: Some(self.token.clone()),
        };
        Ok(secure.to_bytes()?)
    }
}

impl SignerState {
    /// Whether this id is new, or belongs to the same request as before. The time does not count: a client that calls
    /// nodes in groups has the request signed again, under a new date, for each of them (docs/spec/07 §4.4).
    fn first_or_same(&self, request: &Request, now: i64) -> Result<bool, Refusal> {
        let undated = Request { time: 1, ..request.clone() }.to_bytes()?;
        let hash: [u8; 32] = Sha256::digest(&undated).into();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, until)) = seen.by_id.get(&request.id)
            && *until > now
        {
            return Ok(*known == hash);
        }
        let until = now.saturating_add(request.ttl).saturating_add(CLOCK_WINDOW / 1_000_000_000);
        if seen.by_id.insert(request.id.clone(), (hash, until)).is_none() {
            seen.order.push_back(request.id.clone());
        }
        if seen.order.len() > REMEMBERED
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.by_id.remove(&oldest);
        }
        Ok(true)
    }
}

fn check_envelope(request: &Request) -> Result<(), Refusal> {
    if !(1..=MAX_TTL).contains(&request.ttl) {
        return Err(Refusal::Ttl(request.ttl.to_string()));
    }
    let away = clock::unix_nanos().saturating_sub(request.time);
    if !(-CLOCK_WINDOW..=CLOCK_WINDOW).contains(&away) {
        return Err(Refusal::Time(away / 1_000_000_000));
    }
    Ok(())
}

/// Tells a `ttl` that no request can have from other damage: it has a word of its own.
fn unparsable(bytes: &[u8], error: ProtocolError) -> Refusal {
    #[derive(serde::Deserialize)]
    struct Probe {
        ttl: serde_json::Number,
    }
    match serde_json::from_slice::<Probe>(bytes) {
        Ok(Probe { ttl }) if !ttl.as_i64().is_some_and(|ttl| (1..=MAX_TTL).contains(&ttl)) => {
            Refusal::Ttl(ttl.to_string())
        }
        _ => Refusal::Request(error),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> serde_json::Value {
        let path = format!("{}/../../tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).expect("fixture")).expect("json")
    }

    /// The exchange of the golden vectors, apart from its date: same proof, same signature, same bytes.
    #[test]
    fn the_golden_signer_exchange() {
        let chain = fixture("tokens/chain.json");
        let messages = fixture("protocol/v2_messages.json");
        let vector = &messages["messages"]["request_delegated"];
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();

        let org = PublicKey::from_hex(&text(&chain["keys"]["org_issuer"]["public_hex"])).expect("a key");
        let at = chain["clock"]["iat"].as_i64().expect("a date").saturating_add(60);
        let tokens = TokenCache::new(vec![Verifier::signing_certificate(Key::Ed25519(org))]);
        let asked = text(&vector["caller_proof"]["rpc_sign_input"]["request"]);
        let token = text(&vector["caller_proof"]["rpc_sign_input"]["token"]);
        let caller = tokens.verify(&token, at).expect("a good token");
        let mut proof = [0u8; 64];
        hex::decode_to_slice(text(&vector["caller_proof"]["signature_hex"]), &mut proof).expect("hex");
        assert!(caller.token.holder().expect("a key").verify(asked.as_bytes(), &proof));

        let mut request = Request::parse(asked.as_bytes()).expect("a request");
        request.caller = request_caller(&caller.token.claims().caller_id);
        let delegation = Delegation {
            seed: Seed::from_hex(&text(&chain["keys"]["request_signer"]["seed_hex"])).expect("a seed"),
            token: text(&chain["tokens"]["request_signer"]["token"]),
            expires: None,
        };
        let signed = delegation.sign(&request).expect("signed");
        assert_eq!(
            String::from_utf8(signed).expect("text"),
            text(&vector["secure_request_json_from_signer"])
        );
    }

    #[test]
    fn the_pinned_chain_issuer_is_the_other_reading() {
        let chain = fixture("tokens/chain.json");
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let at = chain["clock"]["iat"].as_i64().expect("a date").saturating_add(60);
        let alice = text(&chain["tokens"]["alice"]["token"]);
        for (key, fine) in [
            ("org_issuer", true),
            ("aaa_chain_issuer", true),
            ("provisioner", false),
            ("other_issuer", false),
            ("alice", false),
        ] {
            let key = PublicKey::from_hex(&text(&chain["keys"][key]["public_hex"])).expect("a key");
            let tokens = TokenCache::new(vec![Verifier::signing_certificate(Key::Ed25519(key))]);
            assert_eq!(tokens.verify(&alice, at).is_ok(), fine);
            // Nor does pinning reach beyond `signing_certificate`.
            assert_eq!(
                Verifier::single(Key::Ed25519(key)).verify_client(&alice, at).is_ok(),
                fine && key
                    == PublicKey::from_hex(&text(&chain["keys"]["org_issuer"]["public_hex"])).expect("a key")
            );
        }
    }
}
