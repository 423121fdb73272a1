//! `choria jwt client`: a token for a person or a service.

use std::path::PathBuf;
use std::time::Duration;

use choria_protocol::device_room::SMALL_DEVICE_TOKEN;
use choria_token::claims::ClientPermissions;
use choria_token::{ClientClaims, names};
use clap::Args;

use crate::failure::{Doing, Failure};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// File for the token
    file: PathBuf,
    /// Caller id, such as `up=alice` or `choria`
    identity: String,
    /// Seed of the organization issuer (64 hex digits), or a PEM private key of older networks
    signing_key: PathBuf,
    /// Public key of the token's holder: hex digits, or a file with them
    #[arg(long, value_name = "HEX|FILE")]
    public_key: Option<String>,
    /// Allowed agents: `*`, `agent` or `agent.action`; may be repeated
    #[arg(long, value_name = "AGENT")]
    agents: Vec<String>,
    /// Organization unit
    #[arg(long, default_value = "choria")]
    org: String,
    /// File with an Open Policy Agent policy
    #[arg(long, value_name = "FILE")]
    opa_file: Option<PathBuf>,
    /// Open Policy Agent policy as text
    #[arg(long, value_name = "TEXT")]
    opa: Option<String>,
    /// How long the token is valid: 1h, 30d, 1y
    #[arg(long, default_value = "1h", value_parser = super::validity)]
    validity: Duration,
    /// May administer Choria Streams
    #[arg(long)]
    stream_admin: bool,
    /// May use Choria Streams
    #[arg(long)]
    stream_user: bool,
    /// May view lifecycle and autonomous agent events
    #[arg(long)]
    event_viewer: bool,
    /// May take part in leader elections
    #[arg(long)]
    elections_user: bool,
    /// May have a longer life than people's tokens
    #[arg(long)]
    service: bool,
    /// May access the broker's system account
    #[arg(long)]
    system: bool,
    /// May sign requests on behalf of other users
    #[arg(long)]
    auth_delegation: bool,
    /// May manage fleet nodes (the default)
    #[arg(long, overrides_with = "no_fleet_management")]
    fleet_management: bool,
    /// May not manage fleet nodes
    #[arg(long)]
    no_fleet_management: bool,
    /// May manage fleet nodes with requests signed by a delegator
    #[arg(long)]
    signed_fleet_management: bool,
    /// May do and see everything
    #[arg(long)]
    org_admin: bool,
    /// Additional subject to publish to; may be repeated
    #[arg(long, value_name = "SUBJECT")]
    publish: Vec<String>,
    /// Additional subject to subscribe to; may be repeated
    #[arg(long, value_name = "SUBJECT")]
    subscribe: Vec<String>,
    /// May issue tokens itself, as part of a trust chain
    #[arg(long)]
    issuer: bool,
    /// May provision servers
    #[arg(long)]
    server_provisioner: bool,
    /// May use governors
    #[arg(long)]
    governor: bool,
    /// Print the claims and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let refused = |what: String| Err(Failure::usage(format!("could not create token: {what}")));
    if !names::valid_caller_id(&options.identity) {
        return refused(format!(
            "{:?} cannot be a caller id: no spaces, '*' or '>', at most 255 bytes",
            options.identity
        ));
    }
    if !names::valid_org(&options.org) {
        return refused(format!("{:?} cannot be an organization: letters, digits, '-' and '_'", options.org));
    }
    if let Some(bad) =
        options.publish.iter().chain(&options.subscribe).find(|subject| !names::valid_subject(subject))
    {
        return refused(format!("{bad:?} is not a subject"));
    }
    if options.issuer && options.public_key.is_none() {
        return refused(String::from("a chain issuer needs a key: give --public-key"));
    }
    let mut claims = ClientClaims {
        caller_id: options.identity.clone(),
        agents: options.agents.clone(),
        org: options.org.clone(),
        opa_policy: policy(options)?,
        permissions: permissions(options),
        pub_subjects: options.publish.clone(),
        sub_subjects: options.subscribe.clone(),
        ..ClientClaims::default()
    };
    if let Some(key) = &options.public_key {
        claims.standard.public_key = Some(super::public_key(key)?.to_hex());
    }
    warn(options, &claims);
    if options.dry_run {
        output::print(&output::json(&claims));
        return Ok(0);
    }
    let key = super::signing_key(&options.signing_key)?;
    let token = if options.issuer {
        key.issue_chain_issuer(claims, options.validity, super::now())
    } else {
        key.issue_client(claims, options.validity, super::now())
    };
    let token = token.doing(|| String::from("could not create token"))?;
    if !options.issuer && token.len() > SMALL_DEVICE_TOKEN {
        output::note(&format!(
            "warning: devices of profile small drop requests with this token: it has {} bytes and they have room for \
             {SMALL_DEVICE_TOKEN}; give a shorter policy, or --agents, which they evaluate themselves\n",
            token.len()
        ));
    }
    super::save(&options.file, &token)
}

/// `--issuer` takes fleet rights away, `--server-provisioner` gives them even beside it (docs/spec/01 §6.10).
fn permissions(options: &Options) -> ClientPermissions {
    let signed = options.signed_fleet_management && !options.issuer;
    let fleet = !options.no_fleet_management && !options.issuer;
    ClientPermissions {
        streams_admin: options.stream_admin,
        streams_user: options.stream_user,
        events_viewer: options.event_viewer,
        election_user: options.elections_user,
        system_user: options.system,
        governor: options.governor,
        org_admin: options.org_admin,
        fleet_management: fleet || options.signed_fleet_management || options.server_provisioner,
        signed_fleet_management: signed || options.signed_fleet_management,
        service: options.service,
        authentication_delegator: options.auth_delegation && !options.issuer,
        provisioner: options.server_provisioner,
    }
}

fn policy(options: &Options) -> Result<String, Failure> {
    match (&options.opa_file, &options.opa) {
        (Some(path), _) => std::fs::read_to_string(path)
            .doing(|| format!("could not create token: cannot read the policy {}", path.display())),
        (None, text) => Ok(text.clone().unwrap_or_default()),
    }
}

fn warn(options: &Options, claims: &ClientClaims) {
    const TWO_HOURS: Duration = Duration::from_secs(2 * 3_600);
    let permissions = &claims.permissions;
    if permissions.signed_fleet_management && !permissions.service && options.validity > TWO_HOURS {
        output::note(
            "warning: a request signer may refuse a token this long-lived: add --service, or shorten --validity\n",
        );
    }
    super::warn_of_reserved(claims.pub_subjects.iter().chain(&claims.sub_subjects));
    let manages = permissions.fleet_management && !permissions.provisioner;
    if manages && claims.agents.is_empty() && claims.opa_policy.is_empty() {
        output::note(
            "warning: nodes that authorize by token will refuse every request: give --agents or --opa-file\n",
        );
    }
}
