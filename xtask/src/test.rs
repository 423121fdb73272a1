//! `cargo xtask test`: everything that must hold before a change lands, cheapest first.

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::rows::{Proofs, Rows};
use crate::{audit, boards, guards, outside, qemu, readme, sizes, step, targets};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// A part of the tests, instead of all steps
    suite: Option<Suite>,
    /// Only the steps whose name contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print the steps and stop
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Suite {
    /// The rows of the threat model (docs/spec/10 §14), with a table of what was tried and what was seen
    Security,
    /// Takes the code away that a row stands on, and sees that its test fails (tests/rows/guards.yaml)
    Guards,
}

type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 12] = [
    ("install", outside::install),
    ("format", format),
    ("lints", lints),
    ("licences and bans", deny),
    ("build", build),
    ("device images", || sizes::run(&sizes::Options::devices())),
    ("what is in them", audit::all),
    ("device crate", qemu::check),
    ("tests", tests),
    ("documentation tests", documentation),
    ("readme", readme::run),
    ("device targets", || targets::run(&targets::Options::one())),
];

pub(crate) fn run(options: &Options) -> Result<()> {
    let chosen = STEPS
        .iter()
        .filter(|(name, _)| options.only.as_ref().is_none_or(|text| name.contains(text.as_str())));
    match options.suite {
        Some(Suite::Security) => {
            outside::install()?;
            build()?;
            qemu::build()?;
            return rows(&Rows::load()?.test_names());
        }
        Some(Suite::Guards) => return guards::run(),
        None => {}
    }
    if options.list {
        for (name, _) in chosen {
            println!("{name}");
        }
        return Ok(());
    }
    let mut times = Vec::new();
    for (name, step) in chosen {
        let started = Instant::now();
        step().with_context(|| format!("step '{name}'"))?;
        times.push((name, started.elapsed()));
    }
    println!("\n{:<24} {:>7}", "step", "seconds");
    for (name, time) in times {
        println!("{name:<24} {:>7.0}", time.as_secs_f32());
    }
    Ok(())
}

fn format() -> Result<()> {
    step::run("cargo fmt --check", &mut step::cargo(&["fmt", "--all", "--check"]))
}

fn lints() -> Result<()> {
    let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step::run("clippy", &mut step::cargo(&arguments))
}

fn deny() -> Result<()> {
    let program = outside::cargo_deny()?;
    let mut checks = vec!["bans", "licenses", "sources"];
    // The advisory database is a public repository: checked where it is at hand, never skipped in silence.
    let database =
        std::env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".cargo/advisory-dbs"));
    if database.is_some_and(|folder| folder.exists()) {
        checks.push("advisories");
    } else {
        eprintln!(
            "xtask: note: no advisory database in ~/.cargo/advisory-dbs: run `cargo deny fetch`, then this again"
        );
    }
    let mut workspaces = vec![step::root()];
    workspaces.extend(devices()?);
    for workspace in workspaces {
        let mut command = Command::new(&program);
        command.args(["--locked", "--workspace", "--config"]).arg(step::root().join("deny.toml"));
        command.args(["check", "--hide-inclusion-graph"]).args(&checks).current_dir(&workspace);
        step::run(&format!("cargo deny, {}", workspace.display()), &mut command)?;
    }
    Ok(())
}

/// What devices are made of: workspaces of their own.
fn devices() -> Result<Vec<std::path::PathBuf>> {
    let folder = step::root().join("agent-embedded");
    let mut workspaces = vec![folder.clone(), folder.join("firmware")];
    workspaces.extend(boards::all()?.iter().map(boards::Board::folder));
    Ok(workspaces)
}

/// The binaries that whole-system tests start.
fn build() -> Result<()> {
    step::run("build", &mut step::cargo(&["build", "--locked", "--workspace", "--bins"]))
}

fn tests() -> Result<()> {
    rows(&[])
}

/// Runs the tests whose names contain one of these texts (all without any) and prints which rows of the threat model they
/// prove.
fn rows(names: &[String]) -> Result<()> {
    let rows = Rows::load()?;
    let mut proofs = Proofs::default();
    let arguments = ["test", "--locked", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast", "--"];
    let mut command = step::cargo(&arguments);
    command.arg("--show-output").args(names).stdin(Stdio::null()).stdout(Stdio::piped());
    eprintln!("\n==> cargo test");
    let mut child = command.spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in std::io::BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if proofs.line(&line) {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    let (table, verdict) = rows.verdict(&proofs);
    println!("\nrows of docs/spec/10 §14: row, what was tried => what was seen\n{table}");
    if !status.success() {
        bail!("cargo test ended with {status}");
    }
    verdict
}

fn documentation() -> Result<()> {
    step::run("documentation tests", &mut step::cargo(&["test", "--locked", "--workspace", "--doc"]))
}
