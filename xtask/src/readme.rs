//! Runs the README's commands exactly as they stand: what the page promises is what CI sees.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::step;

/// From nothing: a release build of the whole workspace comes first.
const LAB_LIMIT: Duration = Duration::from_secs(30 * 60);

pub(crate) fn run() -> Result<()> {
    let page = std::fs::read_to_string(step::root().join("README.md")).context("README.md")?;
    let mut blocks = shell_blocks(&page).into_iter();
    let first = blocks.next().context("README.md has no shell block")?;
    if !first.contains("lab up") {
        bail!("README.md: the first shell block starts the lab, this one does not: {first}");
    }
    let folder = std::env::temp_dir().join(format!("choria-readme-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = in_lab(&folder, &first, &blocks.collect::<Vec<_>>());
    std::fs::remove_dir_all(&folder).ok();
    result
}

fn in_lab(folder: &std::path::Path, up: &str, rest: &[String]) -> Result<()> {
    let log = folder.join("lab.log");
    let mut lab = Lab::start(up, folder, &log)?;
    lab.wait_until_ready(&log)?;
    // One shell for all that follows, as one person has one terminal. A failing command ends it.
    let script = format!("set -euo pipefail\n{}", rest.concat());
    let ran = step::run("the README's commands", shell(folder).args(["-x", "-c", &script]));
    let ended = lab.interrupt();
    ran.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    ended
}

/// A shell that has a home of its own, so that nobody's lab or token is touched.
fn shell(home: &std::path::Path) -> Command {
    let mut command = Command::new("bash");
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| real_home().join(".cargo"), PathBuf::from);
    let rustup_home =
        std::env::var_os("RUSTUP_HOME").map_or_else(|| real_home().join(".rustup"), PathBuf::from);
    command
        .current_dir(step::root())
        .env("HOME", home)
        .env("CARGO_HOME", cargo_home)
        .env("RUSTUP_HOME", rustup_home);
    command.env_remove("XDG_STATE_HOME").env_remove("XDG_CONFIG_HOME");
    command
}

fn real_home() -> PathBuf {
    std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default()
}

struct Lab(Child);

impl Lab {
    fn start(up: &str, home: &std::path::Path, log: &std::path::Path) -> Result<Self> {
        eprintln!("\n==> {}", up.trim());
        let file = std::fs::File::create(log)?;
        let child = shell(home)
            .args(["-c", &format!("exec {}", up.trim())])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot start bash")?;
        Ok(Lab(child))
    }

    fn wait_until_ready(&mut self, log: &std::path::Path) -> Result<()> {
        let until = Instant::now() + LAB_LIMIT;
        loop {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            if said.contains("choria ping") {
                return Ok(());
            }
            if let Some(status) = self.0.try_wait()? {
                bail!("the lab ended with {status}:\n{said}");
            }
            if Instant::now() > until {
                bail!("the lab is not ready after {LAB_LIMIT:?}:\n{said}");
            }
            pause();
        }
    }

    /// Ctrl-C, and the lab must end by itself.
    fn interrupt(&mut self) -> Result<()> {
        step::output(Command::new("kill").args(["-INT", &self.0.id().to_string()]))?;
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait()? {
                if status.code() == Some(0) || status.code() == Some(130) {
                    return Ok(());
                }
                bail!("Ctrl-C ended the lab with {status}");
            }
            pause();
        }
        bail!("the lab did not end within a minute of Ctrl-C")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

#[allow(clippy::disallowed_methods)] // polls another process: there is nothing to await
fn pause() {
    std::thread::sleep(Duration::from_millis(200));
}

/// The contents of the blocks fenced as `sh`.
fn shell_blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match (&mut open, line) {
            (None, "```sh") => open = Some(String::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::shell_blocks;

    #[test]
    fn only_blocks_fenced_as_shell_are_run() {
        let page = "a\n```sh\none\ntwo\n```\nb\n```\nthree\n```\n```sh\nfour\n```\n";
        assert_eq!(shell_blocks(page), ["one\ntwo\n", "four\n"]);
    }
}
