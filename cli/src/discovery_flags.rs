//! The flags that say how nodes are found (docs/spec/07 §5.1, §6).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Finding nodes")]
pub(crate) struct DiscoveryFlags {
    /// How to find nodes: mc or broadcast asks the network, flatfile reads --nodes, inventory reads a file of known nodes
    #[arg(long = "dm", value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Option of the discovery method, such as `file=nodes.txt`
    #[arg(long = "do", value_name = "KEY=VALUE")]
    pub(crate) options: Vec<String>,
    /// File with the nodes to use; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) nodes: Option<PathBuf>,
    /// How long to wait for nodes to answer, in seconds or as a duration
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds)]
    pub(crate) discovery_timeout: Option<Duration>,
    /// Stop looking shortly after the last answer
    #[arg(long)]
    pub(crate) discovery_window: bool,
}
