//! Verifiers that do not follow a chain of certificates. Both check the handshake signature: the peer holds
//! the private key of the certificate it shows, so a pinned key means something.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::pin::{Pin, pin_of_certificate};

/// The broker has another key than it should. Reached through `rustls::Error::Other`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error(
        "the key of {name} is {seen}, which is none of the pins; if the broker's key was replaced on purpose, \
         add this value to plugin.security.choria.tls_pin"
    )]
    NotPinned { name: String, seen: Pin },
    #[error(
        "the key of {name} is {seen}, but {known} was seen before ({store}); someone may stand between you and \
         the broker. If its key was replaced on purpose, remove the line of {name} from {store} and connect again"
    )]
    Changed { name: String, seen: Pin, known: Pin, store: String },
    #[error("the key of {name} could not be remembered in {store}: {reason}")]
    NotRemembered { name: String, store: String, reason: String },
}

impl Mismatch {
    pub(super) fn into_error(self) -> Error {
        Error::Other(OtherError(Arc::new(self)))
    }

    /// Finds a mismatch inside the error of a handshake, also when an `io::Error` wraps it.
    pub fn in_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Mismatch> {
        let mut next = Some(error);
        // Errors wrap each other a few levels deep at most.
        for _ in 0..16 {
            let current = next?;
            if let Some(found) = current.downcast_ref::<Mismatch>() {
                return Some(found);
            }
            next = if let Some(io) = current.downcast_ref::<std::io::Error>() {
                io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static))
            } else if let Some(Error::Other(OtherError(inner))) = current.downcast_ref::<Error>() {
                Some(inner.as_ref())
            } else {
                current.source()
            };
        }
        None
    }
}

/// The pin of the certificate shown, or the TLS error that ends the handshake.
pub(super) fn pin_shown(certificate: &CertificateDer<'_>) -> Result<Pin, Error> {
    pin_of_certificate(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

macro_rules! checks_handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signature, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

/// Accepts exactly the servers whose public key is pinned.
#[derive(Debug)]
pub struct PinnedServer {
    pins: Vec<Pin>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedServer {
    pub(super) fn new(pins: Vec<Pin>, provider: &CryptoProvider) -> Self {
        PinnedServer { pins, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = pin_shown(end_entity)?;
        if self.pins.contains(&seen) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Mismatch::NotPinned { name: server_name.to_str().into_owned(), seen }.into_error())
    }

    checks_handshake_signatures!();
}

/// Accepts any server. Whoever stands between can read and change everything that the protocol itself does not
/// sign; used only where a deployment has neither CA nor pins (decision D1), never for passwords.
#[derive(Debug)]
pub struct UnverifiedServer {
    algorithms: WebPkiSupportedAlgorithms,
}

impl UnverifiedServer {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        UnverifiedServer { algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for UnverifiedServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    checks_handshake_signatures!();
}
