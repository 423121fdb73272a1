//! Trust on first use, as ssh does it: the key that a name showed first is remembered and any other is refused.
//!
//! The store is a text file, one `<name> <pin>` per line, mode 0600, replaced atomically. A key is remembered
//! only after the peer has signed the handshake with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::pin::Pin;
use super::verifier::{Mismatch, pin_shown};
use crate::private_file;

/// Most names one store holds; far above the brokers that one person talks to.
const MAX_NAMES: usize = 4096;

/// Why a store of remembered keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinStoreError {
    #[error(transparent)]
    File(#[from] private_file::PrivateFileError),
    #[error("{}:{line}: expected a name and a pin of 64 hex digits; correct or remove the line", path.display())]
    Line { path: PathBuf, line: usize },
    #[error("{} remembers more than {MAX_NAMES} names; remove the old ones", path.display())]
    Full { path: PathBuf },
}

fn read_store(path: &Path) -> Result<BTreeMap<String, Pin>, PinStoreError> {
    let text = match private_file::read_secret(path) {
        Ok(text) => text,
        Err(error) if error.is_missing() => return Ok(BTreeMap::new()),
        Err(private_file::PrivateFileError::Empty { .. }) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut known = BTreeMap::new();
    for (number, line) in text.expose().lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let broken = || PinStoreError::Line { path: path.to_path_buf(), line: number + 1 };
        let (name, pin) = line.split_once(' ').ok_or_else(broken)?;
        known.insert(name.to_owned(), Pin::from_hex(pin).map_err(|_| broken())?);
    }
    Ok(known)
}

fn remember(path: &Path, name: &str, pin: Pin) -> Result<(), PinStoreError> {
    let mut known = read_store(path)?;
    known.insert(name.to_owned(), pin);
    if known.len() > MAX_NAMES {
        return Err(PinStoreError::Full { path: path.to_path_buf() });
    }
    let mut text = String::from("# Public keys of brokers, remembered when first seen: name and SHA-256.\n");
    for (name, pin) in &known {
        text.push_str(&format!("{name} {pin}\n"));
    }
    private_file::write_private(path, text.as_bytes())?;
    Ok(())
}

/// Accepts the key that a name showed first.
#[derive(Debug)]
pub(super) struct FirstUseServer {
    store: PathBuf,
    /// Keys of names not seen before whose handshake signature is still to come.
    unproven: Mutex<Vec<(String, Pin)>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl FirstUseServer {
    pub(super) fn open(store: &Path, provider: &CryptoProvider) -> Result<Self, PinStoreError> {
        // A damaged store is found here and not in the middle of a handshake.
        read_store(store)?;
        Ok(FirstUseServer {
            store: store.to_path_buf(),
            unproven: Mutex::new(Vec::new()),
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn proven(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let seen = pin_shown(certificate)?;
        let Ok(mut unproven) = self.unproven.lock() else { return Ok(()) };
        let Some(at) = unproven.iter().position(|(_, pin)| *pin == seen) else { return Ok(()) };
        let (name, _) = unproven.swap_remove(at);
        tracing::warn!(broker = %name, pin = %seen, store = %self.store.display(),
            "remembering the key of a broker seen for the first time");
        remember(&self.store, &name, seen).map_err(|error| {
            let store = self.store.display().to_string();
            Mismatch::NotRemembered { name, store, reason: error.to_string() }.into_error()
        })
    }
}

impl ServerCertVerifier for FirstUseServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = pin_shown(end_entity)?;
        let name = server_name.to_str().to_ascii_lowercase();
        let store = self.store.display().to_string();
        // Read again each time: another process may have met this broker meanwhile.
        let known = read_store(&self.store).map_err(|error| {
            Mismatch::NotRemembered { name: name.clone(), store: store.clone(), reason: error.to_string() }
                .into_error()
        })?;
        match known.get(&name) {
            Some(known) if *known == seen => {}
            Some(known) => return Err(Mismatch::Changed { name, seen, known: *known, store }.into_error()),
            None => {
                if let Ok(mut unproven) = self.unproven.lock() {
                    unproven.retain(|(other, _)| *other != name);
                    unproven.push((name, seen));
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = verify_tls12_signature(message, certificate, signature, &self.algorithms)?;
        self.proven(certificate)?;
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = verify_tls13_signature(message, certificate, signature, &self.algorithms)?;
        self.proven(certificate)?;
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
