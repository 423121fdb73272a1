//! What an image is given, checked before anything is written.

use std::collections::BTreeSet;
use std::path::Path;

use agent_core::encoding::{base64, hex};
use agent_core::token::{Issuer, Trust, Verifier, peek_provisioning};
use agent_core::x509pin::{Pin, ca_pin};
use anyhow::{Context, Result, bail, ensure};

/// The device's own reading of URLs, with names: an image is refused for what firmware would pass over.
#[allow(dead_code, reason = "a device uses the rest of it")]
#[path = "../../../agent-embedded/src/brokers.rs"]
mod brokers;

/// Largest input file.
const MAX_INPUT: u64 = 1 << 20;
/// Devices of one manifest.
const MAX_DEVICES: usize = 100_000;

fn read(path: &Path) -> Result<Vec<u8>> {
    let length = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    ensure!(length <= MAX_INPUT, "{} is larger than {MAX_INPUT} bytes", path.display());
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// An organization's public key: 64 hex digits, or a file that holds them.
pub(crate) fn issuer(text: &str) -> Result<[u8; 32]> {
    let from_file = if text.len() == 64 { None } else { Some(read(Path::new(text))?) };
    let digits = from_file.as_deref().unwrap_or(text.as_bytes()).trim_ascii();
    match hex::decode_array(digits) {
        Ok(key) => Ok(key),
        Err(_) => bail!("--issuer {text}: 64 hex digits are needed, or a file that holds them"),
    }
}

/// A provisioning token.
pub(crate) struct Token {
    pub(crate) text: String,
    /// Its brokers, separated by commas.
    pub(crate) urls: String,
}

/// A provisioning token that the organization signed and that is not over; `force` takes one that is not, with a warning.
pub(crate) fn provisioning_jwt(path: &Path, issuer: [u8; 32], now: i64, force: bool) -> Result<Token> {
    let text = String::from_utf8(read(path)?).with_context(|| format!("{} is no text", path.display()))?;
    let text = text.trim().to_owned();
    let mut scratch = vec![0; 64 * 1024];
    let refuse = |why: &str| {
        if force {
            eprintln!("xtask: warning: {}: {why}; used all the same (--force)", path.display());
            Ok(())
        } else {
            bail!("{}: {why}", path.display())
        }
    };
    let (organization, urls) = match peek_provisioning(&text, &mut scratch) {
        Ok(token) => {
            let claims = token.claims();
            ensure!(!claims.token.is_empty(), "{}: the token has no access token (cht)", path.display());
            if claims.urls.is_empty() {
                eprintln!("xtask: note: {} names no broker (chu): give --url", path.display());
            }
            (claims.organization.to_owned(), claims.urls.to_owned())
        }
        // what cannot be read is of no use to a device either
        Err(reject) => bail!("{}: no provisioning token: {}", path.display(), reject.reason()),
    };
    let issuers = [Issuer { organization: &organization, key: issuer }];
    if let Err(reject) = Verifier::new(Trust::Issuers(&issuers)).verify_provisioning(&text, now, &mut scratch)
    {
        refuse(&format!("a device would refuse this token: {}", reject.reason()))?;
    }
    Ok(Token { text, urls })
}

/// How a device finds a host (docs/spec/08 §7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Address,
    /// Of use to firmware that asks a name server.
    Name,
}

/// The host of a broker's URL, or of a time server's `host[:port]`; `None` where a device passes it over.
pub(crate) fn host(url: &str) -> Option<Host> {
    brokers::one(url, 1).map(|broker| match broker.host {
        brokers::Host::Address(_) => Host::Address,
        brokers::Host::Name(_) => Host::Name,
    })
}

/// What a device makes of these brokers, each a list with commas; `None` when it would find none of them.
pub(crate) fn find<'u>(lists: impl Iterator<Item = &'u str>) -> Option<Host> {
    let hosts: Vec<Host> =
        lists.flat_map(|list| list.split(',')).filter_map(|url| host(url.trim_ascii())).collect();
    if hosts.contains(&Host::Address) { Some(Host::Address) } else { hosts.first().copied() }
}

/// A time server that a device can read: `host[:port]`.
pub(crate) fn time_server(text: &str) -> Result<String, String> {
    let fine = !text.contains('/') && host(text).is_some();
    fine.then(|| text.to_owned()).ok_or_else(|| {
        "give an IPv4 address or a name of at most 128 characters, e.g. 192.0.2.1 or ntp.example.net:123"
            .into()
    })
}

/// The pin of an authority's certificate, in PEM or DER.
pub(crate) fn authority(path: &Path) -> Result<Pin> {
    let bytes = read(path)?;
    let der = match pem(&bytes) {
        Some(der) => der.with_context(|| format!("{} is no certificate in PEM", path.display()))?,
        None => bytes,
    };
    match ca_pin(&der) {
        Ok(pin) => Ok(pin),
        Err(refused) => bail!(
            "{}: devices trust authorities with an Ed25519 or P-256 key: {}",
            path.display(),
            refused.reason()
        ),
    }
}

/// The first certificate of a PEM file; `None` when it is none.
fn pem(bytes: &[u8]) -> Option<Option<Vec<u8>>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let Some((body, _)) = rest.split_once("-----END CERTIFICATE-----") else { return Some(None) };
    let digits: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let mut der = vec![0; digits.len()];
    Some(base64::decode_to_slice(&digits, &mut der).ok().map(|length| {
        der.truncate(length);
        der
    }))
}

/// A name that brokers accept (docs/spec/08 §7.2).
pub(crate) fn identity(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    ensure!(
        !name.is_empty() && name.len() <= 128 && name.chars().all(fine) && !name.starts_with(['.', '-']),
        "'{name}' is no identity: letters, digits, '.', '-' and '_', at most 128"
    );
    Ok(())
}

/// The devices of a manifest: lines of `identity[,mac]`.
pub(crate) fn manifest(path: &Path) -> Result<Vec<String>> {
    let text = String::from_utf8(read(path)?).with_context(|| format!("{} is no text", path.display()))?;
    let (mut names, mut seen) = (Vec::new(), BTreeSet::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || (number == 1 && line.starts_with("identity")) {
            continue;
        }
        let name = line.split(',').next().unwrap_or_default().trim();
        let place = || format!("{}:{number}", path.display());
        identity(name).with_context(place)?;
        ensure!(seen.insert(name.to_ascii_lowercase()), "{}: {name} is there twice", place());
        names.push(name.to_owned());
        ensure!(names.len() <= MAX_DEVICES, "{}: more than {MAX_DEVICES} devices", path.display());
    }
    ensure!(!names.is_empty(), "{} names no device", path.display());
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_servers() {
        for fine in ["192.0.2.1", "192.0.2.1:123", "ntp.example.net", "ntp_1:9123"] {
            assert_eq!(time_server(fine).as_deref(), Ok(fine));
        }
        let (long, many) = ("a".repeat(64), ["abcdefg"; 17].join("."));
        for wrong in [
            "",
            "256.0.0.1",
            "1.2.3",
            "a b",
            "a..b",
            "a.",
            "host:0",
            "host:x",
            "host:",
            "host:+1",
            "host:01",
            "host:65536",
            "::1",
            "https://a",
            "nats://a",
            &long,
            &many,
        ] {
            assert!(time_server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn brokers_with_and_without_an_address() {
        let of = |urls: &[&str]| find(urls.iter().copied());
        assert_eq!(of(&["nats://broker.example.net:4222", " tls://other/"]), Some(Host::Name));
        assert_eq!(of(&["nats://broker.example.net:4222, nats://192.0.2.1:4223/"]), Some(Host::Address));
        assert_eq!(of(&["nats://[fe80::1]:4222", "nats://me@broker", "broker.example.net."]), None);
    }
}
