//! What is killed without a warning comes back by itself, whole.
#![allow(clippy::large_futures)] // a test has few of them

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use choria_client::{ClientConfig, ConnectOptions, Connection, DiscoveryOptions, discover};
use choria_host::Settings;
use choria_host::private_file::write_private;
use choria_protocol::Filter;
use choria_tests::{Network, Running, Stage, binary, is_alive, wait_until};
use choria_token::{Seed, peek_server};

const SERVERS: usize = 3;

/// `kill -9` of everything in the middle; then one process takes its place. Nobody else is touched.
#[tokio::test]
async fn a_killed_hub_is_found_again_by_all() -> Result<()> {
    let network = Network::lab(SERVERS)?;
    let outcome = story_of_a_hub(&network).await;
    network.told(outcome)
}

async fn story_of_a_hub(network: &Network) -> Result<()> {
    let operator = network.operator("choria")?;
    let settings = Settings::load(&network.lab_folder().join("client.conf"))?;
    let config = ClientConfig::from_settings(settings)?;
    let patient = Connection::connect(&config, ConnectOptions::default()).await?;
    ensure!(answers(&patient).await? == SERVERS, "before");
    let before = network.processes()?;
    let mut nodes = before.clone();
    nodes.retain(|(name, _)| name.starts_with("node"));

    for (name, id) in before.iter().filter(|(name, _)| !name.starts_with("node")) {
        let killed = Command::new("kill").args(["-9", &id.to_string()]).status()?;
        ensure!(killed.success(), "cannot kill {name}");
        wait_until("it is dead", Duration::from_secs(5), || !is_alive(*id))?;
    }
    // somebody who asks while nobody is there to answer
    let mut waiting = operator.command(&["req", "rpcutil", "ping", "--connect-timeout", "60s"]);
    let mut waiting = Running::start(&mut waiting, &network.folder().join("waiting.log"))?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(waiting.is_running(), "the waiting client gave up: {}", waiting.log());

    let hub = network.lab_folder().join("hub");
    symlink(hub.join("provisioner.conf"), hub.join("provisioner-client.conf"))?;
    let mut command = Command::new(binary("choria"));
    command.args(["hub", "run", "--dir"]).arg(&hub);
    let mut running = Running::start(&mut command, &network.folder().join("hub.log"))?;

    let until = Instant::now() + Duration::from_secs(60);
    while answers(&patient).await.unwrap_or(0) != SERVERS {
        ensure!(running.is_running(), "the hub ended: {}", running.log());
        ensure!(Instant::now() < until, "the connected client is not back; the hub: {}", running.log());
    }
    ensure!(patient.reconnects() > 0, "the client was never gone");
    wait_until("the waiting client is served", Duration::from_secs(60), || !waiting.is_running())?;
    let text = waiting.log();
    // it came through as soon as there was a broker, which nodes had found it by then is chance: each waits for a while
    // between attempts
    ensure!(text.contains("Finished processing") || text.contains("did not discover any nodes"), "{text}");
    operator.sees(SERVERS, Duration::from_secs(30))?;
    ensure!(nodes.iter().all(|(_, id)| is_alive(*id)), "a node was started anew");
    // login and signing are back as well
    network.operator("admin")?.ok(&["req", "choria_util", "info"])?;
    let code = running.terminate(Duration::from_secs(20))?;
    ensure!(code == Some(0), "{code:?}: {}", running.log());
    Ok(())
}

async fn answers(connection: &Connection) -> Result<usize> {
    let found = discover(connection, &Filter::default(), &DiscoveryOptions::default()).await?;
    Ok(found.identities().len())
}

/// A node is killed at its Nth step of writing files, for every N. One node for each N, all at once.
#[tokio::test]
async fn t_148_a_node_killed_at_any_write_of_its_enrolment() -> Result<()> {
    const STEPS: u32 = 30;
    let stage = Stage::start()?;
    let mut control = stage.control().await?;
    stage.provisioner()?;
    let mut nodes = BTreeMap::new();
    for step in 1..=STEPS {
        let identity = format!("step{step:02}.example.net");
        let folder = stage.path(&identity);
        std::fs::create_dir(&folder)?;
        write_private(&folder.join("provisioning.jwt"), stage.provisioning_token()?.as_bytes())?;
        let log = stage.path(&format!("{identity}.log"));
        let mut command = stage.node_command(&identity);
        command.env("CHORIA_FAULT_EXIT_AT", step.to_string());
        nodes.insert(identity, (Running::start(&mut command, &log)?, log));
    }
    let mut killed = Vec::new();
    let mut members = Vec::new();
    let until = Instant::now() + Duration::from_secs(240);
    while members.len() < nodes.len() {
        for (identity, (running, log)) in &mut nodes {
            if members.contains(identity) {
                continue;
            }
            if !running.is_running() {
                ensure!(
                    !killed.contains(identity),
                    "{identity} ended without being killed: {}",
                    running.log()
                );
                whole_or_blank(&stage.path(identity)).with_context(|| format!("{identity}, killed"))?;
                killed.push(identity.clone());
                *running = Running::start(&mut stage.node_command(identity), log)?;
            } else if is_whole(&stage.path(identity))
                && control.is_answered_by(identity, Duration::from_millis(300)).await?
            {
                whole_or_blank(&stage.path(identity))?;
                members.push(identity.clone());
            }
        }
        if Instant::now() > until {
            let (late, (_, log)) =
                nodes.iter().find(|(name, _)| !members.contains(name)).context("nobody")?;
            bail!(
                "{} of {STEPS} are members, {late} says\n{}\nthe provisioner says\n{}",
                members.len(),
                std::fs::read_to_string(log)?,
                stage.log("provisioner")
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // seed, configuration, token and policies: each is made, filled and named
    ensure!(killed.len() >= 15 && killed.len() < nodes.len(), "killed: {killed:?}");
    for number in 1..=killed.len() {
        ensure!(
            killed.contains(&format!("step{number:02}.example.net")),
            "step {number} is missing: {killed:?}"
        );
    }
    let seen = format!(
        "killed at {} steps, whole or blank each time; all {STEPS} nodes end as members",
        killed.len()
    );
    choria_rows::row(148, "kill at every file operation of an enrolment", seen);
    Ok(())
}

/// The configuration, which gets its name last, is there and makes a member.
fn is_whole(folder: &Path) -> bool {
    let settings = Settings::load(&folder.join("server.conf")).unwrap_or_default();
    settings.get("plugin.choria.server.provision") == Some("false")
}

/// With a configuration everything fits together; without one the node is one that waits.
fn whole_or_blank(folder: &Path) -> Result<()> {
    if !is_whole(folder) {
        return Ok(());
    }
    let seed = Seed::load(&folder.join("server.seed")).context("a configuration without a seed")?;
    let token =
        std::fs::read_to_string(folder.join("server.jwt")).context("a configuration without a token")?;
    let token = peek_server(&token)?.into_claims();
    let identity = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure!(
        token.standard.public_key == Some(seed.public().to_hex()),
        "the token of one, the seed of another"
    );
    ensure!(token.identity == identity, "the token of {}", token.identity);
    for policy in ["policies/rpcutil.policy", "policies/rego/rpcutil.rego"] {
        ensure!(folder.join(policy).is_file(), "no {policy}");
    }
    Ok(())
}
