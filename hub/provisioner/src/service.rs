//! The running provisioner: finds nodes, gives each its turn, and does what its enrolment asks
//! (`docs/spec/04 §10.3` to §10.6).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use choria_host::{clock, one_line, random};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::ProvisionerError;
use crate::backlog::{Added, Backlog, Ending, Sign};
use crate::claims::Applicant;
use crate::config::{Decider, ProvisionerConfig};
use crate::enrolled::Enrolled;
use crate::enrolment::{Answer, Enrolment, Moment, Outcome, Rules, Step, Surroundings};
use crate::helper::{HelperReply, HelperRequest};
use crate::issuing::{IssuingError, Signer};
use crate::metrics::Metrics;
use crate::node_calls::{CallError, NodeCalls, Question};
use crate::presence::Presence;
use crate::program::Program;

/// How long work that has begun may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// Longest waits for answers: the agent's own limit and two seconds for the way.
const WAIT_PROVISION: Duration = Duration::from_secs(22);
const WAIT_OTHER: Duration = Duration::from_secs(4);

/// A configuration in use; a HUP replaces it as a whole.
#[derive(Debug)]
pub(crate) struct Live {
    config: ProvisionerConfig,
    rules: Rules,
    signer: Option<Signer>,
    program: Option<Program>,
    programs: Semaphore,
}

impl Live {
    /// Everything that can be wrong with keys and tokens is found here, before the first node.
    pub(crate) fn build(config: ProvisionerConfig, now_unix: i64) -> Result<Live, ProvisionerError> {
        let mut keys = Vec::new();
        for text in config.jwt_verify.iter().filter(|_| config.features.jwt) {
            let key = choria_token::Key::load(text)
                .map_err(|source| ProvisionerError::VerifyKey { from: text.clone(), source })?;
            keys.push(key);
        }
        let org_keys = keys.iter().filter_map(|key| match key {
            choria_token::Key::Ed25519(key) => Some(*key),
            choria_token::Key::Rsa(_) => None,
        });
        let org_keys: Vec<choria_token::PublicKey> = org_keys.collect();
        let signer = match &config.jwt_signing_key {
            Some(path) if config.features.ed25519 => {
                let signer = Signer::new(path.clone(), config.jwt_signing_token.clone(), org_keys);
                let loaded = signer.current(now_unix)?;
                if let Some(warning) = signer.warning(&loaded, now_unix) {
                    tracing::warn!("{warning}");
                }
                Some(signer)
            }
            _ => None,
        };
        let program = match &config.decider {
            Decider::Builtin(_) => None,
            Decider::Command(words) => Some(Program {
                words: words.clone(),
                limit: config.helper_timeout,
                environment: config.helper_environment.clone(),
            }),
        };
        if !config.unknown_keys.is_empty() {
            tracing::warn!(
                "{}: ignoring unknown keys: {}",
                config.path.display(),
                config.unknown_keys.join(", ")
            );
        }
        let rules = Rules {
            features: config.features,
            token: config.token.clone(),
            previous_token: config.previous_token.clone(),
            verifier: (!keys.is_empty()).then(|| choria_token::Verifier::trusted_signers(keys)),
            upgrades_repository: config.upgrades_repository.clone(),
            upgrades_optional: config.upgrades_optional,
            known_names: config.known_names,
        };
        Ok(Live { programs: Semaphore::new(config.workers), config, rules, signer, program })
    }

    pub(crate) fn interval(&self) -> Duration {
        self.config.interval
    }

    pub(crate) fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }
}

/// What all tasks of one provisioner share.
pub(crate) struct Service {
    /// What it was started with: some of it a reload does not change.
    started: Arc<Live>,
    live: RwLock<Arc<Live>>,
    backlog: Mutex<Backlog>,
    arrived: Notify,
    in_flight: Arc<Semaphore>,
    paused: AtomicBool,
    enrolled: Enrolled,
    presence: Option<Arc<dyn Presence>>,
    pub(crate) metrics: Metrics,
}

impl Service {
    pub(crate) fn new(
        live: Live,
        metrics: Metrics,
        presence: Option<Arc<dyn Presence>>,
    ) -> Result<Service, ProvisionerError> {
        let enrolled = match &live.config.enrolled_file {
            Some(path) => Enrolled::open(path)?,
            None => Enrolled::default(),
        };
        let live = Arc::new(live);
        Ok(Service {
            backlog: Mutex::default(),
            arrived: Notify::new(),
            in_flight: Arc::new(Semaphore::new(live.config.in_flight)),
            paused: AtomicBool::new(false),
            live: RwLock::new(live.clone()),
            started: live,
            enrolled,
            presence,
            metrics,
        })
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the configuration again; the old one stays when the new one is not good.
    pub(crate) fn reload(&self) {
        let path = self.live().config.path.clone();
        let fresh = ProvisionerConfig::load(&path)
            .map_err(ProvisionerError::from)
            .and_then(|config| Live::build(config, clock::unix_seconds()));
        match fresh {
            Ok(live) => {
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
                tracing::info!("read {} again", path.display());
                for key in self.started.config.needs_restart(&self.live().config) {
                    tracing::warn!(
                        setting = key,
                        "{key} changed; restart the provisioner for it to take effect"
                    );
                }
            }
            Err(error) => tracing::error!("keeping the configuration in use: {error}"),
        }
    }

    /// While paused nothing is found, and work in progress ends at its next step.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
        self.metrics.paused.set(i64::from(paused));
        if paused {
            self.backlog().clear();
        }
        self.show_backlog();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    fn backlog(&self) -> std::sync::MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show_backlog(&self) {
        let (waiting, known) = {
            let backlog = self.backlog();
            (backlog.waiting(), backlog.known())
        };
        self.metrics.work_queue_entries.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.metrics.waiting_nodes.set(i64::try_from(known).unwrap_or(i64::MAX));
    }

    /// A node made itself known. `true` when it was queued.
    pub(crate) fn found(&self, identity: &str, sign: Sign) -> bool {
        if self.is_paused() {
            return false;
        }
        // with the broker at hand only names that are connected count (docs/spec/10 V13)
        if self.presence.as_ref().is_some_and(|presence| presence.candidates(identity).is_empty()) {
            tracing::debug!(identity = one_line(identity), reason = "not_connected", "ignored a name");
            return false;
        }
        let added = self.backlog().add(identity, sign, Instant::now());
        match added {
            Added::Queued => {
                self.show_backlog();
                self.arrived.notify_one();
                return true;
            }
            Added::Known => {}
            Added::BackingOff => {
                tracing::debug!(identity, reason = "backing_off", "left alone: nobody answered before")
            }
            Added::Full => {
                tracing::warn!(identity, reason = "queue_full", "too many nodes wait; it will be found again")
            }
            Added::Invalid => {
                tracing::warn!(
                    identity = one_line(identity),
                    reason = "name_invalid",
                    "ignored a name that no node can have"
                );
            }
        }
        false
    }

    /// Gives every waiting node its turn until `end` resolves; then what has begun may finish for a while.
    pub(crate) async fn work(self: &Arc<Self>, calls: &NodeCalls, end: impl Future<Output = ()>) {
        let mut running = JoinSet::new();
        let mut end = std::pin::pin!(end);
        loop {
            let place = tokio::select! {
                () = &mut end => break,
                place = self.in_flight.clone().acquire_owned() => place,
            };
            // the semaphore is never closed
            let Ok(place) = place else { break };
            let turn = loop {
                let patience = self.live().config.interval.saturating_mul(2);
                let turn = self.backlog().take(Instant::now(), patience);
                if let Some(turn) = turn {
                    break Some(turn);
                }
                tokio::select! {
                    () = &mut end => break None,
                    () = self.arrived.notified() => {}
                    Some(_) = running.join_next() => {}
                }
            };
            let Some(turn) = turn else { break };
            while running.try_join_next().is_some() {}
            let (service, calls) = (self.clone(), calls.clone());
            running.spawn(async move {
                let _place = place;
                service.metrics.busy_workers.inc();
                let outcome = if turn.stale {
                    Outcome::Failed(
                        "it waited too long; discovery finds it again if it is still there".to_string(),
                    )
                } else {
                    service.enrol(&turn.identity, &calls).await
                };
                service.metrics.busy_workers.dec();
                service.conclude(&turn.identity, outcome);
            });
        }
        let rest = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, rest).await.is_err() {
            tracing::warn!("{} nodes were left half way; they will ask again", running.len());
        }
    }

    async fn enrol(&self, identity: &str, calls: &NodeCalls) -> Outcome {
        let live = self.live();
        let surroundings = match self.surroundings(identity) {
            Ok(surroundings) => surroundings,
            Err(reason) => return Outcome::Deferred(reason),
        };
        let mut enrolment = Enrolment::new(&live.rules, identity, surroundings);
        let mut answer = Answer::Begin;
        loop {
            if self.is_paused() {
                return Outcome::Failed("the provisioner is paused".to_string());
            }
            let moment = Moment { now_unix: clock::unix_seconds(), random: random::array() };
            answer = match enrolment.advance(answer, moment) {
                Step::Finished(outcome) => return outcome,
                Step::Ask { agent, action, data, pause, limit } => {
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                    self.ask(identity, Question { agent, action, data: &data, limit }, calls).await
                }
                Step::LookUp { public_key } => Answer::Known {
                    key_of_other: self.enrolled.other_name_of(identity, &public_key),
                    known: self.enrolled.known(identity, &public_key),
                },
                Step::Decide(request) => self.decide(&live, &request).await,
                Step::Issue { public_key, org, reply } => {
                    match self.issue(&live, identity, &public_key, org, &reply) {
                        Ok(token) => Answer::Issued { token, reply },
                        Err(error) => Answer::Failed(error),
                    }
                }
            };
        }
    }

    fn surroundings(&self, identity: &str) -> Result<Surroundings, String> {
        let Some(presence) = &self.presence else { return Ok(Surroundings::default()) };
        let mut candidates = presence.candidates(identity);
        let latest = candidates.pop().ok_or("it is not connected any more")?;
        if candidates.iter().any(|other| other.address != latest.address) {
            return Err("identity claimed twice, from different addresses".to_string());
        }
        Ok(Surroundings {
            online: Some(presence.member_online(identity)),
            address: Some(latest.address),
            admitted_token_sha256: Some(latest.token_sha256),
        })
    }

    async fn ask(&self, identity: &str, question: Question<'_>, calls: &NodeCalls) -> Answer {
        let (agent, action) = (question.agent, question.action);
        let wait = if agent == "choria_provision" { WAIT_PROVISION } else { WAIT_OTHER };
        let started = Instant::now();
        let result = calls.call(identity, question, wait).await;
        let failed = !matches!(&result, Ok(answer) if answer.code == 0);
        self.metrics.rpc(&format!("{agent}#{action}"), started.elapsed(), failed);
        match result {
            Ok(answer) if answer.code == 0 => Answer::Replied(answer.data),
            Ok(answer) => Answer::Refused { message: answer.message, code: answer.code },
            Err(CallError::TooLarge { size, limit }) => Answer::TooLarge { size, limit },
            Err(error) => {
                Answer::Silent { gone: matches!(error, CallError::Nobody), reason: error.to_string() }
            }
        }
    }

    async fn decide(&self, live: &Live, request: &HelperRequest) -> Answer {
        let started = Instant::now();
        let decided = match (&live.config.decider, &live.program) {
            (Decider::Builtin(rules), _) => Ok(rules.decide(request)),
            (Decider::Command(_), Some(program)) => match live.programs.acquire().await {
                Ok(_place) => program.run(request).await.map_err(|error| error.to_string()),
                Err(_) => Err("the provisioner is ending".to_string()),
            },
            (Decider::Command(_), None) => Err("no helper is configured".to_string()),
        };
        self.metrics.helper(started.elapsed());
        match decided {
            Ok(reply) => {
                if reply.shutdown && !reply.defer {
                    self.metrics.helper_shutdown_requests.inc();
                }
                Answer::Decided(Box::new(reply))
            }
            Err(reason) => {
                self.metrics.helper_errors.inc();
                Answer::Failed(reason)
            }
        }
    }

    fn issue(
        &self,
        live: &Live,
        identity: &str,
        public_key: &str,
        org: Option<String>,
        reply: &HelperReply,
    ) -> Result<String, String> {
        let now = clock::unix_seconds();
        let signer = live.signer.as_ref().ok_or("no signing key is configured")?;
        let text = |error: IssuingError| error.to_string();
        let loaded = signer.current(now).map_err(text)?;
        let org = loaded.organization(org.as_deref()).map_err(text)?;
        let applicant = Applicant { identity, public_key, org: &org, configuration: &reply.configuration };
        let grant = live
            .config
            .limits
            .grant(applicant, &reply.server_claims, live.config.server_jwt_validity, now)
            .map_err(|refused| refused.to_string())?;
        for note in &grant.notes {
            tracing::warn!(identity, reason = "claims_capped", "{note}");
        }
        loaded.issue(grant, now).map_err(text)
    }

    fn conclude(&self, identity: &str, outcome: Outcome) {
        let ending = match outcome {
            Outcome::Provisioned { public_key } => {
                self.metrics.provisioned.inc();
                if let Some(key) = public_key
                    && let Err(error) = self.enrolled.record(identity, &key, clock::unix_seconds())
                {
                    tracing::error!(identity, %error, "cannot write to `enrolled_file`");
                }
                tracing::info!(identity, "provisioned");
                Ending::Provisioned
            }
            Outcome::Deferred(message) => {
                self.metrics.provision_errors.inc();
                tracing::warn!(identity, reason = "deferred", "deferred: {}", one_line(&message));
                Ending::Released
            }
            Outcome::ShutDown(message) => {
                tracing::info!(identity, "shut down as the helper asked: {}", one_line(&message));
                Ending::Released
            }
            Outcome::Upgraded(version) => {
                tracing::info!(identity, "upgrading to {}; it will ask again", one_line(&version));
                Ending::Released
            }
            Outcome::OwnedByAnother => {
                tracing::info!(identity, reason = "locked", "another provisioner is working on it");
                Ending::Released
            }
            Outcome::Unreachable(message) => {
                self.metrics.provision_errors.inc();
                tracing::warn!(identity, reason = "unreachable", "not provisioned: {}", one_line(&message));
                Ending::Unreachable
            }
            Outcome::Failed(message) => {
                self.metrics.provision_errors.inc();
                tracing::error!(identity, reason = "failed", "not provisioned: {}", one_line(&message));
                Ending::Released
            }
        };
        self.backlog().end(identity, ending, Instant::now());
        self.show_backlog();
    }
}
