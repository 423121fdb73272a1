//! The running service: starts the parts of a configuration, reloads it, and stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use choria_host::tls::server_config;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::audit;
use crate::broker;
use crate::config::{AaaConfig, AuditorConfig};
use crate::error::AaaError;
use crate::http::{self, Api, Tls};
use crate::metrics::Metrics;
use crate::monitor::{self, Health};
use crate::restart::{need_a_restart, place_of};
use crate::services::{Current, Lasting, Services, client_config};

/// A started service. Dropping it ends its tasks at once; [`Aaa::stop`] lets requests finish.
#[derive(Debug)]
pub struct Aaa {
    /// As it was started with.
    config: AaaConfig,
    current: Arc<Current>,
    lasting: Lasting,
    tls: Option<Arc<Tls>>,
    http_address: Option<SocketAddr>,
    monitor_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    parts: JoinSet<Result<(), AaaError>>,
}

impl Aaa {
    /// Starts everything that is configured.
    ///
    /// # Errors
    /// Anything that would leave a part not working: keys, files, ports, TLS. Nothing is half started.
    pub async fn start(config: AaaConfig) -> Result<Aaa, AaaError> {
        let metrics = Arc::new(Metrics::new(&config.site)?);
        let jetstream = config.auditors.iter().find_map(|auditor| match auditor {
            AuditorConfig::JetStream { servers, topic } => Some((servers.clone(), topic.clone())),
            AuditorConfig::LogFile { .. } => None,
        });
        let (publisher, records) = match jetstream {
            Some(jetstream) => {
                let (sender, receiver) = mpsc::channel(audit::QUEUE);
                (Some(sender), Some((jetstream, receiver)))
            }
            None => (None, None),
        };
        let lasting = Lasting {
            metrics: Arc::clone(&metrics),
            login: Arc::default(),
            signer: Arc::default(),
            publisher,
        };
        let current = Arc::new(Current::new(Services::build(&config, &lasting)?));
        let tls = tls_of(&config)?.map(Arc::new);
        let listener = listen(config.listen).await?;
        let monitor_listener = listen(config.monitor).await?;
        let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        let (http_address, monitor_address) = (address(&listener), address(&monitor_listener));

        let (stop, stopped) = watch::channel(false);
        let mut parts = JoinSet::new();
        let cores = Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
        let needs_broker = config.signer.as_ref().is_some_and(|signer| signer.choria_service);
        let health = Arc::new(Health { metrics, ready: AtomicBool::new(!needs_broker) });
        if let Some(listener) = listener {
            let router =
                http::api(Arc::new(Api { current: Arc::clone(&current), cores: Arc::clone(&cores) }));
            let (tls, stopped) = (tls.clone(), stopped.clone());
            parts.spawn(async move {
                http::serve(listener, tls, router, stopped).await;
                Ok(())
            });
        }
        if let Some(listener) = monitor_listener {
            let (router, stopped) = (monitor::router(Arc::clone(&health)), stopped.clone());
            parts.spawn(async move {
                http::serve(listener, None, router, stopped).await;
                Ok(())
            });
        }
        if let Some(client) = client_config(&config)? {
            if let Some(((servers, topic), records)) = records {
                parts.spawn(broker::publish_audits(client.clone(), servers, topic, records, stopped.clone()));
            }
            if needs_broker {
                let host = broker::SignerHost { current: Arc::clone(&current), cores, health };
                parts.spawn(broker::host_signer(client, host, stopped.clone()));
            }
        }
        tracing::info!(
            http = http_address.map(tracing::field::display),
            monitor = monitor_address.map(tracing::field::display),
            tls = tls.is_some(),
            login = config.userlist.is_some(),
            signer = config.signer.is_some(),
            service = needs_broker,
            site = config.site,
            "AAA is up"
        );
        Ok(Aaa { config, current, lasting, tls, http_address, monitor_address, stop, parts })
    }

    /// Where login and signing listen.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Where metrics and health listen.
    pub fn monitor_address(&self) -> Option<SocketAddr> {
        self.monitor_address
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.lasting.metrics
    }

    /// Reads the configuration, users, keys and certificates again and opens log files anew. What cannot be used leaves
    /// everything as it was. Listeners and the broker connection stay; changing those needs a restart.
    ///
    /// # Errors
    /// Why nothing changed.
    pub fn reload(&mut self) -> Result<(), AaaError> {
        let mut config = AaaConfig::load(&self.config.path)?;
        if self.config.plain_http {
            config = config.without_tls();
        }
        let services = Services::build(&config, &self.lasting)?;
        if let (Some(tls), Some(files)) = (&self.tls, &config.tls) {
            let server = server_config(&files.certificate, &files.key, files.client_ca.as_deref())?;
            tls.replace(server, files.client_ca.is_some());
        }
        self.current.replace(services);
        for key in need_a_restart(&self.config, &config) {
            tracing::warn!(setting = key, "{key} changed; restart the service for it to take effect");
        }
        Ok(())
    }

    /// Waits until a part ends by itself, which none should.
    pub async fn part_ended(&mut self) -> AaaError {
        match self.parts.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Ok(Ok(()))) => {
                AaaError::PartEnded { part: "a listener", reason: "it stopped by itself".to_owned() }
            }
            Some(Err(error)) => AaaError::PartEnded { part: "a task", reason: error.to_string() },
            // Nothing was configured that runs by itself.
            None => std::future::pending().await,
        }
    }

    /// Stops accepting, lets requests finish for a moment, and ends.
    pub async fn stop(mut self) {
        // Fails only when every part is gone already.
        let _told = self.stop.send(true).is_ok();
        while let Some(part) = self.parts.join_next().await {
            if let Ok(Err(error)) = part {
                tracing::warn!("while stopping: {error}");
            }
        }
    }
}

/// Runs until `shutdown`. SIGHUP reloads.
///
/// # Errors
/// The service cannot start, or a part of it ended.
pub async fn run(config: AaaConfig, shutdown: impl Future<Output = ()>) -> Result<(), AaaError> {
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
        .map_err(|error| AaaError::PartEnded { part: "signal handling", reason: error.to_string() })?;
    let mut aaa = Aaa::start(config).await?;
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = shutdown.as_mut() => break,
            error = aaa.part_ended() => return Err(error),
            _ = hangup.recv() => match aaa.reload() {
                Ok(()) => tracing::info!("configuration reloaded"),
                Err(error) => {
                    let place = place_of(&aaa.config.path, &error);
                    tracing::error!("reload refused, nothing changed: {place}{error}");
                }
            },
        }
    }
    aaa.stop().await;
    Ok(())
}

async fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>, AaaError> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.map_err(|source| AaaError::Listen { address, source })?;
    Ok(Some(listener))
}

fn tls_of(config: &AaaConfig) -> Result<Option<Tls>, AaaError> {
    match (&config.tls, config.listen) {
        (Some(files), Some(_)) => {
            let server = server_config(&files.certificate, &files.key, files.client_ca.as_deref())?;
            Ok(Some(Tls::new(server, files.client_ca.is_some())))
        }
        (None, Some(address)) if config.plain_http => {
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "TLS is off: passwords cross the network in the clear unless a proxy protects them");
            }
            Ok(None)
        }
        (None, Some(_)) => Err(AaaError::Setting {
            key: "tls_certificate",
            reason: "is required with 'port'; behind a proxy that ends TLS start with --disable-tls"
                .to_owned(),
        }),
        (_, None) => Ok(None),
    }
}
