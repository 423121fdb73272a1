//! Starting, steering and ending a provisioner.

use std::sync::Arc;
use std::time::Duration;

use choria_client::{ClientConfig, ClientError, ConnectOptions, Connection, CredentialSource};
use choria_host::{clock, random};
use choria_protocol::event::{Event, LifecycleEvent};
use choria_protocol::subjects;
use futures_util::StreamExt as _;

use crate::backlog::Sign;
use crate::config::{ConfigError, ProvisionerConfig};
use crate::enrolled::EnrolledError;
use crate::issuing::IssuingError;
use crate::metrics::{self, Metrics};
use crate::node_calls::{COLLECTIVE, CallError, NodeCalls};
use crate::presence::Presence;
use crate::service::{Live, Service};

/// The user name that brokers let into the account of nodes that are no members yet.
const USER: &str = "provisioner";

/// Why a provisioner did not start or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionerError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("cannot load `jwt_verify_cert` {from}: {source}")]
    VerifyKey { from: String, source: choria_token::KeyError },
    #[error("{0}")]
    Issuing(#[from] IssuingError),
    #[error("{0}")]
    Enrolled(#[from] EnrolledError),
    #[error("cannot connect to the broker: {0}")]
    Client(#[from] ClientError),
    #[error("cannot work with the broker: {0}")]
    Call(#[from] CallError),
    #[error(
        "the client configuration names no token and seed; set plugin.security.choria.token_file and plugin.security.choria.seed_file"
    )]
    NoCredentials,
    #[error("cannot serve metrics on {address}: {source}")]
    Monitor { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the connection to the broker ended for good")]
    Disconnected,
    #[error("cannot listen for signals: {0}")]
    Signal(std::io::Error),
    #[error(
        "`leader_election` needs Choria Streams, which this provisioner cannot use yet; run one provisioner without it"
    )]
    NoElections,
    #[error(
        "`choria_insecure` would send passwords and tokens in the clear; this provisioner only speaks TLS"
    )]
    Insecure,
}

/// A handle to a running provisioner.
#[derive(Clone, Default)]
pub struct Control(Arc<std::sync::OnceLock<Arc<Service>>>);

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}

impl Control {
    /// Stops finding nodes, and stops the ones on their way at their next step. No effect before the start.
    pub fn pause(&self) {
        if let Some(service) = self.0.get() {
            service.pause(true);
        }
    }

    /// Undoes [`Control::pause`].
    pub fn resume(&self) {
        if let Some(service) = self.0.get() {
            service.pause(false);
        }
    }

    /// Reads the configuration again, as SIGHUP does; a bad one is logged and not used.
    pub fn reload(&self) {
        if let Some(service) = self.0.get() {
            service.reload();
        }
    }

    /// The metrics page.
    pub fn metrics(&self) -> Option<String> {
        self.0.get().map(|service| service.metrics.page())
    }
}

/// What a program around the provisioner lends it.
#[derive(Clone, Default)]
pub struct Surround {
    /// The broker's view of names, when the broker runs in the same process.
    pub presence: Option<Arc<dyn Presence>>,
    pub control: Control,
}

impl std::fmt::Debug for Surround {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Surround")
    }
}

/// Runs until `shutdown` resolves. SIGHUP makes it read its configuration again.
pub async fn run(
    config: ProvisionerConfig,
    client: ClientConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ProvisionerError> {
    run_with(config, client, Surround::default(), shutdown).await
}

/// As [`run`], with what the program around it lends.
pub async fn run_with(
    config: ProvisionerConfig,
    mut client: ClientConfig,
    surround: Surround,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ProvisionerError> {
    if config.leader_election {
        return Err(ProvisionerError::NoElections);
    }
    if config.insecure {
        return Err(ProvisionerError::Insecure);
    }
    client.collectives = vec![COLLECTIVE.to_string()];
    client.main_collective = COLLECTIVE.to_string();
    if let Some(password) = &config.broker_password {
        client.nats_user = Some((USER.to_string(), Arc::clone(password)));
    }
    let credentials = client.credentials.clone().ok_or(ProvisionerError::NoCredentials)?;
    let caller = credentials.load()?;

    let metrics = Metrics::new(&config.site)?;
    let (component, monitor) = (config.lifecycle_component.clone(), config.monitor);
    let live = Live::build(config, clock::unix_seconds())?;
    if let (Some(signer), Some(seed)) = (live.signer(), caller.seed())
        && signer.current(clock::unix_seconds())?.public() == seed.public()
    {
        tracing::warn!(
            "the provisioner connects with the seed it signs with; give `jwt_signing_key` a chain issuer of its own"
        );
    }
    let service = Arc::new(Service::new(live, metrics.clone(), surround.presence)?);

    // a service waits for its broker as long as it takes
    let options = ConnectOptions { timeout: None, ..ConnectOptions::default() };
    let mut shutdown = std::pin::pin!(shutdown);
    let connection = tokio::select! {
        connection = Connection::connect(&client, options) => connection?,
        () = &mut shutdown => return Ok(()),
    };
    let nats = connection.nats().clone();
    let identity = client.identity.clone();
    let (calls, route) = NodeCalls::start(nats.clone(), caller, &identity, metrics.clone()).await?;
    let events = nats
        .subscribe(subjects::lifecycle("startup", &component))
        .await
        .map_err(|error| CallError::Send(error.to_string()))?;
    announce(&nats, &identity).await?;
    // the handle works from here on; a second start with the same handle keeps the first
    drop(surround.control.0.set(service.clone()));
    tracing::info!(identity, "provisioner started, listening for {component}");

    let monitor = async {
        match monitor {
            None => std::future::pending().await,
            Some(address) => match metrics::serve(metrics, address).await {
                Ok(never) => match never {},
                Err(source) => Err(ProvisionerError::Monitor { address, source }),
            },
        }
    };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut stopped = stopped;
    let end = async move {
        // an error means that the sender is gone, which is an end as well
        drop(stopped.wait_for(|stop| *stop).await);
    };
    let background = async {
        tokio::select! {
            () = route => Err(ProvisionerError::Disconnected),
            () = hear(&service, events) => Err(ProvisionerError::Disconnected),
            () = look_around(&service, &calls, &credentials) => Ok(()),
            result = hang_ups(&service, &calls, &credentials) => result,
            result = monitor => result,
        }
    };
    let supervise = async {
        let mut background = std::pin::pin!(background);
        let result = tokio::select! {
            result = &mut background => result,
            () = shutdown => Ok(()),
        };
        // replies must go on coming in while the work ends
        stop.send_replace(true);
        if result.is_ok() { background.await } else { result }
    };
    tokio::select! {
        () = service.work(&calls, end) => Ok(()),
        result = supervise => result,
    }
}

/// Startup events of nodes.
async fn hear(service: &Service, mut events: async_nats::Subscriber) {
    while let Some(message) = events.next().await {
        match Event::parse(&message.payload) {
            Ok(Event::Lifecycle(event)) if event.event_type == "startup" => {
                if service.found(&event.identity, Sign::Event) {
                    service.metrics.event_discovered.inc();
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, reason = "event_malformed", "ignored an event"),
        }
    }
}

/// Broadcast discovery, now and at every interval. Renews the credentials on the way.
async fn look_around(service: &Service, calls: &NodeCalls, credentials: &CredentialSource) {
    let mut was_paused = false;
    loop {
        if !service.is_paused() {
            service.metrics.discover_cycles.inc();
            let mut queued = 0u64;
            let found = calls
                .discover(|identity| {
                    if service.found(identity, Sign::Broadcast) {
                        queued += 1;
                        service.metrics.discovered.inc();
                    }
                })
                .await;
            match found {
                Ok(answers) => tracing::debug!(answers, queued, "looked for nodes"),
                Err(error) => {
                    service.metrics.discovery_errors.inc();
                    tracing::warn!(%error, "could not look for nodes");
                }
            }
        }
        let interval = service.live().interval();
        let wait_until = tokio::time::Instant::now() + interval;
        loop {
            // resuming looks around at once
            let paused = service.is_paused();
            if std::mem::replace(&mut was_paused, paused) && !paused
                || tokio::time::Instant::now() >= wait_until
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        renew(calls, credentials);
    }
}

/// Signs requests with the token and seed that are in the files now.
fn renew(calls: &NodeCalls, credentials: &CredentialSource) {
    match credentials.load() {
        Ok(caller) => calls.renew(caller),
        Err(error) => tracing::warn!("going on with the credentials in use: {error}"),
    }
}

async fn hang_ups(
    service: &Service,
    calls: &NodeCalls,
    credentials: &CredentialSource,
) -> Result<(), ProvisionerError> {
    let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
        .map_err(ProvisionerError::Signal)?;
    while signals.recv().await.is_some() {
        service.reload();
        renew(calls, credentials);
    }
    std::future::pending().await
}

/// Tells the network that a provisioner is here, in the bare format that its listeners know.
async fn announce(nats: &async_nats::Client, identity: &str) -> Result<(), ProvisionerError> {
    let event =
        LifecycleEvent::new("startup", "provisioner", identity, clock::unix_seconds(), random::array())
            .with("version", env!("CARGO_PKG_VERSION"));
    match event.to_bare_bytes() {
        Ok(bytes) => nats
            .publish(event.subject(), bytes.into())
            .await
            .map_err(|error| ProvisionerError::Call(CallError::Send(error.to_string()))),
        Err(error) => {
            tracing::warn!(%error, "cannot announce the start");
            Ok(())
        }
    }
}
