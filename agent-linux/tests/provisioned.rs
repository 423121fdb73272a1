//! A node is born: a blank machine with one token file becomes a member, through the real program.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod broker;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::{Broker, NONCE};
use choria_host::private_file::write_private;
use serde_json::{Value, json};

/// Ends the process it holds, whatever becomes of the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn token(claims: &Value) -> String {
    format!("eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn agent(dir: &Path) -> Agent {
    let log = std::fs::File::create(dir.join("first.log")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_choria-agent"))
        .args(["run", "--config"])
        .arg(dir.join("server.conf"))
        .arg("--pid")
        .arg(dir.join("agent.pid"))
        .env_clear()
        .env("CHORIA_IDENTITY", "n1.example.net")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    Agent(child)
}

#[tokio::test]
async fn a_blank_node_becomes_a_member() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let broker = Broker::start(dir.path()).await;
    let provisioning = token(
        &json!({"purpose":"choria_provisioning","cht":"s3cret-canary","chs":false,"chpd":true,
        "chu":broker.address(),"v2":true,"ou":"choria","extensions":{"choria":{"tls_pin":[broker.pin.to_hex()]}}}),
    );
    write_private(&dir.path().join("provisioning.jwt"), provisioning.as_bytes()).unwrap();
    let mut agent = agent(dir.path());

    // As a candidate: the token alone, no proof, no user.
    let mut session = broker.session().await;
    assert_eq!(session.connect["auth_token"], json!(provisioning));
    assert_eq!(session.connect["name"], json!("n1.example.net"));
    assert!(session.connect.get("sig").is_none(), "{}", session.connect);
    let event = session.published("choria.lifecycle.event.startup.provision_mode_server").await;
    assert_eq!(event["subject"], json!("n1.example.net"));
    for subject in ["provisioning.broadcast.agent.choria_provision", "provisioning.broadcast.agent.discovery"]
    {
        session.subscribed(subject).await;
    }

    let n1 = "n1.example.net";
    let refused = session.ask(n1, "jwt", json!({"token":"wrong"})).await;
    assert_eq!((&refused["statuscode"], &refused["data"]), (&json!(1), &json!({})));
    let jwt = session.ask(n1, "jwt", json!({"token":"s3cret-canary"})).await;
    assert_eq!(jwt["data"]["jwt"], json!(provisioning));
    let nonce = "0f8fad5bd9cb469fa16570867728950e";
    let key = session.ask(n1, "gen25519", json!({"token":"s3cret-canary","nonce":nonce})).await;
    let public_key: [u8; 32] =
        hex::decode(key["data"]["public_key"].as_str().unwrap()).unwrap().try_into().unwrap();
    let proof = hex::decode(key["data"]["signature"].as_str().unwrap()).unwrap();
    assert!(agent_core::ed25519::verify(&public_key, &[nonce.as_bytes()], &proof));

    let server_jwt =
        token(&json!({"purpose":"choria_server","identity":n1,"collectives":["choria"],"ou":"choria",
        "public_key":hex::encode(public_key),"exp":choria_host::clock::unix_seconds() + 3600}));
    let config = json!({"identity":n1,"plugin.choria.server.provision":"0","plugin.security.provider":"choria",
        "plugin.security.choria.token_file":path("server.jwt"),"plugin.security.choria.seed_file":path("server.seed"),
        "plugin.security.issuer.names":"choria","plugin.security.issuer.choria.public":"ab".repeat(32),
        "plugin.security.choria.tls_pin":broker.pin.to_hex(),"plugin.choria.middleware_hosts":broker.address(),
        "plugin.choria.status_file_path":path("status.json"),"rpcauthprovider":"aaasvc","logfile":path("second.log")});
    let configured = session
        .ask(n1, "configure", json!({"token":"s3cret-canary","config":config.to_string(),"server_jwt":server_jwt,
            "ca":"","certificate":"","ssldir":"","key":"","ecdh_public":"","action_policies":{},"opa_policies":{}}))
        .await;
    assert_eq!(configured["data"]["message"], json!(format!("Wrote 13 lines to {}", path("server.conf"))));
    let restart = session.ask(n1, "restart", json!({"token":"s3cret-canary","splay":1})).await;
    assert_eq!(restart["data"]["message"], json!("Restarting Choria Server after 2s"));
    session.published("choria.lifecycle.event.shutdown.provision_mode_server").await;
    let pid = agent.0.id();

    // As itself, in the same process: its own token and a proof of its key.
    let mut session = broker.session().await;
    assert_eq!(session.connect["auth_token"], json!(server_jwt));
    let proof = URL_SAFE_NO_PAD.decode(session.connect["sig"].as_str().unwrap()).unwrap();
    assert!(agent_core::ed25519::verify(&public_key, &[NONCE.as_bytes()], &proof));
    session.published("choria.lifecycle.event.startup.server").await;
    session.subscribed("choria.node.n1.example.net").await;
    let status: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("status.json")).unwrap()).unwrap();
    assert_eq!((&status["provisioning_mode"], &status["identity"]), (&json!(false), &json!(n1)));
    assert_eq!(std::fs::read_to_string(dir.path().join("agent.pid")).unwrap(), pid.to_string());

    // Told to stop, it says goodbye and succeeds.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    session.published("choria.lifecycle.event.shutdown.server").await;
    let exit = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Some(status) = agent.0.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(exit.await.expect("it did not end").success());
    for log in ["first.log", "second.log"] {
        let text = std::fs::read_to_string(dir.path().join(log)).unwrap();
        assert!(!text.is_empty(), "{log}");
        assert!(!text.contains("s3cret-canary") && !text.contains(&provisioning), "{log} holds a secret");
    }
}

#[test]
fn what_cannot_run_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_choria-agent"))
            .args(arguments)
            .env_clear()
            .current_dir(dir.path())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = run(&["run", "--config", "none.conf", "--provisioning-jwt", "none.jwt"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("configuration file none.conf was not found and provisioning is disabled"),
        "{text}"
    );
    assert_eq!(run(&["run"]).0, Some(2));
    std::fs::write(dir.path().join("x509.conf"), "identity = n1\n").unwrap();
    let (code, text) = run(&["run", "--config", "x509.conf", "--provisioning-jwt", "none.jwt"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("plugin.security.provider = choria"), "{text}");
}
