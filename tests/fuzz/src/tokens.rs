//! Tokens: the hosts' verifier and the core's must give the same verdict on every byte a stranger can send.

use std::sync::LazyLock;

use agent_core::token as core;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_token::{self as host, Key, PublicKey, Seed, Verifier};
use serde_json::Value;

use crate::Target;
use crate::corpus::{fixture, strings, tokens};
use crate::oracle::{Case, Reading, each_once, read};
use crate::pieces::{Choices, Script};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "jwt_compact",
        oracle: "host verifier = core verifier; only a golden token verifies",
        run: compact,
        seeds: || golden().into_iter().map(String::into_bytes).collect(),
        words: &["eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.", "eyJhbGciOiJub25lIn0.", ".", "==", "\n", "\r\n"],
        longest: 4096,
    },
    Target {
        name: "jwt_claims",
        oracle: "claims of any content, signed by issuer, chain issuer or a stranger: host = core; a stranger's never verify",
        run: claims,
        seeds: || {
            let mut seeds = Vec::new();
            for text in golden() {
                let Some(claims) = text.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())
                else {
                    continue;
                };
                seeds.extend((0..3).map(|signer| [&[signer], claims.as_slice()].concat()));
            }
            seeds
        },
        words: &[
            "\"purpose\":\"choria_client_id\"",
            "\"purpose\":\"choria_server\"",
            "\"purpose\":\"choria_provisioning\"",
            "\"iss\":\"I-",
            "\"iss\":\"C-",
            "\"tcs\":\"",
            "\"issexp\":",
            "\"exp\":",
            "\"nbf\":",
            "\"iat\":",
            "\"jti\":\"",
            "\"public_key\":\"",
            "\"ou\":\"choria\"",
            "\"permissions\":{",
            "\"fleet_management\":true",
            "\"opa_policy\":\"",
            "\"callerid\":\"",
            "\"agents\":[",
            "\"identity\":\"",
            "null",
            "1e9",
        ],
        longest: 4096,
    },
    Target {
        name: "chain",
        oracle: "a golden token with any bytes changed is refused by both verifiers",
        run: chain,
        seeds: || {
            (0..u8::try_from(GOLDEN.len()).unwrap_or(u8::MAX))
                .flat_map(|token| {
                    [
                        vec![token],
                        vec![token, 0, 30, 65],
                        vec![token, 1, 200, 66],
                        vec![token, 2, 9, 67, 3, 7, 68],
                    ]
                })
                .collect()
        },
        words: &["\u{1}\u{2}@"],
        longest: 64,
    },
];

/// Clock of the vectors: 2027-01-01T00:00:00Z.
pub(crate) const NOW: i64 = 1_798_761_600;

/// The claims that decide anything.
const CLAIMS: &[&str] = &[
    "purpose",
    "sub",
    "iss",
    "tcs",
    "issexp",
    "exp",
    "nbf",
    "iat",
    "jti",
    "public_key",
    "ou",
    "callerid",
    "identity",
    "permissions",
    "collectives",
    "opa_policy",
    "agents",
    "cht",
    "chs",
    "chu",
    "chsrv",
];

fn golden() -> Vec<String> {
    let mut found = tokens(&fixture("tokens/chain.json"));
    found.extend(tokens(&fixture("tokens/verdicts.json")));
    found.sort();
    found.dedup();
    found
}

static GOLDEN: LazyLock<Vec<String>> = LazyLock::new(golden);

/// Seeds of the vectors' keys.
pub(crate) fn seed(name: &str) -> [u8; 32] {
    static KEYS: LazyLock<Value> = LazyLock::new(|| fixture("tokens/chain.json")["keys"].clone());
    let text = KEYS[name]["seed_hex"].as_str().unwrap_or_else(|| panic!("no key {name}"));
    hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).expect("32 bytes of hex")
}

pub(crate) fn public(name: &str) -> [u8; 32] {
    *Seed::from_bytes(&seed(name)).public().as_bytes()
}

static ORG: LazyLock<[u8; 32]> = LazyLock::new(|| public("org_issuer"));
static HOST: LazyLock<Verifier> =
    LazyLock::new(|| Verifier::single(Key::Ed25519(PublicKey::from_bytes(&ORG).expect("a key"))));

/// What both verifiers say about the three kinds of a token.
struct Verdicts {
    host: [Result<(), host::Reject>; 3],
    core: [Result<(), core::Reject>; 3],
}

fn verdicts(token: &str) -> Verdicts {
    let keys = [*ORG];
    let verifier = core::Verifier::new(core::Trust::Signers(&keys));
    // All that fits: the core refuses what does not, and that is no difference of opinion.
    let mut room = vec![0; 16 * 1024];
    Verdicts {
        host: [
            HOST.verify_client(token, NOW).map(drop),
            HOST.verify_server(token, NOW).map(drop),
            HOST.verify_provisioning(token, NOW).map(drop),
        ],
        core: [
            verifier.verify_client(token, NOW, &mut room).map(drop),
            verifier.verify_server(token, NOW, &mut room).map(drop),
            verifier.verify_provisioning(token, NOW, &mut room).map(drop),
        ],
    }
}

/// Hosts take a token out of white space, as files have it; the core only off one line end.
fn same_white_space(token: &str) -> bool {
    let line = token.strip_suffix('\n').unwrap_or(token);
    line.strip_suffix('\r').unwrap_or(line) == token.trim()
}

fn agree(token: &str) -> Verdicts {
    let verdicts = verdicts(token);
    for (kind, (host, core)) in
        ["client", "server", "provisioning"].iter().zip(verdicts.host.iter().zip(&verdicts.core))
    {
        if *core == Err(core::Reject::TooLarge) {
            continue;
        }
        if core.is_ok() && *host == Err(host::Reject::ClaimInvalid("public_key")) {
            // The core looks at the holder's key when it is used, and then refuses every signature.
            assert!(!is_point(&claims_of(token)), "{kind}: a good key is refused by the host");
            continue;
        }
        if core.is_ok() && matches!(host, Err(host::Reject::Malformed("a claim has the wrong type"))) {
            // The core passes over the claims that a node has no use for, whatever they hold.
            continue;
        }
        let (bytes, claims) = (claim_bytes(token), claims_of(token));
        match read(&bytes, Case::Exact, 64) {
            // Beside the claims that the core looks at: a number that serde_json cannot hold, or a name twice.
            Reading::Unrepresentable if core.is_ok() => {
                assert!(host.is_err());
                continue;
            }
            Reading::Ambiguous if core.is_ok() => {
                assert!(host.is_err(), "{kind}: the host reads ambiguous claims: {claims}");
                assert!(each_once(&bytes, CLAIMS), "{kind}: the core reads ambiguous claims: {claims}");
                continue;
            }
            // The core leaves the text of a policy out unread; whoever evaluates it reads it, and then refuses it.
            Reading::NotJson if core.is_ok() => {
                assert!(host.is_err() && claims.contains("opa_policy"), "{kind}: no JSON was read: {claims}");
                continue;
            }
            _ => {}
        }
        if same_white_space(token) {
            assert_eq!(
                host.is_ok(),
                core.is_ok(),
                "{kind}: host {host:?}, core {core:?}: {}",
                claims_of(token)
            );
        } else {
            assert!(core.is_err() || host.is_ok(), "{kind}: host {host:?}, core {core:?}");
        }
        if let Err(said) = host {
            let said = said.to_string();
            let signature = token.trim().rsplit('.').next().unwrap_or_default();
            // words with spaces are no signature, and may be those of the refusal
            let encoded = signature.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            let secret = encoded && signature.len() >= 40;
            assert!(!secret || !said.contains(signature), "a refusal repeats the token");
        }
    }
    verdicts
}

/// Whether the claims' `public_key` is one.
fn is_point(claims: &str) -> bool {
    let claims: Value = serde_json::from_str(claims).unwrap_or_default();
    claims["public_key"].as_str().is_some_and(|text| PublicKey::from_hex(text).is_ok())
}

fn claims_of(token: &str) -> String {
    String::from_utf8_lossy(&claim_bytes(token)).into_owned()
}

fn claim_bytes(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap_or_default()).unwrap_or_default()
}

fn compact(input: &[u8]) {
    let Ok(token) = std::str::from_utf8(input) else { return };
    let verdicts = agree(token);
    if verdicts.host.iter().any(Result::is_ok) {
        assert!(GOLDEN.iter().any(|golden| golden == token.trim()), "a token that nobody issued verifies");
    }
    // Reading without verification never fails where verification holds, and never panics.
    let mut room = vec![0; 16 * 1024];
    let peeked = [
        (host::peek_client(token).is_ok(), core::peek_client(token, &mut room).is_ok()),
        (host::peek_server(token).is_ok(), core::peek_server(token, &mut room).is_ok()),
        (host::peek_provisioning(token).is_ok(), core::peek_provisioning(token, &mut room).is_ok()),
    ];
    for (kind, (host, core)) in peeked.into_iter().enumerate() {
        assert!(verdicts.host[kind].is_err() || host && core, "a valid token cannot be read");
    }
    let _purpose = host::purpose_of(token);
    let _readable = core::decode_claims(token, &mut room);
}

/// A token over these claims, signed with this key.
pub(crate) fn sign(claims: &[u8], key: &[u8; 32]) -> String {
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = Seed::from_bytes(key).sign(input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn claims(input: &[u8]) {
    let Some((signer, claims)) = input.split_first() else { return };
    let (name, stranger) = match signer % 3 {
        0 => ("org_issuer", false),
        1 => ("aaa_chain_issuer", false),
        _ => ("bob", true),
    };
    let token = sign(claims, &seed(name));
    let verdicts = agree(&token);
    assert!(!stranger || verdicts.host.iter().all(Result::is_err), "a stranger's token verifies");
    let accepted = verdicts.host.iter().filter(|verdict| verdict.is_ok()).count();
    assert!(accepted <= 1, "a token of several kinds");
    if accepted == 1 {
        same_claims(&token);
    }
}

/// What an absent organization stands for, which the core leaves empty.
fn or_default(organization: &str) -> &str {
    if organization.is_empty() { "choria" } else { organization }
}

/// What a token grants is the same for both readers.
fn same_claims(token: &str) {
    let keys = [*ORG];
    let verifier = core::Verifier::new(core::Trust::Signers(&keys));
    let mut room = vec![0; 16 * 1024];
    if let Ok(ours) = HOST.verify_client(token, NOW)
        && let Ok(theirs) = verifier.verify_client(token, NOW, &mut room)
    {
        let (host, core) = (ours.claims(), theirs.claims());
        assert_eq!(host.caller_id, core.caller_id);
        assert_eq!(host.org, or_default(core.organization));
        assert_eq!(ours.holder().map(PublicKey::as_bytes), theirs.public_key());
        assert_eq!(ours.expires(), theirs.expires());
        assert_eq!(
            ours.chain_issuer().map(|issuer| *issuer.key.as_bytes()),
            theirs.chain_issuer().map(|issuer| issuer.key)
        );
        for (held, flag) in [
            (host.permissions.fleet_management, core::Permissions::FLEET_MANAGEMENT),
            (host.permissions.signed_fleet_management, core::Permissions::SIGNED_FLEET_MANAGEMENT),
            (host.permissions.authentication_delegator, core::Permissions::AUTHENTICATION_DELEGATOR),
            (host.permissions.org_admin, core::Permissions::ORG_ADMIN),
        ] {
            assert_eq!(core.permissions.has(flag), held, "{flag:?}");
        }
    }
    if let Ok(ours) = HOST.verify_server(token, NOW)
        && let Ok(theirs) = verifier.verify_server(token, NOW, &mut room)
    {
        assert_eq!(ours.claims().identity, theirs.claims().identity);
        assert_eq!(ours.claims().org, or_default(theirs.claims().organization));
        assert_eq!(ours.holder().map(PublicKey::as_bytes), theirs.public_key());
        assert_eq!(ours.expires(), theirs.expires());
    }
}

/// Changes a golden token: pairs of place and byte overwrite, some also insert or remove.
fn chain(input: &[u8]) {
    let mut script = Script::new(input);
    let original = script.choose(&GOLDEN[..]);
    let mut token = original.clone().into_bytes();
    let mut choices = Choices::of(input);
    while !script.is_over() {
        let at = (usize::from(script.byte()) * 256 + usize::from(script.byte())) % token.len();
        let what = script.byte();
        match what {
            0..=31 => drop(token.remove(at)),
            32..=63 => token.insert(at, token[(at + 1) % token.len()]),
            // A letter of the alphabet stays in the grammar and reaches the signature check.
            64..=191 => {
                token[at] =
                    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[choices.below(64)]
            }
            _ => token[at] = what,
        }
        if token.len() < 4 {
            return;
        }
    }
    let Ok(token) = std::str::from_utf8(&token) else { return };
    let verdicts = agree(token);
    if verdicts.host.iter().any(Result::is_ok) || verdicts.core.iter().any(Result::is_ok) {
        assert!(GOLDEN.iter().any(|golden| golden == token.trim()), "a changed token verifies");
    }
}

/// The documents and texts of a fixture that hold this word.
pub(crate) fn texts_with(name: &str, word: &str) -> Vec<Vec<u8>> {
    strings(&fixture(name)).into_iter().filter(|text| text.contains(word)).map(String::into_bytes).collect()
}
