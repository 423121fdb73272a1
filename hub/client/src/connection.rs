//! One connection to a broker: finding it, proving who we are, staying connected (docs/spec/01 §8, 07 §4.1).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Auth, AuthError, Client, ConnectErrorKind, Event, ServerError};
use choria_host::Secret;
use choria_host::tls::{self, Mismatch, Trust};
use choria_protocol::subjects;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{ClientConfig, TlsMode};
use crate::credentials::{CredentialSource, Identity};
use crate::verification::ReplyVerifier;
use crate::{ClientError, backoff};

/// Messages one subscription may hold before the client falls behind; they are moved on at once, see `inbox`.
const SUBSCRIPTION_CAPACITY: usize = 16_384;

/// What a caller may want to be different for one connection.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Appended to the caller id in the name the broker shows, such as `-provisioner`.
    pub name_suffix: String,
    /// How long to try before giving up; `None` waits for as long as it takes, also while the broker refuses
    /// the credentials, as a service has to.
    pub timeout: Option<Duration>,
    /// In place of the configured user and password.
    pub user: Option<(String, Arc<Secret>)>,
    /// In place of the configured main collective.
    pub collective: Option<String>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            name_suffix: String::new(),
            timeout: Some(Duration::from_secs(10)),
            user: None,
            collective: None,
        }
    }
}

/// A connection. Cloning it is cheap and shares the connection; it reconnects by itself.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    config: ClientConfig,
    caller: String,
    collective: String,
    verifier: ReplyVerifier,
    told: Arc<Told>,
}

/// What the broker said beside messages.
#[derive(Debug, Default)]
struct Told {
    /// Connections made, the first one included.
    connects: AtomicU64,
    /// The last refusal of a subscription or publication, with its subject in quotes.
    refused: watch::Sender<String>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("caller", &self.inner.caller)
            .field("collective", &self.inner.collective)
            .field("state", &self.inner.client.connection_state())
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, trying again with growing delays until `options.timeout` has passed.
    ///
    /// # Errors
    /// At once: no or unusable credentials, a refused certificate, a refused nonce, and refused credentials unless
    /// waiting without limit. [`ClientError::Connect`] when the time is up.
    pub async fn connect(config: &ClientConfig, options: ConnectOptions) -> Result<Self, ClientError> {
        // boxed: the state of a connection attempt is large, and callers need not carry it
        Box::pin(Self::try_until(config, options)).await
    }

    async fn try_until(config: &ClientConfig, options: ConnectOptions) -> Result<Self, ClientError> {
        let source = config.credentials.clone().ok_or(ClientError::NoTokenFile)?;
        let identity = source.load()?;
        let caller = identity.caller().to_owned();
        let collective = options.collective.clone().unwrap_or_else(|| config.main_collective.clone());
        if options.collective.is_none() && !config.collectives.contains(&collective) {
            return Err(ClientError::UnknownCollective(collective));
        }
        let user = options.user.clone().or_else(|| config.nats_user.clone());
        let told = Arc::new(Told::default());

        let started = Instant::now();
        let mut trust = trust_to_try(&config.tls).into_iter().peekable();
        let mut tried = Vec::new();
        let mut attempt = 0_usize;
        let client = loop {
            let urls = config.brokers.resolve().await?;
            for url in &urls {
                if !tried.contains(url) {
                    tried.push(url.clone());
                }
            }
            let nats = nats_options(
                config,
                &options,
                &source,
                &caller,
                user.clone(),
                trust.peek().map(Option::as_ref),
                &told,
            );
            let nats = match nats {
                Ok(nats) => nats,
                // no roots on this machine: the next kind of trust may do
                Err(ClientError::Tls(error)) => {
                    trust.next();
                    if trust.peek().is_none() {
                        return Err(error.into());
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let failure = match Box::pin(nats.connect(urls)).await {
                Ok(client) => break client,
                Err(error) => error,
            };
            if let Some(refusal) = certificate_refusal(&failure) {
                trust.next();
                if trust.peek().is_some() {
                    tracing::debug!(%refusal, "certificate not verified by the platform's roots, using the key seen first");
                    continue;
                }
                return Err(ClientError::CertificateRefused(refusal));
            }
            let waits_forever = options.timeout.is_none();
            match failure.kind() {
                ConnectErrorKind::AuthorizationViolation if !waits_forever => {
                    return Err(ClientError::Unauthorized { caller });
                }
                ConnectErrorKind::Authentication if !waits_forever => {
                    // the credential callback failed; reading them again tells why
                    return Err(source.load().err().unwrap_or(ClientError::NonceRefused));
                }
                _ => {}
            }
            attempt += 1;
            let reason = chain(&failure);
            tracing::warn!(attempt, reason, "initial connection to the broker failed");
            let delay = backoff::initial(attempt);
            if options.timeout.is_some_and(|limit| started.elapsed() + delay > limit) {
                let after = started.elapsed();
                return Err(ClientError::Connect { tried, after, reason });
            }
            tokio::time::sleep(delay).await;
        };

        tracing::debug!(caller, collective, broker = client.server_info().server_name, "connected");
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                caller,
                collective,
                verifier: ReplyVerifier::new(config.reply_verifier()),
                config: config.clone(),
                told,
            }),
        })
    }

    /// The NATS client, for everything that is not RPC: streams, events, plain subjects.
    pub fn nats(&self) -> &Client {
        &self.inner.client
    }

    /// The caller id (of a service host: its identity).
    pub fn caller(&self) -> &str {
        &self.inner.caller
    }

    /// The collective that requests go to.
    pub fn collective(&self) -> &str {
        &self.inner.collective
    }

    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// How often the connection was made anew.
    pub fn reconnects(&self) -> u64 {
        // the first connection is counted as well
        self.inner.told.connects.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Prefix of the subjects only we may listen on.
    pub fn inbox_prefix(&self) -> String {
        subjects::inbox_prefix(&self.inner.collective, &self.inner.caller)
    }

    /// Token and seed as they are now: files are read again, so that a renewed token is used.
    pub fn identity(&self) -> Result<Identity, ClientError> {
        self.inner.config.credentials.as_ref().ok_or(ClientError::NoTokenFile)?.load()
    }

    /// Checks replies against the configured issuers.
    pub fn reply_verifier(&self) -> &ReplyVerifier {
        &self.inner.verifier
    }

    /// Publishes and waits until the broker has taken it.
    pub async fn publish(&self, subject: String, payload: Vec<u8>) -> Result<(), ClientError> {
        self.inner
            .client
            .publish(subject, payload.into())
            .await
            .map_err(|e| ClientError::Broker(e.to_string()))?;
        self.flush().await
    }

    /// Resolves when the broker has refused a publication to this subject: nobody will answer it.
    pub(crate) async fn refusal(&self, subject: &str) -> ClientError {
        let quoted = format!("\"{subject}\"");
        let mut refused = self.inner.told.refused.subscribe();
        // the sender lives as long as this connection does
        drop(refused.wait_for(|text| text.contains(&quoted)).await);
        ClientError::NotPermitted { caller: self.inner.caller.clone(), subject: subject.to_owned() }
    }

    pub async fn flush(&self) -> Result<(), ClientError> {
        self.inner.client.flush().await.map_err(|e| ClientError::Broker(e.to_string()))
    }

    /// Sends what is pending and closes the connection.
    pub async fn close(&self) -> Result<(), ClientError> {
        self.inner.client.drain().await.map_err(|e| ClientError::Broker(e.to_string()))
    }
}

/// What to trust, in the order to try; `None` is plain TCP.
fn trust_to_try(mode: &TlsMode) -> Vec<Option<Trust>> {
    match mode {
        TlsMode::Off => vec![None],
        TlsMode::Ca(file) => vec![Some(Trust::CaFile(file.clone()))],
        TlsMode::Unverified => vec![Some(Trust::Unverified)],
        TlsMode::RootsOrFirstUse(store) => {
            vec![Some(Trust::PlatformRoots), Some(Trust::PinOnFirstUse(store.clone()))]
        }
    }
}

fn nats_options(
    config: &ClientConfig,
    options: &ConnectOptions,
    source: &CredentialSource,
    caller: &str,
    user: Option<(String, Arc<Secret>)>,
    trust: Option<Option<&Trust>>,
    told: &Arc<Told>,
) -> Result<async_nats::ConnectOptions, ClientError> {
    let source = source.clone();
    let told = Arc::clone(told);
    let prefix = if caller.is_empty() {
        format!("{}.reply", config.main_collective)
    } else {
        subjects::inbox_prefix(&config.main_collective, caller)
    };
    let mut nats = async_nats::ConnectOptions::with_auth_callback(move |nonce| {
        let answer = credentials_for(&source, user.as_ref(), &nonce);
        async move { answer }
    })
    .name(format!("{caller}{}", options.name_suffix))
    .custom_inbox_prefix(prefix)
    .connection_timeout(config.dial_timeout)
    .ping_interval(Duration::from_secs(30))
    .subscription_capacity(SUBSCRIPTION_CAPACITY)
    .reconnect_delay_callback(
        |attempt| if attempt <= 1 { Duration::ZERO } else { backoff::reconnect(attempt - 1) },
    )
    // the list of other brokers comes before TLS: anybody on the way could have written it
    .ignore_discovered_servers()
    .event_callback(move |event| {
        note(&event, &told);
        std::future::ready(())
    });
    if let Some(Some(trust)) = trust {
        let client_certificate = config
            .client_certificate
            .as_ref()
            .map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let tls = tls::client_config(trust, client_certificate)?;
        nats = nats.require_tls(true).tls_client_config(Arc::unwrap_or_clone(tls));
    }
    Ok(nats)
}

/// What goes into CONNECT: the token once, as `auth_token`, and the signed nonce. A nonce that could be anything
/// else that our seed signs is refused, and nothing is sent (docs/spec/10 §6).
fn credentials_for(
    source: &CredentialSource,
    user: Option<&(String, Arc<Secret>)>,
    nonce: &[u8],
) -> Result<Auth, AuthError> {
    let identity = source.load().map_err(AuthError::new)?;
    let mut auth = Auth::new();
    if let (Some(seed), false) = (identity.seed(), nonce.is_empty()) {
        let nonce = std::str::from_utf8(nonce).map_err(AuthError::new)?;
        let signature = seed.sign_nonce(nonce).map_err(|refused| {
            tracing::warn!(reason = "nonce_bad", "the broker asked to sign something that is no nonce");
            AuthError::new(refused)
        })?;
        auth.signature = Some(signature.to_vec());
    }
    auth.token = Some(identity.token().to_owned());
    if let Some((user, password)) = user {
        auth.username = Some(user.clone());
        auth.password = Some(password.expose().to_owned());
    }
    Ok(auth)
}

fn note(event: &Event, told: &Told) {
    match event {
        Event::Connected => {
            told.connects.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("connected to the broker");
        }
        Event::Disconnected => tracing::info!("disconnected from the broker, reconnecting"),
        Event::LameDuckMode => tracing::info!("the broker is about to stop"),
        Event::Draining => tracing::debug!("leaving the broker"),
        Event::Closed => tracing::debug!("the connection to the broker is closed"),
        Event::ServerError(ServerError::Other(text)) if text.starts_with("Permissions Violation") => {
            tracing::debug!("{text}");
            told.refused.send_replace(text.clone());
        }
        other => tracing::warn!("broker connection: {other}"),
    }
}

/// The sentence of a refused certificate, when that is what went wrong.
fn certificate_refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(mismatch) = Mismatch::in_error(error) {
        return Some(mismatch.to_string());
    }
    find(error, |error| match error.downcast_ref::<rustls::Error>() {
        Some(refusal @ rustls::Error::InvalidCertificate(_)) => Some(refusal.to_string()),
        _ => None,
    })
}

/// The whole sentence of an error and what caused it.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    find(error, |error| {
        let text = error.to_string();
        // many wrappers repeat what they wrap
        if !texts.iter().any(|have| have.contains(&text)) {
            texts.push(text);
        }
        None::<()>
    });
    texts.join(": ")
}

/// Looks through an error and its causes, also inside `io::Error`.
pub(crate) fn find<T>(
    error: &(dyn std::error::Error + 'static),
    mut wanted: impl FnMut(&(dyn std::error::Error + 'static)) -> Option<T>,
) -> Option<T> {
    let mut next = Some(error);
    for _ in 0..16 {
        let current = next?;
        if let Some(found) = wanted(current) {
            return Some(found);
        }
        next = match current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => current.source(),
        };
    }
    None
}
