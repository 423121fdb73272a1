//! What a person is shown about a certificate before deciding to trust it.

use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::terminal::misleads;

/// Longest text taken from a certificate: its owner chose it.
const MAX_TEXT: usize = 256;
/// Most names shown.
const MAX_NAMES: usize = 32;

/// The readable part of a certificate; control characters replaced, lengths bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    pub subject: String,
    pub issuer: String,
    /// DNS names and addresses it is good for.
    pub names: Vec<String>,
    /// Last second of its validity, Unix time.
    pub not_after: i64,
}

/// Reads a certificate in DER form; `None` when the bytes are not one.
pub fn describe(der: &[u8]) -> Option<CertificateSummary> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        for name in alternatives.value.general_names.iter().take(MAX_NAMES) {
            match name {
                GeneralName::DNSName(name) => names.push(harmless(name)),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
                _ => {}
            }
        }
    }
    Some(CertificateSummary {
        subject: harmless(&certificate.subject().to_string()),
        issuer: harmless(&certificate.issuer().to_string()),
        names,
        not_after: certificate.validity().not_after.timestamp(),
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string())
}

fn harmless(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() || misleads(c) { '\u{fffd}' } else { c }).collect()
}

/// SHA-256 over the whole certificate, as `openssl x509 -fingerprint -sha256` prints it: `AB:CD:…`.
pub fn fingerprint_sha256(der: &[u8]) -> String {
    let digest = Sha256::digest(der);
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Whether two fingerprints are the same, whatever their case, colons or a `SHA256:` (also `sha256
/// fingerprint=`) in front.
pub fn same_fingerprint(a: &str, b: &str) -> bool {
    let bare = |text: &str| {
        let lower = text.trim().to_ascii_lowercase().replace("fingerprint=", "");
        let lower = lower.strip_prefix("sha256").unwrap_or(&lower).to_owned();
        lower.chars().filter(char::is_ascii_hexdigit).collect::<String>()
    };
    let (a, b) = (bare(a), bare(b));
    a.len() == 64 && a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_person_needs() {
        let mut params =
            rcgen::CertificateParams::new(vec!["broker.example.net".into(), "192.0.2.1".into()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "evil\u{1b}[2J");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let summary = describe(certificate.der()).unwrap();
        assert_eq!(summary.names, ["broker.example.net", "192.0.2.1"]);
        assert!(!summary.subject.contains('\u{1b}'), "{}", summary.subject);
        assert!(summary.not_after > 1_700_000_000);
        assert!(describe(b"nonsense").is_none());
    }

    #[test]
    fn fingerprints_compare_in_any_form() {
        let print = fingerprint_sha256(b"x");
        assert_eq!(print.len(), 95);
        assert!(same_fingerprint(&print, &print.replace(':', "").to_lowercase()));
        assert!(same_fingerprint(&format!("SHA256:{print}"), &print));
        assert!(same_fingerprint(&format!("sha256 Fingerprint={print}"), &print));
        assert!(!same_fingerprint(&print, &fingerprint_sha256(b"y")));
        assert!(!same_fingerprint("", ""));
    }
}
