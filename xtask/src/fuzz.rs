//! `cargo xtask fuzz`: builds the targets of tests/fuzz with coverage feedback and lets libFuzzer search.
//!
//! Corpora grow in xtask's cache, outside the checkout. What breaks a target is copied to `tests/fuzz/cases/<target>/`, where
//! `cargo test -p choria-fuzz` replays it from then on.

mod kept;
mod outcome;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::step;
use outcome::Outcome;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Targets, or all
    targets: Vec<String>,
    /// Minutes for each target
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Targets at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only the targets of what devices have, too: they build without the hub
    #[arg(long)]
    core: bool,
    /// Do not search: write the smallest inputs that reach what the corpora reach to tests/fuzz/corpus
    #[arg(long)]
    keep: bool,
    /// Print the targets with their oracles and stop
    #[arg(long)]
    list: bool,
}

/// The harness, a workspace of its own.
const HARNESS: &str = "tests/fuzz/harness";
/// What cargo-fuzz sets: coverage counters, comparisons, and code kept that only a debugger would miss. All of it is in the
/// stable compiler. No address sanitizer: nothing of ours is `unsafe`, what we look for is panics, wrong answers and bounds.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
    "-Clink-dead-code",
];
const RSS_LIMIT_MB: u32 = 1024;
/// Seconds for one input; generous, because several targets share the processors.
const INPUT_TIMEOUT: u32 = 120;

struct Target {
    name: String,
    longest: String,
    oracle: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.jobs > 0 && options.minutes > 0, "--jobs and --minutes must be at least 1");
    let program = build(options.core)?;
    let targets = targets(&program)?;
    if options.list {
        for target in &targets {
            println!("{:<20} {}", target.name, target.oracle);
        }
        return Ok(());
    }
    let is_named = |target: &Target| options.targets.contains(&target.name);
    let unknown: Vec<&str> = options
        .targets
        .iter()
        .map(String::as_str)
        .filter(|name| !targets.iter().any(|target| target.name == *name))
        .collect();
    ensure!(unknown.is_empty(), "no such target: {}; --list shows them", unknown.join(", "));
    let mut chosen: Vec<&Target> =
        targets.iter().filter(|target| options.targets.is_empty() || is_named(target)).collect();
    if options.keep {
        return chosen.iter().try_for_each(|target| kept::write(&program, &target.name));
    }
    chosen.reverse();
    let queue = Mutex::new(chosen);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        // In a statement of its own: as the condition of a loop it would hold the lock while the target runs.
                        let next = locked(&queue).pop();
                        let Some(target) = next else { return Ok(()) };
                        let outcome = search(&program, target, options.minutes)?;
                        eprintln!("{outcome}");
                        locked(&outcomes).push(outcome);
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker panicked"),
        })
    })?;
    let outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!("\n{}", Outcome::HEAD);
    outcomes.iter().for_each(|outcome| println!("{outcome}"));
    let broken: Vec<&str> =
        outcomes.iter().filter(|outcome| !outcome.is_good()).map(|outcome| outcome.target.as_str()).collect();
    ensure!(broken.is_empty(), "broken: {}; the inputs are in tests/fuzz/cases", broken.join(", "));
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The harness with its targets in it.
fn build(core: bool) -> Result<PathBuf> {
    let output = step::target_directory().join("fuzz");
    // Named, so that build scripts and procedural macros are not instrumented.
    let host = host()?;
    let mut cargo = step::cargo(&["build", "--locked", "--release", "--target", &host]);
    if core {
        cargo.arg("--no-default-features");
    }
    cargo
        .current_dir(step::root().join(HARNESS))
        .env("CARGO_TARGET_DIR", &output)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    step::run("build the fuzz targets", &mut cargo)?;
    Ok(output.join(host).join("release/choria-fuzz-harness"))
}

/// The compiler's own target.
fn host() -> Result<String> {
    let said = step::output(Command::new("rustc").arg("-vV").current_dir(step::root()))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

fn targets(program: &Path) -> Result<Vec<Target>> {
    let list = step::output(Command::new(program).env("CHORIA_FUZZ_LIST", "1").stderr(Stdio::null()))?;
    let target = |line: &str| -> Option<Target> {
        let mut fields = line.splitn(3, '\t').map(str::to_owned);
        Some(Target { name: fields.next()?, longest: fields.next()?, oracle: fields.next()? })
    };
    let targets: Vec<Target> = list.lines().filter_map(target).collect();
    ensure!(!targets.is_empty(), "the harness names no targets");
    Ok(targets)
}

/// Runs one target for its minutes.
fn search(program: &Path, target: &Target, minutes: u32) -> Result<Outcome> {
    let folder = step::cache()?.join("fuzz").join(&target.name);
    let (corpus, found) = (folder.join("corpus"), folder.join("found"));
    for place in [&corpus, &found] {
        std::fs::create_dir_all(place).with_context(|| place.display().to_string())?;
    }
    let log = folder.join("log");
    let file = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
    let started = Instant::now();
    let mut command = Command::new(program);
    command
        .env("CHORIA_FUZZ_TARGET", &target.name)
        .env("CHORIA_FUZZ_SEEDS", &folder)
        .args([&corpus, &folder.join("seeds")])
        .arg(format!("-max_total_time={}", minutes * 60))
        .arg(format!("-rss_limit_mb={RSS_LIMIT_MB}"))
        .arg(format!("-timeout={INPUT_TIMEOUT}"))
        .arg(format!("-max_len={}", target.longest))
        .arg(format!("-dict={}", folder.join("words").display()))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-detect_leaks=0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    let status = command.status().with_context(|| program.display().to_string())?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let cases = keep(&found, &target.name)?;
    Ok(Outcome::read(&target.name, started.elapsed(), &text, status, cases))
}

/// Moves what was found to where the tests replay it; answers how many inputs.
fn keep(found: &Path, target: &str) -> Result<usize> {
    let cases = step::root().join("tests/fuzz/cases").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(found).with_context(|| found.display().to_string())? {
        let entry = entry?;
        // `slow-unit` and its like are remarks, not failures.
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["crash-", "oom-", "timeout-"].iter().any(|kind| name.starts_with(kind)) {
            std::fs::create_dir_all(&cases)?;
            std::fs::copy(entry.path(), cases.join(&name))?;
            count += 1;
        }
        std::fs::remove_file(entry.path())?;
    }
    Ok(count)
}
