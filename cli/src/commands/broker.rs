//! `choria broker`: the hub's broker (docs/spec/07 §9.1).

mod auth;

use std::path::Path;

use choria_broker::BrokerConfig;
use choria_host::settings::Settings;
use clap::{Args, Subcommand};

use super::service::{self, PidFile, Shutdown};
use crate::arguments::Global;
use crate::failure::{Doing, Failure};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker; needs --config
    #[command(after_help = "Example:\n  choria broker run --config /etc/choria/broker.conf")]
    Run(Run),
    /// Understand who may connect
    Auth(auth::Options),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    service: service::Options,
    /// Check the configuration, keys and certificates, and end
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let options = match &options.command {
        Command::Run(options) => options,
        Command::Auth(options) => return auth::run(global, options),
    };
    let path = service::configuration(global)?;
    let (settings, config) = load(path)?;
    if options.check {
        choria_broker::check(&config)
            .doing(|| format!("no broker could run with the configuration {}", path.display()))?;
        output::print(&format!("{} is fit to run a broker\n", path.display()));
        return Ok(0);
    }
    let level = settings.get("loglevel").unwrap_or("info").to_owned();
    let destination = settings.get("logfile").unwrap_or("stderr").to_owned();
    let log = service::prepare(global, &level, &destination)?;
    let _pid = PidFile::write(&options.service)?;
    service::runtime()?.block_on(async {
        let shutdown = Shutdown::listen()?;
        let path = path.to_owned();
        service::renew_log_on_hangup(log, global, move || service::level_in(&path))?;
        Box::pin(choria_broker::run(config, shutdown.wait()))
            .await
            .doing(|| String::from("the broker ended"))?;
        Ok(0)
    })
}

pub(crate) fn load(path: &Path) -> Result<(Settings, BrokerConfig), Failure> {
    let settings =
        Settings::load(path).doing(|| format!("cannot use the broker configuration {}", path.display()))?;
    for warning in settings.warnings() {
        output::note(&format!("warning: {warning}\n"));
    }
    let config = BrokerConfig::from_settings(&settings)
        .doing(|| format!("cannot use the broker configuration {}", path.display()))?;
    Ok((settings, config))
}
