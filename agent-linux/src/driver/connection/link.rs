//! The machine with its transport: steps until nothing is left to do.

use agent_core::dispatch::{Gate, Signer, Via};
use agent_core::ed25519::SigningKey;
use agent_core::lifecycle::Kind;
use agent_core::machine::{Buffers, Event, Input, Output};
use agent_core::rpc::StatusText;
use agent_core::session::{AgentRow, Credentials, State};
use choria_host::thinning::Thinning;

use super::super::dial::{self, Stream};
use super::super::host::{AgentEntry, Held};
use super::super::queue::Busy;
use super::*;
use crate::broker_target::Broker;

/// What a step leaves for the asynchronous part.
enum Todo {
    Go,
    Rest,
    Dial(u32),
    Secure,
    Authenticate,
    Drop,
}

/// The order that drives the next step.
enum Order<'i> {
    Input(Input<'i>),
    Prove,
}

pub(super) struct Link<'c> {
    config: &'c ConnectionConfig,
    shared: &'c Shared,
    core: Core<'c>,
    host: &'c dyn Host,
    gate: Box<dyn Gate + 'c>,
    /// Agents ever seen, in a fixed order, and whether they are on air.
    agents: Vec<(AgentEntry, bool)>,
    stream: Option<Stream>,
    /// Tells the next read that the transport is gone.
    write_failed: bool,
    broker: Option<Broker>,
    broker_url: String,
    held: Option<Held>,
    key: Option<SigningKey>,
    rx: Vec<u8>,
    outbox: Vec<u8>,
    base: Instant,
    /// Where in the list of brokers this node begins.
    shift: u32,
    dials: u32,
    sent_bytes: u64,
    received_bytes: u64,
    thinning: Thinning<&'static str>,
}

impl<'c> Link<'c> {
    pub(super) fn new(
        config: &'c ConnectionConfig,
        shared: &'c Shared,
        core: Core<'c>,
        host: &'c dyn Host,
    ) -> Link<'c> {
        Link {
            config,
            shared,
            core,
            host,
            gate: host.gate(),
            agents: host.agents().into_iter().map(|agent| (agent, true)).collect(),
            stream: None,
            write_failed: false,
            broker: None,
            broker_url: String::new(),
            held: None,
            key: None,
            // Zeroed pages are only backed once they are used, so an idle node does not pay for the largest message.
            rx: vec![0; config.max_message.saturating_add(4096)],
            outbox: Vec::new(),
            base: Instant::now(),
            shift: u32::from_be_bytes(choria_host::random::array()),
            dials: 0,
            sent_bytes: 0,
            received_bytes: 0,
            thinning: Thinning::new(crate::LINES_PER_REASON),
        }
    }

    fn now(&self) -> Now {
        Now {
            mono_ms: u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall_nanos: Some(choria_host::clock::unix_nanos()),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.core.state() == State::Ready
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        // A millisecond more: the machine counts whole ones.
        self.core.deadline().map(|ms| self.base + Duration::from_millis(ms.saturating_add(1)))
    }

    pub(super) async fn tick(&mut self, queue: &mut Queue<Job>) {
        self.drive(Order::Input(Input::Tick), queue).await;
    }

    pub(super) async fn received(&mut self, bytes: &[u8], queue: &mut Queue<Job>) {
        self.received_bytes = self.received_bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
        self.drive(Order::Input(Input::Received(bytes)), queue).await;
    }

    pub(super) async fn lost(&mut self, queue: &mut Queue<Job>) {
        self.drive(Order::Input(Input::Disconnected), queue).await;
    }

    pub(super) async fn agents_changed(&mut self, queue: &mut Queue<Job>) {
        let now_on_air = self.host.agents();
        for (known, active) in &mut self.agents {
            *active =
                now_on_air.iter().any(|agent| agent.name == known.name && agent.service == known.service);
        }
        for agent in now_on_air {
            if !self.agents.iter().any(|(known, active)| *active && known.name == agent.name) {
                self.agents.push((agent, true));
            }
        }
        self.drive(Order::Input(Input::AgentsChanged), queue).await;
    }

    /// Waits for bytes; for ever without a transport.
    pub(super) async fn read(&mut self, chunk: &mut [u8]) -> std::io::Result<usize> {
        if std::mem::take(&mut self.write_failed) {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        match &mut self.stream {
            Some(stream) => stream.read(chunk).await,
            None => std::future::pending().await,
        }
    }

    /// Writes what is collected. A failure shows at the next read.
    pub(super) async fn flush(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        if let Some(stream) = &mut self.stream {
            let work = async {
                stream.write_all(&self.outbox).await?;
                stream.flush().await
            };
            let done = tokio::time::timeout(WRITE_DEADLINE, work).await;
            self.sent_bytes = self.sent_bytes.saturating_add(u64::try_from(self.outbox.len()).unwrap_or(0));
            if !matches!(done, Ok(Ok(()))) {
                // A half written line cannot be taken up again.
                tracing::warn!(
                    broker = self.broker_url,
                    reason = "write_failed",
                    "could not write to the broker in time"
                );
                // A goodbye would wait behind what the broker does not take.
                self.stream = None;
                self.write_failed = true;
            }
        }
        self.outbox.clear();
        self.outbox.shrink_to(FLUSH_AT);
    }

    /// Queues the reply to a call, if there is somebody to send it to.
    pub(super) fn answer(&mut self, to: &Parcel, answer: &Answer) {
        if answer.silent {
            return;
        }
        let body = Body::Rpc { code: answer.code, text: &answer.text, data: &answer.data };
        self.respond(to, body);
    }

    fn respond(&mut self, to: &Parcel, body: Body<'_>) {
        if !self.is_ready() {
            tracing::warn!(request = to.request_id(), "not connected, a reply is lost");
            return;
        }
        let now = self.now();
        let Link { core, key, held, broker_url, outbox, .. } = self;
        let via = Via { signer: signer(key.as_ref(), held.as_ref()), broker: broker_url.as_str() };
        let done = self.shared.with(|space| {
            core.respond(now, &to.address(), body, via, &mut space.tx, &mut space.scratch)
                .map(|bytes| outbox.extend_from_slice(bytes))
        });
        if done.is_err() {
            tracing::warn!(request = to.request_id(), "a reply could not be written");
        }
    }

    pub(super) fn publish(&mut self, subject: &str, payload: &[u8]) {
        let Link { core, outbox, .. } = self;
        let done = self.shared.with(|space| {
            core.publish(subject, None, payload, &mut space.tx).map(|bytes| outbox.extend_from_slice(bytes))
        });
        if done.is_err() {
            tracing::warn!(
                subject,
                size = payload.len(),
                "a message cannot be published: bad subject or too large"
            );
        }
    }

    pub(super) fn announce_provisioned(&mut self) {
        let now = self.now();
        let Link { core, outbox, .. } = self;
        self.shared.with(|space| {
            if let Some(bytes) = core.event(now, Kind::Provisioned, &mut space.tx) {
                outbox.extend_from_slice(bytes);
            }
        });
    }

    /// Says goodbye and closes.
    pub(super) async fn goodbye(&mut self) {
        let mut none: Queue<Job> = Queue::new(Bounds::default());
        for _ in 0..2 {
            self.drive(Order::Input(Input::Stop), &mut none).await;
            self.flush().await;
        }
        if let Some(mut stream) = self.stream.take() {
            tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await.ok();
        }
    }

    /// Steps until the machine rests.
    async fn drive(&mut self, order: Order<'_>, queue: &mut Queue<Job>) {
        let mut rest: &[u8] = if let Order::Input(Input::Received(bytes)) = order { bytes } else { &[] };
        let stopping = matches!(order, Order::Input(Input::Stop));
        let mut next = order;
        loop {
            let todo = self.step(&next, &mut rest, queue);
            next = match todo {
                Todo::Rest if rest.is_empty() => break,
                Todo::Go | Todo::Rest if stopping => break,
                Todo::Go | Todo::Rest => Order::Input(Input::Received(rest)),
                Todo::Dial(attempt) => Order::Input(self.dial(attempt).await),
                Todo::Secure => Order::Input(self.secure().await),
                Todo::Authenticate => self.read_credentials(),
                Todo::Drop => {
                    if let Some(mut stream) = self.stream.take() {
                        tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await.ok();
                    }
                    self.outbox.clear();
                    (self.held, self.key) = (None, None);
                    break;
                }
            };
            if self.outbox.len() >= FLUSH_AT {
                self.flush().await;
            }
        }
        self.flush().await;
        self.host.notice(Notice::Counted {
            counters: self.core.counters(),
            sent_bytes: self.sent_bytes,
            received_bytes: self.received_bytes,
        });
    }

    fn step(&mut self, order: &Order<'_>, rest: &mut &[u8], queue: &mut Queue<Job>) -> Todo {
        let now = self.now();
        let Link {
            config,
            shared,
            core,
            host,
            gate,
            agents,
            broker_url,
            held,
            key,
            rx,
            outbox,
            thinning,
            ..
        } = self;
        let rows: Vec<AgentRow<'_>> = agents
            .iter()
            .map(|(agent, active)| AgentRow { name: &agent.name, service: agent.service, active: *active })
            .collect();
        let credentials = held.as_ref().map(|held| Credentials {
            token: held.token.as_ref().map(|token| token.expose().trim()),
            seed: held.seed.as_deref(),
            user: held.user.as_deref(),
            pass: held.password.as_ref().map(|password| password.expose()),
            repeat_token: config.repeat_token,
        });
        let input = match (order, &credentials) {
            (Order::Input(input), _) => *input,
            (Order::Prove, Some(credentials)) => Input::Credentials(credentials),
            (Order::Prove, None) => Input::NoCredentials,
        };
        let via = Via { signer: signer(key.as_ref(), held.as_ref()), broker: broker_url.as_str() };
        shared.with(|space| {
            let step = core.step(now, input, &rows, gate.as_mut(), Buffers { rx, tx: &mut space.tx });
            *rest = rest.get(step.consumed..).unwrap_or_default();
            match step.output {
                Output::Idle => Todo::Rest,
                Output::Dial { attempt } => Todo::Dial(attempt),
                Output::UpgradeTls => Todo::Secure,
                Output::Authenticate => Todo::Authenticate,
                Output::Send(bytes) => {
                    outbox.extend_from_slice(bytes);
                    Todo::Go
                }
                Output::Disconnect(reason) => {
                    tracing::info!(
                        identity = config.identity,
                        broker = broker_url.as_str(),
                        reason = reason.reason(),
                        "connection ended"
                    );
                    host.notice(Notice::Disconnected { reason: reason.reason() });
                    Todo::Drop
                }
                Output::Call { call, to, filter } => {
                    let timeout = agents
                        .iter()
                        .find(|(agent, active)| *active && agent.name == call.agent)
                        .map_or(Duration::from_secs(10), |(agent, _)| agent.timeout)
                        .min(Duration::from_secs(call.ttl_seconds.into()));
                    let job = Job { called: Called::of(&call, filter), to: Parcel::of(&to), timeout };
                    if let Err(Busy(_)) = queue.push(call.caller, job) {
                        if let Some(left_out) = thinning.may_log("busy") {
                            let (caller, request) = (call.caller, call.request_id);
                            tracing::warn!(reason = "busy", caller, request, left_out, "request refused");
                        }
                        host.notice(Notice::Refused { reason: "busy" });
                        let body =
                            Body::Rpc { code: StatusCode::Aborted, text: "server is busy", data: b"{}" };
                        let done = core.respond(now, &to, body, via, &mut space.tx, &mut space.scratch);
                        outbox.extend_from_slice(done.unwrap_or_default());
                    }
                    Todo::Go
                }
                Output::Pong { to } => {
                    let done = core.respond(now, &to, Body::Pong, via, &mut space.tx, &mut space.scratch);
                    outbox.extend_from_slice(done.unwrap_or_default());
                    Todo::Go
                }
                Output::Answer { to, status } => {
                    let text = if let StatusText::Fixed(text) = status.text() { text } else { "" };
                    let body = Body::Rpc { code: status.code(), text, data: b"{}" };
                    let done = core.respond(now, &to, body, via, &mut space.tx, &mut space.scratch);
                    outbox.extend_from_slice(done.unwrap_or_default());
                    Todo::Go
                }
                Output::Event(event) => {
                    report(&config.identity, broker_url, *host, thinning, event);
                    Todo::Go
                }
            }
        })
    }

    async fn dial(&mut self, attempt: u32) -> Input<'static> {
        let Some(broker) = dial::pick(&self.config.brokers, self.dials, self.shift).await else {
            tracing::warn!(
                identity = self.config.identity,
                reason = "no_broker",
                "no broker is configured or found in DNS"
            );
            return Input::DialFailed;
        };
        self.dials = self.dials.wrapping_add(1);
        self.broker_url = broker.to_string();
        let connected = dial::connect(&broker, self.config.connect_timeout).await;
        self.broker = Some(broker);
        match connected {
            Ok(stream) => {
                self.stream = Some(stream);
                Input::Dialed
            }
            Err(error) => {
                tracing::warn!(
                    identity = self.config.identity,
                    broker = self.broker_url,
                    attempt,
                    %error,
                    "could not reach the broker"
                );
                Input::DialFailed
            }
        }
    }

    async fn secure(&mut self) -> Input<'static> {
        let (Some(stream), Some(broker)) = (self.stream.take(), &self.broker) else {
            return Input::TlsFailed;
        };
        let Some(tls) = &self.config.tls else {
            tracing::warn!(
                broker = self.broker_url,
                reason = "tls_required",
                "the broker wants TLS, which is turned off here"
            );
            return Input::TlsFailed;
        };
        match dial::secure(stream, &broker.host, tls, self.config.connect_timeout).await {
            Ok(stream) => {
                self.stream = Some(stream);
                Input::Secured
            }
            Err(error) => {
                tracing::warn!(
                    identity = self.config.identity,
                    broker = self.broker_url,
                    reason = "tls_failed",
                    %error,
                    "the TLS handshake with the broker failed"
                );
                Input::TlsFailed
            }
        }
    }

    /// Token and seed are read for every connection: what was renewed on disk is used without a restart.
    fn read_credentials(&mut self) -> Order<'static> {
        match self.host.credentials() {
            Ok(held) => {
                self.key = held.signing_key();
                self.held = Some(held);
            }
            Err(error) => {
                tracing::warn!(
                    identity = self.config.identity,
                    reason = "no_credentials",
                    error,
                    "cannot prove this node"
                );
                (self.held, self.key) = (None, None);
            }
        }
        Order::Prove
    }
}

fn signer<'a>(key: Option<&'a SigningKey>, held: Option<&'a Held>) -> Option<Signer<'a>> {
    let token = held?.token.as_ref()?.expose();
    Some(Signer { key: key?, token })
}

fn report(
    identity: &str,
    broker: &str,
    host: &dyn Host,
    thinning: &mut Thinning<&'static str>,
    event: Event<'_>,
) {
    match event {
        Event::Ready => {
            tracing::info!(identity, broker, "connected");
            host.notice(Notice::Connected { broker });
        }
        Event::Refused { reason: "filtered", .. } => {}
        Event::Refused { reason, subject } => {
            if let Some(left_out) = thinning.may_log(reason) {
                tracing::warn!(identity, subject, reason, left_out, "request dropped");
            }
            host.notice(Notice::Refused { reason });
        }
        Event::TooLarge { subject, size } => {
            let reason = "oversize";
            if let Some(left_out) = thinning.may_log(reason) {
                tracing::warn!(identity, subject, size, reason, left_out, "message dropped");
            }
            host.notice(Notice::Refused { reason });
        }
        Event::BrokerError(text) => {
            if let Some(left_out) = thinning.may_log("broker_error") {
                let text: String = text.chars().take(256).collect();
                tracing::warn!(identity, broker, text, left_out, "the broker complains");
            }
        }
    }
}
