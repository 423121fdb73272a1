//! `cargo xtask targets`: agent-core must build where there is no operating system and no allocator.

use anyhow::{Context, Result, bail};

use crate::{embedded::Toolchain, step};

/// The device targets that agent-core is held to (docs/spec/08 §0).
const ALL: [&str; 6] = [
    "thumbv7m-none-eabi",
    "thumbv6m-none-eabi",
    "thumbv7em-none-eabihf",
    "thumbv8m.main-none-eabihf",
    "riscv32imc-unknown-none-elf",
    "riscv32imac-unknown-none-elf",
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Targets to build for; without any, the Cortex-M3 that the probe image uses
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Every supported device target
    #[arg(long)]
    all: bool,
}

impl Options {
    pub(crate) fn one() -> Self {
        Options { targets: Vec::new(), all: false }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    no_allocator_in_the_tree()?;
    let targets: Vec<&str> = match (options.all, options.targets.is_empty()) {
        (true, _) => ALL.to_vec(),
        (false, true) => vec![ALL[0]],
        (false, false) => options.targets.iter().map(String::as_str).collect(),
    };
    for target in targets {
        let toolchain = Toolchain::find(target)?;
        let products = step::target_directory().join("embedded");
        let mut build = toolchain.cargo("build", target, &step::root(), &products);
        build.args(["--release", "-p", "agent-core", "--lib"]);
        step::run(&format!("agent-core for {target} ({})", toolchain.describe()), &mut build)?;
        println!("{target}: agent-core builds without std and without an allocator");
    }
    Ok(())
}

/// The guard that needs no device toolchain: no crate below agent-core turns on `std` or `alloc`.
fn no_allocator_in_the_tree() -> Result<()> {
    let tree = step::output(&mut step::cargo(&[
        "tree",
        "--locked",
        "-p",
        "agent-core",
        "-e",
        "normal,features",
        "--prefix",
        "none",
        "-f",
        "{p} {f}",
    ]))
    .context("cannot list agent-core's dependencies")?;
    let culprits: Vec<&str> = tree
        .lines()
        .filter(|line| line.contains("feature \"std\"") || line.contains("feature \"alloc\""))
        .collect();
    if !culprits.is_empty() {
        bail!("a dependency of agent-core wants an allocator or std:\n{}", culprits.join("\n"));
    }
    Ok(())
}
