//! What an operator may add to the commands that read, against a running network (docs/spec/07 §2.9, §7.1, §7.3 to §7.5).

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use choria_host::private_file::write_private;
use choria_tests::{GHOST, Network, Operator, sorted};
use serde_json::Value;

const SERVERS: usize = 3;

#[test]
fn pings_facts_and_their_forms() -> Result<()> {
    let network = Network::lab(SERVERS)?;
    network.told(story(&network))
}

fn story(network: &Network) -> Result<()> {
    let operator = network.operator("choria")?;
    operator.sees(SERVERS, Duration::from_secs(30))?;
    let mut names = operator.answering()?;
    names.sort();
    pings_come_in_rounds_and_forms(network, &operator, &names)?;
    facts_are_not_waited_for(network, &operator, &names)?;
    every_command_that_reads_has_forms(&operator, &names)
}

fn pings_come_in_rounds_and_forms(network: &Network, operator: &Operator, names: &[String]) -> Result<()> {
    let all = SERVERS.to_string();
    let ping = ["ping", "--timeout", "20", "--expect", &all];
    let form = |more: &[&str]| operator.ok(&[&ping[..], more].concat());
    let column = |csv: &str, column: usize| -> Vec<String> {
        csv.lines().skip(1).filter_map(|line| Some(line.split(',').nth(column)?.to_owned())).collect()
    };

    ensure!(column(&form(&["-O", "csv", "--sort", "name"])?, 0) == names, "not by name");
    let times: Vec<f64> = column(&form(&["-O", "csv", "--sort", "time"])?, 1)
        .iter()
        .map(|time| time.parse())
        .collect::<Result<_, _>>()?;
    ensure!(times.len() == SERVERS && times.is_sorted(), "{times:?}");
    let text = form(&["--sort", "name"])?;
    let shown: Vec<&str> = text.lines().take(SERVERS).filter_map(|line| line.split(' ').next()).collect();
    ensure!(shown == names && text.contains("ping statistics"), "{text}");
    ensure!(sorted(&form(&["-O", "names"])?) == names, "no names");
    ensure!(form(&["-O", "yaml"])?.contains("replies:"), "no YAML");
    ensure!(form(&["-O", "table"])?.contains("│ Identity "), "no table");

    let list = network.folder().join("expected");
    write_private(&list, format!("# the fleet\n{}\n\n{GHOST}\n", names.join("\n")).as_bytes())?;
    let list = list.display().to_string();
    let listed = operator.run(&[&ping[..], &["-O", "names", "--against", &list]].concat())?;
    ensure!(listed.stderr.contains("No Responses from: 1") && listed.stderr.contains(GHOST), "{listed:?}");
    ensure!(!listed.stdout.contains(GHOST), "{listed:?}");
    let rounds = form(&["--count", "3", "--interval", "100ms", "--against", &list])?;
    ensure!(rounds.lines().count() == 3, "{rounds}");
    for line in rounds.lines() {
        ensure!(line.contains(&format!("Z {SERVERS} replies max: ")), "{line}");
        ensure!(line.ends_with(&format!(" silent: {GHOST}")), "{line}");
    }
    let rounds = form(&["--count", "2", "--interval", "100ms", "--against", &list, "-O", "jsonl"])?;
    for (number, line) in (1..).zip(rounds.lines()) {
        let line: Value = serde_json::from_str(line)?;
        ensure!(line.get("round").and_then(Value::as_u64) == Some(number), "{line}");
        ensure!(line.pointer("/stats/replies").and_then(Value::as_u64) == Some(SERVERS as u64), "{line}");
        ensure!(line.pointer("/silent/0").and_then(Value::as_str) == Some(GHOST), "{line}");
    }
    ensure!(rounds.lines().count() == 2, "{rounds}");
    let rounds = form(&["--count", "2", "--interval", "100ms", "--against", &list, "-O", "csv"])?;
    ensure!(column(&rounds, 1) == [all.as_str(), &all] && column(&rounds, 5) == ["1", "1"], "{rounds}");

    let watching = operator.run_for(&[&ping[..], &["--watch", "--interval", "100ms"]].concat(), 3)?;
    ensure!(watching.code == 130 && watching.stdout.lines().count() >= 3, "{watching:?}");

    let nobody = ["ping", "-I", GHOST, "--timeout", "1", "--count", "2", "--interval", "100ms"];
    let nobody = operator.run(&nobody)?;
    ensure!(nobody.code == 3 && nobody.stdout.matches("0 replies").count() == 2, "{nobody:?}");
    let nobody = operator.run(&["ping", "-I", GHOST, "--timeout", "1", "--count", "1", "-O", "csv"])?;
    ensure!(nobody.stdout.lines().nth(1).is_some_and(|line| line.ends_with("Z,0,,,,")), "{nobody:?}");
    for more in [
        &["--interval", "1"][..],
        &["--watch", "--count", "2"],
        &["--count", "0"],
        &["--watch", "--interval", "0"],
        &["--count", "2", "-O", "json"],
        &["--count", "2", "--names"],
        &["--count", "2", "--sort", "name"],
        &["--count", "2", "--silent"],
        &["-O", "names", "--silent"],
        &["-O", "csv", "--graph"],
    ] {
        let refused = operator.run(&[&["ping"], more].concat())?;
        ensure!(refused.code == 2 && refused.stdout.is_empty(), "{more:?}: {refused:?}");
    }
    let missing = operator.run(&["ping", "--against", "missing"])?;
    ensure!(missing.code == 1 && missing.stderr.contains("missing"), "{missing:?}");
    Ok(())
}

/// The agent's own timeout is longer than anybody here waits.
fn facts_are_not_waited_for(network: &Network, operator: &Operator, names: &[String]) -> Result<()> {
    let list = network.folder().join("nodes");
    write_private(&list, format!("{}\n{GHOST}\n", names.join("\n")).as_bytes())?;
    let list = list.display().to_string();
    let facts = ["facts", "hostname", "--nodes", &list];
    let usual = operator.run(&facts)?;
    let short = operator.run(&[&facts[..], &["--timeout", "1s"]].concat())?;
    ensure!(usual.code == 0 && usual.stdout.contains("No Responses from: 1"), "{usual:?}");
    ensure!(names.iter().all(|name| usual.stdout.contains(name)), "{usual:?}");
    // on a busy machine a second may be too little for some
    ensure!(short.stdout.contains(GHOST), "{short:?}");
    let rows = operator.run(&[&facts[..], &["--timeout", "1s", "-O", "csv"]].concat())?;
    ensure!(rows.stderr.contains("No Responses from: ") && rows.stderr.contains(GHOST), "{rows:?}");
    ensure!(
        short.took + Duration::from_secs(2) < usual.took,
        "{:?} is not shorter than {:?}",
        short.took,
        usual.took
    );
    Ok(())
}

fn every_command_that_reads_has_forms(operator: &Operator, names: &[String]) -> Result<()> {
    let lines = |arguments: &[&str]| -> Result<Vec<Value>> {
        let text = operator.ok(arguments)?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let field = |lines: &[Value], name: &str| -> Vec<String> {
        lines.iter().filter_map(|line| Some(line.get(name)?.as_str()?.to_owned())).collect()
    };

    let identities: Vec<String> = names.iter().map(|name| format!("{{\"identity\":\"{name}\"}}")).collect();
    for (form, expected) in [
        ("names", names.join("\n")),
        ("jsonl", identities.join("\n")),
        ("csv", format!("identity\n{}", names.join("\n"))),
        ("json", format!("[\n  \"{}\"\n]", names.join("\",\n  \""))),
    ] {
        let text = operator.ok(&["discover", "-O", form])?;
        ensure!(text.trim_end() == expected, "{form}: {text}");
    }
    let yaml = operator.ok(&["discover", "-O", "yaml"])?;
    ensure!(names.iter().all(|name| yaml.contains(name)), "{yaml}");

    let facts = lines(&["facts", "hostname", "-O", "jsonl"])?;
    ensure!(field(&facts, "value") == names, "{facts:?}");
    let csv = operator.ok(&["facts", "hostname", "-n", "-O", "csv"])?;
    let rows: Vec<String> = names.iter().map(|name| format!("{name},1,{name}")).collect();
    ensure!(csv.trim_end() == format!("fact,matches,nodes\n{}", rows.join("\n")), "{csv}");
    ensure!(sorted(&operator.ok(&["facts", "memory.size", "-O", "names"])?) == names);
    ensure!(operator.ok(&["facts", "hostname", "-O", "table"])?.contains("│ Fact "));
    ensure!(operator.ok(&["facts", "hostname", "-O", "yaml"])?.contains("identities:"));

    let name = names.first().context("no nodes")?;
    let [inventory] =
        lines(&["inventory", name, "-O", "jsonl"])?.try_into().map_err(|_| anyhow!("not one"))?;
    let hostname = inventory.pointer("/inventory/facts/hostname").and_then(Value::as_str);
    ensure!(hostname == Some(name), "{inventory}");
    let csv = operator.ok(&["inventory", "--collectives", "-O", "csv"])?;
    ensure!(csv == format!("collective,nodes\nchoria,{SERVERS}\n"), "{csv}");
    for refused in [&["inventory", name, "-O", "csv"][..], &["inventory", "--collectives", "-O", "names"]] {
        let refused = operator.run(refused)?;
        ensure!(refused.code == 2 && refused.stderr.contains("cannot be written as"), "{refused:?}");
    }
    Ok(())
}
