//! What every fleet command does first and last: configuration, connection, finding nodes, calling them with a
//! progress bar. The protocol itself is `choria-client`'s.

use std::path::Path;
use std::time::{Duration, Instant};

use choria_client::{
    Asking, ClientConfig, ClientError, ConnectOptions, Connection, DiscoveryOptions, LimitMethod,
    PingOptions, RpcOptions, Verification, config_files, ddl_store, discovery, targets,
};
use choria_protocol::Filter;
use choria_protocol::ddl::{self, Ddl};
use serde_json::{Map, Value};

use crate::arguments::Global;
use crate::commands::req::Answer;
use crate::discovery_flags::{DiscoveryFlags, Method};
use crate::failure::{Doing as _, Failure};
use crate::nearest;
use crate::output::colour::Colour;
use crate::output::format::short;
use crate::output::progress::Progress;
use crate::output::{self, harmless};

/// Seconds before the end of a token from which on its owner is told.
const EXPIRES_SOON: u64 = 300;

/// A client's configuration and, once it is online, its connection.
#[derive(Debug)]
pub(crate) struct Fleet {
    config: ClientConfig,
    collective: String,
    connection: Option<Connection>,
    bar_colour: Colour,
    started: Instant,
}

/// One node's answer to a ping.
#[derive(Debug, Clone)]
pub(crate) struct Pong {
    pub(crate) identity: String,
    /// Since the request was published.
    pub(crate) time: Duration,
}

#[derive(Debug)]
pub(crate) struct PingRound {
    pub(crate) pongs: Vec<Pong>,
    pub(crate) invalid: usize,
    /// From the start of the command to the publication.
    pub(crate) overhead: Duration,
}

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) nodes: Vec<String>,
    pub(crate) method: String,
    pub(crate) took: Duration,
}

/// One action on some nodes.
#[derive(Debug)]
pub(crate) struct Call {
    agent: String,
    action: String,
    data: Map<String, Value>,
    nodes: Vec<String>,
    pub(crate) progress: bool,
    pub(crate) batch: usize,
    pub(crate) batch_sleep: Duration,
    pub(crate) timeout: Option<Duration>,
    pub(crate) quiet_after: Option<Duration>,
    /// Replies go there, and nobody waits for them.
    pub(crate) reply_to: Option<String>,
    /// Is told of the nodes that are asked, as they are.
    pub(crate) asking: Option<std::sync::mpsc::Sender<Asking>>,
}

impl Call {
    pub(crate) fn new(agent: &str, action: &str, data: Map<String, Value>, nodes: Vec<String>) -> Self {
        Call {
            agent: agent.to_owned(),
            action: action.to_owned(),
            data,
            nodes,
            progress: false,
            batch: 0,
            batch_sleep: Duration::from_secs(1),
            timeout: None,
            quiet_after: None,
            reply_to: None,
            asking: None,
        }
    }

    pub(crate) fn nodes(&self) -> &[String] {
        &self.nodes
    }
}

/// How a call went.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) request_id: String,
    pub(crate) discovered: usize,
    pub(crate) responses: usize,
    pub(crate) ok: usize,
    pub(crate) failed: usize,
    pub(crate) silent: Vec<String>,
    pub(crate) unexpected: Vec<String>,
    pub(crate) invalid: usize,
    /// Seconds since 1970.
    pub(crate) started: i64,
    pub(crate) discovery: Duration,
    pub(crate) publish: Duration,
    pub(crate) took: Duration,
}

impl Fleet {
    /// Reads the configuration and makes no connection.
    pub(crate) fn offline(global: &Global, target: Option<&str>) -> Result<Self, Failure> {
        let started = Instant::now();
        let config = load(global)?;
        let collective = match target {
            None => config.main_collective.clone(),
            Some(name) if config.collectives.iter().any(|known| known == name) => name.to_owned(),
            Some(name) => {
                return Err(Failure::usage(format!(
                    "cannot set collective to '{name}', it is not on the list of known collectives"
                ))
                .hint(format!("configured are: {}", config.collectives.join(", "))));
            }
        };
        let configured = config.settings.bool("color", true);
        Ok(Fleet {
            bar_colour: Colour::stderr(global.color, configured),
            config,
            collective,
            connection: None,
            started,
        })
    }

    pub(crate) async fn connect(global: &Global, target: Option<&str>) -> Result<Self, Failure> {
        Fleet::offline(global, target)?.online(global).await
    }

    pub(crate) async fn online(mut self, global: &Global) -> Result<Self, Failure> {
        let options = ConnectOptions {
            timeout: Some(global.connect_timeout),
            collective: Some(self.collective.clone()),
            ..ConnectOptions::default()
        };
        self.connection = Some(Connection::connect(&self.config, options).await?);
        self.warn_of_expiry();
        Ok(self)
    }

    /// A token that ends while somebody works with it is better known before.
    fn warn_of_expiry(&self) {
        let expires = self.config.credentials.as_ref().and_then(|source| source.load().ok()?.expires());
        let left = expires.map(|expires| expires.saturating_sub(choria_host::clock::unix_seconds()));
        if let Some(left) = left.and_then(|left| u64::try_from(left).ok()).filter(|left| *left < EXPIRES_SOON)
        {
            let left = short(Duration::from_secs(left), Duration::from_secs(1));
            output::note(&format!(
                "warning: your token expires in {left}: run `choria login` for a new one\n"
            ));
        }
    }

    fn connection(&self) -> Result<&Connection, Failure> {
        Ok(self.connection.as_ref().ok_or_else(not_connected)?)
    }

    /// Lets the broker know that we leave; a connection that is already gone needs no goodbye.
    pub(crate) async fn close(&self) {
        if let Some(connection) = &self.connection {
            drop(connection.close().await);
        }
    }

    pub(crate) fn collective(&self) -> &str {
        &self.collective
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// The schema of an agent.
    pub(crate) fn ddl(&self, agent: &str) -> Result<Ddl, Failure> {
        ddl_store::find(&self.config, agent).map_err(|error| {
            let ClientError::NoDdl { .. } = error else { return error.into() };
            let known: Vec<&str> = ddl::builtin_names().collect();
            let hint = nearest::did_you_mean(agent, known.iter().copied()).unwrap_or_else(|| {
                format!(
                    "known are {}; put the schemas of others in a folder of `libdir` as choria/agent/AGENT.json",
                    known.join(", ")
                )
            });
            Failure::from(error).hint(hint)
        })
    }

    /// Whether the flags name a way to find nodes that can be used.
    pub(crate) fn check(&self, flags: &DiscoveryFlags) -> Result<(), Failure> {
        // stdin can be read once only
        if flags.nodes.as_deref() == Some(Path::new("-")) {
            return Ok(());
        }
        flags.method(&self.config, &self.collective).map(drop)
    }

    pub(crate) async fn ping(
        &self,
        filter: &Filter,
        timeout: Option<Duration>,
        expect: usize,
        mut on_pong: impl FnMut(&Pong),
    ) -> Result<PingRound, Failure> {
        let options =
            PingOptions { timeout, expect: (expect > 0).then_some(expect), ..PingOptions::default() };
        let asked = Instant::now();
        let mut pongs = Vec::new();
        let summary = choria_client::ping(self.connection()?, filter, &options, |answer| {
            let pong = Pong { identity: answer.identity, time: answer.after };
            on_pong(&pong);
            pongs.push(pong);
        })
        .await?;
        let overhead = asked.duration_since(self.started) + summary.publish_time;
        Ok(PingRound { pongs, invalid: summary.invalid, overhead })
    }

    pub(crate) async fn discover(
        &self,
        filter: &Filter,
        flags: &DiscoveryFlags,
        talk: bool,
    ) -> Result<Found, Failure> {
        let started = Instant::now();
        let (method, how) = flags.method(&self.config, &self.collective)?;
        if talk {
            output::note(&format!("Discovering nodes using the {method} method .... "));
        }
        let found = self.find(filter, flags, how).await;
        if talk {
            output::note(
                &found.as_ref().map_or_else(|_| String::from("\n"), |nodes| format!("{}\n", nodes.len())),
            );
        }
        Ok(Found { nodes: found?, method, took: started.elapsed() })
    }

    async fn find(
        &self,
        filter: &Filter,
        flags: &DiscoveryFlags,
        how: Method,
    ) -> Result<Vec<String>, ClientError> {
        let found = match how {
            Method::Broadcast => {
                let options = DiscoveryOptions {
                    timeout: flags.discovery_timeout,
                    windowed: flags.discovery_window.then_some(true),
                    ..DiscoveryOptions::default()
                };
                let connection = self.connection.as_ref().ok_or_else(not_connected)?;
                choria_client::discover(connection, filter, &options).await?
            }
            Method::List { text, options } => discovery::flatfile::from_text(&text, &options, filter)?,
            Method::Inventory(file) => discovery::inventory::from_file(&file, &self.collective, filter)?,
            Method::External(options) => discovery::external::run(&options, filter).await?,
        };
        Ok(found.identities())
    }

    /// Keeps as many nodes as `--limit` says.
    pub(crate) fn limit(
        &self,
        nodes: Vec<String>,
        limit: Option<targets::Amount>,
        seed: Option<u64>,
    ) -> Result<Vec<String>, Failure> {
        let Some(limit) = limit else { return Ok(nodes) };
        let method = if seed.is_some() { LimitMethod::Random } else { self.config.limit_method };
        let seed = seed.unwrap_or_else(|| choria_host::clock::unix_nanos().unsigned_abs());
        Ok(targets::limit(nodes, limit, method, seed)?)
    }

    pub(crate) async fn call(
        &self,
        call: Call,
        mut on_answer: impl FnMut(Answer),
    ) -> Result<Summary, Failure> {
        let ddl = self.ddl(&call.agent)?;
        let service = ddl.metadata.service;
        let expected = if service { 1 } else { call.nodes.len() };
        let title = format!("Invoking {}#{} action", call.agent, call.action);
        let mut progress = Progress::start(expected, call.progress, &title, self.bar_colour);
        let options = RpcOptions {
            targets: (!service).then_some(call.nodes),
            timeout: call.timeout,
            quiet_after: call.quiet_after,
            reply_to: call.reply_to,
            asking: call.asking,
            batch: (call.batch > 0).then_some(targets::Amount::Nodes(call.batch)),
            batch_sleep: Some(call.batch_sleep),
            ..RpcOptions::default()
        };
        let started = choria_host::clock::unix_seconds();
        let mut done = 0;
        let result =
            choria_client::call(self.connection()?, &ddl, &call.action, call.data, options, |reply| {
                done += 1;
                progress.advance(done);
                on_answer(Answer {
                    sender: reply.identity,
                    status: reply.status,
                    message: reply.message,
                    data: match reply.data {
                        Value::Object(map) => map,
                        _ => Map::new(),
                    },
                    at: reply.time / 1_000_000_000,
                    verification: match reply.verification {
                        Verification::Verified => String::from("verified"),
                        Verification::Unverified => String::from("unverified"),
                        Verification::Invalid(reason) => format!("invalid: {reason}"),
                    },
                });
            })
            .await;
        progress.finish();
        let summary = result?;
        Ok(Summary {
            discovered: if service { 1 } else { summary.targets.len() },
            responses: summary.responses(),
            request_id: summary.request_id,
            ok: summary.ok,
            failed: summary.failed,
            silent: summary.missing,
            unexpected: summary.unexpected,
            invalid: summary.invalid,
            started,
            discovery: Duration::ZERO,
            publish: summary.publish_time,
            took: summary.request_time,
        })
    }
}

fn not_connected() -> ClientError {
    ClientError::Broker(String::from("there is none"))
}

/// The client configuration that the flags, the environment and the files give.
pub(crate) fn load(global: &Global) -> Result<ClientConfig, Failure> {
    let config = load_file(global.config.as_deref())?;
    start_log(global, &config)?;
    Ok(config)
}

/// The log of a person's tool: what deserves attention, or all with `--debug`, to stderr unless configured.
fn start_log(global: &Global, config: &ClientConfig) -> Result<(), Failure> {
    let setting = |key: &str| config.settings.get(key);
    let level = if global.debug { "debug" } else { setting("loglevel").unwrap_or("warn") };
    let ansi = Colour::stderr(global.color, config.settings.bool("color", true)).is_on();
    choria_host::log::init(level, setting("logfile").unwrap_or("stderr"), ansi)
        .map(drop)
        .doing(|| String::from("cannot start the log"))
}

pub(crate) fn load_file(path: Option<&Path>) -> Result<ClientConfig, Failure> {
    let settings = config_files::discover(path).map_err(|error| {
        let from_environment = path.is_none() && std::env::var_os("CHORIA_CONFIG").is_some();
        match error {
            ClientError::Settings(_) if from_environment => Failure::from(error)
                .hint("CHORIA_CONFIG names this file; a lab's is there while the lab runs: choria lab up"),
            other => other.into(),
        }
    })?;
    let config = ClientConfig::from_settings(settings)?;
    for warning in config.settings.warnings() {
        output::note(&format!("warning: {warning}\n"));
    }
    Ok(config)
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = Failure::new(harmless(&error.to_string())).exit(error.exit_code());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
