//! The decision who may connect, row by row. Each case names the rows of docs/spec/10 §14 that it covers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]
#![allow(clippy::print_stdout)] // a skipped test says so

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use choria_broker::admission::{Path, Policy, ProvisioningPolicy, SystemPolicy, TokenTrust, VerifiedTokens};
use choria_broker::{
    AllowList, Nonce, Password, Presented, Proof, Question, Transport, WaitingLimits, explain,
};
use choria_host::private_file::Secret;
use choria_token::claims::{ClientPermissions, ProvisioningClaims};
use choria_token::{ClientClaims, Issuer, Seed, ServerClaims, Verifier};

const NOW: i64 = 1_800_000_000;
const NONCE: &str = "PXoWU7zWAMt75FY";
const HOUR: Duration = Duration::from_secs(3600);

/// An organization, its people and a broker that trusts it.
struct World {
    org: Issuer,
    org_seed_bytes: [u8; 32],
    holder: Seed,
    policy: Policy,
}

impl World {
    fn new() -> World {
        let org_seed_bytes = [42; 32];
        let org = Seed::from_bytes(&org_seed_bytes);
        let issuers = BTreeMap::from([("choria".to_owned(), org.public())]);
        let policy = Policy {
            trust: TokenTrust::Issuers(Verifier::issuers(issuers)),
            tls: true,
            provisioning: Some(ProvisioningPolicy {
                password: Secret::new("s3cret".into()),
                previous_password: None,
                signer: None,
                without_token: false,
                require_signature: true,
                own_node_subject: true,
                token_scope: false,
                limits: WaitingLimits::of_broker(50_000),
            }),
            system: Some(SystemPolicy {
                user: "system".into(),
                password: Some(Secret::new("sYst3m".into())),
            }),
            allow_list: AllowList::default(),
            deny_servers: false,
            require_expiry: true,
            verified: VerifiedTokens::default(),
        };
        World { org: Issuer::Org(org), org_seed_bytes, holder: Seed::from_bytes(&[7; 32]), policy }
    }

    fn client(&self, change: impl FnOnce(&mut ClientClaims)) -> String {
        let mut claims = ClientClaims::new("up=alice", &self.holder.public());
        change(&mut claims);
        self.org.issue_client(claims, HOUR, NOW).unwrap()
    }

    fn server(&self, change: impl FnOnce(&mut ServerClaims)) -> String {
        let mut claims = ServerClaims::new("n1.example.net", &self.holder.public());
        change(&mut claims);
        self.org.issue_server(claims, HOUR, NOW).unwrap()
    }

    fn provisioning(&self) -> String {
        let claims = ProvisioningClaims {
            token: "t".into(),
            urls: "nats://broker:4222".into(),
            ..ProvisioningClaims::default()
        };
        self.org.issue_provisioning(claims, HOUR, NOW).unwrap()
    }

    /// A token with any claims and header, signed by the organization.
    fn raw(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = Seed::from_bytes(&self.org_seed_bytes).sign(input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A client token as [`World::raw`], with these claims beside the usual ones.
    fn raw_client(&self, more: &str) -> String {
        let key = self.holder.public().to_hex();
        self.raw(
            r#"{"alg":"EdDSA"}"#,
            &format!(r#"{{"callerid":"up=x","purpose":"choria_client_id","public_key":"{key}"{more}}}"#),
        )
    }

    fn raw_server(&self, identity: &str, collectives: &str) -> String {
        let key = self.holder.public().to_hex();
        let exp = NOW + 100;
        self.raw(
            r#"{"alg":"EdDSA"}"#,
            &format!(
                r#"{{"identity":{identity:?},"collectives":{collectives},"ou":"choria","purpose":"choria_server","public_key":"{key}","exp":{exp}}}"#
            ),
        )
    }

    fn sig(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.holder.sign(NONCE.as_bytes()))
    }

    fn reason(&self, c: &Presented<'_>) -> &'static str {
        self.policy.admit(c, NOW).err().map_or("admitted", |denial| denial.reason)
    }

    /// The reason for which a token with a good nonce signature is refused.
    fn token_reason(&self, token: &str) -> &'static str {
        self.reason(&Presented { token, proof: Proof::signature(NONCE, &self.sig()), ..nobody() })
    }
}

/// A TLS connection that presents nothing.
fn nobody() -> Presented<'static> {
    Presented {
        address: IpAddr::from([192, 0, 2, 1]),
        transport: Transport::Tls,
        leaf: false,
        token: "",
        user: "",
        password: "",
        name: "",
        asks_for_account: false,
        proof: Proof::signature(NONCE, ""),
    }
}

#[test]
fn clients_and_servers_with_a_signed_nonce_are_let_in() {
    let world = World::new();
    let sig = world.sig();
    let token = world.client(|_| {});
    let c = Presented { token: &token, proof: Proof::signature(NONCE, &sig), ..nobody() };
    let placed = world.policy.admit(&c, NOW).unwrap();
    assert_eq!((placed.account, placed.user.as_str(), placed.path), ("choria", "up=alice", Path::Client));
    assert_eq!(placed.expires, Some(NOW + 3600));

    let token = world.server(|_| {});
    let placed = world.policy.admit(&Presented { token: &token, ..c }, NOW).unwrap();
    assert_eq!(
        (placed.account, placed.user.as_str(), placed.path),
        ("choria", "n1.example.net", Path::Server)
    );
    // A verified certificate beside the token changes nothing.
    let c = Presented { token: &token, transport: Transport::TlsVerified, ..c };
    assert_eq!(world.policy.admit(&c, NOW).unwrap(), placed);
}

#[test]
fn the_nonce() {
    let world = World::new();
    let token = world.client(|_| {});
    let signature = world.holder.sign(NONCE.as_bytes());
    let other = Seed::from_bytes(&[8; 32]).sign(NONCE.as_bytes());
    let elsewhere = world.holder.sign(b"AAAAAAAAAAAAAAA");
    let decoded = world.holder.sign(&URL_SAFE_NO_PAD.decode(&NONCE[..14]).unwrap_or_default());
    let cases = [
        ("T-033 no signature", String::new(), "nonce_missing"),
        ("T-034 another key", URL_SAFE_NO_PAD.encode(other), "nonce_bad"),
        ("T-035 padded", URL_SAFE.encode(signature), "nonce_bad"),
        ("T-035 standard alphabet", STANDARD.encode(signature), "nonce_bad"),
        ("T-035 63 bytes", URL_SAFE_NO_PAD.encode(&signature[..63]), "nonce_bad"),
        ("T-035 65 bytes", URL_SAFE_NO_PAD.encode([&signature[..], &[0]].concat()), "nonce_bad"),
        ("T-036 of another connection", URL_SAFE_NO_PAD.encode(elsewhere), "nonce_bad"),
        ("T-071 over decoded bytes", URL_SAFE_NO_PAD.encode(decoded), "nonce_bad"),
        ("good", world.sig(), "admitted"),
    ];
    for (row, sig, expected) in cases {
        let c = Presented { token: &token, proof: Proof::signature(NONCE, &sig), ..nobody() };
        assert_eq!(world.reason(&c), expected, "{row}");
    }
    let sig = world.sig();
    let c = Presented { token: &token, proof: Proof::signature("", &sig), ..nobody() };
    assert_eq!(world.reason(&c), "nonce_bad", "no nonce in INFO");
}

/// How much of a password is right cannot be told from how long its refusal takes.
#[test]
fn t_040_wrong_passwords_take_equally_long() {
    let mut world = World::new();
    let right = "x".repeat(1024);
    world.policy.provisioning.as_mut().unwrap().password = Secret::new(right.clone());
    let early = format!("y{}", &right[1..]);
    let late = format!("{}y", &right[1..]);
    let mut took = [Vec::new(), Vec::new()];
    // by turns, so that whatever else the machine does falls on both
    for _ in 0..4001 {
        for (password, took) in [&early, &late].into_iter().zip(&mut took) {
            let c = Presented { user: "provisioner", password, ..nobody() };
            let start = Instant::now();
            let reason = world.reason(&c);
            took.push(start.elapsed());
            assert_eq!(reason, "password_bad");
        }
    }
    took.iter_mut().for_each(|took| took.sort_unstable());
    let quarter = |took: &[Duration], part: usize| took[took.len() * part / 4];
    let [early, late] = &took;
    let noise = quarter(early, 3).saturating_sub(quarter(early, 1)).max(Duration::from_nanos(200));
    let difference = quarter(early, 2).abs_diff(quarter(late, 2));
    assert!(difference < noise, "medians differ by {difference:?}, noise is {noise:?}");
    choria_rows::row(
        40,
        "1 KiB passwords, wrong in the first or in the last byte, 4001 times each by turns",
        format!("password_bad; medians differ by {difference:?}, half of all times spread over {noise:?}"),
    );
}

#[test]
fn transport_and_credentials() {
    let world = World::new();
    let token = world.client(|_| {});
    let sig = world.sig();
    let good = Presented { token: &token, proof: Proof::signature(NONCE, &sig), ..nobody() };
    let provisioning = world.provisioning();
    let cases = [
        ("T-046 plain", Presented { transport: Transport::Plain, ..good }, "tls_required"),
        (
            "T-046 plain, not even a token",
            Presented { transport: Transport::Plain, token: "x", ..good },
            "tls_required",
        ),
        ("T-048 T-062 nothing in auth_token", nobody(), "no_credentials"),
        ("T-060 leaf", Presented { leaf: true, ..good }, "leaf_refused"),
        ("T-061 account", Presented { asks_for_account: true, ..good }, "connect_malformed"),
        (
            "T-058 provisioning token over a certificate",
            Presented { token: &provisioning, transport: Transport::TlsVerified, ..nobody() },
            "kind_mismatch",
        ),
        ("garbage", Presented { token: "a.b.c", ..good }, "token_malformed"),
    ];
    for (row, c, expected) in cases {
        assert_eq!(world.reason(&c), expected, "{row}");
    }
}

#[test]
fn tokens() {
    let world = World::new();
    let stranger = Issuer::Org(Seed::from_bytes(&[9; 32]));
    let foreign = |org: &str| {
        let mut claims = ClientClaims::new("up=x", &world.holder.public());
        org.clone_into(&mut claims.org);
        stranger.issue_client(claims, HOUR, NOW).unwrap()
    };
    let exp = format!(r#","ou":"choria","exp":{}"#, NOW + 10);
    let cases = [
        ("sig of a stranger", foreign("choria"), "sig_bad"),
        ("T-050 unknown org", foreign("acme"), "ou_unknown"),
        ("T-050 no ou", world.raw_client(&format!(r#","exp":{}"#, NOW + 10)), "ou_missing"),
        ("T-050 numeric ou", world.raw_client(&format!(r#","ou":1,"exp":{}"#, NOW + 10)), "ou_missing"),
        ("T-051 expired", world.raw_client(&format!(r#","ou":"choria","exp":{NOW}"#)), "token_expired"),
        ("T-051 early", world.raw_client(&format!(r#"{exp},"nbf":{}"#, NOW + 1)), "token_early"),
        ("T-052 no exp", world.raw_client(r#","ou":"choria""#), "token_no_exp"),
        (
            "T-009 none",
            world.raw(r#"{"alg":"none"}"#, "{}").rsplit_once('.').map(|(a, _)| format!("{a}.")).unwrap(),
            "alg_refused",
        ),
        ("T-010 HS256", world.raw(r#"{"alg":"HS256"}"#, "{}"), "alg_refused"),
        ("T-012 crit", world.raw(r#"{"alg":"EdDSA","crit":["x"]}"#, "{}"), "token_malformed"),
        (
            "T-014 two kinds",
            world.raw_client(&format!(r#"{exp},"sub":"choria_provisioning""#)),
            "kind_mismatch",
        ),
        ("T-015 ou twice", world.raw_client(&format!(r#"{exp},"ou":"other""#)), "token_malformed"),
        (
            "T-016 case variant",
            world.raw_client(&format!(r#"{exp},"permissions":{{}},"Permissions":{{"org_admin":true}}"#)),
            "token_malformed",
        ),
        (
            "T-016 inside permissions",
            world.raw_client(&format!(r#"{exp},"permissions":{{"Org_admin":true}}"#)),
            "token_malformed",
        ),
        ("usual", world.raw_client(&exp), "admitted"),
    ];
    for (row, token, expected) in cases {
        assert_eq!(world.token_reason(&token), expected, "{row}");
    }
    assert_eq!(
        world.token_reason(&format!("{}\n", world.raw_client(&exp))),
        "admitted",
        "T-020 trailing newline"
    );
}

#[test]
fn keys_in_tokens() {
    let world = World::new();
    let token = |key: &str| {
        world.raw(
            r#"{"alg":"EdDSA"}"#,
            &format!(r#"{{"callerid":"up=x","ou":"choria","purpose":"choria_client_id","public_key":"{key}","exp":{}}}"#, NOW + 9),
        )
    };
    let key = world.holder.public().to_hex();
    let small_order = format!("01{}", "0".repeat(62));
    for (row, key, expected) in [
        ("T-018 31 bytes", &key[..62], "claim_invalid"),
        ("T-018 33 bytes", &format!("{key}00"), "claim_invalid"),
        ("T-018 64 bytes", &format!("{key}{key}"), "claim_invalid"),
        ("T-018 odd", &key[..63], "claim_invalid"),
        ("T-018 empty", "", "key_missing"),
        ("T-017 small order", &small_order, "claim_invalid"),
        ("T-019 upper case", &key.to_uppercase(), "admitted"),
    ] {
        assert_eq!(world.token_reason(&token(key)), expected, "{row}");
    }
}

#[test]
fn names_that_become_subjects() {
    let world = World::new();
    for identity in ["*", "a.>", "a b", "", &"a".repeat(256)] {
        assert_eq!(
            world.token_reason(&world.raw_server(identity, r#"["choria"]"#)),
            "claim_invalid",
            "T-053 {identity:?}"
        );
        let claims = ServerClaims::new(identity, &world.holder.public());
        assert!(world.org.issue_server(claims, HOUR, NOW).is_err(), "T-053 issuing {identity:?}");
    }
    for collective in ["*", "a.b", ">", "$JS", "provisioning"] {
        let token = world.raw_server("n1", &format!("[{collective:?}]"));
        assert_eq!(world.token_reason(&token), "claim_invalid", "T-054 {collective:?}");
    }
    for subject in ["foo bar", "a..b", "$SYS.>", ">", "$JS.API.STREAM.DELETE.X", "*.>"] {
        let token =
            world.raw_client(&format!(r#","ou":"choria","exp":{},"sub_subjects":[{subject:?}]"#, NOW + 9));
        assert_eq!(world.token_reason(&token), "claim_invalid", "T-056 {subject:?}");
    }
    let mute = world.raw_server("n1", "[]");
    let placed = world
        .policy
        .admit(&Presented { token: &mute, proof: Proof::signature(NONCE, &world.sig()), ..nobody() }, NOW)
        .unwrap();
    assert_eq!(placed.permissions, choria_broker::permissions::deny_all());
}

#[test]
fn the_provisioner() {
    let mut world = World::new();
    let sig = world.sig();
    let token = world.client(|c| c.permissions.provisioner = true);
    let plain = world.client(|_| {});
    let node_sig = URL_SAFE_NO_PAD.encode(Seed::from_bytes(&[8; 32]).sign(NONCE.as_bytes()));
    let good = Presented {
        token: &token,
        user: "provisioner",
        password: "s3cret",
        proof: Proof::signature(NONCE, &sig),
        ..nobody()
    };
    let placed = world.policy.admit(&good, NOW).unwrap();
    assert_eq!((placed.account, placed.user.as_str()), ("provisioning", "provisioner"));
    assert_eq!(placed.permissions, choria_broker::permissions::unlimited());

    let unsigned = Presented { proof: Proof::signature(NONCE, ""), ..good };
    let stolen = Presented { proof: Proof::signature(NONCE, &node_sig), ..good };
    for (row, c, expected) in [
        ("T-038", unsigned, "nonce_missing"),
        ("T-039", stolen, "nonce_bad"),
        ("T-040 wrong", Presented { password: "other", ..good }, "password_bad"),
        ("T-040 empty", Presented { password: "", ..good }, "password_bad"),
        ("T-040 prefix", Presented { password: "s3cre", ..good }, "password_bad"),
        ("T-041", Presented { token: &plain, ..good }, "permission_missing"),
        ("no token", Presented { token: "", ..good }, "no_credentials"),
    ] {
        assert_eq!(world.reason(&c), expected, "{row}");
    }
    world.policy.provisioning.as_mut().unwrap().require_signature = false;
    let placed = world.policy.admit(&unsigned, NOW).unwrap();
    assert_eq!(placed.warnings.len(), 1, "T-038 with the compatibility switch");
    assert_eq!(world.reason(&stolen), "nonce_bad", "T-039 in both modes");
    world.policy.provisioning = None;
    assert_eq!(world.reason(&good), "account_missing");
}

#[test]
fn nodes_that_wait_to_be_provisioned() {
    let mut world = World::new();
    let token = world.provisioning();
    let c = Presented { token: &token, name: "n1.example.net", ..nobody() };
    let placed = world.policy.admit(&c, NOW).unwrap();
    assert_eq!((placed.account, placed.path), ("provisioning", Path::WaitingNode));
    let subjects = |c: &Presented<'_>, world: &World| {
        world.policy.admit(c, NOW).unwrap().permissions.subscribe.allow.unwrap().join(" ")
    };
    assert!(subjects(&c, &world).contains("provisioning.node.n1.example.net "), "T-124");
    for name in ["", ">", "*", "a.>", "a b"] {
        assert!(!subjects(&Presented { name, ..c }, &world).contains(".node."), "T-126 {name:?}");
    }
    // T-025: only the organization itself signs these.
    let key = Seed::from_bytes(&[3; 32]);
    let mut chained = ProvisioningClaims { token: "t".into(), urls: "u".into(), ..Default::default() };
    chained.standard.public_key = Some(key.public().to_hex());
    let forged = Issuer::Org(key).issue_provisioning(chained, HOUR, NOW).unwrap();
    assert_eq!(world.reason(&Presented { token: &forged, ..c }), "sig_bad", "T-025");

    world.policy.provisioning.as_mut().unwrap().own_node_subject = false;
    assert!(subjects(&c, &world).contains("provisioning.node.>"), "the compatibility switch");
    world.policy.provisioning = None;
    assert_eq!(world.reason(&c), "account_missing");
}

#[test]
fn the_system_user() {
    let world = World::new();
    let sig = world.sig();
    let flagged =
        world.client(|c| c.permissions = ClientPermissions { system_user: true, ..Default::default() });
    let plain = world.client(|_| {});
    let good = Presented {
        token: &flagged,
        user: "system",
        password: "sYst3m",
        proof: Proof::signature(NONCE, &sig),
        ..nobody()
    };
    assert_eq!(world.policy.admit(&good, NOW).unwrap().account, "system");
    for (row, c, expected) in [
        ("T-065 wrong password", Presented { password: "x", ..good }, "password_bad"),
        ("T-065 no token", Presented { token: "", ..good }, "no_credentials"),
        ("T-065 no flag", Presented { token: &plain, ..good }, "permission_missing"),
        ("unsigned", Presented { proof: Proof::signature(NONCE, ""), ..good }, "nonce_missing"),
    ] {
        assert_eq!(world.reason(&c), expected, "{row}");
    }
    let certificate = Presented { token: "", transport: Transport::TlsVerified, ..good };
    assert_eq!(world.policy.admit(&certificate, NOW).unwrap().account, "system");
}

#[test]
fn certificates_without_a_token() {
    let mut world = World::new();
    let c = Presented { transport: Transport::TlsVerified, ..nobody() };
    let set = |world: &World| world.policy.admit(&c, NOW).unwrap().permissions;
    assert_eq!(set(&world), choria_broker::permissions::pub_sub());
    world.policy.allow_list = AllowList::parse(["198.51.100.0/24"]).unwrap();
    assert_eq!(set(&world), choria_broker::permissions::default_server());
    world.policy.allow_list = AllowList::parse(["192.0.2.0/24"]).unwrap();
    assert_eq!(set(&world), choria_broker::permissions::unlimited());
}

#[test]
fn chained_tokens_end_with_their_issuer() {
    let world = World::new();
    let chain_seed = Seed::from_bytes(&[5; 32]);
    let claims = ClientClaims::new("provisioner_signer", &chain_seed.public());
    let chain_token = world.org.issue_chain_issuer(claims, Duration::from_secs(60), NOW).unwrap();
    let chain = Issuer::chain(chain_seed, &chain_token, Some(world.org.public())).unwrap();
    let token = chain.issue_server(ServerClaims::new("n1", &world.holder.public()), HOUR, NOW).unwrap();
    let sig = world.sig();
    let c = Presented { token: &token, proof: Proof::signature(NONCE, &sig), ..nobody() };
    assert_eq!(world.policy.admit(&c, NOW).unwrap().expires, Some(NOW + 60), "T-064");
    assert_eq!(world.policy.admit(&c, NOW + 60).unwrap_err().reason, "token_expired", "T-072");
}

#[test]
fn explaining_names_the_branch_or_the_rule() {
    let world = World::new();
    let token = world.client(|c| c.permissions.fleet_management = true);
    let usual = Question { token: &token, ..Question::default() };
    let answer = explain(&world.policy, &usual, NOW);
    let placed = answer.verdict.unwrap();
    assert_eq!(placed.path.as_str(), "client token");
    assert!(placed.permissions.publish.allow.unwrap().contains(&"*.node.>".to_owned()));
    let late = explain(&world.policy, &usual, NOW + 3600);
    assert_eq!(late.verdict.unwrap_err().reason, "token_expired");

    let provisioner = world.client(|c| c.permissions.provisioner = true);
    let provisioner = Question { token: &provisioner, user: "provisioner", ..Question::default() };
    for (question, expected) in [
        (Question { transport: Transport::Plain, ..usual }, "tls_required"),
        (Question { nonce: Nonce::Unsigned, ..usual }, "nonce_missing"),
        (Question { nonce: Nonce::SignedByAnother, ..usual }, "nonce_bad"),
        (Question { token: "", ..usual }, "no_credentials"),
        (Question { user: "provisioner", ..usual }, "permission_missing"),
        (provisioner, "admitted"),
        (Question { password: Password::Wrong, ..provisioner }, "password_bad"),
        (Question { password: Password::Missing, ..provisioner }, "password_bad"),
        (Question { user: "system", ..usual }, "permission_missing"),
        (Question { user: "system", transport: Transport::TlsVerified, ..usual }, "admitted"),
    ] {
        let verdict = explain(&world.policy, &question, NOW).verdict;
        assert_eq!(verdict.err().map_or("admitted", |denial| denial.reason), expected, "{question:?}");
    }
}
