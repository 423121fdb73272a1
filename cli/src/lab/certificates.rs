//! A certificate authority for an afternoon: it signs two certificates and its key is forgotten.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519,
};

use crate::failure::{Doing as _, Failure};
use crate::lab::directory::{Directory, write};
use crate::lab::record::{DOMAIN, LIFE};

/// Writes `ca.pem`, and certificate and key of the broker and of the login service. Returns the broker's certificate.
pub(crate) fn create(directory: &Directory, now: i64) -> Result<Vec<u8>, Failure> {
    let doing = || String::from("cannot make the lab's certificates");
    let mut authority = CertificateParams::new(Vec::new()).doing(doing)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::OrganizationName, "Choria lab");
    authority.distinguished_name.push(DnType::CommonName, "Choria lab, never trust this elsewhere");
    set_life(&mut authority, now);
    let key = KeyPair::generate().doing(doing)?;
    let certificate = authority.self_signed(&key).doing(doing)?;
    write(&directory.tls("ca.pem"), certificate.pem().as_bytes(), 0o644)?;
    let issuer = Issuer::new(authority, key);

    let mut broker = Vec::new();
    for name in ["broker", "login"] {
        let names = vec![format!("{name}.{DOMAIN}"), String::from("localhost"), String::from("127.0.0.1")];
        let mut params = CertificateParams::new(names).doing(doing)?;
        params.distinguished_name.push(DnType::OrganizationName, "Choria lab");
        params.distinguished_name.push(DnType::CommonName, format!("{name}.{DOMAIN}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params, now);
        let key = KeyPair::generate().doing(doing)?;
        let certificate = params.signed_by(&key, &issuer).doing(doing)?;
        write(&directory.tls(&format!("{name}.pem")), certificate.pem().as_bytes(), 0o644)?;
        write(&directory.tls(&format!("{name}.key")), key.serialize_pem().as_bytes(), 0o600)?;
        if name == "broker" {
            broker = certificate.der().to_vec();
        }
    }
    Ok(broker)
}

/// Writes `devices-ca.pem`, and certificate and key of the listener for microcontrollers: Ed25519, which costs them least. One
/// of the names is the address at which a machine in QEMU reaches its host.
pub(crate) fn create_for_devices(directory: &Directory, now: i64) -> Result<(), Failure> {
    let doing = || String::from("cannot make the certificate for devices");
    let mut authority = CertificateParams::new(Vec::new()).doing(doing)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name.push(DnType::CommonName, "Choria lab devices, never trust this elsewhere");
    set_life(&mut authority, now);
    let key = KeyPair::generate_for(&PKCS_ED25519).doing(doing)?;
    let certificate = authority.self_signed(&key).doing(doing)?;
    write(&directory.tls("devices-ca.pem"), certificate.pem().as_bytes(), 0o644)?;
    let issuer = Issuer::new(authority, key);
    let names = ["devices.lab.choria.local", "localhost", "127.0.0.1", "10.0.2.2"].map(String::from).to_vec();
    let mut params = CertificateParams::new(names).doing(doing)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    set_life(&mut params, now);
    let key = KeyPair::generate_for(&PKCS_ED25519).doing(doing)?;
    let certificate = params.signed_by(&key, &issuer).doing(doing)?;
    write(&directory.tls("devices.pem"), certificate.pem().as_bytes(), 0o644)?;
    write(&directory.tls("devices.key"), key.serialize_pem().as_bytes(), 0o600)
}

/// Valid from an hour ago, for clocks that differ, until the lab's end.
fn set_life(params: &mut CertificateParams, now: i64) {
    let day = |at: i64| {
        let date =
            jiff::Timestamp::from_second(at).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC).date();
        let part = |value: i8| u8::try_from(value).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = day(now.saturating_sub(86_400));
    params.not_after = day(now.saturating_add(LIFE + 86_400));
}
