//! The flags of `choria req` (docs/spec/07 §7.2).

use std::path::PathBuf;
use std::time::Duration;

use choria_client::targets::Amount;
use clap::{Args, ValueEnum};

use crate::discovery_flags::DiscoveryFlags;
use crate::filter_flags::FilterFlags;
use crate::output::form::FormFlag;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  choria req choria_util info\n  choria req rpcutil ping -F memory.size=7959\n  choria req rpcutil get_fact fact=role --json\n  choria req rpcutil get_fact --input-file inputs.yaml -O csv\n  choria req rpcutil get_fact fact=role --filter-replies 'data(\"value\") in [\"web\", \"db\"]'\n  choria req choria_provision restart token=@token.txt --batch 10 --batch-sleep 5"
)]
pub(crate) struct Options {
    /// The agent to call
    pub(super) agent: String,
    /// The action to call
    pub(super) action: String,
    /// Inputs of the action as key=value; `key=@FILE` reads a file, and `token=-` asks for the value
    #[arg(value_name = "KEY=VALUE")]
    pub(super) inputs: Vec<String>,
    /// JSON or YAML object with inputs, at most 1 MiB; `-` reads stdin. Inputs of the command line replace its own
    #[arg(long, value_name = "FILE")]
    pub(super) input_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) form: FormFlag,
    /// Results as one JSON document
    #[arg(long, short, group = "form")]
    pub(super) json: bool,
    /// Results as JSON lines, as they arrive
    #[arg(long, group = "form")]
    pub(super) jsonl: bool,
    /// Successful replies as a table
    #[arg(long, short, group = "form")]
    pub(super) table: bool,
    /// Only the names of the nodes that succeeded
    #[arg(long)]
    pub(super) senders: bool,
    /// Only this many nodes, or this share of them
    #[arg(long, value_name = "N|P%")]
    pub(super) limit: Option<Amount>,
    /// Seed for the choice of nodes when the limit is a random one
    #[arg(long, value_name = "SEED", requires = "limit")]
    pub(super) limit_seed: Option<u64>,
    /// Call nodes in groups of this size
    #[arg(long, value_name = "SIZE", default_value_t = 0)]
    pub(super) batch: usize,
    /// Pause between groups, in seconds or as a duration
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = crate::arguments::seconds)]
    pub(super) batch_sleep: Duration,
    /// How long to wait for replies, in seconds or as a duration
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds)]
    pub(super) timeout: Option<Duration>,
    /// End when no reply has come for so long, once there was one; in seconds or as a duration
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds)]
    pub(super) quiet_after: Option<Duration>,
    /// Only replies for which this expression is true, such as `ok() && data("count") > 3`. It may ask for msg, code,
    /// sender(), time(), data(PATH), ok(), aborted(), unknown_action(), missing_data(), invalid_data(), unknown_error(),
    /// include(LIST, ITEM) and semver(VERSION, CONSTRAINT)
    #[arg(long, value_name = "EXPRESSION")]
    pub(super) filter_replies: Option<String>,
    /// Have nodes reply to this subject: nothing is awaited, the request's id is printed
    #[arg(
        long,
        short,
        value_name = "SUBJECT",
        conflicts_with_all = ["batch", "display", "filter_replies", "output_file", "quiet_after", "senders", "sort", "table", "timeout"]
    )]
    pub(super) reply_to: Option<String>,
    /// Do not draw a progress bar
    #[arg(long, visible_alias = "no-progress")]
    pub(super) np: bool,
    /// Raw replies and more statistics
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// Which replies to print
    #[arg(long, value_name = "WHICH")]
    pub(super) display: Option<Shown>,
    /// Write results to a file
    #[arg(long, short, value_name = "FILE")]
    pub(super) output_file: Option<PathBuf>,
    /// Sort replies by node
    #[arg(long)]
    pub(super) sort: bool,
    /// Find nodes and check inputs, then say what would be sent
    #[arg(long)]
    pub(super) dry_run: bool,
    /// End with code 4 when nodes failed or stayed silent
    #[arg(long, value_name = "WHAT", default_value = "none", env = "CHORIA_FAIL_ON")]
    pub(super) fail_on: FailOn,
    /// Ask before an action that reaches more nodes than this
    #[arg(long, value_name = "N")]
    pub(super) confirm_over: Option<usize>,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Kept for compatibility; one connection receives all replies
    #[arg(long, value_name = "N", default_value_t = 3, hide = true)]
    pub(super) workers: u16,
    // last: their headings in the help would hold for what comes after them
    #[command(flatten)]
    pub(super) filter: FilterFlags,
    #[command(flatten)]
    pub(super) discovery: DiscoveryFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shown {
    Ok,
    Failed,
    All,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FailOn {
    None,
    Failed,
    Missing,
    Any,
}
