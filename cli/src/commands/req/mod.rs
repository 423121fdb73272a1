//! `choria req AGENT ACTION`: calls an action on many nodes (docs/spec/07 §7.2).

mod answer;
mod document;
mod summary;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use choria_client::ClientError;
use choria_client::targets::Amount;
use choria_protocol::ddl::{Action, Ddl, Display, InputError};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

pub(crate) use answer::Answer;
pub(crate) use text::{names, plain};

use crate::arguments::Global;
use crate::discovery_flags::DiscoveryFlags;
use crate::failure::{Code, Doing, Failure};
use crate::filter_flags::FilterFlags;
use crate::fleet::{Call, Fleet};
use crate::nearest;
use crate::output::colour::{Colour, Paint};
use crate::output::prompt::Prompts;
use crate::output::table::{self, Table};
use crate::output::{self, format, harmless};
use summary::Summary;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  choria req choria_util info\n  choria req rpcutil ping -F memory.size=7959\n  choria req rpcutil get_fact fact=role --json\n  choria req choria_provision restart token=@token.txt --batch 10 --batch-sleep 5"
)]
pub(crate) struct Options {
    /// The agent to call
    agent: String,
    /// The action to call
    action: String,
    /// Inputs of the action as key=value; `key=@FILE` reads a file, and `token=-` asks for the value
    #[arg(value_name = "KEY=VALUE")]
    inputs: Vec<String>,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    discovery: DiscoveryFlags,
    /// Results as one JSON document
    #[arg(long, short, group = "form")]
    json: bool,
    /// Results as JSON lines, as they arrive
    #[arg(long, group = "form")]
    jsonl: bool,
    /// Successful replies as a table
    #[arg(long, short, group = "form")]
    table: bool,
    /// Only the names of the nodes that succeeded
    #[arg(long)]
    senders: bool,
    /// Only this many nodes, or this share of them
    #[arg(long, value_name = "N|P%")]
    limit: Option<Amount>,
    /// Seed for the choice of nodes when the limit is a random one
    #[arg(long, value_name = "SEED", requires = "limit")]
    limit_seed: Option<u64>,
    /// Call nodes in groups of this size
    #[arg(long, value_name = "SIZE", default_value_t = 0)]
    batch: usize,
    /// Pause between groups, in seconds or as a duration
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = crate::arguments::seconds)]
    batch_sleep: Duration,
    /// How long to wait for replies, in seconds or as a duration
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds)]
    timeout: Option<Duration>,
    /// Do not draw a progress bar
    #[arg(long, visible_alias = "no-progress")]
    np: bool,
    /// Raw replies and more statistics
    #[arg(long, short)]
    verbose: bool,
    /// Which replies to print
    #[arg(long, value_name = "WHICH")]
    display: Option<Shown>,
    /// Write results to a file
    #[arg(long, short, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// Sort replies by node
    #[arg(long)]
    sort: bool,
    /// Find nodes and check inputs, then say what would be sent
    #[arg(long)]
    dry_run: bool,
    /// End with code 4 when nodes failed or stayed silent
    #[arg(long, value_name = "WHAT", default_value = "none", env = "CHORIA_FAIL_ON")]
    fail_on: FailOn,
    /// Ask before an action that reaches more nodes than this
    #[arg(long, value_name = "N")]
    confirm_over: Option<usize>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Kept for compatibility; one connection receives all replies
    #[arg(long, value_name = "N", default_value_t = 3, hide = true)]
    workers: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shown {
    Ok,
    Failed,
    All,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    None,
    Failed,
    Missing,
    Any,
}

/// Names of inputs whose values are never shown.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "token" || name.contains("password") || name.starts_with("secret")
}

pub(crate) async fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let texts = inputs(&options.inputs, global.prompts())?;
    let filter = options.filter.filter(Some(&options.agent))?;
    let fleet = Fleet::offline(global, options.filter.target.as_deref())?;
    let ddl = fleet.ddl(&options.agent)?;
    let action = action(&ddl, &options.action)?;
    let (data, warnings) = action.inputs_from_text(&texts).map_err(|error| bad_input(&action, error))?;
    for warning in warnings {
        output::note(&format!("warning: input {:?}: {}\n", warning.input, warning.text));
    }
    // whatever can be wrong with the command line is told before a node is asked to do anything
    fleet.check(&options.discovery)?;
    if let Some(path) = &options.output_file {
        writable(path)?;
    }
    let fleet = fleet.online(global).await?;
    let result = call(&fleet, global, options, &filter, ddl.metadata.service, &action, data).await;
    if let (true, Err(failure)) = (options.jsonl, &result) {
        output::print(&document::error(failure.message()));
    }
    if !result.as_ref().is_ok_and(|code| *code == Code::Interrupted as u8) {
        fleet.close().await;
    }
    result
}

fn action(ddl: &Ddl, name: &str) -> Result<Action, Failure> {
    ddl.action(name).cloned().map_err(|error| {
        let known: Vec<&str> = ddl.actions.iter().map(|action| action.name.as_str()).collect();
        let hint = nearest::did_you_mean(name, known.iter().copied());
        Failure::from(ClientError::from(error)).hint(hint.unwrap_or_else(|| match known.as_slice() {
            [] => String::from("it has no actions to call"),
            known => format!("its actions are {}", known.join(", ")),
        }))
    })
}

fn bad_input(action: &Action, error: InputError) -> Failure {
    let meant = match &error {
        InputError::Undeclared { name, valid } => {
            nearest::did_you_mean(name, valid.iter().map(String::as_str))
        }
        _ => action.input.get(error.input()).map(|input| input.description.trim().to_owned()),
    };
    let failure = Failure::from(ClientError::from(error));
    match meant {
        Some(hint) if !hint.is_empty() => failure.hint(harmless(&hint)),
        _ => failure,
    }
}

/// Results that cannot be written would be lost after the nodes have done what they were asked to.
fn writable(path: &Path) -> Result<(), Failure> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |reason: String| {
        Failure::new(format!("cannot write the results to {}", path.display())).because(reason)
    };
    if !folder.is_dir() {
        return Err(failed(format!("there is no folder {}", folder.display())));
    }
    if path.is_dir() {
        return Err(failed(String::from("it is a directory")));
    }
    tempfile::Builder::new()
        .prefix(".choria-")
        .tempfile_in(folder)
        .map(drop)
        .map_err(|error| failed(format!("{}: {}", folder.display(), error.kind())))
}

async fn call(
    fleet: &Fleet,
    global: &Global,
    options: &Options,
    filter: &choria_protocol::Filter,
    service: bool,
    action: &Action,
    data: Map<String, Value>,
) -> Result<u8, Failure> {
    let quiet = options.json || options.jsonl || options.senders;
    let mut nodes = Vec::new();
    let mut discovery_took = Duration::ZERO;
    if !service {
        let method = options.discovery.word(fleet.config());
        if options.jsonl {
            output::print(&document::discovering(method));
        }
        let started = Instant::now();
        let found = fleet.discover(filter, &options.discovery, !quiet).await?;
        discovery_took = started.elapsed();
        if found.nodes.is_empty() {
            return Err(options.filter.nobody("did not discover any nodes", fleet.collective()));
        }
        nodes = fleet.limit(found.nodes, options.limit, options.limit_seed)?;
        if options.jsonl {
            output::print(&document::discovered(method, nodes.len(), discovery_took));
        }
    }
    if options.dry_run {
        output::print(&plan(options, &nodes, &data));
        return Ok(0);
    }
    let many = options.confirm_over.is_some_and(|limit| nodes.len() > limit);
    if many
        && !options.yes
        && !global.prompts().confirm(
            &format!("Really call {}#{} on {} nodes", options.agent, options.action, nodes.len()),
            "--yes",
        )?
    {
        return Ok(0);
    }
    let started = (choria_host::clock::unix_seconds(), Instant::now());
    let mut summaries = Summary::of(action);
    let mut call = Call::new(&options.agent, &options.action, data, nodes);
    call.progress = !(quiet || options.np);
    call.batch = options.batch;
    call.batch_sleep = options.batch_sleep;
    call.timeout = options.timeout;
    let targets = call.nodes().to_vec();
    let mut answers: Vec<Answer> = Vec::new();
    let finished = tokio::select! {
        summary = fleet.call(call, |answer: Answer| {
            summaries.iter_mut().for_each(|summary| summary.add(&answer));
            if options.jsonl {
                output::print(&document::result(&answer));
            }
            answers.push(answer);
        }) => Some(summary?),
        pressed = tokio::signal::ctrl_c() => {
            pressed?;
            None
        }
    };
    let interrupted = finished.is_none();
    let mut summary = finished.unwrap_or_else(|| cut_short(&targets, &answers, started));
    summary.discovery = discovery_took;
    if options.sort {
        answers.sort_by(|a, b| a.sender.cmp(&b.sender));
    }
    if options.jsonl {
        output::print(&document::summaries(&summaries));
        output::print(&document::stats(&summary));
    } else {
        let results = if options.json && options.senders {
            let senders: Vec<&str> = successful(&answers).map(|answer| answer.sender.as_str()).collect();
            output::json(&senders)
        } else if options.json {
            document::whole(&options.agent, &options.action, &answers, &summary, &summaries)
        } else if options.senders {
            successful(&answers).map(|answer| format!("{}\n", harmless(&answer.sender))).collect()
        } else if options.table {
            as_table(&answers, action)
        } else {
            as_text(fleet, options, action, &answers, &summaries, &summary)
        };
        deliver(options, &results)?;
    }
    if interrupted {
        output::note("Interrupted\n");
        return Ok(Code::Interrupted as u8);
    }
    verdict(options, &summary, service)
}

/// What is known of a call that somebody ended with Ctrl-C.
fn cut_short(targets: &[String], answers: &[Answer], started: (i64, Instant)) -> crate::fleet::Summary {
    let answered: BTreeSet<&str> = answers.iter().map(|answer| answer.sender.as_str()).collect();
    let ok = successful(answers).count();
    crate::fleet::Summary {
        discovered: targets.len(),
        responses: answers.len(),
        ok,
        failed: answers.len() - ok,
        silent: targets.iter().filter(|node| !answered.contains(node.as_str())).cloned().collect(),
        started: started.0,
        took: started.1.elapsed(),
        ..crate::fleet::Summary::default()
    }
}

fn verdict(options: &Options, summary: &crate::fleet::Summary, service: bool) -> Result<u8, Failure> {
    if summary.responses == 0 {
        let failure = Failure::new("no responses received").code(Code::NoReplies);
        return Err(if service {
            failure.hint("no service answered: is its host running?")
        } else {
            failure
        });
    }
    let failed = summary.failed > 0;
    let missing = !summary.silent.is_empty();
    let matched = match options.fail_on {
        FailOn::None => false,
        FailOn::Failed => failed,
        FailOn::Missing => missing,
        FailOn::Any => failed || missing,
    };
    Ok(if matched { Code::Partial as u8 } else { 0 })
}

fn successful(answers: &[Answer]) -> impl Iterator<Item = &Answer> {
    answers.iter().filter(|answer| answer.is_ok())
}

fn deliver(options: &Options, results: &str) -> Result<(), Failure> {
    match &options.output_file {
        Some(path) => choria_host::private_file::write_atomic(path, results.as_bytes(), 0o644)
            .doing(|| format!("cannot write the results to {}", path.display())),
        None => {
            output::print(results);
            Ok(())
        }
    }
}

/// `key=value`, split at the first `=`.
fn inputs(arguments: &[String], prompts: Prompts) -> Result<BTreeMap<String, String>, Failure> {
    let mut texts = BTreeMap::new();
    for argument in arguments {
        let (key, value) =
            argument.split_once('=').or_else(|| argument.split_once(':')).ok_or_else(|| {
                Failure::usage(format!("{argument:?} is no input: inputs are written key=value"))
            })?;
        let value = match value {
            "-" if is_secret(key) => prompts.secret(key, &format!("{key}=@FILE"))?.expose().to_owned(),
            _ => match value.strip_prefix('@') {
                Some(file) => {
                    let text = std::fs::read_to_string(file)
                        .doing(|| format!("cannot read input {key} from {file}"))?;
                    text.trim_end_matches(['\r', '\n']).to_owned()
                }
                None => {
                    if is_secret(key) && !value.is_empty() {
                        output::note(&format!(
                            "warning: {key}=… shows in the list of processes: {key}=@FILE and {key}=- keep it private\n"
                        ));
                    }
                    value.to_owned()
                }
            },
        };
        texts.insert(key.to_owned(), value);
    }
    Ok(texts)
}

fn plan(options: &Options, nodes: &[String], data: &Map<String, Value>) -> String {
    let mut shown = data.clone();
    for (name, value) in &mut shown {
        if is_secret(name) {
            *value = Value::from("*****");
        }
    }
    let mut out =
        format!("Would call {}#{} on {} nodes with\n\n", options.agent, options.action, nodes.len());
    out.push_str(&output::json(&shown));
    out.push('\n');
    nodes.iter().for_each(|node| out.push_str(&format!("{}\n", harmless(node))));
    out
}

fn as_table(answers: &[Answer], action: &Action) -> String {
    let labels: Vec<&str> = action
        .output
        .iter()
        .map(
            |(name, output)| {
                if output.display_as.is_empty() { name.as_str() } else { output.display_as.as_str() }
            },
        )
        .collect();
    let mut headers = vec!["Sender"];
    headers.extend(labels);
    let mut table = Table::new(&headers);
    for answer in successful(answers) {
        let mut data = answer.data.clone();
        action.fill_output_defaults(&mut data);
        let mut row = vec![answer.sender.clone()];
        row.extend(action.output.keys().map(|name| match data.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        }));
        table.row(row);
    }
    table.render()
}

fn as_text(
    fleet: &Fleet,
    options: &Options,
    action: &Action,
    answers: &[Answer],
    summaries: &[Summary],
    summary: &crate::fleet::Summary,
) -> String {
    let colour = fleet.colour();
    let shown = options.display.unwrap_or(match action.display {
        Display::Ok => Shown::Ok,
        Display::Failed => Shown::Failed,
        Display::Always => Shown::All,
    });
    let visible = |answer: &Answer| match shown {
        Shown::All => true,
        Shown::Ok => answer.is_ok(),
        Shown::Failed => !answer.is_ok(),
        Shown::None => false,
    };
    let mut out = String::new();
    for answer in answers.iter().filter(|answer| visible(answer)) {
        out.push_str(&text::block(answer, action, options.verbose, colour));
    }
    for summary in summaries {
        out.push_str(&summary.text(colour));
    }
    out.push('\n');
    out.push_str(&footer(options, summary, colour));
    out.push_str(&names("No Responses from", &summary.silent, options.verbose));
    out.push_str(&names("Unexpected Responses from", &summary.unexpected, options.verbose));
    if summary.invalid > 0 {
        out.push_str(&format!("\nInvalid replies: {}\n", summary.invalid));
    }
    out
}

fn footer(options: &Options, summary: &crate::fleet::Summary, colour: Colour) -> String {
    let milli = Duration::from_millis(1);
    let counts = format!("{} / {}", summary.responses, summary.discovered);
    let paint = match summary.responses {
        0 => Paint::Red,
        responses if responses != summary.discovered => Paint::Yellow,
        _ => Paint::Green,
    };
    let total = summary.took + summary.discovery;
    if !options.verbose {
        let took = format::short(total, milli);
        return format!("Finished processing {} hosts in {took}\n", colour.paint(paint, &counts));
    }
    let started = jiff::Timestamp::from_second(summary.started)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string());
    let rows = [
        ("Nodes", counts),
        ("Pass / Fail", format!("{} / {}", summary.ok, summary.failed)),
        ("No Responses", summary.silent.len().to_string()),
        ("Unexpected Responses", summary.unexpected.len().to_string()),
        ("Start Time", started.unwrap_or_default()),
        ("Discovery Time", format::short(summary.discovery, milli)),
        ("Publish Time", format::short(summary.publish, Duration::from_micros(100))),
        ("Agent Time", format::short(summary.took.saturating_sub(summary.publish), milli)),
        ("Total Time", format::short(total, milli)),
    ];
    format!("{}\n{}", colour.paint(Paint::Yellow, "---- request stats ----"), table::labels(&rows, 0))
}

#[cfg(test)]
mod tests {
    use super::{Prompts, inputs, is_secret};

    #[test]
    fn inputs_split_at_the_first_equals_sign() {
        let texts =
            inputs(&["url=https://x/?a=b".into(), "headers={\"a\":\"b\"}".into()], Prompts::new(true))
                .unwrap();
        assert_eq!(texts["url"], "https://x/?a=b");
        assert_eq!(texts["headers"], "{\"a\":\"b\"}");
        assert_eq!(inputs(&["nothing".into()], Prompts::new(true)).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn secrets_are_known_by_name() {
        assert!(
            ["token", "password", "db_password", "secret_key", "Token"].iter().all(|name| is_secret(name))
        );
        assert!(!is_secret("fact"));
    }
}
