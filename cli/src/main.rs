//! The `choria` command: argument definitions and output; what it does is done by the libraries.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod failure;
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
            let code = if error.use_stderr() { ExitCode::from(Code::Usage as u8) } else { ExitCode::SUCCESS };
            drop(error.print());
            return code;
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
    match &arguments.command {
        Command::Jwt(options) => commands::jwt::run(options),
        Command::BuildInfo => commands::buildinfo::run(),
        Command::Completion(options) => commands::completion::run(options),
    }
}
