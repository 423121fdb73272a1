//! Seeds, tokens and passwords of everybody in the lab. Each part connects with one key and issues with another
//! (`docs/spec/10` K13).

use std::path::Path;
use std::time::Duration;

use choria_token::claims::{ProvisioningClaims, ServerPermissions};
use choria_token::{ClientClaims, Issuer, PublicKey, Seed, ServerClaims};
use serde_json::json;
use zeroize::Zeroizing;

use crate::failure::{Doing as _, Failure};
use crate::lab::directory::{Directory, write};
use crate::lab::record::{DOMAIN, LIFE, Ports};

/// What the configuration files have to repeat.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// The organization's public key.
    pub(crate) issuer: PublicKey,
    /// Passwords by chance, known to the files only.
    pub(crate) provisioner_password: Zeroizing<String>,
    pub(crate) system_password: Zeroizing<String>,
    /// The access token of the provisioning agent.
    pub(crate) provisioning_token: Zeroizing<String>,
}

/// The accounts a person logs in with, and what they may do on the broker (users' tour).
pub(crate) const USERS: [(&str, &[&str]); 3] = [
    ("choria", &["signed_fleet_management", "events_viewer"]),
    ("admin", &["signed_fleet_management", "org_admin", "system_user", "events_viewer"]),
    (
        "streams",
        &[
            "signed_fleet_management",
            "streams_admin",
            "streams_user",
            "events_viewer",
            "governor",
            "election_user",
        ],
    ),
];

/// The password of all of them.
pub(crate) const PASSWORD: &str = "secret";

/// Writes every key and token. `broker_certificate` is pinned in the provisioning token.
pub(crate) fn create(
    directory: &Directory,
    ports: Ports,
    broker_certificate: &[u8],
    now: i64,
) -> Result<Credentials, Failure> {
    let organization = seed(&directory.issuer("issuer.seed"))?;
    let issuer_key = organization.public();
    write(&directory.issuer("issuer.public"), issuer_key.to_hex().as_bytes(), 0o644)?;
    let issuer = Issuer::Org(organization);
    let life = Duration::from_secs(LIFE.unsigned_abs());
    let issued = |result: Result<String, choria_token::IssueError>, path: &Path| {
        let token = result.doing(|| format!("cannot issue {}", path.display()))?;
        write(path, token.as_bytes(), 0o600)
    };

    for (name, permissions) in [
        ("broker", ServerPermissions::default()),
        ("aaa", ServerPermissions { service_host: true, ..ServerPermissions::default() }),
    ] {
        let key = seed(&directory.hub(&format!("{name}.seed")))?.public();
        let mut claims = ServerClaims::new(&format!("{name}.{DOMAIN}"), &key);
        claims.permissions = permissions;
        issued(issuer.issue_server(claims, life, now), &directory.hub(&format!("{name}.jwt")))?;
    }

    // connect, but issue nothing
    let key = seed(&directory.hub("provisioner.seed"))?.public();
    let mut claims = ClientClaims::new("provisioner_signer", &key);
    claims.permissions.provisioner = true;
    claims.permissions.fleet_management = true;
    issued(issuer.issue_client(claims, life, now), &directory.hub("provisioner.jwt"))?;

    let key = seed(&directory.hub("request-signer.seed"))?.public();
    let mut claims = ClientClaims::new("aaa_request_signer", &key);
    claims.permissions.authentication_delegator = true;
    issued(issuer.issue_client(claims, life, now), &directory.hub("request-signer.jwt"))?;

    // issue, but never connect
    for name in ["provisioner-issuer", "login-issuer"] {
        let key = seed(&directory.hub(&format!("{name}.seed")))?.public();
        let claims = ClientClaims::new(&name.replace('-', "_"), &key);
        issued(issuer.issue_chain_issuer(claims, life, now), &directory.hub(&format!("{name}.jwt")))?;
    }

    // operators of `choria_provision` need it, see `lab env`
    let provisioning_token = password();
    write(&directory.hub("provisioning-token"), provisioning_token.as_bytes(), 0o600)?;
    let pin = choria_host::tls::pin_of_certificate(broker_certificate)
        .ok_or_else(|| Failure::new("the broker's certificate has no key to pin"))?;
    let extensions = json!({ "choria": { "issuer": issuer_key.to_hex(), "tls_pin": [pin.to_hex()] } });
    let claims = ProvisioningClaims {
        token: provisioning_token.to_string(),
        urls: format!("nats://127.0.0.1:{}", ports.broker),
        default: true,
        v2: true,
        org: String::from("choria"),
        extensions: extensions.as_object().cloned(),
        ..ProvisioningClaims::default()
    };
    issued(issuer.issue_provisioning(claims, life, now), &directory.root().join("nodes/provisioning.jwt"))?;

    write_users(directory)?;
    Ok(Credentials {
        issuer: issuer_key,
        provisioner_password: password(),
        system_password: password(),
        provisioning_token,
    })
}

fn write_users(directory: &Directory) -> Result<(), Failure> {
    let mut users = Vec::new();
    for (name, permissions) in USERS {
        // the cheapest hash there is: everybody knows the password
        let hash = bcrypt::hash(PASSWORD, 4).doing(|| String::from("cannot hash the lab's password"))?;
        let granted: serde_json::Map<_, _> =
            permissions.iter().map(|name| ((*name).to_owned(), serde_json::Value::Bool(true))).collect();
        users.push(
            json!({ "username": name, "password": hash, "acls": ["*"], "broker_permissions": granted }),
        );
    }
    let text = serde_json::to_vec_pretty(&users).doing(|| String::from("cannot write the user list"))?;
    write(&directory.hub("users.json"), &text, 0o600)
}

fn seed(path: &Path) -> Result<Seed, Failure> {
    let seed = Seed::generate().doing(|| String::from("cannot make a key"))?;
    write(path, seed.to_hex().as_bytes(), 0o600)?;
    Ok(seed)
}

/// 128 random bits.
fn password() -> Zeroizing<String> {
    Zeroizing::new(hex::encode(choria_host::random::array::<16>()))
}
