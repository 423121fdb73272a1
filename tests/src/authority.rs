//! Certificates of a test: an authority and what it signs for 127.0.0.1.

use std::path::{Path, PathBuf};

use anyhow::Result;
use choria_host::private_file::{write_atomic, write_private};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// Writes `ca.pem`, and `NAME.pem` with `NAME.key` for each name. Returns the path of `ca.pem`.
pub fn certificates(folder: &Path, names: &[&str]) -> Result<PathBuf> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    let ca = folder.join("ca.pem");
    write_atomic(&ca, params.self_signed(&key)?.pem().as_bytes(), 0o644)?;
    let issuer = Issuer::new(params, key);
    for name in names {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        let certificate = params.signed_by(&key, &issuer)?;
        write_atomic(&folder.join(format!("{name}.pem")), certificate.pem().as_bytes(), 0o644)?;
        write_private(&folder.join(format!("{name}.key")), key.serialize_pem().as_bytes())?;
    }
    Ok(ca)
}
