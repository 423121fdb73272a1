//! The life of a server: decide, connect, serve, and begin again when provisioning says so.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use agent_core::dispatch::Gate;
use choria_host::log::LogHandle;
use choria_host::rego::{FactFilter, RequestFilter};
use choria_host::{Secret, Settings, clock, private_file, tls};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::config::{ConfigError, Mode, ServerConfig};
use crate::driver::{
    AgentEntry, Answer, Called, Command, Connection, ConnectionConfig, Ended, Held, Host, NodeGate, Notice,
    Shared, TlsCache,
};
use crate::metrics::MetricsServer;
use crate::node::Node;
use crate::rules::{RereadError, Rules, need_a_restart};
use crate::seed::NodeSeed;
use crate::startup::{self, Decision};
use crate::{identity, node_token};

/// Refusals in a row after which a node asks itself whether to provision again.
const RECONSIDER_AFTER: u32 = 5;

/// What `server run` was given.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The configuration file, which need not exist.
    pub config: PathBuf,
    /// `--provisioning-jwt`.
    pub provisioning_jwt: Option<PathBuf>,
    /// Where the process id goes, mode 0644.
    pub pid: Option<PathBuf>,
    /// The log, for HUP to renew.
    pub log: Option<LogHandle>,
    /// The level of the log is not the configuration's.
    pub debug: bool,
}

/// Why a server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// A signal, or the caller's order.
    Stopped,
    /// The provisioning agent was told to shut down.
    Shutdown,
    /// One sentence with the way out.
    Failed(String),
}

/// Runs a server until SIGINT, SIGTERM or an order from the network. Call it on a current-thread runtime.
pub async fn run(options: RunOptions) -> ExitReason {
    if let Some(pid) = &options.pid
        && let Err(error) = private_file::write_atomic(pid, std::process::id().to_string().as_bytes(), 0o644)
    {
        return ExitReason::Failed(format!("could not write the process id: {error}"));
    }
    let (stop, stopped) = watch::channel(false);
    let reload = watch::Sender::new(0);
    let logged = options.log.map(|log| Logged { log, config: options.config.clone(), debug: options.debug });
    let life = Life {
        config: options.config,
        provisioning_jwt: options.provisioning_jwt,
        identity: identity::of_host(),
        tls: None,
        shared: Shared::new(1 << 20),
        reload: Some(reload.subscribe()),
        replay_slots: agent_core::replay::SERVER_SLOTS,
        on_stage: None,
    };
    let ended = LocalSet::new()
        .run_until(async move {
            let mut life = Box::pin(live_on(life, stopped, Anew::Exec));
            tokio::select! {
                ended = &mut life => ended,
                Err(error) = hang_ups(logged, reload) => {
                    ExitReason::Failed(format!("could not listen for signals: {error}"))
                }
                signal = termination() => match signal {
                    Ok(name) => {
                        tracing::info!(signal = name, "stopping");
                        stop.send_replace(true);
                        life.await
                    }
                    Err(error) => ExitReason::Failed(format!("could not listen for signals: {error}")),
                },
            }
        })
        .await;
    if let Some(pid) = &options.pid {
        private_file::remove(pid).ok();
    }
    ended
}

/// What a HUP does to the log.
struct Logged {
    log: LogHandle,
    config: PathBuf,
    /// `--debug` wins over the file.
    debug: bool,
}

impl Logged {
    /// Opens the file anew, for whoever moved it away, and takes over the level.
    fn renew(&self) {
        if let Err(error) = self.log.reopen() {
            tracing::error!(%error, "keeping the old log file");
        }
        // what else is wrong with the file is told where the rest of it is read
        let Ok(settings) = Settings::load(&self.config) else { return };
        if !self.debug
            && let Err(error) = self.log.set_level(settings.get("loglevel").unwrap_or("info"))
        {
            tracing::error!("{}keeping the log level in use: {error}", settings.place_of("loglevel"));
        }
    }
}

async fn hang_ups(logged: Option<Logged>, reload: watch::Sender<u64>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hang_up = signal(SignalKind::hangup())?;
    while hang_up.recv().await.is_some() {
        if let Some(logged) = &logged {
            logged.renew();
        }
        reload.send_modify(|times| *times += 1);
    }
    std::future::pending().await
}

async fn termination() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}

/// How far a node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Connected, waiting for a provisioner.
    Candidate,
    /// Connected as itself.
    Member,
    Disconnected,
}

/// Called whenever a node comes to another stage.
pub type OnStage = Rc<dyn Fn(Stage)>;

/// One node of this process.
pub struct Life {
    pub config: PathBuf,
    pub provisioning_jwt: Option<PathBuf>,
    /// Identity where the configuration has none.
    pub identity: String,
    /// Shares TLS configurations between many nodes of one thread; a single node reads its files anew each time.
    pub tls: Option<TlsCache>,
    pub shared: Shared,
    /// Changes whenever the configuration shall be read again.
    pub reload: Option<watch::Receiver<u64>>,
    pub replay_slots: usize,
    pub on_stage: Option<OnStage>,
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life")
            .field("config", &self.config)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What a new start of the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anew {
    /// Begin again in this process: one of many nodes.
    Here,
    /// Replace the process, so that a new log destination and an updated program take effect.
    Exec,
}

/// Runs one node until `stop` becomes true. Must be called inside a [`LocalSet`].
pub async fn live(life: Life, stop: watch::Receiver<bool>) -> ExitReason {
    live_on(life, stop, Anew::Here).await
}

async fn live_on(life: Life, mut stop: watch::Receiver<bool>, anew: Anew) -> ExitReason {
    let process_start = clock::unix_nanos();
    loop {
        let now = clock::unix_seconds();
        let config = match startup::begin(&life.config, life.provisioning_jwt.as_deref(), &life.identity, now)
        {
            Ok(config) => config,
            Err(error) => return ExitReason::Failed(error.to_string()),
        };
        let connection = match connection_config(&config, &life, process_start) {
            Ok(connection) => connection,
            Err(reason) => return ExitReason::Failed(reason),
        };
        // one node's log says who it is; with thousands in one process that would be noise
        if anew == Anew::Exec {
            announce(&config);
        }
        let delay = match Box::pin(serve(config, connection, &life, &mut stop)).await {
            Ok(Ended::Restart { delay }) => delay,
            Ok(Ended::Shutdown) => return ExitReason::Shutdown,
            Ok(Ended::Stopped) if *stop.borrow() => return ExitReason::Stopped,
            // The node stopped itself to look at its credentials again.
            Ok(Ended::Stopped) => Duration::ZERO,
            Err(reason) => return ExitReason::Failed(reason),
        };
        tracing::info!(identity = life.identity, delay_s = delay.as_secs(), "starting anew");
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = stop.wait_for(|stop| *stop) => return ExitReason::Stopped,
        }
        if anew == Anew::Exec {
            return ExitReason::Failed(format!("could not start the program anew: {}", exec()));
        }
    }
}

/// Replaces this process by a new one of the same program, arguments and environment. Returns only when that fails.
fn exec() -> std::io::Error {
    use std::os::unix::process::CommandExt;
    let mut arguments = std::env::args_os();
    match arguments.next() {
        Some(program) => std::process::Command::new(program).args(arguments).exec(),
        None => std::io::Error::other("its name is not known"),
    }
}

/// Says whom the token makes this node, and where answers to its own requests go (docs/spec/07 §9.2).
fn announce(config: &ServerConfig) {
    if config.mode != Mode::Normal {
        return;
    }
    // whatever is wrong with the token is told when it is used
    let Ok(token) = node_token::read_server(&config.token_file) else { return };
    let identity = token.claims.identity.as_str();
    tracing::info!(
        component = "server",
        connection = identity,
        identity,
        "Setting JWT token and unique reply queues based on JWT for \"{identity}\""
    );
    let collective = &config.main_collective;
    let id = agent_core::ids::private_network_id(identity);
    tracing::info!(
        component = "server",
        connection = identity,
        identity,
        "Setting custom inbox prefix based on unique ID to {collective}.reply.{}",
        id.as_str()
    );
}

fn connection_config(
    config: &ServerConfig,
    life: &Life,
    process_start: i64,
) -> Result<ConnectionConfig, String> {
    let make = || {
        let client_cert =
            config.client_certificate.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
        tls::client_config(&config.trust, client_cert).map_err(|error| error.to_string())
    };
    let tls = match &life.tls {
        Some(cache) => cache.get(&format!("{:?} {:?}", config.trust, config.client_certificate), make)?,
        None => make()?,
    };
    if !config.trust.verifies() {
        tracing::warn!(
            identity = config.identity,
            reason = "tls_unverified",
            "the broker's certificate is not verified: set plugin.security.choria.ca or plugin.security.choria.tls_pin"
        );
    }
    let (reply_check, reply_targets) = reply_rules(config)?;
    let start_guard =
        config.mode == Mode::Normal && config.settings.bool("plugin.choria.server.replay_start_guard", true);
    Ok(ConnectionConfig {
        component: config.component().to_owned(),
        legacy_events: config.legacy_lifecycle_format,
        ttl_cap_seconds: config.ttl_cap_seconds,
        reply_check,
        reply_targets,
        federation: config.settings.bool("plugin.choria.server.federation_replies", false),
        not_before: if start_guard { process_start } else { 0 },
        replay_slots: life.replay_slots,
        tls: Some(tls),
        connect_timeout: config.connect_timeout,
        soft_shutdown: config.soft_shutdown_timeout,
        ..ConnectionConfig::server(&config.identity, config.collectives.clone(), config.targets.clone())
    })
}

/// `plugin.choria.server.reply_check` and `.reply_targets` \[ours\].
fn reply_rules(config: &ServerConfig) -> Result<(agent_core::dispatch::ReplyCheck, Vec<String>), String> {
    use agent_core::dispatch::ReplyCheck;
    let check = match config.settings.get("plugin.choria.server.reply_check") {
        None | Some("caller") => ReplyCheck::Caller,
        Some("prefix") => ReplyCheck::Prefix,
        Some("off") => ReplyCheck::Off,
        Some(other) => {
            return Err(format!(
                "plugin.choria.server.reply_check is '{other}': write caller, prefix or off"
            ));
        }
    };
    if check != ReplyCheck::Caller {
        tracing::warn!(
            setting = "plugin.choria.server.reply_check",
            "reply subjects are not bound to their callers"
        );
    }
    Ok((check, config.settings.list("plugin.choria.server.reply_targets")))
}

async fn serve(
    config: ServerConfig,
    connection: ConnectionConfig,
    life: &Life,
    stop: &mut watch::Receiver<bool>,
) -> Result<Ended, String> {
    let rules = Rules::of(&config).map_err(|error| error.to_string())?;
    let status_interval = config.status.as_ref().map(|status| status.interval);
    let (commands, inbox) = mpsc::unbounded_channel();
    let node = Rc::new(Node::new(config, rules));
    let host = Rc::new(NodeHost {
        node: Rc::clone(&node),
        life_config: life.config.clone(),
        provisioning_jwt: life.provisioning_jwt.clone(),
        identity: life.identity.clone(),
        on_stage: life.on_stage.clone(),
        refused: Cell::new(0),
        commands: RefCell::new(Some(commands.clone())),
    });
    node.write_status();
    // Ends with this function, so that the next start finds its port free.
    let mut beside = tokio::task::JoinSet::new();
    if let Some(address) = node.config.stats_address {
        let server = MetricsServer::bind(address)
            .await
            .map_err(|error| format!("could not serve metrics on {address}: {error}"))?;
        beside.spawn_local(server.serve(Rc::clone(&node)));
    }
    let connection = Connection::new(connection, life.shared.clone());
    let mut running = Box::pin(connection.run(Rc::clone(&host) as Rc<dyn Host>, inbox));
    let mut reload = life.reload.clone();
    let mut tick = status_interval.filter(|interval| !interval.is_zero()).map(tokio::time::interval);
    let mut told = false;
    loop {
        tokio::select! {
            ended = &mut running => {
                node.write_status();
                return Ok(ended);
            }
            _ = stop.wait_for(|stop| *stop), if !told => {
                told = true;
                commands.send(Command::Stop).ok();
            }
            () = next_tick(&mut tick) => node.write_status(),
            () = asked_to_reload(&mut reload) => host.reload(),
        }
    }
}

async fn next_tick(tick: &mut Option<tokio::time::Interval>) {
    match tick {
        Some(tick) => {
            tick.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn asked_to_reload(asked: &mut Option<watch::Receiver<u64>>) {
    if let Some(asked) = asked
        && asked.changed().await.is_ok()
    {
        return;
    }
    // without a sender nobody can ask any more
    std::future::pending().await
}

/// A [`Node`] as the connection sees it.
struct NodeHost {
    node: Rc<Node>,
    life_config: PathBuf,
    provisioning_jwt: Option<PathBuf>,
    identity: String,
    on_stage: Option<OnStage>,
    refused: Cell<u32>,
    commands: RefCell<Option<mpsc::UnboundedSender<Command>>>,
}

impl NodeHost {
    /// Reads the configuration again. What holds without a new start is taken over, the rest is named; a file that is
    /// not good changes nothing.
    fn reload(&self) {
        if self.node.is_provisioning() {
            tracing::info!("this node waits for a provisioner, there is no configuration to read again");
            return;
        }
        match self.reread() {
            Ok((rules, fresh)) => {
                self.node.obey(rules, &fresh);
                tracing::info!("the configuration was read again");
                for key in need_a_restart(&self.node.config.settings, &fresh.settings) {
                    let place = fresh.settings.place_of(&key);
                    tracing::warn!(
                        setting = key,
                        "{place}{key} changed; restart the server for it to take effect"
                    );
                }
            }
            Err(reason) => {
                tracing::error!("the configuration was not read again, the old one stays: {reason}")
            }
        }
    }

    fn reread(&self) -> Result<(Rules, ServerConfig), RereadError> {
        let path = &self.node.config.path;
        let mut settings = Settings::load(path).map_err(ConfigError::from)?;
        settings.overlay_environment();
        let (jwt, _) = startup::find_provisioning_jwt(&self.life_config, self.provisioning_jwt.as_deref());
        let token = node_token::read_provisioning(&jwt).ok();
        let fresh = ServerConfig::from_settings(path, settings, &self.identity, token.as_ref())?;
        let rules = Rules::of(&fresh)?;
        match fresh.settings.newly_wrong(&self.node.config.settings) {
            Some(wrong) => Err(RereadError::Wrong(wrong)),
            None => Ok((rules, fresh)),
        }
    }

    fn stage(&self, stage: Stage) {
        if let Some(on_stage) = &self.on_stage {
            on_stage(stage);
        }
    }

    /// Credentials that brokers keep refusing, or that have expired, may mean that the node has to be provisioned again.
    fn reconsider(&self) {
        self.refused.set(self.refused.get().saturating_add(1));
        if self.node.is_provisioning() || !self.refused.get().is_multiple_of(RECONSIDER_AFTER) {
            return;
        }
        let (jwt, _) = startup::find_provisioning_jwt(&self.life_config, self.provisioning_jwt.as_deref());
        let (seen, ..) = startup::observe(&self.life_config, &jwt, &self.identity, clock::unix_seconds());
        if matches!(startup::decide(&seen), Decision::Provision { .. })
            && let Some(commands) = self.commands.borrow_mut().take()
        {
            commands.send(Command::Stop).ok();
        }
    }
}

impl Host for NodeHost {
    fn agents(&self) -> Vec<AgentEntry> {
        let entry = |agent: &agent_core::rpc::AgentMeta| AgentEntry {
            name: agent.name.to_owned(),
            service: agent.service,
            timeout: Duration::from_secs(agent.timeout_seconds.max(1).into()),
        };
        self.node.agents().iter().map(entry).collect()
    }

    fn gate(&self) -> Box<dyn Gate + '_> {
        Box::new(NodeGate::new(&self.node))
    }

    fn credentials(&self) -> Result<Held, String> {
        let config = &self.node.config;
        let held = |token: Secret, seed| Held {
            token: Some(token),
            seed,
            user: config.nats_user.clone(),
            password: config.nats_password.as_ref().map(|password| Secret::new(password.expose().to_owned())),
            sign_replies: config.sign_replies,
        };
        let Some(seed_file) = config.seed_file.as_deref().filter(|_| config.mode == Mode::Normal) else {
            let token =
                node_token::read_provisioning(&config.token_file).map_err(|error| error.to_string())?;
            return Ok(held(token.text, None));
        };
        let token = node_token::read_server(&config.token_file).map_err(|error| error.to_string())?;
        check_token(&token.claims, config, seed_file, clock::unix_seconds())?;
        let seed = NodeSeed::load(seed_file).map_err(|error| error.to_string())?;
        Ok(held(token.text, Some(zeroize::Zeroizing::new(*seed.bytes()))))
    }

    fn call(self: Rc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answer>>> {
        Box::pin(async move { self.node.call(&called.as_call(), request_filter(&called.filter)).await })
    }

    fn notice(&self, notice: Notice<'_>) {
        match notice {
            Notice::Connected { broker } => {
                self.refused.set(0);
                self.node.live_mut().connected_server = broker.to_owned();
                self.node.write_status();
                self.stage(if self.node.is_provisioning() { Stage::Candidate } else { Stage::Member });
            }
            Notice::Disconnected { reason } => {
                {
                    let mut live = self.node.live_mut();
                    if live.connected_server != "unknown" {
                        live.connected_server.clear();
                        live.traffic.reconnects = live.traffic.reconnects.saturating_add(1);
                    }
                }
                self.stage(Stage::Disconnected);
                if matches!(reason, "no_credentials" | "authorization_violation") {
                    self.reconsider();
                }
            }
            Notice::Refused { reason } => {
                let mut live = self.node.live_mut();
                let count = live.refused.entry(reason).or_default();
                *count = count.saturating_add(1);
            }
            Notice::Counted { counters, sent_bytes, received_bytes } => {
                let mut live = self.node.live_mut();
                live.counters = crate::status::Counters {
                    total: counters.total,
                    valid: counters.validated,
                    invalid: counters.unvalidated,
                    passed: counters.passed,
                    filtered: counters.filtered,
                    replies: counters.replies,
                    ttlexpired: counters.ttl_expired,
                    events: counters.events,
                };
                live.last_message = counters.last_message;
                live.traffic.in_messages = counters.total;
                live.traffic.out_messages = counters.replies.saturating_add(counters.events);
                live.traffic.in_bytes = received_bytes;
                live.traffic.out_bytes = sent_bytes;
            }
        }
    }
}

/// The broker would refuse it; say why here, where it can be mended.
fn check_token(
    claims: &node_token::ServerClaims,
    config: &ServerConfig,
    seed_file: &Path,
    now: i64,
) -> Result<(), String> {
    let token = config.token_file.display();
    if claims.expires().is_some_and(|expires| expires <= now) {
        return Err(format!("the token in {token} has expired; provision again or put a new one there"));
    }
    if claims.identity != config.identity {
        return Err(format!(
            "identity {} does not match caller {} in JWT token {token}",
            config.identity, claims.identity
        ));
    }
    let seed = NodeSeed::load(seed_file).map_err(|error| error.to_string())?;
    if !seed.public_key().eq_ignore_ascii_case(&claims.public_key) {
        return Err(format!("the seed {} and the token {token} do not belong together", seed_file.display()));
    }
    Ok(())
}

/// The filter as policies look at it. What cannot be read restricts nothing, so a policy that wants a filter denies.
fn request_filter(json: &[u8]) -> RequestFilter {
    let value: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let texts = |key: &str| -> Vec<String> {
        let list = value.get(key).and_then(serde_json::Value::as_array);
        list.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let list = |key: &str| value.get(key).and_then(serde_json::Value::as_array);
    let facts = list("fact").into_iter().flatten().filter_map(|fact| {
        let text = |key: &str| fact.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
        Some(FactFilter { fact: text("fact")?, operator: text("operator")?, value: text("value")? })
    });
    RequestFilter {
        facts: facts.collect(),
        classes: texts("cf_class"),
        identities: texts("identity"),
        compound: list("compound").is_some_and(|list| !list.is_empty()),
    }
}
