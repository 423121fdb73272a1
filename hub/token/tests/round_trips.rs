//! Whatever an issuer signs, a verifier reads again, claim for claim.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::time::Duration;

use choria_token::claims::{ClientPermissions, ServerPermissions};
use choria_token::{ClientClaims, Issuer, Key, ProvisioningClaims, Seed, ServerClaims, Verifier};
use proptest::prelude::*;

const NOW: i64 = 1_798_761_600;
const HOUR: Duration = Duration::from_secs(3600);

fn org() -> Seed {
    Seed::from_bytes(&[21; 32])
}

fn verifier() -> Verifier {
    Verifier::single(Key::Ed25519(org().public()))
}

/// The organization, and a chain issuer of its.
fn issuers() -> [Issuer; 2] {
    let chain = Seed::from_bytes(&[22; 32]);
    let claims = ClientClaims::new("up=chain", &chain.public());
    let token = Issuer::Org(org()).issue_chain_issuer(claims, HOUR * 2, NOW).expect("a chain issuer");
    [Issuer::Org(org()), Issuer::chain(chain, &token, Some(org().public())).expect("an issuer")]
}

prop_compose! {
    fn client()(
        caller in "[a-z]{1,6}=[a-z0-9_.@-]{1,12}",
        agents in prop::collection::vec("[a-z]{1,8}(\\.[a-z]{1,8})?", 0..3),
        properties in prop::collection::btree_map("[ -~äπ]{1,8}", "\\PC{0,12}", 0..3),
        policy in "[ -~\\n\\tä<>&]{0,60}",
        flags in any::<u16>(),
        subjects in prop::collection::vec("[a-z]{1,6}(\\.[a-z*]{1,4}){0,2}(\\.>)?", 0..3),
    ) -> ClientClaims {
        let bit = |n: u16| flags >> n & 1 == 1;
        let mut claims = ClientClaims::new(&caller, &Seed::from_bytes(&[23; 32]).public());
        claims.agents = agents;
        claims.user_properties = properties.into_iter().collect::<BTreeMap<_, _>>();
        claims.opa_policy = policy;
        claims.permissions = ClientPermissions {
            streams_admin: bit(0),
            streams_user: bit(1),
            events_viewer: bit(2),
            election_user: bit(3),
            system_user: bit(4),
            org_admin: bit(5),
            fleet_management: bit(6),
            service: bit(7),
            authentication_delegator: bit(8),
            provisioner: bit(9),
            ..ClientPermissions::default()
        };
        claims.sub_subjects = subjects.clone();
        claims.pub_subjects = subjects;
        claims
    }
}

prop_compose! {
    fn server()(
        identity in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){0,3}",
        collectives in prop::collection::vec("[a-z_]{1,10}", 1..4),
        flags in any::<u8>(),
    ) -> ServerClaims {
        let bit = |n: u8| flags >> n & 1 == 1;
        let mut claims = ServerClaims::new(&identity, &Seed::from_bytes(&[24; 32]).public());
        claims.collectives = collectives;
        claims.permissions = ServerPermissions {
            submission: bit(0),
            streams: bit(1),
            governor: bit(1) && bit(2),
            service_host: bit(3),
        };
        claims
    }
}

prop_compose! {
    fn provisioning()(
        token in "\\PC{1,20}", urls in prop::collection::vec("nats://[a-z]{1,8}:4222", 1..3), user in "[a-z]{0,6}",
        password in "\\PC{0,10}", flags in any::<u8>(), site in prop::option::of("\\PC{0,10}"),
    ) -> ProvisioningClaims {
        let bit = |n: u8| flags >> n & 1 == 1;
        ProvisioningClaims {
            token,
            urls: urls.join(","),
            username: user,
            password,
            secure: bit(0),
            default: bit(1),
            v2: bit(2),
            update: bit(3),
            extensions: site.map(|site| [("site".to_owned(), site.into())].into_iter().collect()),
            ..ProvisioningClaims::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn client_tokens(claims in client()) {
        for issuer in issuers() {
            // What an issuer refuses never becomes a token.
            let Ok(token) = issuer.issue_client(claims.clone(), HOUR, NOW) else { continue };
            let read = verifier().verify_client(&token, NOW + 1).unwrap();
            let mut expected = claims.clone();
            expected.org.clone_from(&read.claims().org);
            expected.standard = read.claims().standard.clone();
            prop_assert_eq!(read.claims(), &expected);
            prop_assert_eq!(read.holder(), Some(&Seed::from_bytes(&[23; 32]).public()));
            prop_assert!(read.expires().is_some_and(|at| at <= NOW + 3600));
            prop_assert!(verifier().verify_server(&token, NOW + 1).is_err());
            prop_assert!(verifier().verify_client(&token, NOW + 3601).is_err());
        }
    }

    #[test]
    fn server_tokens(claims in server()) {
        for issuer in issuers() {
            let token = issuer.issue_server(claims.clone(), HOUR, NOW).unwrap();
            let read = verifier().verify_server(&token, NOW + 1).unwrap();
            let mut expected = claims.clone();
            expected.org.clone_from(&read.claims().org);
            expected.standard = read.claims().standard.clone();
            prop_assert_eq!(read.claims(), &expected);
            prop_assert!(verifier().verify_client(&token, NOW + 1).is_err());
        }
    }

    #[test]
    fn provisioning_tokens(claims in provisioning()) {
        let [org, chain] = issuers();
        let token = org.issue_provisioning(claims.clone(), HOUR, NOW).unwrap();
        let read = verifier().verify_provisioning(&token, NOW + 1).unwrap();
        let mut expected = claims.clone();
        expected.org.clone_from(&read.claims().org);
        expected.standard = read.claims().standard.clone();
        prop_assert_eq!(read.claims(), &expected);
        prop_assert!(chain.issue_provisioning(claims, HOUR, NOW).is_err(), "only the organization lets nodes in");
    }

    #[test]
    fn one_changed_byte_ends_a_token(claims in server(), at in any::<prop::sample::Index>(), byte in "[A-Za-z0-9_-]") {
        let token = issuers()[1].issue_server(claims, HOUR, NOW).unwrap();
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte.as_bytes()[0];
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(changed == token || verifier().verify_server(&changed, NOW + 1).is_err());
    }
}
