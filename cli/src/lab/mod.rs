//! `choria lab`: a whole network on this machine, to learn from and to test against (`docs/spec/10 §13`).
//!
//! ```text
//! lab up ── directory ── certificates, credentials, configuration ── processes ── wait for the nodes
//!             lab.json remembers ports and processes; `lab status`, `lab env` and `lab down` read it
//! ```
//!
//! Everything in it is real: a broker, the login service and signer, a provisioner, and one process for each server,
//! which starts with nothing but a provisioning token. All of it listens on the loopback address only, unless it is told otherwise twice.

mod certificates;
mod configuration;
mod credentials;
mod directory;
mod down;
mod facts;
mod permit;
mod processes;
mod record;
mod show;
mod swarm;
mod up;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::output::colour::When;

/// Flags of `choria lab`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the network and start it
    Up(UpOptions),
    /// Print the lines that make this shell use the lab
    Env(Place),
    /// Show what is running
    Status(StatusOptions),
    /// End every process and remove the credentials
    Down(Place),
    /// Many nodes in one process; started by `lab up --swarm`
    #[command(hide = true)]
    SwarmNodes(SwarmOptions),
}

/// Where the lab lives.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Directory of the lab; `lab env` sets CHORIA_LAB [default: ~/.local/state/choria/lab]
    #[arg(long, value_name = "DIR", env = "CHORIA_LAB", hide_env = true)]
    dir: Option<PathBuf>,
}

/// Flags of `choria lab status`.
#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `choria lab up`.
#[derive(Debug, Args)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    place: Place,
    /// Server processes to start
    #[arg(long, value_name = "N", default_value_t = 10)]
    servers: u16,
    /// Nodes to add that live together in one process, for numbers no machine has room for otherwise
    #[arg(long, value_name = "N", default_value_t = 0)]
    swarm: u32,
    /// Listen for microcontrollers, too, with a certificate of their own (`device*` names are accepted)
    #[arg(long)]
    devices: bool,
    /// Return once all nodes are enrolled; `lab down` ends the lab
    #[arg(long)]
    detach: bool,
    /// Names, besides the lab's own, that the provisioner accepts (`*` and `?`, or `/regular expression/`)
    #[arg(long, value_name = "PATTERN")]
    accept: Vec<String>,
    /// Address on which broker and login service listen: 127.0.0.1, or 0.0.0.0 together with --insecure-lab
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST)]
    bind: Ipv4Addr,
    /// Let other machines reach a lab whose users all have the password `secret`
    #[arg(long)]
    insecure_lab: bool,
    /// Run as root although this does not look like a container; also CHORIA_LAB_ALLOW_ROOT=1
    #[arg(long)]
    allow_root: bool,
}

/// Flags of the process behind `--swarm`.
#[derive(Debug, Args)]
pub(crate) struct SwarmOptions {
    /// The provisioning token
    #[arg(long, value_name = "FILE")]
    provisioning_jwt: PathBuf,
    /// How many nodes
    #[arg(long, value_name = "N")]
    count: u32,
    /// Where the nodes would keep their files
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

/// Runs one of them; the exit code.
pub(crate) fn run(options: &Options, color: When) -> Result<u8, Failure> {
    match &options.command {
        Command::Up(options) => up::run(options, color),
        Command::Env(place) => show::environment(place),
        Command::Status(options) => show::status(options),
        Command::Down(place) => down::run(place),
        Command::SwarmNodes(options) => swarm::run(options),
    }
}
