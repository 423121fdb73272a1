//! The command line, defined once: help, completion and parsing all come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::output::colour::When;

#[derive(Debug, Parser)]
#[command(
    name = "choria",
    version,
    about = "Orchestrates fleets: asks nodes, commands them, and enrols new ones",
    propagate_version = true,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Start a whole network on this machine with `choria lab up`, or see `choria COMMAND --help`."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that may stand anywhere.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Client configuration file
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// Log in detail, to stderr
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) debug: bool,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub(crate) color: When,
    /// How long to try to reach a broker
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = "Global options")]
    pub(crate) connect_timeout: std::time::Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// View and issue keys and tokens
    Jwt(commands::jwt::Options),
    /// Print the build's settings
    #[command(name = "buildinfo")]
    BuildInfo,
    /// Print a completion script for a shell
    Completion(commands::completion::Options),
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    choria_host::duration::parse(text).map_err(|error| error.to_string())
}
