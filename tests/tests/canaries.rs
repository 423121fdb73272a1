//! Rows of docs/spec/10 §14.11 and §10: secrets are known before anything runs, then everything runs with the most talkative
//! logs there are, and nothing that anybody may read holds one of them.
#![allow(clippy::large_futures)] // a test has few of them

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use choria_host::private_file::write_private;
use choria_tests::forge::Key;
use choria_tests::{
    CONFIGURED_SECRET, FalseNode, Network, PROVISIONER_PASSWORD, PROVISIONING_TOKEN, Row, Shot, Stage,
    none_written_down, wait_until,
};
use serde_json::json;

const TYPED: &str = "canary-that-was-typed-0123456789";
const KNOWN: [&str; 4] = [PROVISIONER_PASSWORD, PROVISIONING_TOKEN, CONFIGURED_SECRET, TYPED];

/// The broker traces, node, signer and provisioner debug; everything is let in, refused, enrolled, signed and denied once.
#[tokio::test]
async fn t_364_t_365_t_368_talkative_logs_tell_no_secret() -> Result<()> {
    let stage = Arc::new(Stage::with_broker_settings("loglevel = trace")?);
    stage.signer()?;
    stage.provisioner()?;
    let mut row = Row::on(Arc::clone(&stage), 365).await?.also(368);

    // admission: good, wrong key, wrong password, no token, garbage
    let alice = row.stage.caller("up=alice")?;
    drop(stage.connected(&alice, Ipv4Addr::new(127, 7, 108, 1)).await?);
    let other = Key::generate()?;
    row.refused(&alice.token, Some(&other), "nonce_bad").await?;
    row.refused("", None, "no_credentials").await?;
    row.refused(&format!("{}x", alice.token), Some(&alice.key), "token_malformed").await?;
    let provisioner = stage.provisioner_caller()?;
    let more = json!({"user": "provisioner", "pass": TYPED});
    row.refused_with(&provisioner.token, Some(&provisioner.key), more, &["password_bad"]).await?;

    // a real node enrols, and one that plays
    stage.waiting_node("real.example.net")?;
    wait_until("the node is a member", Duration::from_secs(60), || {
        stage.path("real.example.net/server.conf").exists()
            && stage.log("real.example.net").matches("connected").count() > 1
    })?;
    let token = stage.provisioning_token()?;
    let from = Ipv4Addr::new(127, 7, 108, 2);
    let mut played = FalseNode::connect(stage.broker, &stage.ca, &token, "played.example.net", from).await?;
    ensure!(played.enrol(Duration::from_secs(30)).await?.len() > 3, "it was not enrolled");

    // requests with secrets in them, allowed and denied, and one that is signed for somebody
    let inputs = json!({"token": TYPED, "password": TYPED, "item": "plugin.nats.pass"});
    for caller in [&alice, &row.stage.caller_with("up=bob", json!({"agents": ["nothing"]}))?] {
        row.node_answers(&Shot::calling(caller, "rpcutil", "get_config_item", &inputs)?).await?;
    }
    row.refused_by_signer(
        &row.stage.caller_with("up=eve", json!({"permissions": {}}))?,
        "permission_missing",
    )
    .await?;
    let count = none_written_down(&stage.path(""), &KNOWN, &[])?;
    row.saw(format!("{count} secrets, none in any log"));
    let seen = format!("{count} secrets, none in {} lines", stage.log("broker").lines().count());
    choria_rows::row(364, "the broker at trace level", seen);
    row.end().await
}

/// The same for a whole network and what its operator sees at `--debug`.
#[test]
fn t_364_t_366_t_368_an_operators_terminal_and_the_audit_tell_no_secret() -> Result<()> {
    let network = Network::lab(2)?;
    network.told(story(&network))
}

fn story(network: &Network) -> Result<()> {
    let operator = network.operator("choria")?;
    let password = network.folder().join("typed");
    write_private(&password, TYPED.as_bytes())?;
    let typed = password.display().to_string();
    let mut outputs = Vec::new();
    let token = format!("token={TYPED}");
    for arguments in [
        vec!["--debug", "login", "--username", "choria", "--password-file", &typed],
        vec!["--debug", "ping"],
        vec!["--debug", "req", "rpcutil", "ping"],
        vec!["--debug", "req", "choria_provision", "reprovision", &token],
        vec!["--debug", "req", "choria_provision", "reprovision", &token, "--json"],
        vec!["--debug", "facts", "role"],
    ] {
        let finished = operator.run(&arguments)?;
        outputs.push(finished.stdout);
        outputs.push(finished.stderr);
    }
    let record = std::fs::read_to_string(network.lab_folder().join("lab.json"))?;
    let record: serde_json::Value = serde_json::from_str(&record)?;
    for (page, port) in [
        ("varz", "broker_statistics"),
        ("connz?auth=1", "broker_statistics"),
        ("metrics", "provisioner_metrics"),
    ] {
        let port = record.pointer(&format!("/ports/{port}")).context("a port")?;
        let text =
            ureq::get(format!("http://127.0.0.1:{port}/{page}")).call()?.body_mut().read_to_string()?;
        outputs.push(text);
    }
    let audited = std::fs::read_to_string(network.lab_folder().join("logs/audit.log"))?;
    // the body of a request stands in its audit line in base64
    let kept_back = STANDARD
        .encode(r#"{"action":"reprovision","agent":"choria_provision","data":{"token":"[redacted]"}}"#);
    ensure!(audited.contains(&kept_back), "the audit does not say that it keeps something back: {audited}");
    let count = none_written_down(&network.lab_folder(), &[TYPED], &outputs)?;
    let seen = format!(
        "{count} secrets, none in the logs of {} processes, {} outputs and the audit",
        network.processes()?.len(),
        outputs.len()
    );
    choria_rows::row(364, "an operator at --debug: login, ping, req, facts", &seen);
    choria_rows::row(368, "a whole lab: logs, audit, status, metrics, terminal", &seen);
    choria_rows::row(366, "req choria_provision reprovision token=…", "[redacted] in the signer's audit");
    Ok(())
}
