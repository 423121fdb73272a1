//! `choria server run`: the agent of a node (docs/spec/07 §9.2).

use std::path::PathBuf;

use agent_linux::{ExitReason, RunOptions};
use choria_host::settings::Settings;
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
    #[arg(long, value_name = "FILE")]
    provisioning_jwt: Option<PathBuf>,
}

pub(crate) fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let Command::Run(options) = &options.command;
    let Some(path) = &global.config else {
        return Err(Failure::usage("server run requires a configuration file").hint("give --config FILE"));
    };
    // A file that cannot be read says nothing about the log; the start then tells why it cannot.
    let settings = Settings::load(path).unwrap_or_default();
    let log = service::prepare(
        global,
        settings.get("loglevel").unwrap_or("info"),
        settings.get("logfile").unwrap_or("stderr"),
    )?;
    tracing::info!(
        "Choria Server version {} starting with config {} using protocol version 2",
        env!("CARGO_PKG_VERSION"),
        path.display()
    );
    let run = RunOptions {
        config: path.clone(),
        provisioning_jwt: options.provisioning_jwt.clone(),
        pid: options.service.pid.clone(),
        log: Some(log),
        debug: global.debug,
    };
    // One thread: a node has one connection and a handful of short calls.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
    let ended = runtime.block_on(Box::pin(agent_linux::run(run)));
    runtime.shutdown_background();
    match ended {
        ExitReason::Stopped | ExitReason::Shutdown => Ok(0),
        ExitReason::Failed(reason) => Err(Failure::new(reason)),
    }
}
