//! `choria jwt server`: a token for a node of the fleet.

use std::path::PathBuf;
use std::time::Duration;

use choria_token::claims::ServerPermissions;
use choria_token::{ServerClaims, names};
use clap::Args;

use crate::failure::{Doing, Failure};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// File for the token
    file: PathBuf,
    /// Identity of the node, usually its host name
    identity: String,
    /// Public key of the node: hex digits, or a file with them
    public_key: String,
    /// Seed of the organization issuer (64 hex digits), or a PEM private key of older networks
    signing_key: PathBuf,
    /// Collectives that the node belongs to; may be repeated
    #[arg(long, value_name = "NAME", default_value = "choria", value_delimiter = ',')]
    collectives: Vec<String>,
    /// Organization unit
    #[arg(long, default_value = "choria")]
    org: String,
    /// Additional subject to publish to; may be repeated
    #[arg(long, value_name = "SUBJECT")]
    subjects: Vec<String>,
    /// May submit messages to Choria Streams
    #[arg(long)]
    submission: bool,
    /// May use Choria Streams
    #[arg(long)]
    stream_user: bool,
    /// May host services
    #[arg(long)]
    service: bool,
    /// May use governors; needs --stream-user
    #[arg(long)]
    governor: bool,
    /// How long the token is valid: 1h, 30d, 1y
    #[arg(long, default_value = "8760h", value_parser = super::validity)]
    validity: Duration,
}

pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let refused = |what: String| Err(Failure::usage(format!("could not create token: {what}")));
    if options.governor && !options.stream_user {
        return refused(String::from("cannot set --governor unless --stream-user is also set"));
    }
    if !names::valid_identity(&options.identity) {
        return refused(format!(
            "{:?} cannot be an identity: host name labels joined by dots",
            options.identity
        ));
    }
    if !names::valid_org(&options.org) {
        return refused(format!("{:?} cannot be an organization: letters, digits, '-' and '_'", options.org));
    }
    if let Some(bad) = options.collectives.iter().find(|name| !names::valid_collective(name)) {
        return refused(format!("{bad:?} cannot be a collective: letters, digits, '-' and '_'"));
    }
    if let Some(bad) = options.subjects.iter().find(|subject| !names::valid_subject(subject)) {
        return refused(format!("{bad:?} is not a subject"));
    }
    let mut claims = ServerClaims {
        identity: options.identity.clone(),
        collectives: options.collectives.clone(),
        permissions: ServerPermissions {
            submission: options.submission,
            streams: options.stream_user,
            governor: options.governor,
            service_host: options.service,
        },
        org: options.org.clone(),
        pub_subjects: options.subjects.clone(),
        ..ServerClaims::default()
    };
    super::warn_of_reserved(&claims.pub_subjects);
    claims.standard.public_key = Some(super::public_key(&options.public_key)?.to_hex());
    let key = super::signing_key(&options.signing_key)?;
    let token = key
        .issue_server(claims, options.validity, super::now())
        .doing(|| String::from("could not create token"))?;
    super::save(&options.file, &token)
}
