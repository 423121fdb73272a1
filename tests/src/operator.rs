//! A person at a terminal: runs `choria` and reads what it prints.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{binary, wait_until};

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
        let output = self.command(arguments).output()?;
        Ok(Finished {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: started.elapsed(),
        })
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
