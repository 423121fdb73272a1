//! The decision, without any effect.

use std::path::PathBuf;

use super::observe::{BadCredentials, ConfigFile, Credentials, Observed, Provisioning};

/// Why a node provisions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Because {
    #[error("there is no configuration file and a provisioning token is present")]
    NoConfiguration,
    #[error("the configuration file cannot be read ({0}) and the token provisions by default")]
    BrokenConfiguration(String),
    #[error("{0}")]
    Credentials(BadCredentials),
    #[error(
        "the provisioning token provisions by default and plugin.choria.server.provision does not forbid it"
    )]
    TokenDefault,
    #[error("plugin.choria.server.provision is set")]
    Asked,
    #[error("the server token is for {token}, but this node is {node}: a cloned image")]
    Cloned { token: String, node: String },
}

impl Because {
    /// One word for logs and tests.
    pub fn word(&self) -> &'static str {
        match self {
            Because::NoConfiguration => "config_missing",
            Because::BrokenConfiguration(_) => "config_broken",
            Because::Credentials(bad) => bad.word(),
            Because::TokenDefault => "token_default",
            Because::Asked => "asked",
            Because::Cloned { .. } => "identity_mismatch",
        }
    }
}

/// Why a node neither runs nor provisions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "configuration file {} was not found and provisioning is disabled: no provisioning token at {}",
        config.display(), jwt.display()
    )]
    NoConfiguration { config: PathBuf, jwt: PathBuf },
    #[error("the provisioning token cannot be used and there is no configuration: {0}")]
    UnusableToken(String),
    #[error("the configuration file {} cannot be read: {reason}", config.display())]
    BrokenConfiguration { config: PathBuf, reason: String },
    #[error("{0}; provision the node again or restore its files")]
    Credentials(BadCredentials),
    #[error(
        "identity {node} does not match caller {token} in JWT token; correct 'identity' or provision again"
    )]
    Identity { token: String, node: String },
    #[error("no provisioning token at {}", jwt.display())]
    NoToken { jwt: PathBuf },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Run as configured. A warning names credentials that a renewed file may still mend.
    Normal {
        warning: Option<BadCredentials>,
    },
    /// Enter provisioning mode, whatever the token's default says.
    Provision {
        because: Because,
        delete_credentials: bool,
        keep_settings: bool,
    },
    Refuse(Refusal),
}

/// Decides. Rows refer to the tables of docs/spec/04 §4.
pub fn decide(seen: &Observed) -> Decision {
    let fresh = |because| Decision::Provision { because, delete_credentials: false, keep_settings: false };
    match &seen.config {
        ConfigFile::Missing => match &seen.provisioning {
            Provisioning::Usable { .. } => fresh(Because::NoConfiguration),
            Provisioning::Unusable(reason) => Decision::Refuse(Refusal::UnusableToken(reason.clone())),
            Provisioning::Absent => Decision::Refuse(Refusal::NoConfiguration {
                config: seen.config_path.clone(),
                jwt: seen.jwt_path.clone(),
            }),
        },
        ConfigFile::Broken(reason) => match &seen.provisioning {
            Provisioning::Usable { by_default: true } => fresh(Because::BrokenConfiguration(reason.clone())),
            _ => Decision::Refuse(Refusal::BrokenConfiguration {
                config: seen.config_path.clone(),
                reason: reason.clone(),
            }),
        },
        ConfigFile::Read => configured(seen),
    }
}

fn configured(seen: &Observed) -> Decision {
    // Row 1: without a usable token nothing can be provisioned, so nothing may be deleted either.
    let Provisioning::Usable { by_default } = seen.provisioning else { return without_token(seen) };
    // Rows 2 and 3, and the correction below them: bad credentials force provisioning mode.
    if let Credentials::Bad(bad) = &seen.credentials {
        let because = Because::Credentials(bad.clone());
        return Decision::Provision { because, delete_credentials: true, keep_settings: false };
    }
    let cloned = identity_mismatch(seen);
    match (seen.provision_option, by_default) {
        // Row 4, and row 2 of provision_mode(): the identity check then refuses to start.
        (Some(false), _) => match cloned {
            Some((token, node)) => Decision::Refuse(Refusal::Identity { token, node }),
            None => Decision::Normal { warning: None },
        },
        (Some(true), true) => {
            Decision::Provision { because: Because::Asked, delete_credentials: true, keep_settings: false }
        }
        (None, true) => Decision::Provision {
            because: Because::TokenDefault,
            delete_credentials: true,
            keep_settings: false,
        },
        // How reprovision works where the token does not provision by default: credentials stay until
        // gen25519 replaces them.
        (Some(true), false) => {
            Decision::Provision { because: Because::Asked, delete_credentials: false, keep_settings: true }
        }
        (None, false) => match cloned {
            Some((token, node)) => Decision::Provision {
                because: Because::Cloned { token, node },
                delete_credentials: false,
                keep_settings: true,
            },
            None => Decision::Normal { warning: None },
        },
    }
}

fn without_token(seen: &Observed) -> Decision {
    match &seen.credentials {
        // Token and seed are read again at every connect, so a renewed file mends this without a restart.
        Credentials::Bad(bad @ BadCredentials::Expired { .. }) => match identity_mismatch(seen) {
            Some((token, node)) => Decision::Refuse(Refusal::Identity { token, node }),
            None => Decision::Normal { warning: Some(bad.clone()) },
        },
        Credentials::Bad(bad) => Decision::Refuse(Refusal::Credentials(bad.clone())),
        Credentials::Good | Credentials::NotUsed => match identity_mismatch(seen) {
            Some((token, node)) => Decision::Refuse(Refusal::Identity { token, node }),
            None => Decision::Normal { warning: None },
        },
    }
}

/// Identity of the token and of the node, when both are known and differ.
fn identity_mismatch(seen: &Observed) -> Option<(String, String)> {
    let token = seen.token_identity.as_ref()?;
    (*token != seen.identity).then(|| (token.clone(), seen.identity.clone()))
}
