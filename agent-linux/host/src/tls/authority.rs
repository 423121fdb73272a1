//! A chain to the authorities of a file that is read again when it changed, so that an authority can be replaced under
//! long-running processes (docs/spec/10 §7: files are read again at each connect).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{TlsError, roots_of};

type Stamp = Option<(SystemTime, u64)>;

/// Verifies by what is in the file now.
#[derive(Debug)]
pub(super) struct FileAuthorities {
    path: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Mutex<(Stamp, Arc<WebPkiServerVerifier>)>,
}

impl FileAuthorities {
    pub(super) fn open(path: &Path, provider: &Arc<CryptoProvider>) -> Result<FileAuthorities, TlsError> {
        let read = (stamp(path), verifier(path, provider)?);
        Ok(FileAuthorities {
            path: path.to_path_buf(),
            provider: Arc::clone(provider),
            current: Mutex::new(read),
        })
    }

    /// The verifier of the file as it is; of the file as it was when it cannot be used now.
    fn current(&self) -> Arc<WebPkiServerVerifier> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.path);
        if current.0 != now {
            match verifier(&self.path, &self.provider) {
                Ok(fresh) => {
                    tracing::info!(file = %self.path.display(), "the certificate authorities were read again");
                    current.1 = fresh;
                }
                Err(error) => tracing::error!("keeping the certificate authorities in use: {error}"),
            }
            current.0 = now;
        }
        Arc::clone(&current.1)
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn verifier(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let roots = Arc::new(roots_of(path)?);
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| TlsError::Roots(error.to_string()))
}

impl ServerCertVerifier for FileAuthorities {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.current().verify_server_cert(certificate, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
