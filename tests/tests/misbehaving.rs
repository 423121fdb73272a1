//! Many connections misbehave in every way that docs/spec/10 §9 bounds, while an operator works with fifty nodes: no
//! reply is lost, memory is bounded, and afterwards everything is as it was.
//!
//! `CHORIA_TEST_ATTACKERS` and `CHORIA_TEST_SECONDS` set how many, and for how long.
#![allow(clippy::large_futures)] // a test has few of them

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use choria_tests::forge::Key;
use choria_tests::misbehaving::{Crowd, Tally, Target, Way};
use choria_tests::{Keeper, Network, Operator, wait_until};
use serde_json::Value;

const NODES: u64 = 50;
const MIB: u64 = 1024;
/// Bounds of docs/spec/10 §9 in MiB: for all connections together that have not authenticated, and for the queue of each
/// that does not read. An allocator keeps some more.
const BEFORE_AUTHENTICATION: u64 = 64;
const QUEUE: u64 = 64;
const ALLOCATOR: u64 = 96;
/// The ways that leave a queue full.
const WITHOUT_READING: [Way; 2] = [Way::SlowConsumer, Way::PingsWithoutReading];
/// Log lines per address and reason in a minute.
const LINES: usize = 20;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_misbehaves_costs_a_reply() -> Result<()> {
    let network = Network::lab_with(&["--servers", "0", "--swarm", &NODES.to_string()])?;
    let outcome = story(&network).await;
    network.told(outcome)
}

async fn story(network: &Network) -> Result<()> {
    let (attackers, seconds) = (setting("CHORIA_TEST_ATTACKERS", 60), setting("CHORIA_TEST_SECONDS", 40));
    let operator = network.operator("choria")?;
    let hub = Hub::of(network)?;
    let target = Arc::new(target(network)?);
    std::fs::write(network.folder().join("nodes.txt"), operator.ok(&["ping", "--names"])?)?;
    for _ in 0..3 {
        asked_and_answered(&operator, true)?;
    }
    let before = hub.levels()?;
    let connections = connections(target.monitoring)?;

    let crowd = Crowd::gather(&target, attackers);
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds as u64);
    let mut peak = before.clone();
    let (mut rounds, mut slowest) = (0u64, Duration::ZERO);
    while Instant::now() < until {
        let round = Instant::now();
        tokio::task::block_in_place(|| asked_and_answered(&operator, rounds.is_multiple_of(3)))
            .with_context(|| format!("round {rounds}, after {:?}", began.elapsed()))?;
        rounds += 1;
        slowest = slowest.max(round.elapsed());
        for (name, level) in hub.levels()? {
            let peak = peak.entry(name).or_insert((0, 0));
            *peak = (peak.0.max(level.0), peak.1.max(level.1));
        }
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(round.elapsed())).await;
    }
    let tallies = crowd.disperse().await;

    wait_until("all connections of attackers are gone", Duration::from_secs(30), || {
        self::connections(target.monitoring).is_ok_and(|now| now <= connections)
    })?;
    let after = hub.levels()?;
    asked_and_answered(&operator, true)?;
    eprintln!("{attackers} connections in {} ways, {seconds} s, {NODES} nodes", Way::ALL.len());
    eprintln!("{rounds} rounds, {NODES} replies in each, none lost; slowest round {slowest:?}");
    for (name, (files, memory)) in &before {
        let (peak, after) =
            (peak.get(name).copied().unwrap_or_default(), after.get(name).copied().unwrap_or_default());
        eprintln!(
            "{name:12} resident MiB before {} peak {} after {}; descriptors before {files} peak {} after {}",
            memory / MIB,
            peak.1 / MIB,
            after.1 / MIB,
            peak.0,
            after.0
        );
        let queues = (attackers.div_ceil(Way::ALL.len()) * WITHOUT_READING.len()) as u64;
        let growth = (BEFORE_AUTHENTICATION + QUEUE * queues + ALLOCATOR) * MIB;
        ensure!(peak.1 <= memory + growth, "{name} grew from {memory} to {} KiB", peak.1);
        ensure!(after.0 <= files + 16, "{name} holds {} descriptors, {files} before", after.0);
    }
    for way in Way::ALL.into_iter().take(attackers) {
        let tally = tallies.get(&way).cloned().unwrap_or_default();
        eprintln!(
            "{way:?}: {} attempts, {} as agreed, longest {:.1?}",
            tally.attempts, tally.heard, tally.longest
        );
        tally.is_as_agreed(way)?;
    }
    ensure!(rounds as usize >= seconds / 10, "the operator had no time: {rounds} rounds");
    logged(network, &tallies)
}

/// A ping that every node answers, and now and then a request that is signed, authorized and verified.
fn asked_and_answered(operator: &Operator, request: bool) -> Result<()> {
    let count = NODES.to_string();
    let finished = operator.run(&["ping", "--json", "--expect", &count, "--timeout", "20"])?;
    let json = finished.json().with_context(|| format!("{finished:?}"))?;
    let replies = json.get("replies").and_then(Value::as_array).map_or(0, Vec::len);
    ensure!(replies as u64 == NODES, "{replies} of {NODES} answer");
    if request {
        let text = operator.ok(&[
            "req",
            "rpcutil",
            "ping",
            "--dm",
            "flatfile",
            "--do",
            "file=nodes.txt",
            "--timeout",
            "30",
        ])?;
        ensure!(text.contains(&format!("Finished processing {count} / {count} hosts")), "{text}");
    }
    Ok(())
}

fn target(network: &Network) -> Result<Target> {
    let keeper = Keeper::of(network);
    let record: Value = serde_json::from_str(&keeper.read("lab.json")?)?;
    let address = |name: &str| -> Result<SocketAddr> {
        let port = record.pointer(&format!("/ports/{name}")).and_then(Value::as_u64).context("a port")?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port)?)))
    };
    Target::new(
        address("broker")?,
        address("login")?,
        address("broker_statistics")?,
        Key::of_seed(&keeper.read("issuer/issuer.seed")?)?,
        keeper.read("nodes/provisioning.jwt")?.trim().to_owned(),
        &keeper.path("tls/ca.pem"),
    )
}

/// Connections that the broker serves now.
fn connections(monitoring: SocketAddr) -> Result<u64> {
    let text = ureq::get(&format!("http://{monitoring}/varz")).call()?.into_body().read_to_string()?;
    let json: Value = serde_json::from_str(&text)?;
    json.get("connections").and_then(Value::as_u64).context("no connections in /varz")
}

/// The processes of the hub, by name.
struct Hub(BTreeMap<String, u32>);

impl Hub {
    fn of(network: &Network) -> Result<Hub> {
        let processes = network.processes()?.into_iter();
        Ok(Hub(processes
            .filter(|(name, _)| ["broker", "aaa", "provisioner"].contains(&name.as_str()))
            .collect()))
    }

    /// Open descriptors, and resident memory in KiB, of each.
    fn levels(&self) -> Result<BTreeMap<String, (usize, u64)>> {
        let level = |id: &u32| -> Result<(usize, u64)> {
            let descriptors = std::fs::read_dir(format!("/proc/{id}/fd"))?.count();
            let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
            Ok((descriptors, resident.trim().trim_end_matches(" kB").parse()?))
        };
        self.0.iter().map(|(name, id)| Ok((name.clone(), level(id)?))).collect()
    }
}

/// Each way that has a reason is in the broker's log, and no address filled it.
fn logged(network: &Network, tallies: &BTreeMap<Way, Tally>) -> Result<()> {
    let log = network.log("broker");
    for way in tallies.keys() {
        let Some(end) = way.end().filter(|end| !end.reason.is_empty()) else { continue };
        ensure!(
            log.contains(&format!("reason={}", end.reason)),
            "{way:?} left no line with reason={}",
            end.reason
        );
    }
    let mut lines: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("remote=127.66.")) {
        let word = |name: &str| -> String {
            let (_, rest) = line.split_once(name).unwrap_or_default();
            rest.chars().take_while(|c| !c.is_whitespace() && *c != ':').collect()
        };
        let minute = line.get(..23).unwrap_or_default().to_owned();
        *lines.entry((word("remote="), word("reason="), minute)).or_default() += 1;
    }
    // a window of 60 s may lie across two minutes of the clock
    for ((address, reason, minute), count) in &lines {
        ensure!(*count <= 2 * LINES, "{count} lines about {reason} of {address} in {minute}");
    }
    ensure!(!lines.is_empty(), "nobody is in the log");
    eprintln!("{} lines about attackers in the log of the broker", lines.values().sum::<usize>());
    Ok(())
}
