//! A person at a terminal: runs `choria` and reads what it prints.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{binary, signal, wait_until};

/// A name that nobody has.
pub const GHOST: &str = "ghost.example.net";

/// Lines in an order that two runs share.
pub fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[derive(Debug)]
pub struct Operator {
    config: PathBuf,
    home: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Finished {
    fn new(output: &Output, started: Instant) -> Self {
        Finished {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: started.elapsed(),
        }
    }

    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}", self.stdout))
    }
}

impl Operator {
    pub fn new(config: &Path, home: &Path) -> Self {
        Operator { config: config.to_path_buf(), home: home.to_path_buf() }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("choria"));
        command
            .args(arguments)
            .env("CHORIA_CONFIG", &self.config)
            .env("HOME", &self.home)
            .env("NO_COLOR", "1");
        command.current_dir(&self.home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end, whatever that is.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        let started = Instant::now();
        Ok(Finished::new(&self.command(arguments).output()?, started))
    }

    /// The same with this text on stdin.
    pub fn run_with(&self, arguments: &[&str], text: &str) -> Result<Finished> {
        let started = Instant::now();
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn()?;
        // a command that refuses its arguments has ended before it reads
        drop(child.stdin.take().context("no stdin")?.write_all(text.as_bytes()));
        Ok(Finished::new(&child.wait_with_output()?, started))
    }

    /// Runs a command without end until it has printed so many lines, and presses Ctrl-C.
    pub fn run_for(&self, arguments: &[&str], lines: usize) -> Result<Finished> {
        let started = Instant::now();
        let mut child = self.command(arguments).spawn()?;
        let mut reader = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut printed = Vec::new();
        for _ in 0..lines {
            ensure!(
                reader.read_until(b'\n', &mut printed)? > 0,
                "choria {} ended by itself",
                arguments.join(" ")
            );
        }
        signal(child.id(), "-INT")?;
        reader.read_to_end(&mut printed)?;
        let output = child.wait_with_output()?;
        Ok(Finished::new(&Output { stdout: printed, ..output }, started))
    }

    /// Runs a command that must succeed and returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.run(arguments)?;
        if finished.code != 0 {
            bail!(
                "choria {}: exit code {}\nstdout: {}\nstderr: {}",
                arguments.join(" "),
                finished.code,
                finished.stdout,
                finished.stderr
            );
        }
        Ok(finished.stdout)
    }

    /// The identities that answer a ping now.
    pub fn answering(&self) -> Result<Vec<String>> {
        let finished = self.run(&["ping", "--names"])?;
        Ok(finished.stdout.lines().map(str::to_owned).collect())
    }

    /// Waits until one ping is answered by all of these.
    pub fn hears(&self, names: &[String]) -> Result<()> {
        let mut last = Vec::new();
        wait_until("they answer one ping", Duration::from_secs(60), || {
            last = self.answering().unwrap_or_default();
            names.iter().all(|name| last.contains(name))
        })
        .with_context(|| format!("of {names:?} only {last:?}"))
    }

    /// Waits until exactly `count` nodes answer.
    pub fn sees(&self, count: usize, limit: Duration) -> Result<()> {
        let mut last = 0;
        wait_until(&format!("{count} nodes answer"), limit, || {
            last = self.answering().map_or(0, |names| names.len());
            last == count
        })
        .with_context(|| format!("{last} answered last"))
    }
}
