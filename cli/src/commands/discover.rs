//! `choria discover`: the names of the nodes that match (docs/spec/07 §7.3).

use clap::Args;
use serde_json::json;

use crate::arguments::Global;
use crate::discovery_flags::DiscoveryFlags;
use crate::failure::Failure;
use crate::filter_flags::FilterFlags;
use crate::fleet::Fleet;
use crate::output::form::{Form, FormFlag};
use crate::output::table::Table;
use crate::output::{self, csv, harmless};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  choria discover -F role=web\n  choria find -I /^web/ --json\n  choria discover -O csv"
)]
pub(crate) struct Options {
    #[command(flatten)]
    form: FormFlag,
    /// Say how nodes were found and how long it took
    #[arg(long, short)]
    verbose: bool,
    /// Results as JSON
    #[arg(long, short, group = "form")]
    json: bool,
    /// In the order of the answers
    #[arg(long)]
    unsorted: bool,
    // last: their headings in the help would hold for what comes after them
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    discovery: DiscoveryFlags,
}

pub(crate) async fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let form = options.form.form(&[(options.json, Form::Json)])?.form;
    let filter = options.filter.filter(Some("rpcutil"))?;
    let fleet = Fleet::connect(global, options.filter.target.as_deref()).await?;
    let talk = options.verbose && form == Form::Text;
    let found = fleet.discover(&filter, &options.discovery, talk).await;
    fleet.close().await;
    let mut found = found?;
    if !options.unsorted {
        found.nodes.sort();
    }
    output::print(&written(&found.nodes, form)?);
    if talk {
        output::print(&format!(
            "\nDiscovered {} nodes using the {} method in {:.2} seconds\n",
            found.nodes.len(),
            found.method,
            found.took.as_secs_f64()
        ));
    }
    if found.nodes.is_empty() {
        return Err(options.filter.nobody("did not discover any nodes", fleet.collective()));
    }
    Ok(0)
}

fn written(nodes: &[String], form: Form) -> Result<String, Failure> {
    Ok(match form {
        Form::Json | Form::Yaml => form.document(&nodes)?.unwrap_or_default(),
        // a line for each node, as for each reply of a request
        Form::Jsonl => nodes.iter().map(|name| output::json_line(&json!({"identity": name}))).collect(),
        Form::Csv => {
            csv::line(&["identity"]) + &nodes.iter().map(|name| csv::line(&[name])).collect::<String>()
        }
        Form::Table => {
            let mut table = Table::new(&["Identity"]);
            nodes.iter().for_each(|name| table.row(vec![name.clone()]));
            table.render()
        }
        Form::Text | Form::Names => nodes.iter().map(|name| format!("{}\n", harmless(name))).collect(),
    })
}
