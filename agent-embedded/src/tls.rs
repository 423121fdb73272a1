//! TLS 1.3 to the broker: our pins decide whom the device talks to, and nothing else does (docs/spec/08 §4).

use embedded_tls::{
    Aes128GcmSha256, CertificateEntryRef, CertificateRef, CertificateVerifyRef, CryptoProvider, TlsError,
    TlsVerifier,
};
use rand_core::CryptoRngCore;
use sha2::{Digest as _, Sha256};

use crate::generator::Generator;
use agent_core::x509pin::{Leaf, Pin, ServerName, verify};

/// The broker as the image expects it.
#[derive(Debug)]
pub(crate) struct PinVerifier<'p> {
    pins: &'p [Pin],
    name: ServerName<'p>,
    /// Unix seconds, when the device knows the time.
    now: Option<i64>,
    presented: Option<(Leaf, Sha256)>,
    /// Why the certificate was refused, for the log.
    pub(crate) refused: Option<&'static str>,
}

impl<'p> PinVerifier<'p> {
    pub(crate) fn new(pins: &'p [Pin], name: ServerName<'p>, now: Option<i64>) -> PinVerifier<'p> {
        PinVerifier { pins, name, now, presented: None, refused: None }
    }
}

impl TlsVerifier<Aes128GcmSha256> for PinVerifier<'_> {
    fn set_hostname_verification(&mut self, _name: &str) -> Result<(), TlsError> {
        // The name comes with the pins; what the configuration of TLS says is only sent.
        Ok(())
    }

    fn verify_certificate(&mut self, transcript: &Sha256, chain: CertificateRef<'_>) -> Result<(), TlsError> {
        let mut certificates = chain.entries.iter().map(|entry| match entry {
            CertificateEntryRef::X509(der) => Some(*der),
            CertificateEntryRef::RawPublicKey(_) => None,
        });
        let leaf = certificates.next().flatten().ok_or(TlsError::InvalidCertificate)?;
        let intermediate = certificates.next().flatten();
        match verify(leaf, intermediate, self.pins, self.name, self.now) {
            Ok(leaf) => {
                self.presented = Some((leaf, transcript.clone()));
                Ok(())
            }
            Err(refused) => {
                self.refused = Some(refused.reason());
                Err(TlsError::InvalidCertificate)
            }
        }
    }

    fn verify_signature(&mut self, proof: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        let (leaf, transcript) = self.presented.take().ok_or(TlsError::InvalidCertificate)?;
        let hash = transcript.finalize();
        match leaf.verify_certificate_verify(proof.signature_scheme.as_u16(), proof.signature, &hash) {
            Ok(()) => Ok(()),
            Err(refused) => {
                self.refused = Some(refused.reason());
                Err(TlsError::InvalidSignature)
            }
        }
    }
}

/// What a handshake needs of us.
#[derive(Debug)]
pub(crate) struct Provider<'a, 'p> {
    pub(crate) rng: &'a mut Generator,
    pub(crate) verifier: &'a mut PinVerifier<'p>,
}

impl CryptoProvider for Provider<'_, '_> {
    type CipherSuite = Aes128GcmSha256;
    type Signature = [u8; 0];

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut *self.rng
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Aes128GcmSha256>, TlsError> {
        Ok(&mut *self.verifier)
    }
}
