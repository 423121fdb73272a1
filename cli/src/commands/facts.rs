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
use crate::output::table::Table;
use crate::output::{self, format, harmless};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  choria facts os.family\n  choria facts memory.size -n -F role=web\n  choria facts role --json --timeout 5"
)]
pub(crate) struct Options {
    /// Path of the fact, such as `memory.size`
    fact: String,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    discovery: DiscoveryFlags,
    /// Results as a table
    #[arg(long, short)]
    table: bool,
    /// Results as JSON
    #[arg(long, short, conflicts_with = "table")]
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
}

pub(crate) async fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let filter = options.filter.filter(Some("rpcutil"))?;
    let fleet = Fleet::connect(global, options.filter.target.as_deref()).await?;
    let result = collect(&fleet, &filter, options).await;
    fleet.close().await;
    let (mut values, summary) = result?;
    let mut rows: Vec<(String, Vec<String>)> = std::mem::take(&mut values).into_iter().collect();
    rows.iter_mut().for_each(|(_, nodes)| nodes.sort());
    rows.sort_by(|a, b| a.1.len().cmp(&b.1.len()).then_with(|| a.0.cmp(&b.0)));
    if options.reverse {
        rows.reverse();
    }
    if options.json {
        let document: Map<String, Value> = rows
            .iter()
            .map(|(value, nodes)| (value.clone(), json!({"count": nodes.len(), "identities": nodes})))
            .collect();
        output::print(&output::json(&document));
        return Ok(0);
    }
    if options.table {
        let mut headers = vec!["Fact", "Matches"];
        if options.show_nodes {
            headers.push("Nodes");
        }
        let mut table = Table::new(&headers);
        for (value, nodes) in &rows {
            let mut row = vec![value.clone(), nodes.len().to_string()];
            if options.show_nodes {
                row.push(nodes.join("\n"));
            }
            table.row(row);
        }
        output::print(&table.render());
    } else {
        output::print(&report(&options.fact, &rows, options.show_nodes));
    }
    let took = format::short(summary.took, Duration::from_millis(1));
    output::print(&format!(
        "\nFinished processing {} / {} hosts in {took}\n",
        summary.responses, summary.discovered
    ));
    output::print(&req::names("No Responses from", &summary.silent, options.verbose));
    Ok(0)
}

type Values = BTreeMap<String, Vec<String>>;

async fn collect(
    fleet: &Fleet,
    filter: &choria_protocol::Filter,
    options: &Options,
) -> Result<(Values, crate::fleet::Summary), Failure> {
    let found = fleet.discover(filter, &options.discovery, false).await?;
    if found.nodes.is_empty() {
        return Err(options.filter.nobody("did not discover any nodes", fleet.collective()));
    }
    let mut data = Map::new();
    data.insert(String::from("fact"), Value::String(options.fact.clone()));
    let mut call = Call::new("rpcutil", "get_fact", data, found.nodes);
    call.progress = !(options.np || options.json);
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
                Some(other) => other.to_string(),
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
