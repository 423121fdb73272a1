//! The token that a login is answered with, `docs/spec/05 §5`.
//!
//! Key and token files are read for each login, so that replacing them rotates keys without a restart.

use std::path::Path;

use choria_host::private_file::read_secret;
use choria_protocol::device_room::SMALL_DEVICE_TOKEN;
use choria_token::{ClientClaims, IssueError, Issuer, PublicKey, Seed, SigningKey};

use crate::config::{UserlistConfig, read_bounded};
use crate::error::AaaError;
use crate::user::UserRecord;

/// `iss` of tokens that are not chained.
const ISSUER_NAME: &str = "Choria Userlist Authenticator";
/// Largest policy that a token may carry: what verifiers accept.
const MAX_POLICY: usize = choria_host::rego::MAX_POLICY_BYTES;

enum Key {
    Chain(Issuer),
    Direct(SigningKey),
}

/// Checks that the configured key and token can issue, without issuing anything.
pub(crate) fn check(config: &UserlistConfig) -> Result<(), AaaError> {
    load(config).map(|_| ())
}

fn load(config: &UserlistConfig) -> Result<Key, AaaError> {
    let Some(token_file) = &config.signing_token else {
        return Ok(Key::Direct(SigningKey::load(&config.signing_key)?));
    };
    let seed = Seed::load(&config.signing_key)?;
    let token =
        read_secret(token_file).map_err(|source| AaaError::Secret { path: token_file.clone(), source })?;
    Ok(Key::Chain(Issuer::chain(seed, token.expose(), None)?))
}

/// Why no token was issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssuingError {
    #[error("the policy of the user is not readable: {0}")]
    Policy(AaaError),
    #[error("the policy of the user is larger than {MAX_POLICY} bytes, or no text")]
    PolicyUnusable,
    #[error("the signing key or token is not usable: {0}")]
    Key(AaaError),
    #[error("{0}")]
    Issue(#[from] IssueError),
}

/// Issues the token of `user` for the holder of `key`, valid from `now_unix` on.
pub(crate) fn issue(
    config: &UserlistConfig,
    user: &UserRecord,
    key: &PublicKey,
    now_unix: i64,
) -> Result<String, IssuingError> {
    let mut claims = ClientClaims::new(&user.caller_id(), key);
    claims.org = user.org().to_owned();
    claims.agents = user.acls.clone();
    claims.user_properties = user.properties.clone();
    claims.opa_policy = policy(user)?;
    claims.permissions = user.broker_permissions.clone();
    let token = match load(config).map_err(IssuingError::Key)? {
        Key::Chain(issuer) => issuer.issue_client(claims, config.validity, now_unix)?,
        Key::Direct(signing_key) => {
            claims.standard.iss = ISSUER_NAME.to_owned();
            signing_key.issue_client(claims, config.validity, now_unix)?
        }
    };
    if token.len() > SMALL_DEVICE_TOKEN {
        tracing::warn!(
            user = user.caller_id(),
            bytes = token.len(),
            limit = SMALL_DEVICE_TOKEN,
            "devices of profile small drop requests with a token of this size: shorten opa_policy, or give acls instead"
        );
    }
    Ok(token)
}

fn policy(user: &UserRecord) -> Result<String, IssuingError> {
    let Some(file) = user.opa_policy_file.as_deref().filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(user.opa_policy.clone());
    };
    if !user.opa_policy.is_empty() {
        return Ok(user.opa_policy.clone());
    }
    read_policy(file)
}

fn read_policy(file: &Path) -> Result<String, IssuingError> {
    let bytes = read_bounded(file).map_err(IssuingError::Policy)?;
    if bytes.len() > MAX_POLICY {
        return Err(IssuingError::PolicyUnusable);
    }
    String::from_utf8(bytes).map_err(|_| IssuingError::PolicyUnusable)
}
