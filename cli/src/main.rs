//! The `choria` command: argument definitions and output; what it does is done by the libraries.
#![forbid(unsafe_code)]

mod arguments;
mod bounded_text;
mod commands;
mod discovery_flags;
mod environment;
mod failure;
mod filter_flags;
mod fleet;
mod lab;
mod nearest;
mod nodes_file;
mod output;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use failure::{Code, Failure};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are results; a wrong command line is not.
            let printed = error.print();
            return ExitCode::from(match printed {
                _ if error.use_stderr() => Code::Usage as u8,
                Err(failed) => output::unwritten(&failed),
                Ok(()) => 0,
            });
        }
    };
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Jwt(options) => commands::jwt::run(global, options),
        Command::Broker(options) => commands::broker::run(global, options),
        Command::Aaa(options) => commands::aaa::run(global, options),
        Command::Hub(options) => commands::hub::run(global, options),
        Command::Server(options) => commands::server::run(global, options),
        Command::Provisioner(options) => commands::provisioner::run(global, options),
        Command::Login(options) => block_on(commands::login::run(global, options)),
        Command::Ping(options) => block_on(commands::ping::run(global, options)),
        Command::Req(options) => block_on(commands::req::run(global, options)),
        Command::Discover(options) => block_on(commands::discover::run(global, options)),
        Command::Facts(options) => block_on(commands::facts::run(global, options)),
        Command::Inventory(options) => block_on(commands::inventory::run(global, options)),
        Command::Lab(options) => lab::run(options, arguments.global.color),
        Command::BuildInfo => commands::buildinfo::run(),
        Command::Completion(options) => commands::completion::run(options),
    }
}

/// Runs a command that talks to the network; one thread is enough for a person's tool. Ctrl-C ends it with the code that
/// shells expect. The command is asked first: one that has results to show for itself looks for Ctrl-C on its own.
fn block_on(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            result = command => result,
            pressed = tokio::signal::ctrl_c() => {
                pressed?;
                Err(Failure::interrupted())
            }
        }
    })
}
