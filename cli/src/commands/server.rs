//! `choria server run`: the agent of a node (docs/spec/07 §9.2).

use std::path::PathBuf;

use agent_linux::{RunOptions, ExitReason};
use clap::{Args, Subcommand};

use super::service;
use crate::arguments::Global;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent; needs --config, even when that file does not exist yet
    #[command(after_help = "Example:\n  choria server run --config /etc/choria/server.conf")]
    Run(Run),
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    service: service::Options,
    /// The token that lets this node enrol, in place of the usual places
    #[arg(long, value_name = "FILE", env = "CHORIA_PROVISIONING_JWT")]
    provisioning_jwt: Option<PathBuf>,
}
