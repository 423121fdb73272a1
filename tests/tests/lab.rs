//! The story of the users' tour: a network on this machine in one command, asked, commanded, enrolled again, ended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_tests::{Network, Operator, is_alive, wait_until};
use serde_json::Value;

const SERVERS: usize = 10;
/// All nodes share the machine, and with it this fact.
const FACT: &str = "memory.size";

#[test]
fn a_network_in_one_command() -> Result<()> {
    let network = Network::lab(SERVERS)?;
    network.told(story(&network))
}

fn story(network: &Network) -> Result<()> {
    let operator = network.operator("choria")?;

    let names = nodes_are_asked(&operator)?;
    let fact = facts_are_reported(&operator)?;
    requests_are_answered(&operator, &fact)?;
    nodes_are_called_in_groups(&operator)?;
    mistakes_are_told_before_nodes_are_asked(&operator)?;
    a_node_is_inspected(&operator, names.first().context("no nodes")?)?;
    nodes_are_chosen_by_their_role(&operator, &names)?;
    all_are_enrolled_again(network, &operator)?;

    let processes = network.processes()?;
    ensure!(processes.len() == SERVERS + 3, "{processes:?}");
    ensure!(!secrets(&network.lab_folder())?.is_empty(), "a running lab has keys");
    network.down()?;
    for (name, id) in processes {
        ensure!(!is_alive(id), "{name} still runs");
    }
    let left = secrets(&network.lab_folder())?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn nodes_are_asked(operator: &Operator) -> Result<Vec<String>> {
    operator.sees(SERVERS, Duration::from_secs(30))?;
    let text = operator.ok(&["ping"])?;
    ensure!(text.contains(&format!("{SERVERS} replies max: ")), "{text}");
    let json = operator.run(&["ping", "--json"])?.json()?;
    let replies = json.get("replies").and_then(Value::as_array).context("no replies")?;
    ensure!(replies.len() == SERVERS, "{json}");
    let mut names: Vec<String> =
        replies.iter().filter_map(|reply| Some(reply.get("identity")?.as_str()?.to_owned())).collect();
    names.sort();
    names.dedup();
    ensure!(names.len() == SERVERS, "{names:?}");
    Ok(names)
}

fn facts_are_reported(operator: &Operator) -> Result<String> {
    let json = operator.run(&["facts", FACT, "--json"])?.json()?;
    let values = json.as_object().context("an object of values")?;
    ensure!(values.len() == 1, "one machine has one memory: {json}");
    let (value, found) = values.iter().next().context("no value")?;
    ensure!(found.get("count").and_then(Value::as_u64) == Some(SERVERS as u64), "{json}");
    let text = operator.ok(&["facts", FACT])?;
    ensure!(text.contains(&format!("{value} found {SERVERS} times")), "{text}");
    Ok(value.clone())
}

fn requests_are_answered(operator: &Operator, fact: &str) -> Result<()> {
    let finished = format!("Finished processing {SERVERS} / {SERVERS} hosts");
    let filter = format!("{FACT}={fact}");
    for command in [vec!["req", "choria_util", "info"], vec!["req", "rpcutil", "ping", "-F", &filter]] {
        let text = operator.ok(&command)?;
        ensure!(text.contains(&finished), "{command:?}: {text}");
        let json = operator.run(&[command.as_slice(), &["--json"]].concat())?.json()?;
        let replies = json.get("replies").and_then(Value::as_array).context("no replies")?;
        let verified = |reply: &&Value| {
            reply.get("statuscode").and_then(Value::as_i64) == Some(0)
                && reply.get("verification").and_then(Value::as_str) == Some("verified")
        };
        ensure!(replies.iter().filter(verified).count() == SERVERS, "{command:?}: {json}");
    }
    let nobody = operator.run(&["req", "rpcutil", "ping", "-F", "memory.size=1"])?;
    ensure!(nobody.code != 0, "a fact that nobody has: {nobody:?}");
    Ok(())
}

/// The signer is asked once for each group, for the same request.
fn nodes_are_called_in_groups(operator: &Operator) -> Result<()> {
    let text = operator.ok(&["req", "rpcutil", "ping", "--batch", "4", "--batch-sleep", "0"])?;
    ensure!(text.contains(&format!("Finished processing {SERVERS} / {SERVERS} hosts")), "{text}");
    Ok(())
}

fn mistakes_are_told_before_nodes_are_asked(operator: &Operator) -> Result<()> {
    let ping = |more: &[&'static str]| [&["req", "rpcutil", "ping"], more].concat();
    for (command, code, told) in [
        (vec!["req", "rpcutill", "ping"], 2, "did you mean 'rpcutil'?"),
        (vec!["req", "rpcutil", "pingg"], 2, "did you mean 'ping'?"),
        (vec!["req", "rpcutil", "get_fact", "fct=role"], 2, "did you mean 'fact'?"),
        (vec!["req", "rpcutil", "get_fact"], 2, "invalid input: input 'fact' is required"),
        (vec!["ping", "-C", "/[/"], 2, "is no regular expression"),
        (ping(&["--limit", "0"]), 2, "is no limit"),
        (ping(&["--dm", "foo"]), 2, "\"foo\" is not known"),
        (ping(&["-o", "missing/results.txt"]), 1, "there is no folder missing"),
        (ping(&["--confirm-over", "1"]), 6, "--yes"),
    ] {
        let ended = operator.run(&command)?;
        ensure!(ended.code == code && ended.stderr.contains(told), "{command:?}: {ended:?}");
    }
    Ok(())
}

fn a_node_is_inspected(operator: &Operator, name: &str) -> Result<()> {
    let text = operator.ok(&["inventory", name])?;
    for part in
        [format!("Inventory for {name}"), "choria_provision".into(), "rpcutil".into(), "\"role\"".into()]
    {
        ensure!(text.contains(&part), "no {part} in\n{text}");
    }
    let json = operator.run(&["inventory", name, "--json"])?.json()?;
    let hostname = json.pointer("/inventory/facts/hostname").and_then(Value::as_str);
    ensure!(hostname == Some(name), "{json}");
    Ok(())
}

fn nodes_are_chosen_by_their_role(operator: &Operator, names: &[String]) -> Result<()> {
    let json = operator.run(&["facts", "role", "--json"])?.json()?;
    let mut seen = BTreeSet::new();
    for role in json.as_object().context("an object of roles")?.keys() {
        let filter = format!("role={role}");
        let text = operator.ok(&["discover", "-F", &filter])?;
        let chosen: BTreeSet<String> = text.lines().map(str::to_owned).collect();
        let json = operator.run(&["discover", "-F", &filter, "--json"])?.json()?;
        let as_json: BTreeSet<String> = serde_json::from_value(json)?;
        ensure!(!chosen.is_empty() && chosen == as_json, "{role}: {chosen:?} and {as_json:?}");
        for name in chosen {
            ensure!(seen.insert(name.clone()), "{name} has two roles");
        }
    }
    ensure!(seen.iter().eq(names), "{seen:?}");
    Ok(())
}

/// Every node gets a new key and a new token, and comes back.
fn all_are_enrolled_again(network: &Network, operator: &Operator) -> Result<()> {
    let before = credentials(network)?;
    ensure!(before.len() == SERVERS, "{} nodes have credentials", before.len());
    let secret = std::fs::read_to_string(network.lab_folder().join("hub/provisioning-token"))?;
    let wrong = ["req", "choria_provision", "reprovision", "token=wrong", "--fail-on", "failed"];
    let refused = operator.run(&wrong)?;
    ensure!(refused.code == 4, "a wrong token is accepted: {refused:?}");
    ensure!(credentials(network)? == before, "a wrong token changed something");
    operator.ok(&["req", "choria_provision", "reprovision", &format!("token={}", secret.trim())])?;
    let renewed = |after: &BTreeMap<String, [String; 2]>| {
        after.len() == SERVERS
            && before.iter().all(|(name, old)| {
                after.get(name).is_some_and(|new| old.iter().zip(new).all(|(old, new)| old != new))
            })
    };
    wait_until("every node has a new key and a new token", Duration::from_secs(90), || {
        credentials(network).is_ok_and(|after| renewed(&after))
    })?;
    operator.sees(SERVERS, Duration::from_secs(60))?;
    operator.ok(&["req", "rpcutil", "ping"])?;
    Ok(())
}

/// Seed and token of each node that has both.
fn credentials(network: &Network) -> Result<BTreeMap<String, [String; 2]>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(network.lab_folder().join("nodes"))? {
        let entry = entry?;
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
        if let (Some(seed), Some(token)) = (read("server.seed"), read("server.jwt")) {
            found.insert(entry.file_name().to_string_lossy().into_owned(), [seed, token]);
        }
    }
    Ok(found)
}

/// Files that hold a key, a token or a password.
fn secrets(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(secrets(&path)?);
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let telling = ["seed", "jwt", "key", "token", "password", "conf", "yaml", "users.json"];
        if telling.iter().any(|part| name.contains(part)) {
            found.push(path);
        }
    }
    Ok(found)
}
