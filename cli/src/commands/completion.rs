//! `choria completion SHELL`: a script that completes commands and flags.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  choria completion bash > ~/.local/share/bash-completion/completions/choria"
)]
pub(crate) struct Options {
    /// The shell to write for
    shell: Shell,
}

pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "choria", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Ok(0)
}
