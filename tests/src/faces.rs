//! Certificates that a device's broker should not show, and the TLS that shows them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use choria_host::private_file::write_private;
use choria_host::tls;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SignatureAlgorithm,
};
use rustls::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::device::{DeviceTls, HOST};

/// Bytes of a record that a device of profile `small` reads.
pub const FRAGMENT: usize = 4096;

/// An authority whose key the test holds, and what it needs to make TLS of anything.
#[derive(Debug)]
pub struct Faces {
    /// Its certificate, for images.
    pub ca: PathBuf,
    params: CertificateParams,
    key: KeyPair,
    /// A configuration of the product's; only what it shows is replaced.
    genuine: Arc<ServerConfig>,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    pub der: Vec<u8>,
    pub key: KeyPair,
    params: CertificateParams,
}

impl Faces {
    pub fn new(folder: &Path, algorithm: &'static SignatureAlgorithm) -> Result<Faces> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate_for(algorithm)?;
        let ca = folder.join("faces-ca.pem");
        write_private(&ca, params.self_signed(&key)?.pem().as_bytes())?;
        let inner = folder.join("genuine");
        std::fs::create_dir_all(&inner)?;
        let files = DeviceTls::new(&inner)?;
        let genuine = tls::constrained_server_config(&files.certificate, &files.key, FRAGMENT)?;
        Ok(Faces { ca, params, key, genuine })
    }

    /// A good certificate for devices' broker, with something changed.
    pub fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<Leaf> {
        made_by(&self.params, &self.key, change)
    }

    /// Writes a good certificate and its key where a broker finds them.
    pub fn listener(&self, folder: &Path) -> Result<DeviceTls> {
        let leaf = self.leaf(|_| {})?;
        let files = DeviceTls {
            certificate: folder.join("listener.pem"),
            key: folder.join("listener.key"),
            ca: self.ca.clone(),
        };
        let pem = self.pem(&leaf)?;
        write_private(&files.certificate, pem.as_bytes())?;
        write_private(&files.key, leaf.key.serialize_pem().as_bytes())?;
        Ok(files)
    }

    fn pem(&self, leaf: &Leaf) -> Result<String> {
        let issuer = Issuer::from_params(&self.params, &self.key);
        Ok(leaf.params.signed_by(&leaf.key, &issuer)?.pem())
    }

    /// TLS that shows this chain, whatever it is, and proves this key.
    pub fn showing(
        &self,
        chain: &[&[u8]],
        key: &KeyPair,
        fragment: Option<usize>,
    ) -> Result<Arc<ServerConfig>> {
        let der = PrivateKeyDer::try_from(key.serialize_der()).ok().context("a key")?;
        let key = tls::provider().key_provider.load_private_key(der)?;
        let chain = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let mut config = (*self.genuine).clone();
        config.max_fragment_size = fragment;
        config.cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        Ok(Arc::new(config))
    }
}

impl Leaf {
    /// A certificate that this one signs, though it is no authority.
    pub fn signs(&self) -> Result<Leaf> {
        made_by(&self.params, &self.key, |_| {})
    }
}

fn made_by(
    above: &CertificateParams,
    signing: &KeyPair,
    change: impl FnOnce(&mut CertificateParams),
) -> Result<Leaf> {
    let mut params = CertificateParams::new(vec![HOST.to_owned(), "127.0.0.1".to_owned()])?;
    change(&mut params);
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let der = params.signed_by(&key, &Issuer::from_params(above, signing))?.der().to_vec();
    Ok(Leaf { der, key, params })
}

/// An extension that nobody knows and that must not be passed over.
pub fn critical_and_unknown() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
    extension.set_criticality(true);
    extension
}
