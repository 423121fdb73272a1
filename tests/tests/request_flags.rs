//! What an operator may add to `choria req`, against a running network (docs/spec/07 §2.9, §5.4, §7.2).

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_host::private_file::write_private;
use choria_tests::request::read_reply;
use choria_tests::{Finished, GHOST, NODE, Network, Operator, Stage, sorted};
use serde_json::Value;

const SERVERS: usize = 3;

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
    results_go_where_they_are_wanted(network, &operator, &names)?;
    plans_have_forms(&operator, &names)?;
    replies_are_chosen_by_an_expression(&operator, &names)?;
    silence_ends_a_request(network, &operator, &names)
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
    let piped = operator.run_with(&[&request[..], &["-"]].concat(), "{\"fact\": \"rack\"}")?;
    ensure!(fact_asked(&piped)?.as_deref() == Some("rack"), "{piped:?}");

    let piped =
        operator.run_with(&["req", "rpcutil", "get_fact", "fact=@-", "-j", "--limit", "1"], "site\n")?;
    ensure!(fact_asked(&piped)?.as_deref() == Some("site"), "{piped:?}");
    for more in [&["--input-file", "-", "--nodes", "-"][..], &["fact=@-", "--nodes", "-"]] {
        let refused = operator.run_with(&[&["req", "rpcutil", "get_fact"], more].concat(), "fact: site\n")?;
        ensure!(refused.code == 2 && refused.stderr.contains("cannot both read stdin"), "{refused:?}");
    }

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

/// A file is replaced as it was, what is open is added to, and what cannot be written is not lost.
fn results_go_where_they_are_wanted(network: &Network, operator: &Operator, names: &[String]) -> Result<()> {
    let request = ["req", "rpcutil", "ping", "--sort", "-O"];
    let path = network.folder().join("results.json");
    write_private(&path, b"[]")?;
    let to = |form: &'static str, path: &Path| -> Result<Finished> {
        operator.run(&[&request[..], &[form, "-o", &path.display().to_string()]].concat())
    };
    let told = to("json", &path)?;
    ensure!(told.code == 0 && told.stdout.is_empty(), "{told:?}");
    let results: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    ensure!(
        results.pointer("/replies").and_then(Value::as_array).map(Vec::len) == Some(SERVERS),
        "{results}"
    );
    let mode = std::fs::metadata(&path)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "it was private and is {mode:o}");

    let all = File::options().create(true).append(true).open(network.folder().join("all.log"))?;
    for _ in 0..2 {
        let mut command = operator.command(&[&request[..], &["names", "-o", "/dev/stdout"]].concat());
        ensure!(command.stdout(all.try_clone()?).status()?.success(), "cannot add to a file that is open");
    }
    let twice = std::fs::read_to_string(network.folder().join("all.log"))?;
    ensure!(twice.lines().eq(names.iter().chain(names)), "{twice}");

    let full = to("names", Path::new("/dev/full"))?;
    ensure!(full.code == 1 && full.stdout.lines().eq(names), "{full:?}");
    ensure!(full.stderr.contains("cannot write the results to /dev/full"), "{full:?}");
    Ok(())
}

/// What would be done is told as what was done is, and secrets are not told.
fn plans_have_forms(operator: &Operator, names: &[String]) -> Result<()> {
    let plan = ["req", "choria_provision", "restart", "token=@-", "splay=7", "--dry-run", "-O"];
    let form = |form: &'static str| -> Result<Finished> {
        let told = operator.run_with(&[&plan[..], &[form]].concat(), "s3cret")?;
        ensure!(told.code == 0 && !told.stdout.contains("s3cret"), "{form}: {told:?}");
        Ok(told)
    };
    let json = form("json")?.json()?;
    let inputs = serde_json::json!({"splay": 7, "token": "*****"});
    ensure!(json.pointer("/data") == Some(&inputs), "{json}");
    let mut nodes: Vec<String> = serde_json::from_value(json.pointer("/nodes").context("no nodes")?.clone())?;
    nodes.sort();
    ensure!(nodes == names, "{json}");
    ensure!(sorted(&form("names")?.stdout) == names, "names are nodes");
    let rows = form("csv")?.stdout;
    ensure!(rows.starts_with("node\n") && rows.lines().count() == 1 + SERVERS, "{rows}");
    let lines = form("jsonl")?.stdout;
    let last: Value = serde_json::from_str(lines.lines().last().context("no lines")?)?;
    ensure!(last.get("k").is_some_and(|k| k == "plan") && last.get("data") == Some(&inputs), "{lines}");
    ensure!(form("text")?.stdout.starts_with("Would call choria_provision#restart on 3 nodes"), "text");
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
    let rows = operator.run(&[&request[..], &["-O", "csv"]].concat())?;
    ensure!(rows.stdout.lines().count() == 1 + SERVERS && !rows.stdout.contains(GHOST), "{rows:?}");
    ensure!(rows.stderr.contains("No Responses from: 1") && rows.stderr.contains(GHOST), "{rows:?}");

    // Ctrl-C ends it, too, and what is known by then is told, also of replies that a filter left out
    let request = ["req", "rpcutil", "ping", "--nodes", &list, "--timeout", "90", "-O", "jsonl"];
    let first = format!("sender() == '{}'", names.first().context("no nodes")?);
    for (more, results) in [(&[][..], SERVERS), (&["--filter-replies", &first], 1)] {
        let ended = operator.run_for(&[&request[..], more].concat(), 2 + results)?;
        ensure!(ended.code == 130 && ended.took < Duration::from_secs(60), "{more:?}: {ended:?}");
        let last: Value = serde_json::from_str(ended.stdout.lines().last().context("no lines")?)?;
        let silent = last.pointer("/stat/no_responses").and_then(Value::as_array).context("no statistics")?;
        ensure!(silent.iter().any(|name| name == GHOST), "{more:?}: {last}");
        let id = last.pointer("/stat/requestid").and_then(Value::as_str);
        ensure!(id.is_some_and(|id| !id.is_empty()), "{more:?}: {last}");
        let heard = last.pointer("/stat/responses").and_then(Value::as_u64).context("no count")?;
        ensure!(heard + silent.len() as u64 == SERVERS as u64 + 1 && heard > 0, "{more:?}: {last}");
    }
    // nodes of batches to come were not asked, so they are not silent
    let ended = operator.run_for(&[&request[..], &["--batch", "1", "--batch-sleep", "60"]].concat(), 3)?;
    ensure!(ended.code == 130 && ended.took < Duration::from_secs(60), "{ended:?}");
    let last: Value = serde_json::from_str(ended.stdout.lines().last().context("no lines")?)?;
    ensure!(last.pointer("/stat/no_responses") == Some(&Value::Array(Vec::new())), "{last}");
    ensure!(last.pointer("/stat/responses").and_then(Value::as_u64) == Some(1), "{last}");
    ensure!(
        last.pointer("/stat/requestid").and_then(Value::as_str).is_some_and(|id| !id.is_empty()),
        "{last}"
    );
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
