//! What an operator may add to a command, against a running network (docs/spec/07 §2.9, §5.4, §7).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use choria_host::private_file::write_private;
use choria_tests::request::read_reply;
use choria_tests::{Finished, NODE, Network, Operator, Stage};
use serde_json::Value;

const SERVERS: usize = 3;
/// A name that nobody has.
const GHOST: &str = "ghost.example.net";

#[test]
fn requests_and_their_forms() -> Result<()> {
    let network = Network::lab(SERVERS)?;
    network.told(story(&network))
}

fn story(network: &Network) -> Result<()> {
    let operator = network.operator("choria")?;
    operator.sees(SERVERS, Duration::from_secs(30))?;
    let mut names = operator.answering()?;
    names.sort();
    results_have_many_forms(&operator, &names)?;
    inputs_come_from_files(network, &operator)?;
    replies_are_chosen_by_an_expression(&operator, &names)?;
    silence_ends_a_request(network, &operator, &names)?;
    pings_come_in_rounds_and_forms(network, &operator, &names)?;
    facts_are_not_waited_for(network, &operator, &names)?;
    every_command_that_reads_has_forms(&operator, &names)
}

/// Runs a command that is given this on stdin.
fn fed(operator: &Operator, arguments: &[&str], text: &str) -> Result<Finished> {
    let mut child = operator.command(arguments).stdin(Stdio::piped()).spawn()?;
    // a command that refuses its arguments has ended before it reads
    drop(child.stdin.take().context("no stdin")?.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    Ok(Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: Duration::ZERO,
    })
}

/// Lines in an order that two runs share.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn results_have_many_forms(operator: &Operator, names: &[String]) -> Result<()> {
    let fact = ["req", "rpcutil", "get_fact", "fact=hostname"];
    let form = |more: &[&'static str]| operator.ok(&[&fact[..], more].concat());

    let csv = form(&["-O", "csv", "--sort"])?;
    let rows: Vec<String> = names.iter().map(|name| format!("{name},hostname,{name}")).collect();
    ensure!(csv.lines().skip(1).eq(rows.iter().map(String::as_str)), "{csv}");
    ensure!(csv.lines().next() == Some("sender,fact,value"), "{csv}");

    ensure!(sorted(&form(&["-O", "names"])?) == names, "names are senders");
    ensure!(sorted(&form(&["--senders"])?) == names, "--senders still is");
    let senders: Vec<String> = serde_json::from_str(&form(&["--senders", "--sort", "-O", "json"])?)?;
    ensure!(senders == names, "{senders:?}");
    let yaml = form(&["-O", "yaml", "--sort"])?;
    for part in ["agent: rpcutil", "action: get_fact", "request_stats:"] {
        ensure!(yaml.contains(part), "{part}: {yaml}");
    }
    ensure!(names.iter().all(|name| yaml.contains(&format!("value: {name}"))), "{yaml}");
    ensure!(form(&["-O", "table"])?.contains("│ Sender "), "no table");
    let lines = form(&["-O", "jsonl"])?;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let kind = |kind: &str| lines.iter().filter(|line| line.get("k").is_some_and(|k| k == kind)).count();
    ensure!(kind("result") == SERVERS && kind("stats") == 1 && kind("discovery") == 2, "{lines:?}");

    // the environment speaks where the command line is silent
    let by_environment = operator.command(&fact).env("CHORIA_OUTPUT", "names").output()?;
    ensure!(sorted(&String::from_utf8_lossy(&by_environment.stdout)) == names, "{by_environment:?}");
    let outweighed =
        operator.command(&[&fact[..], &["--json"]].concat()).env("CHORIA_OUTPUT", "names").output()?;
    ensure!(serde_json::from_slice::<Value>(&outweighed.stdout).is_ok(), "{outweighed:?}");
    let nonsense = operator.command(&fact).env("CHORIA_OUTPUT", "xml").output()?;
    ensure!(nonsense.status.code() == Some(2), "{nonsense:?}");
    ensure!(String::from_utf8_lossy(&nonsense.stderr).contains("CHORIA_OUTPUT"), "{nonsense:?}");

    for more in [&["-O", "xml"][..], &["-O", "csv", "--json"], &["-O", "jsonl", "-o", "lines"]] {
        let refused = operator.run(&[&fact[..], more].concat())?;
        ensure!(refused.code == 2 && refused.stdout.is_empty(), "{more:?}: {refused:?}");
    }
    Ok(())
}

fn inputs_come_from_files(network: &Network, operator: &Operator) -> Result<()> {
    let write = |name: &str, text: &str| -> Result<String> {
        let path = network.folder().join(name);
        write_private(&path, text.as_bytes())?;
        Ok(path.display().to_string())
    };
    let fact_asked = |told: &Finished| -> Result<Option<String>> {
        let json = told.json()?;
        Ok(json.pointer("/replies/0/data/fact").and_then(Value::as_str).map(str::to_owned))
    };
    let request = ["req", "rpcutil", "get_fact", "--json", "--limit", "1", "--input-file"];
    let with = |file: &str, more: &[&str]| operator.run(&[&request[..], &[file], more].concat());

    let yaml = write("inputs.yaml", "# what to ask\nfact: role\n")?;
    ensure!(fact_asked(&with(&yaml, &[])?)?.as_deref() == Some("role"), "YAML");
    ensure!(fact_asked(&with(&yaml, &["fact=rack"])?)?.as_deref() == Some("rack"), "the command line wins");
    let json = write("inputs.json", "{\"fact\": \"site\"}")?;
    ensure!(fact_asked(&with(&json, &[])?)?.as_deref() == Some("site"), "JSON");
    let piped = fed(operator, &[&request[..], &["-"]].concat(), "{\"fact\": \"rack\"}")?;
    ensure!(fact_asked(&piped)?.as_deref() == Some("rack"), "{piped:?}");

    let large = write("large.yaml", &format!("fact: {}\n", "x".repeat(1024 * 1024)))?;
    for (file, code, told) in [
        (write("list.yaml", "- role\n")?, 2, "no JSON or YAML object"),
        (write("broken.json", "{\"fact\": ")?, 2, "broken.json"),
        (write("other.yaml", "fct: role\n")?, 2, "did you mean 'fact'?"),
        (write("number.yaml", "fact: 7\n")?, 2, "is not a string"),
        (large, 1, "larger than"),
        ("missing.yaml".to_owned(), 1, "missing.yaml"),
    ] {
        let refused = with(&file, &[])?;
        ensure!(refused.code == code && refused.stderr.contains(told), "{file}: {refused:?}");
    }
    Ok(())
}

/// Replies that are not of interest are received all the same.
fn replies_are_chosen_by_an_expression(operator: &Operator, names: &[String]) -> Result<()> {
    let fact = ["req", "rpcutil", "get_fact", "fact=hostname", "--filter-replies"];
    let (one, others) = names.split_first().context("no nodes")?;
    for expression in [
        format!("sender() == '{one}'"),
        format!("ok() && data('value') == \"{one}\""),
        format!("data('value') not in ['{}']", others.join("','")),
    ] {
        let text = operator.ok(&[&fact[..], &[&expression]].concat())?;
        ensure!(text.contains(&format!("processing {SERVERS} / {SERVERS} hosts")), "{expression}: {text}");
        ensure!(!text.contains("No Responses"), "{expression}: {text}");
        ensure!(text.contains(one) && !others.iter().any(|name| text.contains(name)), "{expression}: {text}");
        let json = operator.run(&[&fact[..], &[&expression, "-j"]].concat())?.json()?;
        let senders = json.pointer("/replies").and_then(Value::as_array).map(Vec::len);
        let heard = json.pointer("/request_stats/responses").and_then(Value::as_u64);
        ensure!(senders == Some(1) && heard == Some(SERVERS as u64), "{expression}: {json}");
        let lines = operator.ok(&[&fact[..], &[&expression, "--jsonl"]].concat())?;
        ensure!(lines.matches("\"k\":\"result\"").count() == 1, "{expression}: {lines}");
    }
    let none = operator.run(&[&fact[..], &["!ok()", "-O", "names"]].concat())?;
    ensure!(none.code == 0 && none.stdout.is_empty() && !none.stderr.contains("warning"), "{none:?}");
    let info = ["req", "choria_util", "info", "--json", "--filter-replies", &format!("sender() == '{one}'")];
    let json = operator.run(&info)?.json()?;
    let counts =
        json.pointer("/summaries/choria_version").and_then(Value::as_object).context("no summary")?;
    ensure!(counts.values().filter_map(Value::as_u64).sum::<u64>() == 1, "others are summed up: {json}");
    let undecided = operator.run(&[&fact[..], &["data('value')", "-O", "names"]].concat())?;
    ensure!(undecided.code == 0 && undecided.stdout.is_empty(), "{undecided:?}");
    ensure!(undecided.stderr.contains(&format!("left out {SERVERS} replies")), "{undecided:?}");
    ensure!(undecided.stderr.contains("a text, not true or false"), "{undecided:?}");
    for (expression, told) in [
        ("sender() ==", "is no expression"),
        ("sender == 'x'", "unknown variable: sender"),
        ("hostname() == 'x'", "Unknown function: hostname"),
        ("code", "is a number, not true or false"),
        (&"(".repeat(100), "nested deeper"),
    ] {
        let refused = operator.run(&[&fact[..], &[expression]].concat())?;
        ensure!(refused.code == 2 && refused.stderr.contains(told), "{expression}: {refused:?}");
        ensure!(!refused.stderr.contains("Discovering"), "nodes were asked: {refused:?}");
    }
    Ok(())
}

/// A node that is not there would be waited for until the timeout.
fn silence_ends_a_request(network: &Network, operator: &Operator, names: &[String]) -> Result<()> {
    let list = network.folder().join("nodes");
    write_private(&list, format!("{}\n{GHOST}\n", names.join("\n")).as_bytes())?;
    let list = list.display().to_string();
    let request = ["req", "rpcutil", "ping", "--nodes", &list, "--timeout", "90", "--quiet-after", "500ms"];
    let ended = operator.run(&request)?;
    ensure!(ended.code == 0 && ended.took < Duration::from_secs(60), "{ended:?}");
    ensure!(ended.stdout.contains(&format!("processing {SERVERS} / {} hosts", SERVERS + 1)), "{ended:?}");
    ensure!(ended.stdout.contains("No Responses from: 1") && ended.stdout.contains(GHOST), "{ended:?}");
    Ok(())
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

    let watching = watched(operator, &[&ping[..], &["--watch", "--interval", "100ms"]].concat(), 3)?;
    ensure!(watching.code == 130 && watching.stdout.lines().count() >= 3, "{watching:?}");

    let nobody = ["ping", "-I", GHOST, "--timeout", "1", "--count", "2", "--interval", "100ms"];
    let nobody = operator.run(&nobody)?;
    ensure!(nobody.code == 3 && nobody.stdout.matches("0 replies").count() == 2, "{nobody:?}");
    for more in [
        &["--interval", "1"][..],
        &["--watch", "--count", "2"],
        &["--count", "0"],
        &["--watch", "--interval", "0"],
        &["--count", "2", "-O", "json"],
        &["--count", "2", "--names"],
        &["--count", "2", "--sort", "name"],
    ] {
        let refused = operator.run(&[&["ping"], more].concat())?;
        ensure!(refused.code == 2 && refused.stdout.is_empty(), "{more:?}: {refused:?}");
    }
    let missing = operator.run(&["ping", "--against", "missing"])?;
    ensure!(missing.code == 1 && missing.stderr.contains("missing"), "{missing:?}");
    Ok(())
}

/// Runs a command without end until it has printed so many lines, and presses Ctrl-C.
fn watched(operator: &Operator, arguments: &[&str], lines: usize) -> Result<Finished> {
    let mut child = operator.command(arguments).spawn()?;
    let mut reader = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut stdout = String::new();
    for _ in 0..lines {
        ensure!(reader.read_line(&mut stdout)? > 0, "it ended by itself: {stdout}");
    }
    let pressed = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    ensure!(pressed.success(), "{pressed}");
    reader.read_to_string(&mut stdout)?;
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Finished { code: output.status.code().unwrap_or(-1), stdout, stderr, took: Duration::ZERO })
}

/// The agent's own timeout is longer than anybody here waits.
fn facts_are_not_waited_for(network: &Network, operator: &Operator, names: &[String]) -> Result<()> {
    let list = network.folder().join("nodes");
    write_private(&list, format!("{}\n{GHOST}\n", names.join("\n")).as_bytes())?;
    let list = list.display().to_string();
    let facts = ["facts", "hostname", "--nodes", &list];
    let usual = operator.run(&facts)?;
    let short = operator.run(&[&facts[..], &["--timeout", "1s"]].concat())?;
    for told in [&usual, &short] {
        ensure!(told.code == 0 && told.stdout.contains("No Responses from: 1"), "{told:?}");
        ensure!(names.iter().all(|name| told.stdout.contains(name)), "{told:?}");
    }
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

/// A token for programs that carry it elsewhere; nothing else is on stdout.
#[test]
fn a_login_that_prints_its_token() -> Result<()> {
    let network = Network::lab(1)?;
    network.told(logins(&network))
}

fn logins(network: &Network) -> Result<()> {
    let client = network.lab_folder().join("client");
    let operator = Operator::new(&network.lab_folder().join("client.conf"), network.folder());
    let none = operator.run(&["login", "--status"])?;
    ensure!(none.code == 5 && none.stderr.contains("choria login"), "{none:?}");

    let login = ["login", "--username", "choria", "--password-stdin"];
    let said = fed(&operator, &login, "secret\n")?;
    ensure!(said.code == 0 && said.stdout.starts_with("Token saved to /"), "{said:?}");
    ensure!(
        !said.stdout.contains("eyJ") && !said.stderr.contains("eyJ"),
        "a token was printed unasked: {said:?}"
    );
    let token = || std::fs::read_to_string(client.join("token"));
    let first = token()?;

    let printed = fed(&operator, &[&login[..], &["--print"]].concat(), "secret\n")?;
    ensure!(printed.code == 0 && printed.stdout == format!("{}\n", token()?.trim()), "{printed:?}");
    ensure!(token()? != first, "it printed the token from before");
    ensure!(printed.stderr.contains("Token saved to /") && !printed.stderr.contains("eyJ"), "{printed:?}");
    for name in ["token", "seed"] {
        let mode = std::fs::metadata(client.join(name))?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{name}: {mode:o}");
    }

    let kept = operator.run(&["login", "--if-needed", "--print", "--no-input"])?;
    ensure!(kept.code == 0 && kept.stdout == printed.stdout, "{kept:?}");
    let status = operator.run(&["login", "--status"])?;
    ensure!(status.code == 0 && status.stdout.starts_with("Valid for "), "{status:?}");

    let before = token()?;
    for (more, stdin, code, told) in [
        (&["--username", "choria", "--password-stdin", "--print"][..], "wrong\n", 5, "Login failed"),
        (&["--username", "choria", "--password-stdin"], "", 2, "no password on stdin"),
        (&["--username", "choria", "--no-input"], "", 6, "--password-stdin"),
        (&["--password-stdin", "--no-input"], "secret\n", 6, "--username"),
        (&["--print", "--status"], "", 2, "cannot be used with"),
    ] {
        let refused = fed(&operator, &[&["login"], more].concat(), stdin)?;
        ensure!(refused.code == code && refused.stderr.contains(told), "{more:?}: {refused:?}");
        ensure!(refused.stdout.is_empty() && token()? == before, "{more:?}: {refused:?}");
    }
    Ok(())
}

/// The replies of a request that nobody waits for arrive where it says.
#[tokio::test]
async fn replies_go_where_the_operator_says() -> Result<()> {
    let stage = Stage::start()?;
    let caller = stage.caller("up=alice")?;
    let operator = stage.operator("alice", &caller)?;
    let mut reader = stage.connected(&caller, Ipv4Addr::LOCALHOST).await?;
    let subject = caller.inbox("choria").replace('>', "collected.today");
    let refused = reader.subscribe(&subject).await?;
    ensure!(refused.is_none(), "{refused:?}");

    let told = operator.run(&["req", "rpcutil", "ping", "--reply-to", &subject])?;
    let id = told.stdout.trim().to_owned();
    ensure!(told.code == 0 && id.len() == 27 && !id.contains(' '), "{told:?}");
    let message = reader.message(Duration::from_secs(20)).await?.context("no reply")?;
    ensure!(message.subject == subject, "{message:?}");
    ensure!(read_reply(&message.payload)?.statuscode.is_ok(), "{message:?}");

    let json = operator.run(&["req", "rpcutil", "ping", "-I", NODE, "-r", &subject, "-O", "json"])?;
    ensure!(
        json.json()?.get("requestid").and_then(Value::as_str).is_some_and(|id| id.len() == 27),
        "{json:?}"
    );

    for (more, told) in [
        (["--reply-to", "site.>"], "no subject that nodes can reply to"),
        (["--reply-to", "a b"], "no subject that nodes can reply to"),
        (["--reply-to", "a..b"], "no subject that nodes can reply to"),
    ] {
        let refused = operator.run(&[&["req", "rpcutil", "ping"], &more[..]].concat())?;
        ensure!(refused.code == 2 && refused.stderr.contains(told), "{more:?}: {refused:?}");
    }
    let both = operator.run(&["req", "rpcutil", "ping", "-r", &subject, "--batch", "2"])?;
    ensure!(both.code == 2, "batches wait for replies, and none are awaited: {both:?}");
    Ok(())
}

/// A question that may not be asked ends the command and names its answer.
#[test]
fn no_input_is_asked_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let operator = Operator::new(&folder.path().join("client.conf"), folder.path());
    let seed = folder.path().join("seed").display().to_string();
    operator.ok(&["--no-input", "jwt", "keys", &seed])?;
    let key = std::fs::read(&seed)?;
    for command in [["--no-input", "jwt", "keys", &seed], ["jwt", "keys", &seed, "--no-input"]] {
        let refused = operator.run(&command)?;
        ensure!(refused.code == 6, "{refused:?}");
        ensure!(
            refused.stderr.contains("--no-input forbids") && refused.stderr.contains("--force"),
            "{refused:?}"
        );
    }
    ensure!(std::fs::read(&seed)? == key, "the key was overwritten");
    Ok(())
}
