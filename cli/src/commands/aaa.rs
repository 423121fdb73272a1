//! `choria aaa`: login, request signing and audit (docs/spec/07 §9.3).

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use choria_aaa::AaaConfig;
use choria_host::Secret;
use clap::{Args, Subcommand};

use super::service::{self, PidFile, Shutdown};
use crate::arguments::Global;
use crate::failure::{Doing, Failure};
use crate::output;
use crate::output::prompt::Prompts;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service; needs --config
    #[command(after_help = "Example:\n  choria aaa run --config /etc/aaasvc/aaasvc.conf")]
    Run(service::Options),
    /// Hash passwords for a user list: one line of stdin, one hash; on a terminal it asks for one
    #[command(after_help = "Example:\n  choria aaa crypt < passwords.txt")]
    Crypt(Crypt),
}

#[derive(Debug, Args)]
struct Crypt {
    /// Work factor; every step doubles the time a guess takes
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(4..=15))]
    cost: u32,
}

pub(crate) fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    match &options.command {
        Command::Run(options) => serve(global, options),
        Command::Crypt(options) => crypt(global.prompts(), options),
    }
}

fn serve(global: &Global, options: &service::Options) -> Result<u8, Failure> {
    let path = service::configuration(global)?;
    let config = load(path)?;
    let log = service::prepare(global, &config.loglevel, config.logfile.as_deref().unwrap_or("stderr"))?;
    let _pid = PidFile::write(options)?;
    service::runtime()?.block_on(async {
        let shutdown = Shutdown::listen()?;
        let path = path.to_owned();
        service::renew_log_on_hangup(log, global, move || Some(AaaConfig::load(&path).ok()?.loglevel))?;
        choria_aaa::run(config, shutdown.wait()).await.doing(|| String::from("the AAA service ended"))?;
        Ok(0)
    })
}

pub(crate) fn load(path: &Path) -> Result<AaaConfig, Failure> {
    AaaConfig::load(path).doing(|| format!("cannot use the AAA configuration {}", path.display()))
}

fn crypt(prompts: Prompts, options: &Crypt) -> Result<u8, Failure> {
    if std::io::stdin().is_terminal() {
        let password = prompts.secret("Password", "the password on stdin")?;
        let again = prompts.secret("Once more", "the password on stdin")?;
        if password.expose().is_empty() || password.expose() != again.expose() {
            return Err(Failure::new("the password is empty, or was not the same twice"));
        }
        return hash(&password, options.cost);
    }
    for line in std::io::stdin().lock().lines() {
        let password = Secret::new(line?);
        if password.expose().is_empty() {
            continue;
        }
        hash(&password, options.cost)?;
    }
    Ok(0)
}

fn hash(password: &Secret, cost: u32) -> Result<u8, Failure> {
    let hash = choria_aaa::crypt(password.expose(), cost).doing(|| String::from("cannot hash a password"))?;
    output::print(&format!("{hash}\n"));
    Ok(0)
}
