//! `cargo xtask qemu`: the firmware of the tests, and the scenarios of docs/spec/08 §11 with it.

use std::process::Command;

use anyhow::Result;

use crate::{boards, outside, sizes, step};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build the firmware and stop
    #[arg(long)]
    build: bool,
    /// Only the scenarios whose name contains this text
    scenario: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    build()?;
    if options.build {
        return Ok(());
    }
    outside::install()?;
    let programs = ["build", "--locked", "-p", "choria", "--bins"];
    step::run("the hub", &mut step::cargo(&programs))?;
    let mut scenarios = step::cargo(&["test", "--locked", "-p", "choria-tests", "--test", "device*", "--"]);
    scenarios.args(&options.scenario);
    step::run("devices in QEMU", &mut scenarios)?;
    let mut vectors = step::cargo(&["test", "--locked", "-p", "choria-conformance", "--tests", "--"]);
    vectors.args(&options.scenario);
    step::run("vectors and hostile cases in QEMU", &mut vectors)
}

/// The firmware for QEMU and the image with the cases' code, where the tests look for them.
pub(crate) fn build() -> Result<()> {
    for board in ["qemu-lm3s", "qemu-lm3s-names", "qemu-mps2"] {
        sizes::board_image(&boards::named(board)?)?;
    }
    sizes::device_image("conformance", "agent-core-conformance").map(drop)
}

/// Format, lints and tests of the device crates on this machine: they are no members of the workspace.
pub(crate) fn check() -> Result<()> {
    let folder = step::root().join("agent-embedded");
    let mut images = vec![folder.join("conformance"), folder.join("qemu")];
    images.extend(boards::all()?.iter().map(boards::Board::folder));
    for image in images {
        let mut format = step::cargo(&["fmt", "--check"]);
        step::run("cargo fmt --check, image", format.current_dir(image))?;
    }
    let library = |features| (folder.clone(), vec!["--features", features]);
    // the smallest device has no names
    for (folder, features) in [library("flash"), library("dns,flash"), (folder.join("firmware"), vec![])] {
        let products = step::target_directory().join("embedded-host");
        let cargo = |arguments: &[&[&str]]| {
            let mut command: Command = step::cargo(&arguments.concat());
            command.current_dir(&folder).env("CARGO_TARGET_DIR", &products);
            command
        };
        step::run("cargo fmt --check, device crate", &mut cargo(&[&["fmt", "--check"]]))?;
        let lints: [&[&str]; 3] =
            [&["clippy", "--locked", "--all-targets"], &features, &["--", "-D", "warnings"]];
        step::run("clippy, device crate", &mut cargo(&lints))?;
        step::run("tests of the device crate", &mut cargo(&[&["test", "--locked"], &features]))?;
    }
    Ok(())
}
