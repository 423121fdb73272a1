//! `choria provisioner run`: enrols nodes that wait (docs/spec/07 §9.3).

use std::path::{Path, PathBuf};

use choria_client::ClientConfig;
use choria_provisioner::ProvisionerConfig;
use clap::{Args, Subcommand};

use super::service::{self, PidFile, Shutdown};
use crate::arguments::Global;
use crate::failure::{Doing, Failure};
use crate::fleet;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the provisioner; needs --config
    #[command(
        after_help = "Example:\n  choria provisioner run --config choria-provisioner.yaml --choria-config client.cfg"
    )]
    Run(Run),
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    service: service::Options,
    /// Client configuration with the provisioner's own token and seed
    #[arg(long, value_name = "FILE")]
    choria_config: Option<PathBuf>,
}

pub(crate) fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let Command::Run(options) = &options.command;
    let path = service::configuration(global)?;
    let (config, client) = load(path, options.choria_config.as_deref())?;
    let log = service::prepare(global, log_level(&config), &config.logfile)?;
    let _pid = PidFile::write(&options.service)?;
    announce(path);
    service::runtime()?.block_on(async {
        let shutdown = Shutdown::listen()?;
        let path = path.to_owned();
        service::renew_log_on_hangup(log, global, move || {
            Some(log_level(&ProvisionerConfig::load(&path).ok()?).to_owned())
        })?;
        Box::pin(choria_provisioner::run(config, client, shutdown.wait()))
            .await
            .doing(|| String::from("the provisioner ended"))?;
        Ok(0)
    })
}

pub(crate) fn announce(path: &Path) {
    tracing::info!(
        "Choria Provisioner version {} starting with config {}",
        env!("CARGO_PKG_VERSION"),
        path.display()
    );
}

pub(crate) fn load(path: &Path, client: Option<&Path>) -> Result<(ProvisionerConfig, ClientConfig), Failure> {
    let config = ProvisionerConfig::load(path)
        .doing(|| format!("cannot use the provisioner configuration {}", path.display()))?;
    Ok((config, fleet::load_file(client)?))
}

/// Nothing configured means what other services do.
fn log_level(config: &ProvisionerConfig) -> &str {
    if config.loglevel.is_empty() { "info" } else { &config.loglevel }
}
