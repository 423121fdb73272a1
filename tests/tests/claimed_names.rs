//! Rows of docs/spec/10 §14.4 about candidates who take a name that is not theirs, in a hub that runs everything in one
//! process and therefore knows who is connected.
#![allow(clippy::large_futures)] // a test has few of them

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use choria_tests::{FalseNode, NODE, PROVISIONING_TOKEN, Row, Stage, forge, wait_until};

async fn candidate(stage: &Stage, identity: &str, [high, low]: [u8; 2]) -> Result<FalseNode> {
    let from = Ipv4Addr::new(127, 7, high, low);
    FalseNode::connect(stage.broker, &stage.ca, &stage.provisioning_token()?, identity, from).await
}

/// The candidate says that it waits, again and again, until the hub says this about it.
async fn draws(stage: &Stage, candidate: &mut FalseNode, text: &str) -> Result<()> {
    let identity = candidate.identity.clone();
    for _ in 0..8 {
        candidate.announce().await?;
        let said = || stage.log("broker").lines().any(|line| line.contains(&identity) && line.contains(text));
        if wait_until(text, Duration::from_secs(4), said).is_ok() {
            return Ok(());
        }
    }
    bail!("the hub never says '{text}' about {identity}:\n{}", stage.log("broker"))
}

#[tokio::test]
async fn t_127_t_131_names_that_somebody_else_has() -> Result<()> {
    let mut row = Row::on(Arc::new(Stage::hub()?), 131).await?;
    let stage = Arc::clone(&row.stage);
    // the name of a member that is connected
    let mut claimant = candidate(&stage, NODE, [131, 1]).await?;
    draws(&stage, &mut claimant, "identity in use").await?;
    ensure!(claimant.asked(Duration::from_secs(2)).await?.is_none(), "the claimant was asked for something");
    row.control.is_served().await?;
    row.saw("deferred, identity in use; the claimant is asked nothing; the member's session goes on");

    // one name, two candidates
    let mut row = row.then(127).await?;
    let name = "n7.example.net";
    let mut one = candidate(&stage, name, [127, 1]).await?;
    let mut two = candidate(&stage, name, [127, 2]).await?;
    draws(&stage, &mut one, "identity claimed twice").await?;
    two.announce().await?;
    for candidate in [&mut one, &mut two] {
        ensure!(candidate.asked(Duration::from_secs(2)).await?.is_none(), "a candidate was asked for a key");
    }
    row.saw("deferred, identity claimed twice, from different addresses; neither is asked for a key");

    // a token that is as good as the one it connected with, but is another
    let mut row = row.then(135).await?;
    let mut swapper = candidate(&stage, "n9.example.net", [135, 1]).await?;
    let claims = forge::provisioning(PROVISIONING_TOKEN, "nats://127.0.0.1:1")?;
    swapper.jwt = forge::token(&claims, &stage.org);
    let asked = swapper.enrol(Duration::from_secs(6)).await?;
    let actions: Vec<_> = asked.iter().map(|asked| asked.call.action.as_str()).collect();
    ensure!(actions.iter().all(|action| *action == "jwt"), "it went on to {actions:?}");
    let said =
        || stage.log("broker").lines().any(|l| l.contains("n9.example.net") && l.contains("connected with"));
    wait_until("the hub says why", Duration::from_secs(10), said)?;
    row.control.is_served().await?;
    row.saw("failed after `jwt`: not the token that the node connected with");

    // alone, a candidate is welcome, whoever of the fleet's clients calls itself like it
    let client = stage.caller("up=namesake")?;
    let mut namesake = stage.dial(Ipv4Addr::new(127, 7, 127, 4)).await?;
    let hello = namesake.hello("n8.example.net", &client.token, Some(&client.key));
    namesake.connect(&hello).await?;
    namesake.is_admitted().await?;
    let mut honest = candidate(&stage, "n8.example.net", [127, 3]).await?;
    let asked = honest.enrol(Duration::from_secs(20)).await?;
    ensure!(asked.last().is_some_and(|asked| asked.call.action == "restart"), "{asked:?}");
    row.end().await
}

/// What a waiting node may publish reaches the provisioner and everybody who watches the fleet. Bytes that their client
/// library cannot take (it closes the connection, or panics) must not: `docs/spec/10` E8.
#[tokio::test]
async fn a_candidate_cannot_end_who_listens_to_it() -> Result<()> {
    let stage = Stage::hub()?;
    let mut attacker = stage.dial(Ipv4Addr::new(127, 7, 108, 1)).await?;
    let hello = attacker.hello("n6.example.net", &stage.provisioning_token()?, None);
    attacker.connect(&hello).await?;
    attacker.is_admitted().await?;
    let subject = "choria.lifecycle.event.startup.provision_mode_server";
    for block in ["NATS/1.0\r\nA: b\rc\r\n\r\n", "no header\r\n\r\n"] {
        let size = block.len();
        attacker.say(&format!("HPUB {subject} {size} {size}\r\n{block}\r\nPING\r\n")).await?;
        let answer = attacker.settled().await?;
        ensure!(answer.as_ref().is_some_and(|error| error.contains("Malformed Headers")), "{answer:?}");
    }
    attacker.say("PUB choria.lifecycle.event.a\rb.provision_mode_server 1\r\nx\r\nPING\r\n").await?;
    let answer = attacker.settled().await?;
    ensure!(answer.as_ref().is_some_and(|error| error.contains("Permissions Violation")), "{answer:?}");

    let mut honest = candidate(&stage, "n5.example.net", [108, 2]).await?;
    let asked = honest.enrol(Duration::from_secs(20)).await?;
    ensure!(asked.last().is_some_and(|asked| asked.call.action == "restart"), "{asked:?}");
    let log = stage.log("broker");
    ensure!(!log.contains("panicked") && !log.contains("disconnected from the broker"), "{log}");
    Ok(())
}
