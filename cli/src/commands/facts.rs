//! `choria facts FACT`: how a fact is spread over the fleet (docs/spec/07 §7.4).

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::req::{self, Answer};
use crate::arguments::Global;
use crate::discovery_flags::DiscoveryFlags;
use crate::failure::{Code, Failure};
use crate::filter_flags::FilterFlags;
use crate::fleet::{Call, Fleet};
use crate::output::form::{Form, FormFlag};
use crate::output::table::Table;
use crate::output::{self, csv, format, harmless};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  choria facts os.family\n  choria facts memory.size -n -F role=web\n  choria facts role --json --timeout 5"
)]
pub(crate) struct Options {
    /// Path of the fact, such as `memory.size`
    fact: String,
    #[command(flatten)]
    form: FormFlag,
    /// Results as a table
    #[arg(long, short, group = "form")]
    table: bool,
    /// Results as JSON
    #[arg(long, short, group = "form")]
    json: bool,
    /// Name the nodes behind each value
    #[arg(long, short = 'n')]
    show_nodes: bool,
    /// Most frequent first
    #[arg(long, short)]
    reverse: bool,
    /// Say more about the request
    #[arg(long, short)]
    verbose: bool,
    /// How long to wait for replies, in seconds or as a duration
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds)]
    timeout: Option<Duration>,
    /// Do not draw a progress bar
    #[arg(long, visible_alias = "no-progress")]
    np: bool,
    // last: their headings in the help would hold for what comes after them
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    discovery: DiscoveryFlags,
}

pub(crate) async fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let form = options.form.form(&[(options.json, Form::Json), (options.table, Form::Table)])?.form;
    let filter = options.filter.filter(Some("rpcutil"))?;
    let fleet = Fleet::connect(global, options.filter.target.as_deref()).await?;
    let result = collect(&fleet, &filter, options, form).await;
    fleet.close().await;
    let (mut values, summary) = result?;
    let mut rows: Vec<(String, Vec<String>)> = std::mem::take(&mut values).into_iter().collect();
    rows.iter_mut().for_each(|(_, nodes)| nodes.sort());
    rows.sort_by(|a, b| a.1.len().cmp(&b.1.len()).then_with(|| a.0.cmp(&b.0)));
    if options.reverse {
        rows.reverse();
    }
    output::print(&written(options, &rows, form)?);
    if !matches!(form, Form::Text | Form::Table) {
        // nodes that failed were told of one by one
        output::note(&req::left_out(&summary.silent, &[], options.verbose));
        return Ok(0);
    }
    let took = format::short(summary.took, Duration::from_millis(1));
    output::print(&format!(
        "\nFinished processing {} / {} hosts in {took}\n",
        summary.responses, summary.discovered
    ));
    output::print(&req::names("No Responses from", &summary.silent, options.verbose));
    Ok(0)
}

fn written(options: &Options, rows: &[(String, Vec<String>)], form: Form) -> Result<String, Failure> {
    Ok(match form {
        Form::Json | Form::Yaml => {
            let document: Map<String, Value> = rows
                .iter()
                .map(|(value, nodes)| (value.clone(), json!({"count": nodes.len(), "identities": nodes})))
                .collect();
            form.document(&document)?.unwrap_or_default()
        }
        Form::Jsonl => rows
            .iter()
            .map(|(value, nodes)| {
                output::json_line(&json!({"value": value, "count": nodes.len(), "identities": nodes}))
            })
            .collect(),
        Form::Csv => grid(rows, options.show_nodes, &["fact", "matches", "nodes"], " ")
            .iter()
            .map(|row| csv::line(row))
            .collect(),
        Form::Table => {
            let grid = grid(rows, options.show_nodes, &["Fact", "Matches", "Nodes"], "\n");
            let mut grid = grid.into_iter();
            let headers = grid.next().unwrap_or_default();
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let mut table = Table::new(&headers);
            grid.for_each(|row| table.row(row));
            table.render()
        }
        Form::Names => {
            let mut names: Vec<String> = rows
                .iter()
                .flat_map(|(_, nodes)| nodes)
                .map(|name| format!("{}\n", harmless(name)))
                .collect();
            names.sort();
            names.concat()
        }
        Form::Text => report(&options.fact, rows, options.show_nodes),
    })
}

/// Headers and rows; the names of a row's nodes stand in one cell.
fn grid(
    rows: &[(String, Vec<String>)],
    show_nodes: bool,
    headers: &[&str; 3],
    between: &str,
) -> Vec<Vec<String>> {
    let columns = if show_nodes { 3 } else { 2 };
    let body =
        rows.iter().map(|(value, nodes)| [value.clone(), nodes.len().to_string(), nodes.join(between)]);
    std::iter::once(headers.map(str::to_owned))
        .chain(body)
        .map(|row| row.into_iter().take(columns).collect())
        .collect()
}

type Values = BTreeMap<String, Vec<String>>;

async fn collect(
    fleet: &Fleet,
    filter: &choria_protocol::Filter,
    options: &Options,
    form: Form,
) -> Result<(Values, crate::fleet::Summary), Failure> {
    let found = fleet.discover(filter, &options.discovery, false).await?;
    if found.nodes.is_empty() {
        return Err(options.filter.nobody("did not discover any nodes", fleet.collective()));
    }
    let mut data = Map::new();
    data.insert(String::from("fact"), Value::String(options.fact.clone()));
    let mut call = Call::new("rpcutil", "get_fact", data, found.nodes);
    call.progress = form == Form::Text && !options.np;
    call.timeout = options.timeout;
    let mut values = Values::new();
    let mut failed = Vec::new();
    let summary = fleet
        .call(call, |answer: Answer| {
            if !answer.is_ok() {
                failed.push(format!("{}: {}", answer.sender, answer.message));
                return;
            }
            let value = match answer.data.get("value") {
                None | Some(Value::Null) => String::from("nil"),
                Some(Value::String(text)) => text.clone(),
                Some(other) => output::json::compact(other),
            };
            values.entry(value).or_default().push(answer.sender);
        })
        .await?;
    for line in failed {
        output::note(&format!("warning: {}\n", harmless(&line)));
    }
    if summary.responses == 0 {
        return Err(Failure::new("no responses received").code(Code::NoReplies));
    }
    if values.is_empty() {
        return Err(Failure::new("no facts returned"));
    }
    Ok((values, summary))
}

fn report(fact: &str, rows: &[(String, Vec<String>)], show_nodes: bool) -> String {
    let width = rows.iter().map(|(value, _)| harmless(value).chars().count()).max().unwrap_or(0);
    let mut out = format!("Report for fact: {}\n\n", harmless(fact));
    for (value, nodes) in rows {
        out.push_str(&format!("  {:<width$} found {} times\n", harmless(value), nodes.len()));
        if show_nodes {
            out.push('\n');
            nodes.iter().for_each(|node| out.push_str(&format!("    {}\n", harmless(node))));
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::report;

    #[test]
    fn the_report_that_users_know() {
        let rows = [(String::from("7959"), vec![String::from("n1"); 10])];
        assert_eq!(
            report("memory.size", &rows, false),
            "Report for fact: memory.size\n\n  7959 found 10 times\n"
        );
    }
}
