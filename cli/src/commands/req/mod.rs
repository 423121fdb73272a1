//! `choria req AGENT ACTION`: calls an action on many nodes (docs/spec/07 §7.2).

mod answer;
mod destination;
mod document;
mod inputs;
mod options;
mod results;
mod summary;
mod text;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use choria_client::{Asking, ClientError, ReplyFilter, ReplyFilterError};
use choria_protocol::ddl::{Action, Ddl, InputError};
use choria_protocol::subjects;
use serde_json::{Map, Value};

pub(crate) use answer::Answer;
pub(crate) use options::Options;
pub(crate) use text::{left_out, names, plain};

use crate::arguments::Global;
use crate::failure::{Code, Failure};
use crate::fleet::{Call, Fleet};
use crate::nearest;
use crate::output::form::Form;
use crate::output::{self, csv, harmless};
use destination::Destination;
use inputs::is_secret;
use options::FailOn;
use results::Results;
use summary::Summary;

pub(crate) async fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let form = options.form()?;
    let fail_on = options.fail_on()?;
    if let Some(subject) = &options.reply_to {
        awaits_replies(subject)?;
    }
    let replies = options.filter_replies.as_deref().map(reply_filter).transpose()?;
    options.check_stdin()?;
    let document = options.input_file.as_deref().map(inputs::document).transpose()?.unwrap_or_default();
    let texts = inputs::texts(&options.inputs, global.prompts())?;
    let filter = options.filter.filter(Some(&options.agent))?;
    let fleet = Fleet::offline(global, options.filter.target.as_deref())?;
    let ddl = fleet.ddl(&options.agent)?;
    let action = action(&ddl, &options.action)?;
    let (data, warnings) = action.inputs(&document, &texts).map_err(|error| bad_input(&action, error))?;
    for warning in warnings {
        output::note(&format!("warning: input {:?}: {}\n", warning.input, warning.text));
    }
    // whatever can be wrong with the command line is told before a node is asked to do anything
    fleet.check(&options.discovery)?;
    let destination = Destination::of(options.output_file.as_deref(), options.dry_run)?;
    let fleet = fleet.online(global).await?;
    let request = Asked { options, form, fail_on, global, service: ddl.metadata.service, action };
    let result = call(&fleet, &request, &filter, data, replies, destination).await;
    if let (Form::Jsonl, Err(failure)) = (form, &result) {
        output::print(&document::error(failure.message()));
    }
    if !result.as_ref().is_ok_and(|code| *code == Code::Interrupted as u8) {
        fleet.close().await;
    }
    result
}

fn reply_filter(expression: &str) -> Result<ReplyFilter, Failure> {
    ReplyFilter::new(expression).map_err(|error| {
        let failure = Failure::usage(format!("--filter-replies {error}"));
        match error {
            // the parser draws where it stopped
            ReplyFilterError::Syntax(place) => {
                place.lines().fold(failure, |failure, line| failure.because(harmless(line)))
            }
            _ => failure,
        }
    })
}

/// A subject that replies can be published to.
fn awaits_replies(subject: &str) -> Result<(), Failure> {
    if !subjects::is_tokens(subject) {
        return Err(Failure::usage(format!("--reply-to {subject:?} is no subject that nodes can reply to"))
            .hint("it is words with dots between them and no wildcards, such as site.replies.today"));
    }
    Ok(())
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

/// A request that is ready to be made.
struct Asked<'a> {
    options: &'a Options,
    form: Form,
    fail_on: FailOn,
    global: &'a Global,
    /// Any one of its hosts answers, so there are no nodes to find.
    service: bool,
    action: Action,
}

async fn call(
    fleet: &Fleet,
    asked: &Asked<'_>,
    filter: &choria_protocol::Filter,
    data: Map<String, Value>,
    mut replies: Option<ReplyFilter>,
    destination: Destination,
) -> Result<u8, Failure> {
    let Asked { options, form, action, .. } = asked;
    let mut nodes = Vec::new();
    let mut discovery_took = Duration::ZERO;
    if !asked.service {
        let method = options.discovery.word(fleet.config());
        if *form == Form::Jsonl {
            output::print(&document::discovering(method));
        }
        let started = Instant::now();
        let talk = matches!(form, Form::Text | Form::Table) && options.reply_to.is_none();
        let found = fleet.discover(filter, &options.discovery, talk).await?;
        discovery_took = started.elapsed();
        if found.nodes.is_empty() {
            return Err(options.filter.nobody("did not discover any nodes", fleet.collective()));
        }
        nodes = fleet.limit(found.nodes, options.limit, options.limit_seed)?;
        if *form == Form::Jsonl {
            output::print(&document::discovered(method, nodes.len(), discovery_took));
        }
    }
    if options.dry_run {
        output::print(&plan(options, *form, &nodes, data)?);
        return Ok(0);
    }
    let many = options.confirm_over.is_some_and(|limit| nodes.len() > limit);
    if many
        && !options.yes
        && !asked.global.prompts().confirm(
            &format!("Really call {}#{} on {} nodes", options.agent, options.action, nodes.len()),
            "--yes",
        )?
    {
        return Ok(0);
    }
    let started = (choria_host::clock::unix_seconds(), Instant::now());
    let mut summaries = Summary::of(action);
    let mut call = Call::new(&options.agent, &options.action, data, nodes);
    call.progress = *form == Form::Text && !options.np && options.reply_to.is_none();
    call.batch = options.batch;
    call.batch_sleep = options.batch_sleep;
    call.timeout = options.timeout;
    call.quiet_after = options.quiet_after;
    call.reply_to = options.reply_to.clone();
    let discovered = if asked.service { 1 } else { call.nodes().len() };
    let (asking, asked_so_far) = std::sync::mpsc::channel();
    call.asking = Some(asking);
    let mut answers: Vec<Answer> = Vec::new();
    let mut heard = Heard::default();
    let finished = tokio::select! {
        summary = fleet.call(call, |answer: Answer| {
            heard.add(&answer);
            if replies.as_mut().is_some_and(|filter| !filter.passes(answer.as_filtered())) {
                return;
            }
            summaries.iter_mut().for_each(|summary| summary.add(&answer));
            if *form == Form::Jsonl {
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
    let mut summary =
        finished.unwrap_or_else(|| heard.cut_short(discovered, asked_so_far.try_iter(), started));
    summary.discovery = discovery_took;
    if options.reply_to.is_some() {
        // nothing was sent before it had an id
        if !summary.request_id.is_empty() {
            output::print(&document::request_id(&summary.request_id, *form)?);
        }
        return Ok(if interrupted { interruption() } else { 0 });
    }
    if options.sort {
        answers.sort_by(|a, b| a.sender.cmp(&b.sender));
    }
    let results = Results {
        answers: &answers,
        action,
        summaries: &summaries,
        summary: &summary,
        colour: destination.colour(asked.global.color, fleet.config().settings.bool("color", true)),
        wide: !destination.is_stdout(),
    };
    destination.write(&results.written(options, *form)?)?;
    // a document has all that is known of a request, an array of names has not
    if options.senders || matches!(form, Form::Table | Form::Csv | Form::Names) {
        output::note(&left_out(&summary.silent, &heard.failed, options.verbose));
    }
    if let Some((count, reason)) = replies.as_ref().and_then(ReplyFilter::undecided) {
        output::note(&format!(
            "warning: --filter-replies left out {count} {} for which it is neither true nor false, first {}\n",
            if count == 1 { "reply" } else { "replies" },
            harmless(reason)
        ));
    }
    if interrupted {
        return Ok(interruption());
    }
    verdict(asked.fail_on, &summary, asked.service)
}

/// The code to end with after Ctrl-C, once that is told.
fn interruption() -> u8 {
    output::note("Interrupted\n");
    Code::Interrupted as u8
}

/// Who has answered so far.
#[derive(Default)]
struct Heard {
    senders: BTreeSet<String>,
    failed: Vec<String>,
}

impl Heard {
    fn add(&mut self, answer: &Answer) {
        if !answer.is_ok() {
            self.failed.push(answer.sender.clone());
        }
        self.senders.insert(answer.sender.clone());
    }

    /// What is known of a call that somebody ended with Ctrl-C. Nodes of later batches were not asked, so they are not
    /// silent.
    fn cut_short(
        &self,
        discovered: usize,
        asked: impl IntoIterator<Item = Asking>,
        started: (i64, Instant),
    ) -> crate::fleet::Summary {
        let mut request_id = String::new();
        let mut silent = Vec::new();
        for group in asked {
            silent.extend(group.nodes.into_iter().filter(|node| !self.senders.contains(node)));
            request_id = group.request_id;
        }
        crate::fleet::Summary {
            request_id,
            discovered,
            responses: self.senders.len(),
            ok: self.senders.len().saturating_sub(self.failed.len()),
            failed: self.failed.len(),
            silent,
            started: started.0,
            took: started.1.elapsed(),
            ..crate::fleet::Summary::default()
        }
    }
}

fn verdict(fail_on: FailOn, summary: &crate::fleet::Summary, service: bool) -> Result<u8, Failure> {
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
    let matched = match fail_on {
        FailOn::None => false,
        FailOn::Failed => failed,
        FailOn::Missing => missing,
        FailOn::Any => failed || missing,
    };
    Ok(if matched { Code::Partial as u8 } else { 0 })
}

/// What would be sent to whom, with secrets left out.
fn plan(
    options: &Options,
    form: Form,
    nodes: &[String],
    mut data: Map<String, Value>,
) -> Result<String, Failure> {
    for (name, value) in &mut data {
        if is_secret(name) {
            *value = Value::from("*****");
        }
    }
    let Options { agent, action, .. } = options;
    let names = || nodes.iter().map(|node| format!("{}\n", harmless(node)));
    Ok(match form {
        Form::Names => names().collect(),
        Form::Csv => {
            std::iter::once(csv::line(&["node"])).chain(nodes.iter().map(|node| csv::line(&[node]))).collect()
        }
        Form::Json | Form::Jsonl | Form::Yaml => {
            document::plan(agent, action, nodes, &data, form)?.unwrap_or_default()
        }
        Form::Text | Form::Table => {
            let inputs = output::json(&data);
            let told = format!("Would call {agent}#{action} on {} nodes with\n\n{inputs}\n", nodes.len());
            std::iter::once(told).chain(names()).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use choria_protocol::rpc::StatusCode;

    #[test]
    fn a_request_that_was_cut_short_tells_of_the_nodes_that_were_asked() {
        let mut heard = Heard::default();
        for (sender, status) in [("n1", StatusCode::Ok), ("n2", StatusCode::Aborted)] {
            heard.add(&Answer {
                sender: sender.to_owned(),
                status,
                message: String::new(),
                data: Map::new(),
                at: 0,
                verification: String::new(),
            });
        }
        let group = |nodes: [&str; 2]| Asking {
            request_id: String::from("id"),
            nodes: nodes.map(str::to_owned).to_vec(),
        };
        // two more were discovered
        let summary = heard.cut_short(6, [group(["n1", "n3"]), group(["n2", "n4"])], (0, Instant::now()));
        assert_eq!(summary.request_id, "id");
        assert_eq!(summary.silent, ["n3", "n4"]);
        assert_eq!((summary.discovered, summary.responses, summary.ok, summary.failed), (6, 2, 1, 1));
        assert_eq!(heard.failed, ["n2"]);
    }
}
