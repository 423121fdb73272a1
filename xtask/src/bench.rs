//! `cargo xtask bench`: the figures of the README's table, measured in release builds on this machine.

use anyhow::Result;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {}

pub(crate) fn run(options: &Options) -> Result<()> {
    match options.what {}
}
