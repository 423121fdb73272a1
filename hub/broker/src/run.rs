//! Running a broker: engine, listeners, signals.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use choria_host::settings::{Settings, Warning};
use choria_host::tls::{self, TlsError};
use choria_token::PublicKey;
use nats_engine::{CloseReason, Engine, EngineConfig, EngineError, Pages};
use tokio::signal::unix::{SignalKind, signal};

use crate::accounts::accounts;
use crate::admission::ACCOUNT_SYSTEM;
use crate::config::{BrokerConfig, ConfigError, Constrained, TlsFiles};
use crate::doorkeeper::{Doorkeeper, Vouched};
use crate::reread::{need_a_restart, place_of};
use crate::stats::{self, Metrics};

/// Why a broker could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Its settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A port, or the accounts.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Metrics.
    #[error("cannot make the broker's metrics: {0}")]
    Metrics(String),
    /// Signals.
    #[error("cannot listen for signals: {0}")]
    Signal(std::io::Error),
    /// A line or value that was good before.
    #[error("{0}")]
    Wrong(Warning),
    /// Settings were read again that need a restart.
    #[error("{0} changed; restart the broker for it to take effect")]
    NeedsRestart(&'static str),
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    engine: Engine,
    client: SocketAddr,
    stats: Option<SocketAddr>,
    doorkeeper: Arc<Doorkeeper>,
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    constrained: Option<(SocketAddr, Arc<ArcSwap<rustls::ServerConfig>>)>,
    config: ArcSwap<BrokerConfig>,
    /// What it was started with: what a reload does not change.
    started: Settings,
}

/// Reads everything that a broker with this configuration would read: issuers, certificate, key. Opens no port.
pub fn check(config: &BrokerConfig) -> Result<(), BrokerError> {
    config.policy()?;
    if let Some(wanted) = &config.constrained {
        constrained_tls(wanted)?;
    }
    if let Some(files) = &config.tls {
        server_tls(files)?;
    }
    Ok(())
}

impl Broker {
    /// Starts the engine and its listeners.
    pub async fn start(config: BrokerConfig) -> Result<Broker, BrokerError> {
        tracing::info!("Starting Network Broker");
        announce(&config);
        let policy = config.policy()?;
        let provisioning = policy.provisioning.is_some();
        let doorkeeper = Arc::new(Doorkeeper::new(policy, config.session_expiry));
        let tls = match &config.tls {
            None => None,
            Some(files) => Some(Arc::new(ArcSwap::new(server_tls(files)?))),
        };
        let engine = Engine::new(
            engine_config(&config),
            accounts(provisioning, config.wide_lifecycle_import),
            Arc::clone(&doorkeeper) as Arc<dyn nats_engine::Authenticator>,
        )?;
        let listener = engine.listen(config.client_address, tls.clone()).await?;
        let client = listener.local_addr();
        tracing::info!(component = "network_broker", "Listening for client connections on {client}");
        let constrained = match &config.constrained {
            None => None,
            Some(wanted) => {
                let tls = Arc::new(ArcSwap::new(constrained_tls(wanted)?));
                let address = engine.listen(wanted.address, Some(Arc::clone(&tls))).await?.local_addr();
                tracing::info!(
                    component = "network_broker",
                    max_fragment = wanted.max_fragment,
                    "Listening for connections of devices on {address}"
                );
                Some((address, tls))
            }
        };
        let stats = match config.stats_address {
            None => None,
            Some(address) => {
                let monitor = engine.monitor_with(address, pages(&config, &engine)?).await?;
                tracing::info!(
                    component = "network_broker",
                    "Listening for monitoring requests on {}",
                    monitor.local_addr()
                );
                Some(monitor.local_addr())
            }
        };
        Ok(Broker {
            engine,
            client,
            stats,
            doorkeeper,
            tls,
            constrained,
            started: config.settings().clone(),
            config: ArcSwap::from_pointee(config),
        })
    }

    /// Where clients connect, with the real port.
    pub fn client_addr(&self) -> SocketAddr {
        self.client
    }

    /// Where devices connect, when that is on.
    pub fn constrained_addr(&self) -> Option<SocketAddr> {
        self.constrained.as_ref().map(|(address, _)| *address)
    }

    /// Where monitoring answers, when it is on.
    pub fn stats_addr(&self) -> Option<SocketAddr> {
        self.stats
    }

    /// The engine, for connections within this process.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Takes over issuers, passwords, switches and certificates from new settings. Everything is read and checked before
    /// anything changes; on an error the old values stay. Sessions whose tokens rest on an issuer key that is gone are closed.
    pub fn reload(&self, settings: &Settings) -> Result<(), BrokerError> {
        let old = self.config.load_full();
        let new = match old.tls {
            Some(_) => BrokerConfig::from_settings(settings)?,
            None => BrokerConfig::without_tls(settings)?,
        };
        if let Some(wrong) = settings.newly_wrong(&self.started) {
            return Err(BrokerError::Wrong(wrong));
        }
        let policy = new.policy()?;
        if new.client_address != old.client_address {
            return Err(BrokerError::NeedsRestart("the client port or address"));
        }
        // A file that has lost its `issuer.names` would otherwise cut off the whole fleet.
        if new.issuers.is_empty() && !old.issuers.is_empty() {
            return Err(BrokerError::NeedsRestart("plugin.security.issuer.names, where no issuer is left"));
        }
        if policy.provisioning.is_some() != old.policy()?.provisioning.is_some() {
            return Err(BrokerError::NeedsRestart("plugin.choria.network.provisioning.client_password"));
        }
        let certificate = match &new.tls {
            Some(files) => Some(server_tls(files)?),
            None => None,
        };
        let for_devices = match &new.constrained {
            Some(wanted) => Some(constrained_tls(wanted)?),
            None => None,
        };
        announce(&new);
        let keys_of = |config: &BrokerConfig| -> Vec<(String, PublicKey)> {
            let keys = |(org, keys): (&String, &Vec<PublicKey>)| {
                keys.iter().map(|key| (org.clone(), *key)).collect::<Vec<_>>()
            };
            config.issuers.iter().flat_map(keys).collect()
        };
        let trusted = keys_of(&new);
        let gone: Vec<_> = keys_of(&old).into_iter().filter(|key| !trusted.contains(key)).collect();
        let vouched = |keys: &[(String, PublicKey)]| -> Vec<Vouched> {
            keys.iter().map(|(org, key)| Vouched::by(org, key)).collect()
        };
        self.doorkeeper.replace(policy, &vouched(&gone), &vouched(&trusted));
        if let (Some((_, current)), Some(fresh)) = (&self.constrained, for_devices) {
            current.store(fresh);
        }
        if let (Some(current), Some(certificate)) = (&self.tls, certificate) {
            current.store(certificate);
        }
        for (org, key) in &gone {
            let rest_on_it = Vouched::by(org, key);
            let closed = self.engine.close_where(CloseReason::CredentialsRevoked, |connection| {
                rest_on_it.are_in(&connection.tags)
            });
            tracing::warn!(
                component = "network",
                closed,
                "The issuer {} of {org} was removed, sessions that rest on it are closed",
                key.to_hex()
            );
        }
        self.config.store(Arc::new(new));
        tracing::info!("Settings were read again");
        for key in need_a_restart(&self.started, settings) {
            let place = settings.place_of(&key);
            tracing::warn!(setting = key, "{place}{key} changed; restart the broker for it to take effect");
        }
        Ok(())
    }

    /// Closes every connection and port.
    pub async fn shutdown(&self) {
        self.engine.shutdown().await;
    }
}

/// The broker's own pages beside the engine's monitoring.
fn pages(config: &BrokerConfig, engine: &Engine) -> Result<Pages, BrokerError> {
    let metrics = Metrics::new(&config.identity).map_err(|error| BrokerError::Metrics(error.to_string()))?;
    let file = config.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let (engine, max_connections) = (engine.clone(), config.max_connections);
    Ok(Arc::new(move |path| match path {
        "/choria" | "/choria/" => {
            Some(("application/json", metrics.summary(&file, max_connections).to_string()))
        }
        "/choria/metrics" | "/choria/prometheus" => {
            metrics.render(&engine.stats()).ok().map(|text| ("text/plain; version=0.0.4", text))
        }
        _ => None,
    }))
}

/// Runs a broker until `shutdown` completes. HUP reads the settings file again; an error keeps the old settings.
pub async fn run(config: BrokerConfig, shutdown: impl Future) -> Result<(), BrokerError> {
    run_with(config, |_| {}, shutdown).await
}

/// As [`run`]; a program that runs more than the broker gets to know its engine once it listens.
pub async fn run_with(
    config: BrokerConfig,
    started: impl FnOnce(&Engine),
    shutdown: impl Future,
) -> Result<(), BrokerError> {
    let file = config.file.clone();
    let named = file.as_ref().map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    tracing::info!("Choria Broker version {} starting with config {named}", stats::VERSION);
    let mut hup = signal(SignalKind::hangup()).map_err(BrokerError::Signal)?;
    let broker = Broker::start(config).await?;
    started(broker.engine());
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            _ = &mut shutdown => break,
            signalled = hup.recv() => {
                if signalled.is_none() {
                    break;
                }
                let Some(path) = &file else { continue };
                let settings = Settings::load(path);
                let (place, error) = match settings {
                    Err(error) => (String::new(), BrokerError::Config(error.into())),
                    Ok(settings) => match broker.reload(&settings) {
                        Ok(()) => continue,
                        Err(BrokerError::Config(error)) => {
                            (place_of(&error, &settings), BrokerError::Config(error))
                        }
                        Err(error) => (String::new(), error),
                    },
                };
                tracing::error!("The settings were not read again, the old ones stay: {place}{error}");
            }
        }
    }
    tracing::info!("Shutting down the Network Broker");
    broker.shutdown().await;
    Ok(())
}

/// What an operator looks for in the log to see that the settings took effect.
fn announce(config: &BrokerConfig) {
    for warning in &config.warnings {
        tracing::warn!(component = "network", "{warning}");
    }
    if !config.issuers.is_empty() {
        tracing::warn!(
            component = "network",
            "Allowing unverified TLS connections for Organization Issuer issued connections"
        );
    }
    for (org, keys) in &config.issuers {
        for key in keys {
            tracing::warn!(
                component = "network",
                "Loaded Organization Issuer {org} with public key {}",
                key.to_hex()
            );
        }
    }
    let Ok(policy) = config.policy() else { return };
    if let Some(provisioning) = &policy.provisioning {
        tracing::warn!(component = "network", "Allowing Provisioner connections subject to JWT claims");
        if provisioning.without_token {
            tracing::warn!(
                component = "network",
                "provisioner_without_token is set: whoever knows the password may provision nodes"
            );
        }
        if !provisioning.require_signature {
            tracing::warn!(
                component = "network",
                "require_signature is off: a stolen provisioner token is enough"
            );
        }
        if !provisioning.own_node_subject {
            tracing::warn!(
                component = "network",
                "node_subject = any: waiting nodes can read what others are sent"
            );
        }
    }
    if config.wide_lifecycle_import {
        tracing::warn!(
            component = "network",
            "lifecycle_import = full: waiting nodes can forge events of the fleet"
        );
    }
    if !policy.require_expiry {
        tracing::warn!(
            component = "network",
            "require_token_expiry is off: tokens without an expiry are accepted"
        );
    }
    if config.tls.is_none() {
        tracing::warn!(
            component = "network",
            "TLS is disabled: only connections within this process are served"
        );
    }
}

fn constrained_tls(wanted: &Constrained) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    tls::constrained_server_config(&wanted.certificate, &wanted.key, wanted.max_fragment)
}

fn server_tls(files: &TlsFiles) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    tls::server_config(&files.certificate, &files.key, files.client_ca.as_deref())
}

fn engine_config(config: &BrokerConfig) -> EngineConfig {
    let defaults = EngineConfig::default();
    // A quarter of the machine may wait to be read by clients, all together.
    let quarter = stats::machine_bytes().map(|bytes| bytes / 4).and_then(|bytes| usize::try_from(bytes).ok());
    EngineConfig {
        server_name: config.identity.clone(),
        connect_urls: config.public_url.iter().cloned().collect(),
        system_account: Some(ACCOUNT_SYSTEM.to_owned()),
        max_connections: affordable(config.max_connections),
        auth_timeout: config.auth_timeout,
        tls_timeout: config.tls_timeout,
        write_deadline: config.write_deadline,
        max_pending_total: quarter.unwrap_or(defaults.max_pending_total),
        ..defaults
    }
}

/// As many connections as configured, or as the process may have open files, with a few left for its own.
fn affordable(max_connections: usize) -> usize {
    const OWN_FILES: usize = 64;
    let files = choria_host::harden::raise_open_files().and_then(|files| usize::try_from(files).ok());
    let room = files.unwrap_or(usize::MAX).saturating_sub(OWN_FILES);
    if max_connections > room {
        tracing::warn!(
            "The limit of open files leaves room for {room} of {max_connections} connections: raise `ulimit -n` (LimitNOFILE) to {}",
            max_connections.saturating_add(OWN_FILES)
        );
    }
    max_connections.min(room)
}
