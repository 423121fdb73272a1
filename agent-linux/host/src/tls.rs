//! TLS for every connection: one provider (ring), TLS 1.2 or later, and a named decision about what is trusted.
//!
//! The rustls builders are disallowed elsewhere (`clippy.toml`), so nobody can lose verification by accident:
//! [`Trust::Unverified`] is the only way not to check who the peer is, and it still checks that the peer holds
//! the key of the certificate it shows.

mod authority;
mod first_use;
mod pin;
mod summary;
mod verifier;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use first_use::PinStoreError;
pub use pin::{Pin, PinError, pin_of_certificate};
pub use summary::{CertificateSummary, describe, fingerprint_sha256, same_fingerprint};
pub use verifier::{Mismatch, PinnedServer, UnverifiedServer};

/// Largest PEM file read, in bytes.
const MAX_PEM: u64 = 4 * 1024 * 1024;

/// What makes a broker's certificate good enough (decisions D1 and D2).
#[derive(Debug, Clone)]
pub enum Trust {
    /// A chain to one of the certificates of this PEM file, and the name we connected to.
    CaFile(PathBuf),
    /// A chain to the roots of the operating system, and the name we connected to.
    PlatformRoots,
    /// One of these public keys, whatever the certificate says.
    Pins(Vec<Pin>),
    /// The key seen first for each name, remembered in this file; another key later is refused.
    PinOnFirstUse(PathBuf),
    /// Whoever answers. The caller warns and counts.
    Unverified,
}

impl Trust {
    /// Whether the peer's identity is checked at all.
    pub fn verifies(&self) -> bool {
        !matches!(self, Trust::Unverified)
    }
}

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("could not read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds no certificate in PEM form", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} is not usable: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("{} holds no private key in PEM form", path.display())]
    NoKey { path: PathBuf },
    #[error(
        "the private key {} is encrypted; write it without a passphrase, mode 0600: openssl pkey -in {0} -out new.key",
        path.display()
    )]
    EncryptedKey { path: PathBuf },
    #[error("certificate {} and key {} do not work together: {reason}", certificate.display(), key.display())]
    KeyPair { certificate: PathBuf, key: PathBuf, reason: String },
    #[error(
        "the key {} of the listener for devices (plugin.choria.network.constrained.key) is neither Ed25519 nor P-256, \
         and devices verify no other; make one, and a certificate for it: openssl genpkey -algorithm ed25519 -out {0}",
        path.display()
    )]
    DeviceKey { path: PathBuf },
    #[error("no roots of trust: {0}; set plugin.security.choria.ca to the CA file of your brokers")]
    Roots(String),
    #[error("an empty list of pins would refuse every broker; give at least one or remove the setting")]
    NoPins,
    #[error(transparent)]
    PinStore(#[from] PinStoreError),
    #[error("this build lacks a TLS version or cipher it needs: {0}")]
    Provider(String),
}

/// The one provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client configuration that trusts what `trust` says, with a client certificate (certificate and key files)
/// when given. Sessions are not resumed: each connection proves itself again.
///
/// # Errors
/// Files that cannot be read or do not fit together; see [`TlsError`].
pub fn client_config(
    trust: &Trust,
    client_cert: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::CaFile(path) => Arc::new(authority::FileAuthorities::open(path, &provider)?),
        Trust::PlatformRoots => Arc::new(
            rustls_platform_verifier::Verifier::new(Arc::clone(&provider))
                .map_err(|error| TlsError::Roots(error.to_string()))?,
        ),
        Trust::Pins(pins) if pins.is_empty() => return Err(TlsError::NoPins),
        Trust::Pins(pins) => Arc::new(PinnedServer::new(pins.clone(), &provider)),
        Trust::PinOnFirstUse(store) => Arc::new(first_use::FirstUseServer::open(store, &provider)?),
        Trust::Unverified => Arc::new(UnverifiedServer::new(&provider)),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Provider(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match client_cert {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates_of(certificate)?, key_of(key)?)
            .map_err(|error| key_pair(certificate, key, &error))?,
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// A server configuration: no session tickets, no session store (a fleet keeps one long connection each). With
/// `client_ca`, a client may show a certificate and it is then verified; one that shows none still connects.
///
/// # Errors
/// Files that cannot be read or do not fit together; see [`TlsError`].
pub fn server_config(
    certificate: &Path,
    key: &Path,
    client_ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Provider(error.to_string()))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots_of(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::Certificate {
                    path: ca.to_path_buf(),
                    reason: error.to_string(),
                })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates_of(certificate)?, key_of(key)?)
        .map_err(|error| key_pair(certificate, key, &error))?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// TLS of a listener for devices (docs/spec/08 §4.3): no record holds more than `max_fragment` bytes, and the key is one that
/// they verify, Ed25519 or P-256. Clients are not asked for a certificate.
///
/// # Errors
/// Files that cannot be read or do not belong together, and keys of other kinds.
pub fn constrained_server_config(
    certificate: &Path,
    key: &Path,
    max_fragment: usize,
) -> Result<Arc<ServerConfig>, TlsError> {
    let signing = provider()
        .key_provider
        .load_private_key(key_of(key)?)
        .map_err(|error| key_pair(certificate, key, &error))?;
    let known = [rustls::SignatureScheme::ED25519, rustls::SignatureScheme::ECDSA_NISTP256_SHA256];
    if signing.choose_scheme(&known).is_none() {
        return Err(TlsError::DeviceKey { path: key.to_path_buf() });
    }
    let mut config = Arc::unwrap_or_clone(server_config(certificate, key, None)?);
    config.max_fragment_size = Some(max_fragment);
    Ok(Arc::new(config))
}

fn key_pair(certificate: &Path, key: &Path, error: &rustls::Error) -> TlsError {
    TlsError::KeyPair {
        certificate: certificate.to_path_buf(),
        key: key.to_path_buf(),
        reason: error.to_string(),
    }
}

fn read_pem(path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read;
    let read_error = |source| TlsError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(read_error)?
        .take(MAX_PEM)
        .read_to_end(&mut bytes)
        .map_err(read_error)?;
    Ok(bytes)
}

/// Every certificate of a PEM file, in the order of the file.
///
/// # Errors
/// The file cannot be read, is damaged or holds none.
pub fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read_pem(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Certificate { path: path.to_path_buf(), reason: error.to_string() })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_path_buf() });
    }
    Ok(certificates)
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Certificate { path: path.to_path_buf(), reason: error.to_string() })?;
    }
    Ok(roots)
}

fn key_of(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = zeroize::Zeroizing::new(read_pem(path)?);
    // The PEM reader sees such a key as damaged base64; a person needs to hear the reason.
    if pem.windows(9).any(|window| window == b"ENCRYPTED") {
        return Err(TlsError::EncryptedKey { path: path.to_path_buf() });
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NoKey { path: path.to_path_buf() })
}

#[cfg(test)]
mod tests;
