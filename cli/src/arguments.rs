//! The command line, defined once: help, completion and parsing all come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::output::colour::When;
use crate::output::prompt::Prompts;

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
    /// Never ask: a question ends the command with code 6 and names the flag that answers it
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) no_input: bool,
}

impl Global {
    pub(crate) fn prompts(&self) -> Prompts {
        Prompts::new(self.no_input)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker, or ask it who may connect
    #[command(visible_alias = "b")]
    Broker(commands::broker::Options),
    /// Run the login service and request signer, or hash passwords for it
    Aaa(commands::aaa::Options),
    /// Run all of the hub in one process
    Hub(commands::hub::Options),
    /// Run the agent of a node
    Server(commands::server::Options),
    /// Enrol nodes that wait
    Provisioner(commands::provisioner::Options),
    /// Log in and save the token
    Login(commands::login::Options),
    /// View and issue keys and tokens
    Jwt(commands::jwt::Options),
    /// See which nodes answer, and how fast
    Ping(commands::ping::Options),
    /// Call an action of an agent on many nodes
    #[command(visible_aliases = ["rpc", "request"])]
    Req(commands::req::Options),
    /// List the nodes that match
    #[command(visible_alias = "find")]
    Discover(commands::discover::Options),
    /// Report how a fact is spread over the fleet
    Facts(commands::facts::Options),
    /// Show what a node says about itself
    Inventory(commands::inventory::Options),
    /// Run a whole network on this machine
    Lab(crate::lab::Options),
    /// Print the build's settings
    #[command(name = "buildinfo")]
    BuildInfo,
    /// Print a completion script for a shell
    Completion(commands::completion::Options),
}

/// The longest time that a flag can ask to wait. Nobody waits for longer, and the clock cannot count to any number.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(365 * 86_400);

fn duration(text: &str) -> Result<std::time::Duration, String> {
    bounded(choria_host::duration::parse(text).map_err(|error| error.to_string())?)
}

/// A duration; a bare number counts seconds.
pub(crate) fn seconds(text: &str) -> Result<std::time::Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) => bounded(std::time::Duration::from_secs(seconds.into())),
        Err(_) => duration(text),
    }
}

fn bounded(duration: std::time::Duration) -> Result<std::time::Duration, String> {
    if duration > LONGEST { Err(String::from("the longest is 365 days")) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::{duration, seconds};

    #[test]
    fn nobody_waits_for_more_than_a_year() {
        for parse in [seconds, duration] {
            for text in ["365d", "1y", "8760h", "31536000", "0"] {
                assert!(parse(text).is_ok(), "{text}");
            }
            for text in ["366d", "31536001", "4294967295", "18446744073709551615", "365d1ns"] {
                assert_eq!(parse(text).unwrap_err(), "the longest is 365 days", "{text}");
            }
        }
    }
}
