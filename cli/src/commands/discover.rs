//! `choria discover`: the names of the nodes that match (docs/spec/07 §7.3).

use clap::Args;

use crate::arguments::Global;
use crate::discovery_flags::DiscoveryFlags;
use crate::failure::Failure;
use crate::filter_flags::FilterFlags;
use crate::fleet::Fleet;
use crate::output::{self, harmless};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  choria discover -F role=web\n  choria find -I /^web/ --json")]
pub(crate) struct Options {
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    discovery: DiscoveryFlags,
    /// Say how nodes were found and how long it took
    #[arg(long, short)]
    verbose: bool,
    /// Results as JSON
    #[arg(long, short)]
    json: bool,
    /// In the order of the answers
    #[arg(long)]
    unsorted: bool,
}

pub(crate) async fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let filter = options.filter.filter(Some("rpcutil"))?;
    let fleet = Fleet::connect(global, options.filter.target.as_deref()).await?;
    let talk = options.verbose && !options.json;
    let found = fleet.discover(&filter, &options.discovery, talk).await;
    fleet.close().await;
    let mut found = found?;
    if !options.unsorted {
        found.nodes.sort();
    }
    if options.json {
        output::print(&output::json(&found.nodes));
    } else {
        let lines: String = found.nodes.iter().map(|name| format!("{}\n", harmless(name))).collect();
        output::print(&lines);
        if options.verbose {
            output::print(&format!(
                "\nDiscovered {} nodes using the {} method in {:.2} seconds\n",
                found.nodes.len(),
                found.method,
                found.took.as_secs_f64()
            ));
        }
    }
    if found.nodes.is_empty() {
        return Err(options.filter.nobody("did not discover any nodes", fleet.collective()));
    }
    Ok(0)
}
