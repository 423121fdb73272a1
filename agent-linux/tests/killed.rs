//! Provisioning killed at any moment leaves a node that is provisioned or blank, never mixed (docs/spec/10 V10).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent_core::json::Object;
use agent_core::provision::{Configuration, Effect, Seed};
use agent_linux::config::Mode;
use agent_linux::provision_files::ProvisionFiles;
use agent_linux::seed::NodeSeed;
use agent_linux::startup;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_host::{private_file, random};
use serde_json::{Value, json};

const DIRECTORY: &str = "CHORIA_TEST_KILLED_IN";
const ROUNDS: u32 = 40;

fn token(claims: &Value) -> String {
    format!("eyJhbGciOiJFZERTQSJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The steps of one enrolment under a new name, as the agent performs them.
fn enrol(dir: &Path, number: u32) {
    let files = ProvisionFiles::new(&dir.join("server.conf"));
    let seed: [u8; 32] = random::array();
    files.perform(&Effect::EraseToken).unwrap();
    files.perform(&Effect::StoreSeed(Seed(seed))).unwrap();
    let identity = format!("n{number}");
    let key = NodeSeed::from_bytes(seed).unwrap().public_key();
    let jwt = token(
        &json!({"purpose":"choria_server","identity":identity,"public_key":key,"exp":4_000_000_000_u64}),
    );
    let settings = json!({"identity":identity,"plugin.choria.server.provision":"0",
        "plugin.security.provider":"choria","plugin.security.issuer.names":"choria",
        "plugin.security.issuer.choria.public":"ab".repeat(32),"rpcauthprovider":"aaasvc",
        "plugin.security.choria.token_file":dir.join("server.jwt"),
        "plugin.security.choria.seed_file":dir.join("server.seed")})
    .to_string();
    let args = json!({"action_policies":{"rpcutil.policy":format!("# {identity}\n")}}).to_string();
    let args = Object::parse(args.as_bytes()).unwrap();
    files
        .perform(&Effect::Configure(Configuration {
            settings: Object::parse(settings.as_bytes()).unwrap(),
            args,
            server_jwt: &jwt,
            shared_secret: None,
            action_policies: args.object("action_policies").unwrap(),
            opa_policies: None,
            request_id: "r",
            caller: "p",
            sender: "h",
        }))
        .unwrap();
}

/// The process that is killed: this test again, told by its environment to enrol for ever.
#[test]
fn enrols_until_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < Duration::from_secs(30) {
        number += 1;
        enrol(Path::new(&dir), number);
        // A moment of rest, so that a kill finds a whole node as often as a half made one.
        let whole = Instant::now();
        while whole.elapsed() < Duration::from_millis(4) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_killed_enrolment_is_whole_or_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let provisioning = json!({"purpose":"choria_provisioning","cht":"x","chu":"b:1","v2":true,"chpd":true});
    private_file::write_private(&dir.path().join("provisioning.jwt"), token(&provisioning).as_bytes())
        .unwrap();
    let config = dir.path().join("server.conf");
    let (mut whole, mut blank) = (0, 0);
    // storage decides how long an enrolment takes: the kills fall within two of them
    let once = tempfile::tempdir().unwrap();
    let began = Instant::now();
    enrol(once.path(), 1);
    let two = u32::try_from(began.elapsed().as_micros() * 2).unwrap() + 4_000;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "enrols_until_killed"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Until it has begun, then any moment of a few enrolments.
        let began = Instant::now();
        let before = std::fs::metadata(dir.path().join("server.seed")).and_then(|m| m.modified()).ok();
        while std::fs::metadata(dir.path().join("server.seed")).and_then(|m| m.modified()).ok() == before
            && began.elapsed() < Duration::from_secs(10)
        {
            std::thread::yield_now();
        }
        let moment = Duration::from_micros(random::below(two).into());
        let at = Instant::now();
        while at.elapsed() < moment {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let node = startup::begin(&config, None, "host", 1_700_000_000);
        let node = node.unwrap_or_else(|error| panic!("round {round}: a node that cannot start: {error}"));
        match node.mode {
            Mode::Provisioning => blank += 1,
            Mode::Normal => {
                whole += 1;
                let policy = std::fs::read_to_string(dir.path().join("policies/rpcutil.policy")).unwrap();
                assert_eq!(policy, format!("# {}\n", node.identity), "policies of another enrolment");
            }
        }
    }
    println!("{whole} whole, {blank} blank");
    assert!(whole + blank == ROUNDS && blank > 0 && whole > 0);
}
