//! The checks between a message and its agent, in the order of `docs/spec/03 §2`.

use super::counters::Counters;
use super::gate::Gate;
use super::reply_subject::{ReplyCheck, allowed};
use crate::filter::Filter;
use crate::json::{Error, Object, check_unambiguous};
use crate::replay::ReplayCache;
use crate::rpc::{Call, Status, StatusCode};
use crate::session::{AgentRow, Arrival};
use crate::ttl;
use crate::wire::transport::FederationHeaders;

/// The agent that every node has and that the machine answers itself.
pub const DISCOVERY: &str = "discovery";

/// What happens without a wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockRule {
    /// Nothing but `discovery` and `rpcutil#ping` is served (`docs/spec/08 §7.5`).
    Required,
    /// Ages are not checked: an unprovisioned device.
    Optional,
}

/// What a node has settled about requests.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'c> {
    pub collectives: &'c [&'c str],
    /// Longest validity granted, seconds.
    pub ttl_cap_seconds: u32,
    pub reply_check: ReplyCheck,
    /// Reply subjects that the operator allows beside the callers' own.
    pub reply_targets: &'c [&'c str],
    /// Replies may go through a federation broker.
    pub federation: bool,
    pub clock: ClockRule,
}

/// Where the reply to one request goes. Keep it until [`super::respond`].
#[derive(Debug, Clone, Copy)]
pub struct Return<'r> {
    pub subject: &'r str,
    pub request_id: &'r str,
    pub agent: &'r str,
    /// Empty when the body could not be read.
    pub action: &'r str,
    pub federation: Option<FederationHeaders<'r>>,
}

/// What to do with a message that passed.
#[derive(Debug, Clone, Copy)]
pub enum Verdict<'r> {
    /// Answer with [`super::Body::Pong`].
    Ping(Return<'r>),
    /// With the filter of the request, a JSON object or empty: policies look at it.
    Call(Call<'r>, Return<'r>, &'r [u8]),
    /// The agent is meant but its body is not usable.
    Answer(Return<'r>, Status),
}

/// A dropped message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Word of `docs/spec/10 §8`.
    pub reason: &'static str,
}

const fn refuse(reason: &'static str) -> Refusal {
    Refusal { reason }
}

/// Everything a verdict needs.
pub struct Judge<'j, 's> {
    pub rules: &'j Rules<'j>,
    pub agents: &'j [AgentRow<'j>],
    pub gate: &'j mut dyn Gate,
    pub replay: &'j mut ReplayCache<'s>,
    pub counters: &'j mut Counters,
    /// Unix nanoseconds.
    pub now: Option<i64>,
}

impl core::fmt::Debug for Judge<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Judge").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Judge<'_, '_> {
    /// Judges the message in `payload`, which is decoded in place.
    pub fn decide<'r>(&mut self, subject: &'r str, payload: &'r mut [u8]) -> Result<Verdict<'r>, Refusal> {
        self.counters.total = self.counters.total.saturating_add(1);
        let opened = self.gate.accept(payload, self.now).map_err(refuse);
        let accepted = self.or_unvalidated(opened)?;
        let transport = accepted.transport;
        let payload: &'r [u8] = payload;
        let request = accepted.request;
        let collective = request.collective.text(payload);
        let agent = request.agent.text(payload);
        let arrival = Arrival::of(subject).ok_or(refuse("subject_mismatch"));
        let arrival = self.or_unvalidated(arrival)?;
        if let Arrival::Broadcast { collective: by, agent: to }
        | Arrival::Service { collective: by, agent: to } = arrival
            && (by != collective || to != agent)
        {
            return self.or_unvalidated(Err(refuse("subject_mismatch")));
        }

        let filter = request.filter.map(|filter| filter.of(payload)).unwrap_or_default();
        if matches!(Filter::parse(filter), Err(Error::Ambiguous { .. })) {
            return self.or_unvalidated(Err(refuse("json_ambiguous")));
        }
        if !filter.is_empty() && filter != b"null" && !self.gate.matches(filter) {
            self.counters.filtered = self.counters.filtered.saturating_add(1);
            return Err(refuse("filtered"));
        }
        self.counters.passed = self.counters.passed.saturating_add(1);

        if !self.rules.collectives.contains(&collective) {
            return self.or_unvalidated(Err(refuse("collective_unknown")));
        }
        let caller = request.caller.text(payload);
        let id = request.id.text(payload);
        let fresh = self.check_age(request.time, request.ttl);
        if let Err(refusal) = fresh {
            self.counters.ttl_expired = self.counters.ttl_expired.saturating_add(1);
            return Err(refusal);
        }
        self.counters.validated = self.counters.validated.saturating_add(1);
        self.counters.last_message = self.now.unwrap_or_default() / 1_000_000_000;

        let reply = transport.reply.map(|reply| reply.text(payload)).unwrap_or_default();
        let federation = transport.federation.map(|federation| federation.headers(payload));
        let federated = self.rules.federation
            && federation
                .as_ref()
                .is_some_and(|headers| headers.request.is_some() && headers.reply.is_some());
        let rules = self.rules;
        if !allowed(
            reply,
            rules.reply_check,
            rules.collectives,
            rules.reply_targets,
            federated,
            &accepted.inbox,
        ) {
            return Err(refuse("reply_refused"));
        }

        let row =
            self.agents.iter().find(|row| row.active && row.name == agent).ok_or(refuse("agent_unknown"))?;
        let kind_matches = match arrival {
            Arrival::Service { .. } => row.service,
            Arrival::Broadcast { .. } | Arrival::Node { .. } => !row.service,
        };
        if !kind_matches {
            return Err(refuse("subject_mismatch"));
        }
        if let Some(now) = self.now {
            let ttl = u32::try_from(request.ttl).unwrap_or(u32::MAX).min(rules.ttl_cap_seconds);
            if self.replay.admit(caller, id, request.time, ttl, now).is_err() {
                self.counters.replayed = self.counters.replayed.saturating_add(1);
                return Err(refuse("replayed"));
            }
        }

        let message = request.message.of(payload);
        let mut to = Return { subject: reply, request_id: id, agent, action: "", federation };
        if agent == DISCOVERY {
            return if is_ping(message) { Ok(Verdict::Ping(to)) } else { Err(refuse("agent_unknown")) };
        }
        let body = match read_body(message, agent) {
            Ok(body) => body,
            Err(BodyError::Ambiguous) => return Err(refuse("json_ambiguous")),
            Err(BodyError::Unusable(text)) => {
                return Ok(Verdict::Answer(to, Status::fixed(StatusCode::InvalidData, text)));
            }
        };
        let unambiguous = match check_unambiguous(body.data, &mut [0; NAMES]) {
            Err(Error::NoSpace) => self.gate.is_unambiguous(body.data),
            checked => checked.is_ok(),
        };
        if !unambiguous {
            return Err(refuse("json_ambiguous"));
        }
        to.action = body.action;
        if self.now.is_none()
            && rules.clock == ClockRule::Required
            && (agent, body.action) != ("rpcutil", "ping")
        {
            return Err(refuse("clock_unknown"));
        }
        let call = Call {
            agent,
            action: body.action,
            data: body.data,
            caller,
            request_id: id,
            sender: request.sender.text(payload),
            collective,
            ttl_seconds: u32::try_from(request.ttl).unwrap_or(u32::MAX).min(rules.ttl_cap_seconds),
            time_nanos: request.time,
            caller_token: accepted.caller_token.text(payload),
            signer_token: accepted.signer_token.map(|token| token.text(payload)).unwrap_or_default(),
        };
        Ok(Verdict::Call(call, to, filter))
    }

    fn or_unvalidated<T>(&mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        if result.is_err() {
            self.counters.unvalidated = self.counters.unvalidated.saturating_add(1);
        }
        result
    }

    fn check_age(&self, time: i64, ttl: i64) -> Result<(), Refusal> {
        match self.now {
            Some(now) => ttl::check(now, time, ttl, self.rules.ttl_cap_seconds)
                .map_err(|reject| refuse(reject.reason())),
            None => Ok(()),
        }
    }
}

/// Names of the inputs of one call that are compared here; a host may compare more.
const NAMES: usize = 64;

struct RpcBody<'r> {
    action: &'r str,
    data: &'r [u8],
}

enum BodyError {
    Ambiguous,
    Unusable(&'static str),
}

/// `{"agent":…,"action":…,"data":{…}}`.
fn read_body<'r>(message: &'r [u8], agent: &str) -> Result<RpcBody<'r>, BodyError> {
    const NO_JSON: BodyError =
        BodyError::Unusable("Could not process request: the body is not a JSON object");
    let by = |error: Error| match error {
        Error::Ambiguous { .. } => BodyError::Ambiguous,
        _ => NO_JSON,
    };
    let object = Object::parse(message).map_err(by)?;
    let plain = |name: &str| -> Result<&'r str, BodyError> {
        let value = object.get(name).map_err(by)?;
        value.and_then(|value| value.as_text()).and_then(|text| text.plain()).ok_or(NO_JSON)
    };
    let (named, action) = (plain("agent")?, plain("action")?);
    if named != agent {
        return Err(BodyError::Unusable(
            "Could not process request: the body names another agent than its envelope",
        ));
    }
    let data = match object.get("data").map_err(by)? {
        None => b"{}".as_slice(),
        Some(value) => match value.kind() {
            crate::json::Kind::Null => b"{}".as_slice(),
            crate::json::Kind::Object => value.raw(),
            _ => return Err(BodyError::Unusable("Could not parse request data: it is not a JSON object")),
        },
    };
    Ok(RpcBody { action, data })
}

/// Clients send `ping`, most of them in base64; the plain word is legal base64 too. No other agent's body is ever decoded a
/// second time.
fn is_ping(message: &[u8]) -> bool {
    let contains = |text: &[u8]| text.windows(4).any(|part| part == b"ping");
    let mut decoded = [0u8; 64];
    let again = crate::encoding::base64::decode_to_slice(message, &mut decoded)
        .is_ok_and(|len| contains(decoded.get(..len).unwrap_or_default()));
    again || contains(message.get(..64.min(message.len())).unwrap_or_default())
}
