//! `choria buildinfo`: what this binary was built with, and what a provisioning token on this host adds to it.

use std::path::Path;

use choria_host::private_file;
use choria_token::peek_provisioning;

use crate::failure::Failure;
use crate::output::{self, table};

/// Where a node looks for the token that lets it enrol (docs/spec/04 §2).
const PROVISIONING_JWT: &str = "/etc/choria/provisioning.jwt";

pub(crate) fn run() -> Result<u8, Failure> {
    let mut out = String::from("Choria build settings:\n");
    section(
        &mut out,
        "Build Data",
        &[
            ("Version", env!("CARGO_PKG_VERSION").to_owned()),
            ("License", env!("CARGO_PKG_LICENSE").to_owned()),
            ("Rust Version", env!("CARGO_PKG_RUST_VERSION").to_owned()),
        ],
    );
    section(
        &mut out,
        "Protocol Defaults and Settings",
        &[
            ("Default Collectives", String::from("choria")),
            ("Client Identity Suffix", String::from("choria")),
        ],
    );
    section(&mut out, "Network Broker Settings", &[("Maximum Network Clients", String::from("50000"))]);
    section(&mut out, "Server Settings", &server_settings());
    section(
        &mut out,
        "Security Defaults",
        &[("TLS", String::from("true")), ("Protocol Security", String::from("true"))],
    );
    output::print(&out);
    Ok(0)
}

fn section(out: &mut String, title: &str, pairs: &[(&str, String)]) {
    out.push_str(&format!("\n{title}:\n\n"));
    out.push_str(&table::labels(pairs, 5));
}

fn server_settings() -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("Provisioning Target Resolver", String::from("Choria JWT Resolver")),
        ("Provisioning JWT file", PROVISIONING_JWT.to_owned()),
        ("Default Provisioning Agent", String::from("true")),
    ];
    let token = private_file::read_secret(Path::new(PROVISIONING_JWT)).ok();
    let claims = token.and_then(|text| peek_provisioning(text.expose()).ok());
    pairs.push(("Supports Provisioning", claims.is_some().to_string()));
    let Some(claims) = claims else { return pairs };
    let claims = claims.claims();
    pairs.push(("Provisioning Token", String::from("*****")));
    pairs.push(("Provisioning Default", claims.default.to_string()));
    pairs.push(("Provisioning Security", claims.secure.to_string()));
    let more = [
        ("Provisioning Brokers", &claims.urls),
        ("Provisioning SRV Domain", &claims.srv_domain),
        ("Provisioning Registration Data", &claims.registration),
        ("Provisioning Facts", &claims.facts),
    ];
    pairs.extend(
        more.into_iter().filter(|(_, value)| !value.is_empty()).map(|(label, value)| (label, value.clone())),
    );
    pairs.push(("Provisioning Using Protocol v2", claims.v2.to_string()));
    pairs.push(("Provisioning Version Upgrades", claims.update.to_string()));
    pairs
}
