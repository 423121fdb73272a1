//! `cargo xtask test guards`: takes the guarding line of a row away and sees its test fail.
//!
//! Works on a copy of the tree, so that nothing is left behind when it is interrupted.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::step;

/// One line of product code that a row stands on. The file's header says what the fields mean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Guard {
    row: u16,
    file: PathBuf,
    find: String,
    replace: String,
    package: String,
    test: String,
    #[serde(default)]
    bins: bool,
}

/// The list of guards.
const LIST: &str = "tests/rows/guards.yaml";

pub(crate) fn run() -> Result<()> {
    let text = std::fs::read_to_string(step::root().join(LIST)).context(LIST)?;
    let guards: Vec<Guard> = serde_saphyr::from_str(&text).context(LIST)?;
    let copy = step::cache()?.join("guards");
    copy_tree(&copy)?;
    let mut table = Vec::new();
    let mut useless = Vec::new();
    for guard in &guards {
        let path = copy.join(&guard.file);
        let before = std::fs::read_to_string(&path).with_context(|| guard.file.display().to_string())?;
        let found = before.matches(&guard.find).count();
        ensure!(found == 1, "T-{:03}: {found} places in {} have the line", guard.row, guard.file.display());
        std::fs::write(&path, before.replace(&guard.find, &guard.replace))?;
        let failed = fails(&copy, guard).with_context(|| format!("T-{:03}", guard.row));
        std::fs::write(&path, before)?;
        let verdict = if failed? { "the test fails" } else { "THE TEST STILL PASSES" };
        table.push(format!(
            "T-{:03} {verdict:<22} without `{}` in {}",
            guard.row,
            guard.find.split_whitespace().collect::<Vec<_>>().join(" "),
            guard.file.display()
        ));
        if verdict.starts_with("THE") {
            useless.push(format!("T-{:03}", guard.row));
        }
    }
    println!("\n{}", table.join("\n"));
    if !useless.is_empty() {
        bail!("tests that pass without their guard: {}", useless.join(", "));
    }
    println!("{} guards, each seen by its test", guards.len());
    Ok(())
}

/// The files that git knows, with their times: what did not change is not built again.
fn copy_tree(copy: &Path) -> Result<()> {
    let list =
        step::output(std::process::Command::new("git").arg("-C").arg(step::root()).args(["ls-files", "-z"]))?;
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (step::root().join(name), copy.join(name));
        let text = std::fs::read(&from).with_context(|| name.to_owned())?;
        if std::fs::read(&to).is_ok_and(|there| there == text) {
            continue;
        }
        std::fs::create_dir_all(to.parent().context("a folder")?)?;
        std::fs::write(&to, text)?;
    }
    Ok(())
}

/// Whether the test fails. That it does not compile any more is an error, not a failure.
fn fails(copy: &Path, guard: &Guard) -> Result<bool> {
    let cargo = |arguments: &[&str]| {
        let mut command = step::cargo(arguments);
        command.current_dir(copy).stdin(Stdio::null());
        command
    };
    if guard.bins {
        step::run("build without the guard", &mut cargo(&["build", "--locked", "--workspace", "--bins"]))?;
    }
    let test = ["test", "--locked", "--package", &guard.package, "--lib", "--bins", "--tests"];
    step::run("build the test", cargo(&test).arg("--no-run"))?;
    let output = cargo(&test).arg("--").arg(&guard.test).output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = text.lines().filter(|line| line.starts_with("test ") && line.contains(&guard.test)).count();
    ensure!(ran > 0, "no test of {} has '{}' in its name", guard.package, guard.test);
    Ok(!output.status.success())
}
