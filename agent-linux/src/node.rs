//! The node behind the connection: what a verified request meets.
//!
//! The connection hands a request over with [`Node::call`] and tells what it saw with [`Node::live_mut`]; the
//! node knows nothing of sockets. Single threaded by design: everything is in `RefCell`s that are never held
//! across an `await`.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;

use agent_core::rpc::{
    Agent, AgentMeta, Call, NOT_AUTHORIZED, ReplyWriter, Status as CallStatus, StatusCode,
};
use choria_host::rego::RequestFilter;
use choria_host::thinning::Thinning;

use crate::agents::{self, ChoriaUtil, ProvisionAgent, RpcUtil};
use crate::audit::Audit;
use crate::authorization::{About, Question, Turns, Verdict};
use crate::config::{Mode, ServerConfig};
use crate::driver::Answer;
use crate::facts::{Classes, Facts};
use crate::node_token;
use crate::rules::Rules;
use crate::status::{Counters, Status};

/// Largest `data` of one reply: what three layers of base64 still fit into a message of 1 MiB.
const MAX_REPLY: usize = 400 * 1024;

/// Messages on the connection since start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    pub in_messages: u64,
    pub out_messages: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    pub reconnects: u64,
}

/// What changes while the node runs; the connection keeps it current.
#[derive(Debug, Clone)]
pub struct Live {
    pub counters: Counters,
    pub traffic: Traffic,
    /// `""` when disconnected, `unknown` before the first connection.
    pub connected_server: String,
    /// Unix seconds of the last valid request; 0: none yet.
    pub last_message: i64,
    /// Messages dropped, by reason word.
    pub refused: BTreeMap<&'static str, u64>,
}

/// Everything on this side of the connection.
#[derive(Debug)]
pub struct Node {
    pub config: ServerConfig,
    /// Unix seconds.
    pub started: i64,
    agents: Vec<AgentMeta>,
    rules: RefCell<Rc<Rules>>,
    facts: RefCell<Facts>,
    classes: RefCell<Classes>,
    live: RefCell<Live>,
    audit: Option<Audit>,
    denials: RefCell<Thinning<&'static str>>,
    turns: Turns,
    provision: RefCell<Option<ProvisionAgent>>,
    /// Only one call of `choria_provision` at a time; the others wait for their turn.
    provision_turn: tokio::sync::Mutex<()>,
}

impl Node {
    pub fn new(config: ServerConfig, rules: Rules) -> Self {
        let provision = ProvisionAgent::new(&config);
        Node {
            started: choria_host::clock::unix_seconds(),
            agents: agents::on_air(provision.is_some()),
            rules: RefCell::new(Rc::new(rules)),
            facts: RefCell::new(Facts::new(&config.facts_files)),
            classes: RefCell::new(Classes::new(&config.classes_file)),
            live: RefCell::new(Live {
                counters: Counters::default(),
                traffic: Traffic::default(),
                connected_server: "unknown".to_owned(),
                last_message: 0,
                refused: BTreeMap::new(),
            }),
            audit: config.audit.clone().map(Audit::new),
            denials: RefCell::new(Thinning::new(crate::LINES_PER_REASON)),
            turns: Turns::default(),
            provision: RefCell::new(provision),
            provision_turn: tokio::sync::Mutex::new(()),
            config,
        }
    }

    /// The agents on air, sorted by name.
    pub fn agents(&self) -> &[AgentMeta] {
        &self.agents
    }

    /// Whom it obeys now.
    pub fn rules(&self) -> Rc<Rules> {
        Rc::clone(&self.rules.borrow())
    }

    /// Takes over what holds without a new start from a configuration that was read again; requests that run are not
    /// touched.
    pub fn obey(&self, rules: Rules, fresh: &ServerConfig) {
        *self.rules.borrow_mut() = Rc::new(rules);
        *self.facts.borrow_mut() = Facts::new(&fresh.facts_files);
        *self.classes.borrow_mut() = Classes::new(&fresh.classes_file);
        // the access token of `choria_provision` may be another; a call in progress keeps its agent
        let mut provision = self.provision.borrow_mut();
        if provision.is_some()
            && let Some(agent) = ProvisionAgent::new(fresh)
        {
            *provision = Some(agent);
        }
    }

    /// The facts, one JSON object; the files are read again when they changed.
    pub fn facts(&self) -> Rc<[u8]> {
        self.facts.borrow_mut().text()
    }

    /// The classes, sorted.
    pub fn classes(&self) -> Rc<[String]> {
        self.classes.borrow_mut().list()
    }

    pub fn live(&self) -> Ref<'_, Live> {
        self.live.borrow()
    }

    /// For the connection to keep current. Do not hold it across an `await`.
    pub fn live_mut(&self) -> RefMut<'_, Live> {
        self.live.borrow_mut()
    }

    pub fn is_provisioning(&self) -> bool {
        self.config.mode == Mode::Provisioning
    }

    pub fn uptime_seconds(&self) -> u64 {
        u64::try_from(choria_host::clock::unix_seconds().saturating_sub(self.started)).unwrap_or(0)
    }

    /// Authorizes, records and runs one verified request.
    pub async fn call(&self, call: &Call<'_>, filter: RequestFilter) -> Answer {
        if let Err(reason) = self.authorize(call, filter).await {
            let may_log = self.denials.borrow_mut().may_log("denied");
            if let Some(left_out) = may_log {
                tracing::warn!(
                    reason = "denied",
                    why = %reason,
                    agent = call.agent,
                    action = call.action,
                    caller = call.caller,
                    request = call.request_id,
                    left_out,
                    "request denied"
                );
            }
            if let Some(audit) = &self.audit {
                audit.record(call, true);
            }
            return Answer::status(StatusCode::Aborted, NOT_AUTHORIZED);
        }
        if let Some(audit) = &self.audit {
            audit.record(call, false);
        }
        let mut buffer = vec![0u8; MAX_REPLY];
        let mut out = ReplyWriter::new(&mut buffer);
        let status = match call.agent {
            "rpcutil" => RpcUtil { node: self }.handle(*call, &mut out).await,
            "choria_util" => ChoriaUtil { node: self }.handle(*call, &mut out).await,
            "choria_provision" => return self.call_provision(call, out).await,
            _ => CallStatus::silent(),
        };
        reply(out, status)
    }

    async fn call_provision(&self, call: &Call<'_>, mut out: ReplyWriter<'_>) -> Answer {
        let _turn = self.provision_turn.lock().await;
        // Taken out while it works, so that nothing is borrowed across the await.
        let Some(mut agent) = self.provision.borrow_mut().take() else {
            return reply(out, CallStatus::silent());
        };
        let status = agent.handle(*call, &mut out).await;
        let (announce, after) = (agent.take_announcement(), agent.take_after());
        *self.provision.borrow_mut() = Some(agent);
        let answer = reply(out, status);
        if answer.code != StatusCode::Ok {
            tracing::warn!(
                reason = "provision_refused",
                why = %answer.text,
                action = call.action,
                caller = call.caller,
                sender = call.sender,
                "provisioning request refused"
            );
        }
        Answer { announce_provisioned: announce, after, ..answer }
    }

    async fn authorize(&self, call: &Call<'_>, filter: RequestFilter) -> Result<(), String> {
        let question = Question {
            agent: call.agent,
            action: call.action,
            data: call.data,
            caller: call.caller,
            sender: call.sender,
            collective: call.collective,
            ttl_seconds: call.ttl_seconds,
            time_nanos: call.time_nanos,
            caller_token: call.caller_token,
            filter,
            node: self,
        };
        let rules = self.rules();
        match rules.authorization.decide(&question, &self.turns).await {
            Verdict::Allow => Ok(()),
            Verdict::Deny(reason) => Err(reason),
        }
    }

    /// The state that the status file shows.
    pub fn status(&self) -> Status {
        let live = self.live.borrow();
        let token = node_token::read_server(&self.config.token_file).ok().filter(|_| !self.is_provisioning());
        Status {
            identity: self.config.identity.clone(),
            uptime: self.uptime_seconds(),
            connected_server: live.connected_server.clone(),
            last_message: live.last_message,
            provisioning_mode: self.is_provisioning(),
            stats: live.counters,
            certificate_expires: Status::time(None),
            token_expires: Status::time(token.and_then(|token| token.claims.expires())),
            tls_unverified: !self.config.trust.verifies(),
        }
    }

    /// Writes the status file when one is configured; a failure is logged.
    pub fn write_status(&self) {
        if let Some(config) = &self.config.status
            && let Err(error) = self.status().write(&config.path)
        {
            tracing::warn!(%error, "could not write the status file");
        }
    }
}

impl About for Node {
    fn facts(&self) -> Rc<[u8]> {
        Node::facts(self)
    }

    fn classes(&self) -> Rc<[String]> {
        Node::classes(self)
    }
}

fn reply(out: ReplyWriter<'_>, status: CallStatus) -> Answer {
    let done = out.finish(status);
    Answer {
        code: done.code,
        text: done.text.to_owned(),
        data: done.data.to_vec(),
        silent: done.silent,
        announce_provisioned: false,
        after: None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
