//! What a configuration is made into: the authenticator and the signer. A reload makes a new one and swaps it in whole.

use std::sync::{Arc, PoisonError, RwLock};

use choria_client::ClientConfig;
use choria_host::Settings;
use tokio::sync::mpsc;

use crate::audit::Audit;
use crate::config::AaaConfig;
use crate::error::AaaError;
use crate::login::{Login, LoginState};
use crate::metrics::Metrics;
use crate::signer::{Collectives, Signer, SignerParts, SignerState};

/// The parts that answer.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) login: Option<Login>,
    pub(crate) signer: Option<Arc<Signer>>,
}

/// What stays when [`Services`] are replaced.
#[derive(Debug)]
pub(crate) struct Lasting {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) login: Arc<LoginState>,
    pub(crate) signer: Arc<SignerState>,
    /// Where audit records for the stream go.
    pub(crate) publisher: Option<mpsc::Sender<Vec<u8>>>,
}

impl Services {
    pub(crate) fn build(config: &AaaConfig, lasting: &Lasting) -> Result<Services, AaaError> {
        let login = config
            .userlist
            .clone()
            .map(|userlist| {
                Login::new(
                    userlist,
                    config.limits.clone(),
                    Arc::clone(&lasting.login),
                    Arc::clone(&lasting.metrics),
                )
            })
            .transpose()?;
        let signer = match (&config.signer, config.authorizer) {
            (Some(signer), Some(authorizer)) => {
                let audit = Audit::new(
                    &config.auditors,
                    config.audit_fail_closed,
                    &config.site,
                    lasting.publisher.as_ref(),
                    Arc::clone(&lasting.metrics),
                )?;
                let collectives = match &signer.collectives {
                    Some(orgs) => Collectives::ByOrg(orgs.clone()),
                    None => Collectives::Common(common_collectives(config)?),
                };
                let parts = SignerParts {
                    authorizer,
                    site: config.site.clone(),
                    collectives,
                    audit,
                    metrics: Arc::clone(&lasting.metrics),
                    state: Arc::clone(&lasting.signer),
                };
                Some(Arc::new(Signer::new(signer, parts)?))
            }
            _ => None,
        };
        Ok(Services { login, signer })
    }
}

fn common_collectives(config: &AaaConfig) -> Result<Vec<String>, AaaError> {
    match client_config(config)? {
        Some(client) => Ok(client.collectives),
        None => Ok(vec!["choria".to_owned()]),
    }
}

/// How the broker is reached, when a configuration says so.
pub(crate) fn client_config(config: &AaaConfig) -> Result<Option<ClientConfig>, AaaError> {
    let Some(path) = &config.choria_config else { return Ok(None) };
    let settings = Settings::load(path)
        .map_err(|error| AaaError::Setting { key: "choria_config", reason: error.to_string() })?;
    Ok(Some(ClientConfig::from_settings(settings)?))
}

/// The services in use.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Arc<Services>>);

impl Current {
    pub(crate) fn new(services: Services) -> Current {
        Current(RwLock::new(Arc::new(services)))
    }

    pub(crate) fn get(&self) -> Arc<Services> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, services: Services) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(services);
    }
}
