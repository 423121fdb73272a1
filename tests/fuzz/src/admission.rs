//! Who may connect to the broker: any credentials against any configuration, and a table that says the same in fewer words.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_broker::admission::{Path, Policy, ProvisioningPolicy, SystemPolicy, TokenTrust, VerifiedTokens};
use choria_broker::{AllowList, Presented, Proof, Transport, WaitingLimits};
use choria_host::Secret;
use choria_token::claims::ProvisioningClaims;
use choria_token::{ClientClaims, Issuer, Key, Seed, ServerClaims, Verifier};

use crate::Target;
use crate::pieces::{Choices, Script};
use crate::tokens::sign;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "admission",
    oracle: "a reference table of docs/spec/02 §2 by kind of credential and configuration",
    run: admission,
    seeds: || {
        let mut seeds = Vec::new();
        for token in 0..u8::try_from(TOKENS.len()).unwrap_or(u8::MAX) {
            for user in 0..4 {
                seeds.push(vec![0b0000_0001, 0, token, user, user, 1, 0, 0]);
                seeds.push(vec![0b0111_1111, 1, token, user, user, 2, 0, 0]);
            }
            seeds.push(vec![0b1000_0001, 1, token, 0, 0, 1, 1, 0]);
        }
        seeds
    },
    words: &["\u{1}\0\0\0"],
    longest: 48,
}];

const NOW: i64 = 1_800_000_000;
const NONCE: &str = "PXoWU7zWAMt75FY";
const HOUR: Duration = Duration::from_secs(3600);
const PROVISIONING_PASSWORD: &str = "s3cret";
const PREVIOUS_PASSWORD: &str = "s3cret-before";
const SYSTEM_PASSWORD: &str = "sYst3m";

/// What a token is, in the words of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Absent,
    Client {
        provisioner: bool,
        system: bool,
    },
    Server,
    Provisioning,
    /// Good for nobody: expired, by a stranger, of another organization, broken.
    Bad,
    /// A client's, without an expiry.
    Endless,
}

static TOKENS: LazyLock<Vec<(Is, String)>> = LazyLock::new(|| {
    let org = Issuer::Org(Seed::from_bytes(&[42; 32]));
    let stranger = Issuer::Org(Seed::from_bytes(&[43; 32]));
    let holder = Seed::from_bytes(&[7; 32]).public();
    let client = |change: &dyn Fn(&mut ClientClaims)| {
        let mut claims = ClientClaims::new("up=alice", &holder);
        change(&mut claims);
        claims
    };
    let issue = |claims: ClientClaims| org.issue_client(claims, HOUR, NOW).expect("a token");
    let server = ServerClaims::new("n1.example.net", &holder);
    let provisioning = || ProvisioningClaims {
        token: "t".into(),
        urls: "nats://broker:4222".into(),
        ..ProvisioningClaims::default()
    };
    let endless = format!(
        r#"{{"callerid":"up=x","ou":"choria","purpose":"choria_client_id","public_key":"{}"}}"#,
        holder.to_hex()
    );
    let plain = Is::Client { provisioner: false, system: false };
    vec![
        (Is::Absent, String::new()),
        (plain, issue(client(&|_| ()))),
        (
            Is::Client { provisioner: true, system: false },
            issue(client(&|claims| claims.permissions.provisioner = true)),
        ),
        (
            Is::Client { provisioner: false, system: true },
            issue(client(&|claims| claims.permissions.system_user = true)),
        ),
        (
            Is::Client { provisioner: false, system: true },
            issue(client(&|claims| claims.permissions.org_admin = true)),
        ),
        (Is::Server, org.issue_server(server.clone(), HOUR, NOW).expect("a token")),
        (Is::Provisioning, org.issue_provisioning(provisioning(), HOUR, NOW).expect("a token")),
        (Is::Bad, org.issue_client(client(&|_| ()), HOUR, NOW - 7200).expect("a token")),
        (Is::Bad, stranger.issue_client(client(&|_| ()), HOUR, NOW).expect("a token")),
        (Is::Bad, stranger.issue_server(server, HOUR, NOW).expect("a token")),
        (Is::Bad, stranger.issue_provisioning(provisioning(), HOUR, NOW).expect("a token")),
        (Is::Bad, "eyJhbGciOiJub25lIn0.e30.".to_owned()),
        (Is::Endless, sign(endless.as_bytes(), &[42; 32])),
    ]
});

struct Config {
    policy: Policy,
    issuers: bool,
    without_token: bool,
    require_signature: bool,
    token_scope: bool,
    system: bool,
    provisioning: bool,
    /// The provisioner's password of before is good as well.
    previous: bool,
}

fn config(shape: u8, more: u8) -> Config {
    let bit = |n: u8| shape >> n & 1 == 1;
    let issuers = more & 2 == 0;
    let key = Seed::from_bytes(&[42; 32]).public();
    let trust = if issuers {
        TokenTrust::Issuers(Verifier::issuers(BTreeMap::from([("choria".to_owned(), key)])))
    } else {
        let signer = || Some(Verifier::trusted_signers(vec![Key::Ed25519(key)]));
        TokenTrust::Signers { clients: signer(), servers: signer() }
    };
    let (provisioning, system, previous) = (bit(1), bit(6), more & 32 == 32);
    let policy = Policy {
        trust,
        tls: bit(0),
        provisioning: provisioning.then(|| ProvisioningPolicy {
            password: Secret::new(PROVISIONING_PASSWORD.into()),
            previous_password: previous.then(|| Secret::new(PREVIOUS_PASSWORD.into())),
            signer: None,
            without_token: bit(2),
            require_signature: bit(3),
            own_node_subject: more & 4 == 4,
            token_scope: bit(4),
            limits: WaitingLimits::of_broker(50_000),
        }),
        system: system.then(|| SystemPolicy {
            user: "system".into(),
            password: (more & 8 == 0).then(|| Secret::new(SYSTEM_PASSWORD.into())),
        }),
        allow_list: AllowList::parse(if more & 16 == 16 { vec!["192.0.2.0/24"] } else { vec![] })
            .expect("a list"),
        deny_servers: bit(5),
        require_expiry: bit(7),
        verified: VerifiedTokens::default(),
    };
    Config {
        policy,
        issuers,
        without_token: bit(2),
        require_signature: bit(3),
        token_scope: bit(4),
        system,
        provisioning,
        previous,
    }
}

/// What a connection presents, in the words of the table.
struct Facts {
    transport: Transport,
    is: Is,
    user: &'static str,
    password: &'static str,
    signature: Signed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Signed {
    No,
    Well,
    Badly,
}

/// The table: the way in, if there is one.
fn reference(config: &Config, facts: &Facts, system_password: bool) -> Option<Path> {
    let encrypted = facts.transport != Transport::Plain;
    let verified = facts.transport == Transport::TlsVerified;
    if config.policy.tls && !encrypted {
        return None;
    }
    let endless_is_fine = !config.policy.require_expiry;
    let client = match facts.is {
        Is::Client { provisioner, system } => Some((provisioner, system)),
        Is::Endless if endless_is_fine => Some((false, false)),
        _ => None,
    };
    let proved = facts.signature == Signed::Well;
    match facts.user {
        "provisioner" => {
            let right = config.provisioning
                && (facts.password == PROVISIONING_PASSWORD
                    || config.previous && facts.password == PREVIOUS_PASSWORD);
            let enough = match (config.issuers, facts.is) {
                (false, _) => verified,
                (true, Is::Absent) => config.without_token,
                (true, _) => {
                    let unproved = facts.signature == Signed::No && !config.require_signature;
                    client.is_some_and(|(provisioner, _)| provisioner) && (proved || unproved)
                }
            };
            (right && enough).then_some(Path::Provisioner)
        }
        "system" if config.system => {
            let right = system_password && facts.password == SYSTEM_PASSWORD;
            let enough = verified || encrypted && client.is_some_and(|(_, system)| system) && proved;
            (right && enough).then_some(Path::System)
        }
        _ => match facts.is {
            Is::Absent => verified.then_some(Path::Certificate),
            _ if !encrypted => None,
            Is::Server => proved.then_some(Path::Server),
            Is::Provisioning => {
                // Without issuers only a signer of provisioning tokens is believed, and there is none here.
                (config.provisioning && !verified && config.issuers).then_some(Path::WaitingNode)
            }
            Is::Bad => None,
            Is::Client { .. } | Is::Endless => {
                let (provisioner, _) = client?;
                let elsewhere = provisioner && config.provisioning && config.token_scope;
                (proved && !elsewhere).then_some(Path::Client)
            }
        },
    }
}

fn admission(input: &[u8]) {
    let mut script = Script::new(input);
    let (shape, more) = (script.byte(), script.byte());
    let config = config(shape, more);
    let (mut is, token) = script.choose(&TOKENS[..]).clone();
    let user = *script.choose(&["", "provisioner", "system", "up=alice"]);
    let password = *script.choose(&["", PROVISIONING_PASSWORD, SYSTEM_PASSWORD, PREVIOUS_PASSWORD, "s3cre"]);
    let transport = *script.choose(&[Transport::Plain, Transport::Tls, Transport::TlsVerified]);
    let mut signature = match script.byte() % 4 {
        0 => Signed::Well,
        1 => Signed::No,
        _ => Signed::Badly,
    };
    let flags = script.byte();
    let (leaf, asks) = (flags & 0x81 == 0x81, flags & 0x82 == 0x82);

    // What is left of the script changes the token.
    let mut bytes = token.clone().into_bytes();
    let mut choices = Choices::of(input);
    while !script.is_over() && !bytes.is_empty() {
        let at = usize::from(script.byte()) * 3 % bytes.len();
        bytes[at] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."[choices.below(65)];
    }
    let changed = String::from_utf8(bytes).expect("ASCII");
    if changed != token {
        is = Is::Bad;
    }
    let holder = Seed::from_bytes(&[7; 32]);
    let sig = match signature {
        Signed::No => String::new(),
        Signed::Well => URL_SAFE_NO_PAD.encode(holder.sign(NONCE.as_bytes())),
        Signed::Badly if flags & 4 == 4 => {
            URL_SAFE_NO_PAD.encode(Seed::from_bytes(&[8; 32]).sign(NONCE.as_bytes()))
        }
        Signed::Badly if flags & 8 == 8 => "!".to_owned(),
        Signed::Badly => URL_SAFE_NO_PAD.encode(holder.sign(b"another nonce")),
    };
    // A connection that was given no nonce proves nothing.
    let nonce = if flags & 16 == 16 { "" } else { NONCE };
    if nonce.is_empty() && signature == Signed::Well {
        signature = Signed::Badly;
    }
    let facts = Facts { transport, is, user, password, signature };
    let presented = Presented {
        address: IpAddr::from([192, 0, 2, 1]),
        transport,
        leaf,
        token: &changed,
        user,
        password,
        name: if flags & 32 == 32 { "n1.example.net" } else { "not a name > *" },
        asks_for_account: asks,
        proof: Proof::signature(nonce, &sig),
    };
    let expected = if leaf || asks { None } else { reference(&config, &facts, more & 8 == 0) };
    let first = config.policy.admit(&presented, NOW);
    assert_eq!(
        first.as_ref().ok().map(|placement| placement.path),
        expected,
        "{is:?} as {user:?}: {first:?}"
    );
    let again = config.policy.admit(&presented, NOW);
    assert_eq!(again, first, "the second look differs: a cache decides");
    match first {
        Ok(placement) => {
            let account = match placement.path {
                Path::Provisioner | Path::WaitingNode => "provisioning",
                Path::System => "system",
                Path::Client | Path::Server | Path::Certificate => "choria",
            };
            assert_eq!(placement.account, account);
            let later = config.policy.admit(&presented, NOW + 4000);
            assert!(placement.expires.is_none() || later.is_err(), "an expired token is let in");
        }
        Err(denial) => {
            assert!(!denial.reason.is_empty());
            for secret in [&*changed, &*sig, PROVISIONING_PASSWORD, PREVIOUS_PASSWORD, SYSTEM_PASSWORD] {
                assert!(
                    secret.len() < 6 || !denial.detail.contains(secret),
                    "a secret is logged: {}",
                    denial.detail
                );
            }
        }
    }
}
