//! `choria broker auth explain` says what the running broker says: the same word for each refusal, the same account and
//! subjects for who is admitted.
#![allow(clippy::large_futures)] // a test has few of them

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_host::clock;
use choria_host::private_file::write_private;
use choria_tests::forge::{self, ChainIssuer, Key};
use choria_tests::{PROVISIONER_PASSWORD, PROVISIONING_TOKEN, Row, binary};
use serde_json::{Value, json};

/// A connection, and the flags that describe it.
struct Case {
    what: &'static str,
    token: String,
    key: Option<Key>,
    more: Value,
    flags: &'static [&'static str],
}

impl Case {
    /// Presented by who holds the key.
    fn held(what: &'static str, token: String, key: &Key) -> Case {
        Case { what, token, key: Some(key.clone()), more: json!({}), flags: &[] }
    }
}

#[tokio::test]
async fn every_refusal_has_the_brokers_word() -> Result<()> {
    let mut row = Row::begin(0).await?;
    let cases = refused(&row)?;
    ensure!(cases.len() >= 20, "{} cases", cases.len());
    for case in cases {
        let (name, mut connection) = row.attacker().await?;
        let hello = forge::with(connection.hello(&name, &case.token, case.key.as_ref()), case.more.clone());
        connection.connect(&hello).await?;
        connection.is_refused().await.context(case.what)?;
        let logged = row.stage.one_reason("broker", &name)?;
        let (code, answer) = explained(&row, &case.token, case.flags).context(case.what)?;
        ensure!(code == 5, "{}: exit code {code}", case.what);
        ensure!(answer.get("admitted") == Some(&json!(false)), "{}: {answer}", case.what);
        ensure!(
            answer.get("reason") == Some(&json!(logged)),
            "{}: the broker says {logged}: {answer}",
            case.what
        );
        // the sentence is the broker's, too
        let detail = answer.get("detail").and_then(Value::as_str).context("no detail")?;
        ensure!(
            without_quotes(&row.stage.log("broker")).contains(&without_quotes(detail)),
            "{}: nowhere in the log: {detail}",
            case.what
        );
    }
    row.end().await
}

fn refused(row: &Row) -> Result<Vec<Case>> {
    let org = &row.stage.org;
    let holder = Key::generate()?;
    let client = forge::client("up=explained", &holder)?;
    let changed = |changes: Value| forge::token(&forge::with(client.clone(), changes), org);
    let now = clock::unix_seconds();
    let own = Key::generate()?;
    let self_made = ChainIssuer::vouched_by(&own, own.clone())?;
    let mut expired = ChainIssuer::vouched_by(org, Key::generate()?)?;
    expired.expires = now - 1;
    let server =
        |identity: &str| Ok::<_, anyhow::Error>(forge::token(&forge::server(identity, &holder)?, org));
    let good = changed(json!({}));
    let held = |what, token| Case::held(what, token, &holder);
    let provisioner = row.stage.provisioner_caller()?;
    let wrong_password = json!({"user": "provisioner", "pass": "wrong"});
    let right_password = json!({"user": "provisioner", "pass": PROVISIONER_PASSWORD});
    Ok(vec![
        held("self-made issuer", self_made.issue(client.clone())),
        held("expired issuer", expired.issue(client.clone())),
        held("stranger", forge::token(&client, &Key::generate()?)),
        held("no algorithm", forge::unsigned(&client)),
        held("shared secret", forge::token_with_public_secret(&client, org.public().as_bytes())),
        held("expired", changed(json!({"exp": now - 60}))),
        held("early", changed(json!({"nbf": now + 600}))),
        held("without end", changed(json!({"exp": null}))),
        held("unknown organization", changed(json!({"ou": "acme"}))),
        held("no organization", changed(json!({"ou": null}))),
        held("two kinds", changed(json!({"sub": "choria_provisioning"}))),
        held("two readings", changed(json!({"Permissions": {"org_admin": true}}))),
        held("half a key", changed(json!({"public_key": "00"}))),
        held("no key", changed(json!({"public_key": null}))),
        held("caller that is a pattern", changed(json!({"callerid": "up=*"}))),
        held("identity that is a pattern", server("a.>")?),
        held("no token at all", "a.b.c".to_owned()),
        Case { flags: &["--nonce", "unsigned"], key: None, ..held("unsigned nonce", good.clone()) },
        Case {
            flags: &["--nonce", "stranger"],
            key: Some(Key::generate()?),
            ..held("stranger's nonce", good.clone())
        },
        Case { key: None, ..held("nothing", String::new()) },
        Case {
            flags: &["--user", "provisioner", "--password", "wrong"],
            more: wrong_password,
            ..Case::held("wrong password", provisioner.token.clone(), &provisioner.key)
        },
        Case {
            flags: &["--user", "provisioner"],
            more: right_password,
            ..held("client as provisioner", good)
        },
        Case {
            key: None,
            ..held(
                "chain issuer's provisioning token",
                ChainIssuer::vouched_by(org, Key::generate()?)?
                    .issue(forge::provisioning(PROVISIONING_TOKEN, "nats://127.0.0.1:1")?),
            )
        },
    ])
}

#[tokio::test]
async fn who_is_admitted_gets_the_subjects_that_were_announced() -> Result<()> {
    // attackers of another name than those of the other test
    let mut row = Row::begin(999).await?;
    let client = row.stage.caller("up=explained")?;
    let key = Key::generate()?;
    let server = forge::token(&forge::server("explained.example.net", &key)?, &row.stage.org);
    for (token, key, path) in
        [(client.token.as_str(), &client.key, "client token"), (server.as_str(), &key, "server token")]
    {
        let (code, answer) = explained(&row, token, &[])?;
        ensure!(code == 0, "exit code {code}: {answer}");
        ensure!(answer.get("path") == Some(&json!(path)), "{answer}");
        let (name, mut connection) = row.attacker().await?;
        let hello = connection.hello(&name, token, Some(key));
        connection.connect(&hello).await?;
        connection.is_admitted().await?;
        let announced = |direction: &str| -> Vec<String> {
            let list = answer.pointer(&format!("/permissions/{direction}/allow")).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect()
        };
        let (publish, subscribe) = (announced("publish"), announced("subscribe"));
        ensure!(publish.len() > 3 && subscribe.len() > 1, "{answer}");
        for subject in &subscribe {
            ensure!(connection.subscribe(subject).await?.is_none(), "{path} may not subscribe to {subject}");
        }
        for subject in &publish {
            // a message cannot be published to a pattern
            let subject = subject.replace(['>', '*'], "x");
            ensure!(
                connection.publish(&subject, b"").await?.is_none(),
                "{path} may not publish to {subject}"
            );
        }
        for subject in ["x.y.z", "elsewhere"] {
            ensure!(connection.publish(subject, b"").await?.is_some(), "{path} may publish to {subject}");
            ensure!(connection.subscribe(subject).await?.is_some(), "{path} may subscribe to {subject}");
        }
    }
    let (code, answer) = explained(&row, &row.stage.provisioning_token()?, &["--name", "n7.example.net"])?;
    ensure!(code == 0 && answer.get("account") == Some(&json!("provisioning")), "{answer}");
    ensure!(answer.to_string().contains("provisioning.node.n7.example.net"), "{answer}");
    tokio::time::timeout(Duration::from_secs(60), row.control.is_served()).await?
}

#[tokio::test]
async fn a_pasted_token_is_refused_and_not_repeated() -> Result<()> {
    let row = Row::begin(0).await?;
    let token = row.stage.caller("up=explained")?.token;
    let config = row.stage.path("broker.conf");
    let pasted = Command::new(binary("choria"))
        .args(["broker", "auth", "explain", &token, "--config"])
        .arg(&config)
        .output()?;
    let said = String::from_utf8_lossy(&pasted.stderr).into_owned();
    ensure!(pasted.status.code() == Some(2) && said.contains("this is a token"), "{said}");
    ensure!(!said.contains("eyJ"), "repeated: {said}");
    // in words, from a file
    let file = row.stage.path("explained.jwt");
    write_private(&file, token.as_bytes())?;
    let told = Command::new(binary("choria"))
        .args(["broker", "auth", "explain"])
        .arg(&file)
        .arg("--config")
        .arg(&config)
        .output()?;
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    for words in
        ["Admitted as client token", "Account: choria", "up=explained", "Publish to", "*.broadcast.agent.>"]
    {
        ensure!(said.contains(words), "{words:?} is missing in\n{said}");
    }
    ensure!(!said.contains("eyJ"), "{said}");
    Ok(())
}

/// Quotes inside a log's fields are escaped.
fn without_quotes(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '"' | '\\')).collect()
}

/// Asks through stdin.
fn explained(row: &Row, token: &str, flags: &[&str]) -> Result<(i32, Value)> {
    let mut child = Command::new(binary("choria"))
        .args(["broker", "auth", "explain", "-", "--json", "--config"])
        .arg(row.stage.path("broker.conf"))
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(token.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!said.contains("eyJ"), "repeated: {said}");
    let answer = serde_json::from_slice(&output.stdout).with_context(|| said)?;
    Ok((output.status.code().unwrap_or(-1), answer))
}
