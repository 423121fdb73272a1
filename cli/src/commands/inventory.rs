//! `choria inventory NODE`: all that one node says about itself; `--collectives`: who is where (docs/spec/07 §7.5).

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use super::req::{self, Answer};
use crate::arguments::Global;
use crate::discovery_flags::DiscoveryFlags;
use crate::failure::{Code, Failure};
use crate::filter_flags::FilterFlags;
use crate::fleet::{Call, Fleet};
use crate::output::form::{Chosen, Form, FormFlag};
use crate::output::table::{self, Table};
use crate::output::{self, csv, format, harmless};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  choria inventory n1.example.net\n  choria inventory n1.example.net --json\n  choria inventory --collectives"
)]
pub(crate) struct Options {
    /// The node to ask
    identity: Option<String>,
    /// Leave the facts out
    #[arg(long)]
    no_facts: bool,
    /// Report which nodes are in which collective
    #[arg(long, conflicts_with = "identity")]
    collectives: bool,
    #[command(flatten)]
    form: FormFlag,
    /// Results as JSON
    #[arg(long, short, group = "form")]
    json: bool,
    // last: their headings in the help would hold for what comes after them
    #[command(flatten)]
    filter: FilterFlags,
}

pub(crate) async fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let chosen = options.form.form(&[(options.json, Form::Json)])?;
    let form = chosen.form;
    if options.collectives {
        return collectives(global, options, chosen).await;
    }
    if matches!(form, Form::Table | Form::Csv | Form::Names) {
        return Err(chosen.refused("text, json, jsonl or yaml"));
    }
    let Some(identity) = &options.identity else {
        return Err(Failure::usage("please specify a node to retrieve inventory for"));
    };
    let fleet = Fleet::connect(global, options.filter.target.as_deref()).await?;
    let inventory = ask(&fleet, identity, "inventory").await;
    let stats = ask(&fleet, identity, "daemon_stats").await;
    fleet.close().await;
    let (Some(inventory), stats) = (inventory?, stats?) else {
        return Err(Failure::new("no inventory received").code(Code::NoReplies).hint(format!(
            "{identity} did not answer; `choria ping -I {identity}` shows whether it is there"
        )));
    };
    let stats = stats.unwrap_or_default();
    let document = form.document(&json!({"inventory": inventory, "daemon_stats": stats}))?;
    output::print(&document.unwrap_or_else(|| report(identity, &inventory, &stats, options.no_facts)));
    Ok(0)
}

async fn ask(fleet: &Fleet, identity: &str, action: &str) -> Result<Option<Map<String, Value>>, Failure> {
    let mut answered = None;
    let mut refused = None;
    let call = Call::new("rpcutil", action, Map::new(), vec![identity.to_owned()]);
    fleet
        .call(call, |answer: Answer| {
            if answer.is_ok() {
                answered = Some(answer.data);
            } else {
                refused = Some(answer.message);
            }
        })
        .await?;
    match (answered, refused) {
        (None, Some(why)) => {
            Err(Failure::new(format!("{identity} refused rpcutil#{action}: {}", harmless(&why))))
        }
        (answered, _) => Ok(answered),
    }
}

fn text(map: &Map<String, Value>, key: &str) -> String {
    map.get(key).map(req::plain).unwrap_or_default()
}

fn strings(map: &Map<String, Value>, key: &str) -> Vec<String> {
    let list = map.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(harmless).collect()
}

fn report(
    identity: &str,
    inventory: &Map<String, Value>,
    stats: &Map<String, Value>,
    no_facts: bool,
) -> String {
    let upgradable = inventory.get("upgradable").and_then(Value::as_bool) == Some(true);
    let version =
        text(inventory, "version") + if upgradable { " (upgradable during provisioning)" } else { "" };
    let started = stats.get("starttime").and_then(Value::as_i64).map(format::token_time).unwrap_or_default();
    let rows = [
        ("Version", version),
        ("Start Time", started),
        ("Config File", text(stats, "configfile")),
        ("Collectives", strings(inventory, "collectives").join(", ")),
        ("Main Collective", text(inventory, "main_collective")),
        ("Process ID", text(stats, "pid")),
        ("Total Messages", text(stats, "total")),
        ("Messages Passed Filters", text(stats, "passed")),
        ("Messages Filtered", text(stats, "filtered")),
        ("Expired Messages", text(stats, "ttlexpired")),
        ("Replies Sent", text(stats, "replies")),
        ("Events Published", text(stats, "events")),
    ];
    let mut out = format!("Inventory for {}\n\n  Choria Server Statistics:\n\n", harmless(identity));
    out.push_str(&table::labels(&rows, 4));
    out.push_str("\n  Agents:\n\n");
    out.push_str(&columns(&strings(inventory, "agents"), 3));
    out.push_str("\n  Tagged Classes:\n\n");
    out.push_str(&columns(&strings(inventory, "classes"), 2));
    let machines = inventory.get("machines").and_then(Value::as_array).filter(|list| !list.is_empty());
    if let Some(machines) = machines {
        out.push_str("\n  Autonomous Agents:\n\n");
        for machine in machines.iter().filter_map(Value::as_object) {
            let cells = ["name", "version", "state"].map(|key| text(machine, key));
            out.push_str(&format!("    {}\n", cells.join("    ")));
        }
    }
    if !no_facts {
        out.push_str("\n  Facts:\n\n");
        let facts = inventory.get("facts").cloned().unwrap_or_else(|| json!({}));
        let json = output::json::pretty(&facts);
        json.lines().for_each(|line| out.push_str(&format!("    {}\n", harmless(line))));
    }
    out
}

/// Names in columns that are filled downwards.
fn columns(names: &[String], count: usize) -> String {
    let rows = names.len().div_ceil(count);
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) + 1;
    let mut out = String::new();
    for row in 0..rows {
        let cells: Vec<String> = (0..count)
            .filter_map(|column| names.get(column * rows + row))
            .map(|name| format!("{name:<width$}"))
            .collect();
        out.push_str(format!("    {}", cells.concat()).trim_end());
        out.push('\n');
    }
    out
}

async fn collectives(global: &Global, options: &Options, chosen: Chosen) -> Result<u8, Failure> {
    let form = chosen.form;
    if form == Form::Names {
        return Err(chosen.refused("text, table, csv, json, jsonl or yaml"));
    }
    let filter = options.filter.filter(Some("rpcutil"))?;
    let fleet = Fleet::connect(global, options.filter.target.as_deref()).await?;
    let found = fleet.discover(&filter, &DiscoveryFlags::default(), false).await?;
    if found.nodes.is_empty() {
        fleet.close().await;
        return Err(options.filter.nobody("did not discover any nodes", fleet.collective()));
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = Vec::new();
    let mut call = Call::new("rpcutil", "collective_info", Map::new(), found.nodes);
    call.progress = form == Form::Text;
    let summary = fleet
        .call(call, |answer: Answer| {
            if !answer.is_ok() {
                failed.push(answer.sender);
                return;
            }
            for name in strings(&answer.data, "collectives") {
                *counts.entry(name).or_default() += 1;
            }
        })
        .await;
    fleet.close().await;
    let summary = summary?;
    if let Some(document) = form.document(&counts)? {
        output::print(&document);
        output::note(&req::left_out(&summary.silent, &failed, false));
        return Ok(0);
    }
    let mut table = Table::new(&["Collective", "Nodes"])
        .title(format!("Collective Report for {} nodes", summary.responses));
    let mut rows: Vec<_> = counts.into_iter().collect();
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    if form == Form::Csv {
        let lines: String = rows.iter().map(|(name, count)| csv::line(&[name, &count.to_string()])).collect();
        output::print(&(csv::line(&["collective", "nodes"]) + &lines));
        output::note(&req::left_out(&summary.silent, &failed, false));
        return Ok(0);
    }
    for (name, count) in rows {
        table.row(vec![name, count.to_string()]);
    }
    output::print(&table.render());
    output::print(&req::left_out(&summary.silent, &failed, false));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn columns_fill_downwards() {
        let names: Vec<String> =
            ["choria_provision", "choria_util", "discovery", "rpcutil"].map(String::from).to_vec();
        assert_eq!(columns(&names, 3), "    choria_provision discovery\n    choria_util      rpcutil\n");
    }
}
