//! Real handshakes in memory between our client and server configurations.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConnection, ServerConnection};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `<file>.pem` and `<file>.key`; returns the certificate.
    fn issue(&self, file: &str, name: &str) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
        certificate.der().to_vec()
    }

    fn server(&self, file: &str, client_ca: bool) -> Arc<ServerConfig> {
        let ca = self.path("ca.pem");
        server_config(
            &self.path(&format!("{file}.pem")),
            &self.path(&format!("{file}.key")),
            client_ca.then_some(ca.as_path()),
        )
        .unwrap()
    }
}

/// Runs a handshake; the server side's view of the client's certificates.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<Option<usize>, rustls::Error> {
    let mut client =
        ClientConnection::new(Arc::clone(client), ServerName::try_from(name.to_owned()).unwrap())?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    for _ in 0..20 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() {
            return Ok(server.peer_certificates().map(<[_]>::len));
        }
    }
    panic!("the handshake does not end");
}

use rustls_pki_types::ServerName;

#[test]
fn a_ca_file_verifies_chain_and_name() {
    let ca = Authority::new();
    ca.issue("broker", "broker.example.net");
    let client = client_config(&Trust::CaFile(ca.path("ca.pem")), None).unwrap();
    handshake(&client, &ca.server("broker", false), "broker.example.net").unwrap();
    assert!(handshake(&client, &ca.server("broker", false), "other.example.net").is_err());
    let other = Authority::new();
    other.issue("broker", "broker.example.net");
    assert!(handshake(&client, &other.server("broker", false), "broker.example.net").is_err());
}

#[test]
fn platform_roots_do_not_know_our_ca() {
    let ca = Authority::new();
    ca.issue("broker", "broker.example.net");
    match client_config(&Trust::PlatformRoots, None) {
        Ok(client) => {
            assert!(handshake(&client, &ca.server("broker", false), "broker.example.net").is_err());
        }
        Err(error) => assert!(error.to_string().contains("plugin.security.choria.ca"), "{error}"),
    }
}

#[test]
fn a_pin_accepts_only_its_key() {
    let ca = Authority::new();
    let certificate = ca.issue("broker", "broker.example.net");
    let pin = pin_of_certificate(&certificate).unwrap();
    let client = client_config(&Trust::Pins(vec![pin]), None).unwrap();
    handshake(&client, &ca.server("broker", false), "any.name").unwrap();
    ca.issue("other", "broker.example.net");
    let error = handshake(&client, &ca.server("other", false), "broker.example.net").unwrap_err();
    assert!(
        matches!(Mismatch::in_error(&error), Some(Mismatch::NotPinned { name, .. }) if name == "broker.example.net")
    );
    assert!(error.to_string().contains("plugin.security.choria.tls_pin"), "{error}");
    assert!(matches!(client_config(&Trust::Pins(vec![]), None), Err(TlsError::NoPins)));
}

#[test]
fn the_first_key_is_remembered_and_another_refused() {
    let ca = Authority::new();
    let certificate = ca.issue("broker", "broker.example.net");
    let store = ca.path("pins");
    let client = client_config(&Trust::PinOnFirstUse(store.clone()), None).unwrap();
    let broker = ca.server("broker", false);
    handshake(&client, &broker, "broker.example.net").unwrap();
    let text = std::fs::read_to_string(&store).unwrap();
    assert!(text.contains(&format!("broker.example.net {}", pin_of_certificate(&certificate).unwrap())));
    assert_eq!(std::fs::metadata(&store).unwrap().permissions().mode() & 0o777, 0o600);
    handshake(&client, &broker, "BROKER.example.net").unwrap();

    ca.issue("other", "broker.example.net");
    // A new process reads the same store.
    let client = client_config(&Trust::PinOnFirstUse(store.clone()), None).unwrap();
    let error = handshake(&client, &ca.server("other", false), "broker.example.net").unwrap_err();
    assert!(matches!(Mismatch::in_error(&error), Some(Mismatch::Changed { .. })), "{error}");
    assert!(error.to_string().contains("remove the line of broker.example.net"), "{error}");
    let wrapped = std::io::Error::other(error);
    assert!(Mismatch::in_error(&wrapped).is_some(), "found inside of what the runtime reports");
    handshake(&client, &broker, "broker.example.net").unwrap();
}

#[test]
fn a_damaged_store_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("pins");
    private_write(&store, "# fine\nbroker nonsense\n");
    let error = client_config(&Trust::PinOnFirstUse(store.clone()), None).unwrap_err();
    assert!(error.to_string().contains("pins:2"), "{error}");
}

fn private_write(path: &Path, text: &str) {
    crate::private_file::write_private(path, text.as_bytes()).unwrap();
}

#[test]
fn unverified_accepts_anyone_who_holds_the_key() {
    let ca = Authority::new();
    ca.issue("broker", "broker.example.net");
    let client = client_config(&Trust::Unverified, None).unwrap();
    handshake(&client, &ca.server("broker", false), "whatever").unwrap();
    assert!(!Trust::Unverified.verifies());

    // A server that shows a certificate whose key it does not hold must fail even here.
    let stolen = ca.issue("stolen", "broker.example.net");
    let own = key_of(&ca.path("broker.key")).unwrap();
    let own = provider().key_provider.load_private_key(own).unwrap();
    let mut liar = (*ca.server("broker", false)).clone();
    liar.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(
        vec![CertificateDer::from(stolen.clone())],
        own,
    )));
    let liar = Arc::new(liar);
    assert!(handshake(&client, &liar, "whatever").is_err());
    let pinned = client_config(&Trust::Pins(vec![pin_of_certificate(&stolen).unwrap()]), None).unwrap();
    assert!(handshake(&pinned, &liar, "whatever").is_err());
    let store = ca.path("pins");
    let first_use = client_config(&Trust::PinOnFirstUse(store.clone()), None).unwrap();
    assert!(handshake(&first_use, &liar, "whatever").is_err());
    assert!(!store.exists(), "an unproven key is not remembered");
}

#[test]
fn a_client_certificate_is_optional_and_verified_when_shown() {
    let ca = Authority::new();
    ca.issue("broker", "broker.example.net");
    ca.issue("n1", "n1.example.net");
    let trust = Trust::CaFile(ca.path("ca.pem"));
    let server = ca.server("broker", true);
    let (cert, key) = (ca.path("n1.pem"), ca.path("n1.key"));
    let with = client_config(&trust, Some((&cert, &key))).unwrap();
    assert_eq!(handshake(&with, &server, "broker.example.net"), Ok(Some(1)));
    let without = client_config(&trust, None).unwrap();
    assert_eq!(handshake(&without, &server, "broker.example.net"), Ok(None));
    let other = Authority::new();
    other.issue("n1", "n1.example.net");
    let (cert, key) = (other.path("n1.pem"), other.path("n1.key"));
    let foreign = client_config(&trust, Some((&cert, &key))).unwrap();
    assert!(handshake(&foreign, &server, "broker.example.net").is_err());
}

#[test]
fn files_that_do_not_work_say_why() {
    let ca = Authority::new();
    ca.issue("a", "a");
    ca.issue("b", "b");
    let error = server_config(&ca.path("a.pem"), &ca.path("b.key"), None).unwrap_err();
    assert!(matches!(error, TlsError::KeyPair { .. }), "{error}");
    let error = server_config(&ca.path("none.pem"), &ca.path("b.key"), None).unwrap_err();
    assert!(error.to_string().contains("none.pem"), "{error}");
    std::fs::write(ca.path("empty"), "").unwrap();
    assert!(matches!(
        client_config(&Trust::CaFile(ca.path("empty")), None),
        Err(TlsError::NoCertificate { .. })
    ));
    std::fs::write(
        ca.path("locked.key"),
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    )
    .unwrap();
    assert!(matches!(
        server_config(&ca.path("a.pem"), &ca.path("locked.key"), None),
        Err(TlsError::EncryptedKey { .. })
    ));
}
