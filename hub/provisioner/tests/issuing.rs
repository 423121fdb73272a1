//! Whose key signs, and when it no longer may.
#![allow(clippy::unwrap_used, clippy::panic)] // a test may fail where it stands

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use choria_provisioner::claims::{Applicant, ClaimLimits, ClaimLimitsFile, Grant};
use choria_provisioner::helper::RequestedClaims;
use choria_provisioner::issuing::{IssuingError, Signer};
use choria_token::{ClientClaims, Issuer, Key, PublicKey, Seed, Verifier};

const NOW: i64 = 1_790_000_000;
const DAY: i64 = 86_400;

struct Keys {
    directory: tempfile::TempDir,
    organization: PublicKey,
}

/// An organization and a chain issuer that is good for `days`.
fn keys(days: i64) -> Keys {
    let directory = tempfile::tempdir().unwrap();
    let seed = Seed::generate().unwrap();
    let organization = seed.public();
    write_chain(directory.path(), &Issuer::Org(seed), days);
    Keys { directory, organization }
}

fn write_chain(directory: &Path, organization: &Issuer, days: i64) {
    let chain = Seed::generate().unwrap();
    let life = Duration::from_secs((days * DAY).unsigned_abs());
    let claims = ClientClaims::new("provisioner_issuer", &chain.public());
    let token = organization.issue_chain_issuer(claims, life, NOW).unwrap();
    std::fs::write(directory.join("seed"), chain.to_hex().as_bytes()).unwrap();
    std::fs::write(directory.join("jwt"), token).unwrap();
}

impl Keys {
    fn signer(&self, organization: PublicKey) -> Signer {
        let path = self.directory.path();
        Signer::new(path.join("seed"), Some(path.join("jwt")), vec![organization])
    }
}

fn grant(public_key: &PublicKey) -> Grant {
    let configuration = BTreeMap::from([("collectives".to_string(), "choria".to_string())]);
    let key = public_key.to_hex();
    let applicant =
        Applicant { identity: "n1", public_key: &key, org: "choria", configuration: &configuration };
    let limits = ClaimLimits::build(ClaimLimitsFile::default(), Duration::from_secs(365 * 86_400)).unwrap();
    limits.grant(applicant, &RequestedClaims::default(), Duration::from_secs(365 * 86_400), NOW).unwrap()
}

#[test]
fn t_161_a_chain_issuer_signs_no_longer_than_it_lives() {
    let keys = keys(20);
    let signer = keys.signer(keys.organization);
    let loaded = signer.current(NOW).unwrap();
    assert!(signer.warning(&loaded, NOW).unwrap().contains("expires at"));
    let node = Seed::generate().unwrap().public();
    let token = loaded.issue(grant(&node), NOW).unwrap();
    let verifier = Verifier::single(Key::Ed25519(keys.organization));
    let verified = verifier.verify_server(&token, NOW).unwrap();
    assert_eq!(verified.expires(), Some(NOW + 20 * DAY));
    assert_eq!(verified.claims().standard.public_key, Some(node.to_hex()));

    assert!(matches!(signer.current(NOW + 20 * DAY), Err(IssuingError::Expired { .. })));
    choria_rows::row(
        161,
        "a chain issuer's token that expires in 20 days, and has expired",
        "warned, tokens end with it; refuses to issue",
    );
}

#[test]
fn another_organization_is_refused() {
    let keys = keys(365);
    let stranger = Seed::generate().unwrap().public();
    assert!(matches!(keys.signer(stranger).current(NOW), Err(IssuingError::Chain { .. })));

    let loaded = keys.signer(keys.organization).current(NOW).unwrap();
    assert_eq!(loaded.organization(Some("choria")).unwrap(), "choria");
    assert!(matches!(loaded.organization(Some("other")), Err(IssuingError::Organization { .. })));
}

#[test]
fn new_files_are_used_at_once_and_a_mismatched_pair_is_not() {
    let keys = keys(365);
    let signer = keys.signer(keys.organization);
    let first = signer.current(NOW).unwrap().public();

    // only the seed was replaced
    let seed = Seed::generate().unwrap();
    std::fs::write(keys.directory.path().join("seed"), seed.to_hex().as_bytes()).unwrap();
    assert!(matches!(signer.current(NOW), Err(IssuingError::Chain { .. })));

    let organization = Seed::generate().unwrap();
    let rotated = Keys { directory: keys.directory, organization: organization.public() };
    write_chain(rotated.directory.path(), &Issuer::Org(organization), 365);
    let second = rotated.signer(rotated.organization).current(NOW).unwrap().public();
    assert_ne!(first.to_hex(), second.to_hex());
}

#[test]
fn the_organization_itself_signs_for_the_organization_of_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let seed = Seed::generate().unwrap();
    std::fs::write(directory.path().join("seed"), seed.to_hex().as_bytes()).unwrap();
    let loaded = Signer::new(directory.path().join("seed"), None, Vec::new()).current(NOW).unwrap();
    assert_eq!(loaded.organization(Some("tenant")).unwrap(), "tenant");
    assert_eq!(loaded.organization(None).unwrap(), "choria");
}

#[test]
fn missing_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = Signer::new(directory.path().join("seed"), None, Vec::new()).current(NOW).unwrap_err();
    assert!(error.to_string().contains("jwt_signing_key"), "{error}");
}
