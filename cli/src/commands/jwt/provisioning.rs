//! `choria jwt provisioning`: the file that makes a blank node ask to be enrolled.

use std::path::PathBuf;
use std::time::Duration;

use choria_host::{Secret, private_file};
use choria_token::{ProvisioningClaims, names};
use clap::Args;

use crate::failure::{Doing, Failure};
use crate::output;
use crate::output::prompt::Prompts;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// File for the token
    file: PathBuf,
    /// Seed of the organization issuer (64 hex digits), or a PEM private key of older networks
    signing_key: PathBuf,
    /// Do not protect requests during provisioning (the default)
    #[arg(long, overrides_with = "no_insecure")]
    insecure: bool,
    /// Protect requests during provisioning
    #[arg(long)]
    no_insecure: bool,
    /// Access token of the provisioning agent; asked for when absent
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// File with the access token of the provisioning agent
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// URL of a broker to provision through; may be repeated
    #[arg(long, value_name = "URL")]
    urls: Vec<String>,
    /// Domain whose SRV records name the brokers
    #[arg(long, value_name = "DOMAIN", conflicts_with = "urls")]
    srv: Option<String>,
    /// Provision nodes whose configuration does not say otherwise
    #[arg(long)]
    default: bool,
    /// File that nodes publish as registration data while they wait
    #[arg(long, value_name = "FILE")]
    registration: Option<String>,
    /// Facts file that nodes use while they wait
    #[arg(long, value_name = "FILE")]
    facts: Option<String>,
    /// User to connect to the broker as
    #[arg(long)]
    username: Option<String>,
    /// Password of that user
    #[arg(long)]
    password: Option<String>,
    /// Site data for the provisioner, a JSON object
    #[arg(long, value_name = "JSON")]
    extensions: Option<String>,
    /// Organization unit
    #[arg(long, default_value = "choria")]
    org: String,
    /// Use version 2 of the protocol while provisioning
    #[arg(long)]
    protocol_v2: bool,
    /// Allow the provisioner to upgrade nodes
    #[arg(long, alias = "update")]
    upgrade: bool,
    /// How long the token is valid: 1h, 30d, 1y
    #[arg(long, default_value = "1y", value_parser = super::validity)]
    validity: Duration,
}

pub(crate) fn run(prompts: Prompts, options: &Options) -> Result<u8, Failure> {
    if options.urls.is_empty() && options.srv.is_none() {
        return Err(Failure::usage("could not create token: URLs or a SRV Domain is required"));
    }
    if !names::valid_org(&options.org) {
        return Err(Failure::usage(format!(
            "could not create token: {:?} cannot be an organization",
            options.org
        )));
    }
    let extensions = match &options.extensions {
        Some(text) => {
            Some(serde_json::from_str(text).doing(|| String::from("--extensions is not a JSON object"))?)
        }
        None => None,
    };
    let key = super::signing_key(&options.signing_key)?;
    let token = access_token(prompts, options)?;
    if !options.default {
        output::note("warning: without --default a node only provisions when its configuration says so\n");
    }
    let claims = ProvisioningClaims {
        token: token.expose().to_owned(),
        secure: options.no_insecure,
        urls: options.urls.join(","),
        srv_domain: options.srv.clone().unwrap_or_default(),
        default: options.default,
        registration: options.registration.clone().unwrap_or_default(),
        facts: options.facts.clone().unwrap_or_default(),
        username: options.username.clone().unwrap_or_default(),
        password: options.password.clone().unwrap_or_default(),
        extensions,
        org: options.org.clone(),
        v2: options.protocol_v2,
        update: options.upgrade,
        ..ProvisioningClaims::default()
    };
    let token = key
        .issue_provisioning(claims, options.validity, super::now())
        .doing(|| String::from("could not create token"))?;
    super::save(&options.file, &token)
}

fn access_token(prompts: Prompts, options: &Options) -> Result<Secret, Failure> {
    let token = match (&options.token, &options.token_file) {
        (Some(token), _) => {
            output::note(
                "warning: --token shows in the list of processes: --token-file FILE keeps it private\n",
            );
            Secret::new(token.clone())
        }
        (None, Some(path)) => private_file::read_secret(path)
            .doing(|| format!("cannot read the access token {}", path.display()))?,
        (None, None) => prompts.secret("Provisioning Access Token", "--token-file FILE")?,
    };
    if token.expose().is_empty() {
        return Err(Failure::usage(
            "could not create token: the access token is empty, nodes would ignore the file",
        ));
    }
    Ok(token)
}
