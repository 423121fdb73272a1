//! `choria jwt view`: what a token says and whether its issuer said it (docs/spec/07 §8.5).

use std::path::{Path, PathBuf};

use choria_host::private_file;
use choria_token::claims::{ClientPermissions, ServerPermissions, Standard};
use choria_token::{
    ClientClaims, Key, ProvisioningClaims, Purpose, ServerClaims, TrustChain, Verifier, peek_client,
    peek_provisioning, peek_server, private_network_id, purpose_of,
};
use clap::Args;

use crate::failure::{Code, Doing, Failure};
use crate::output::{self, format, table};

#[derive(Debug, Args)]
#[group(id = "token")]
pub(crate) struct Options {
    /// File with the token
    file: PathBuf,
    /// Public key of the organization issuer: hex digits, a file with them, or a PEM file
    public: Option<String>,
    /// The claims as JSON
    #[arg(long)]
    json: bool,
    /// With --json: show the secrets of a provisioning token on a terminal
    #[arg(long)]
    reveal: bool,
}

type Labels = Vec<(&'static str, String)>;

pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let name = options.file.display();
    let secret =
        private_file::read_secret(&options.file).doing(|| format!("cannot read the token {name}"))?;
    let token = secret.expose();
    let verifier = match &options.public {
        Some(key) => {
            let key =
                Key::load(key).doing(|| format!("{key:?} is neither a public key nor a file with one"))?;
            Some(Verifier::single(key))
        }
        None => None,
    };
    let Some(purpose) = purpose_of(token) else {
        return Err(Failure::new(format!("{name} is not a Choria token")));
    };
    let now = super::now();
    let invalid = || format!("the token {name} is not valid");
    let (json, text, standard) = match purpose {
        Purpose::Client => {
            let claims = match &verifier {
                Some(verifier) => verifier.verify_client(token, now).doing(invalid)?.into_claims(),
                None => peek_client(token).doing(invalid)?.into_claims(),
            };
            (output::json(&claims), client(&claims, now), claims.standard)
        }
        Purpose::Server => {
            let claims = match &verifier {
                Some(verifier) => verifier.verify_server(token, now).doing(invalid)?.into_claims(),
                None => peek_server(token).doing(invalid)?.into_claims(),
            };
            (output::json(&claims), server(&claims, now), claims.standard)
        }
        Purpose::Provisioning => {
            let claims = match &verifier {
                Some(verifier) => verifier.verify_provisioning(token, now).doing(invalid)?.into_claims(),
                None => peek_provisioning(token).doing(invalid)?.into_claims(),
            };
            (output::json(&claims), provisioning(&claims, now), claims.standard)
        }
    };
    if options.json {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        if purpose == Purpose::Provisioning && terminal && !options.reveal {
            return Err(Failure::new("a provisioning token holds secrets, and this is a terminal")
                .hint("add --reveal to show them")
                .code(Code::NeedsAnswer));
        }
        output::print(&json);
    } else {
        output::print(&heading(verifier.is_some(), purpose, &options.file));
        output::print(&text);
    }
    let expired = standard.effective_expiry().is_some_and(|at| at <= now);
    Ok(u8::from(expired))
}

fn heading(validated: bool, purpose: Purpose, file: &Path) -> String {
    let kind = match purpose {
        Purpose::Client => "Client Identification Token",
        Purpose::Server => "Server Token",
        Purpose::Provisioning => "Provisioning Token",
    };
    format!("{} {kind} {}\n\n", if validated { "Validated" } else { "Unvalidated" }, file.display())
}

fn expiry(standard: &Standard, now: i64) -> Option<String> {
    let at = standard.effective_expiry()?;
    let left = at.saturating_sub(now);
    let note = if left > 0 { format::long(left) } else { format!("expired {} ago", format::long(left)) };
    Some(format!("{} ({note})", format::token_time(at)))
}

fn trust_chain(standard: &Standard) -> Option<String> {
    match TrustChain::of(standard) {
        TrustChain::None => None,
        TrustChain::IssuedBy(id) => Some(format!("Issued by {id}")),
        TrustChain::CanIssue(org) => {
            Some(format!("Can Issue Clients as part of a trust chain with Issuer {}", org.to_hex()))
        }
        TrustChain::Broken => Some(String::from("Invalid signing data, issued users will be invalid")),
    }
}

fn list(labels: &mut Labels, label: &'static str, values: &[String]) {
    if !values.is_empty() {
        labels.push((label, values.join(", ")));
    }
}

/// Permission lines start under the values of the labels, as users know them.
fn granted(title: &str, granted: &[(bool, &str)], none: &str, indent: usize) -> String {
    let mut out = format!("\n{:>width$}{title}\n\n", "", width = indent);
    let pad = " ".repeat(if indent > 1 { 10 } else { 6 });
    let before = out.len();
    for (_, text) in granted.iter().filter(|(has, _)| *has) {
        out.push_str(&format!("{pad}{text}\n"));
    }
    if out.len() == before {
        out.push_str(&format!("{pad}{none}\n"));
    }
    out
}

fn server(claims: &ServerClaims, now: i64) -> String {
    let standard = &claims.standard;
    let mut labels: Labels = vec![("Identity", claims.identity.clone())];
    labels.extend(expiry(standard, now).map(|text| ("Expires At", text)));
    list(&mut labels, "Collectives", &claims.collectives);
    labels.push(("Public Key", standard.public_key.clone().unwrap_or_default()));
    labels.push(("Organization Unit", claims.org.clone()));
    list(&mut labels, "Additional Subjects", &claims.pub_subjects);
    labels.push(("Private Network ID", private_network_id(&claims.identity)));
    labels.extend(trust_chain(standard).map(|text| ("Trust Chain", text)));
    let ServerPermissions { submission, streams, governor, service_host } = claims.permissions;
    let permissions = [
        (service_host, "Can host services"),
        (submission, "Can publish Choria Submission messages"),
        (streams, "Can access Choria Streams"),
        (governor, "Can access Choria Governor"),
    ];
    let none = "No server specific permissions granted";
    table::labels(&labels, 3) + &granted("Broker Permissions:", &permissions, none, 3)
}

fn client(claims: &ClientClaims, now: i64) -> String {
    let standard = &claims.standard;
    let mut labels: Labels =
        vec![("Caller ID", claims.caller_id.clone()), ("Organization Unit", claims.org.clone())];
    list(&mut labels, "Allowed Agents", &claims.agents);
    labels.extend(standard.public_key.clone().map(|key| ("Public Key", key)));
    labels.push(("Private Network ID", private_network_id(&claims.caller_id)));
    labels.extend(expiry(standard, now).map(|text| ("Expires At", text)));
    list(&mut labels, "Subscriptions Subjects", &claims.sub_subjects);
    list(&mut labels, "Publish Subjects", &claims.pub_subjects);
    labels.extend(trust_chain(standard).map(|text| ("Trust Chain", text)));
    let mut out = table::labels(&labels, 1);
    out.push_str(&granted(
        "Client Permissions:",
        &client_permissions(&claims.permissions),
        "No user specific permissions granted",
        1,
    ));
    let mut more: Labels = Vec::new();
    if !claims.user_properties.is_empty() {
        more.push(("User Properties", output::json(&claims.user_properties).trim_end().to_owned()));
    }
    if !claims.opa_policy.is_empty() {
        more.push(("OPA Policy", claims.opa_policy.trim_end().to_owned()));
    }
    if !more.is_empty() {
        let longest = more.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        out.push('\n');
        out.push_str(&table::labels(&more, 19_usize.saturating_sub(longest)));
    }
    out
}

fn client_permissions(permissions: &ClientPermissions) -> [(bool, &'static str); 12] {
    let signed = permissions.signed_fleet_management;
    [
        (permissions.fleet_management && !signed, "Can manage Choria fleet nodes"),
        (signed, "Can manage Choria fleet nodes subject to authorizing signature"),
        (permissions.election_user, "Can use Leader Elections"),
        (permissions.events_viewer, "Can view Lifecycle and Autonomous Agent events"),
        (permissions.streams_user, "Can use Choria Streams"),
        (permissions.streams_admin, "Can administer Choria Streams"),
        (permissions.governor, "Can access Choria Governors"),
        (permissions.org_admin, "Can observe all traffic on all subjects and access the system account"),
        (permissions.system_user, "Can access the Broker system account"),
        (permissions.authentication_delegator, "Can sign requests on behalf of other users"),
        (permissions.service, "Can have an extended token lifetime"),
        (permissions.provisioner, "Can provision Choria Servers"),
    ]
}

fn provisioning(claims: &ProvisioningClaims, now: i64) -> String {
    const MASK: &str = "*****";
    let standard = &claims.standard;
    let mut labels: Labels = Vec::new();
    labels.extend(expiry(standard, now).map(|text| ("Expires At", text)));
    labels.push(("Token", MASK.to_owned()));
    labels.push(("Secure", claims.secure.to_string()));
    let mut optional = |label: &'static str, value: &str| {
        if !value.is_empty() {
            labels.push((label, value.to_owned()));
        }
    };
    optional("SRV Domain", &claims.srv_domain);
    optional("URLS", &claims.urls);
    optional("Provisioning by default", if claims.default { "true" } else { "false" });
    optional("Provisioning Registration Data", &claims.registration);
    optional("Provisioning Facts", &claims.facts);
    optional("Broker Username", &claims.username);
    optional("Broker Password", if claims.password.is_empty() { "" } else { MASK });
    labels.push(("Using version 2 Protocol", claims.v2.to_string()));
    labels.push(("Server Version Upgrades", claims.update.to_string()));
    if let Some(extensions) = &claims.extensions {
        labels.push(("Extensions", output::json(extensions).trim_end().to_owned()));
    }
    labels.push(("Standard Claims", output::json(standard).trim_end().to_owned()));
    let longest = labels.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    table::labels(&labels, 30_usize.saturating_sub(longest))
}
