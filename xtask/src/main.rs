//! Tasks that cargo cannot express. `cargo xtask --help` lists them.
#![allow(clippy::print_stdout)] // a command line tool: its results go to stdout

mod audit;
mod bench;
mod boards;
mod embedded;
mod fuzz;
mod guards;
mod image;
mod outside;
mod qemu;
mod readme;
mod rows;
mod sizes;
mod step;
mod targets;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks that cargo cannot express", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must hold before a change lands: format, lints, licences, tests, device targets
    Test(test::Options),
    /// Build agent-core for microcontrollers, without std and without an allocator
    Targets(targets::Options),
    /// Sizes of what we ship: the agent binary and device images, held to what was committed
    Sizes(sizes::Options),
    /// Look into device images for what may not be there: panics, calls to a debugger, secrets
    Audit(audit::Options),
    /// Build the firmware of the tests and run devices in QEMU against the hub (docs/spec/08 §11)
    Qemu(qemu::Options),
    /// Personalise firmware: one device or a manifest of them (docs/device-images.md)
    Image(image::Options),
    /// Read a personalised image back and compare it with what it should hold
    Verify(image::VerifyOptions),
    /// Measure, in release builds, what the README's table of numbers states
    Bench(bench::Options),
    /// Search for inputs that break a parser, a verifier or a state machine (docs/spec/10 §12)
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Targets(options) => targets::run(&options),
        Task::Sizes(options) => sizes::run(&options),
        Task::Audit(options) => audit::run(&options),
        Task::Qemu(options) => qemu::run(&options),
        Task::Image(options) => image::run(&options),
        Task::Verify(options) => image::verify(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            // A missing device toolchain has a code of its own (docs/spec/08 §1.4): CI fails on it, a developer sees why.
            if let Some(coded) = error.downcast_ref::<image::Coded>() {
                return ExitCode::from(coded.0);
            }
            if error.is::<embedded::ToolchainMissing>() { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}
