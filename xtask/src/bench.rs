//! `cargo xtask bench`: the figures of the README's table, measured in release builds on this machine.

mod fleet;

use anyhow::Result;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// A fleet enrols, answers, and sits idle
    Fleet(fleet::Options),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.what {
        What::Fleet(options) => fleet::run(options),
    }
}
