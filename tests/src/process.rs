//! Processes under test: found beside the test's own binary, ended by their id, never left behind.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A program of this workspace. `cargo test` alone does not build other packages' programs.
pub fn binary(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().unwrap_or_default();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

/// A TCP port that nobody listened on a moment ago. From below the range that the kernel gives to outgoing
/// connections, so that none of those takes it before the process under test does.
pub fn free_port() -> Result<u16> {
    for _ in 0..200 {
        let port = 15_000 + u16::from_be_bytes(crate::forge::random()?) % 17_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 15000 and 32000")
}

/// Asks until the answer is yes; an error that says what was waited for when `limit` is over.
pub fn wait_until(what: &str, limit: Duration, mut yes: impl FnMut() -> bool) -> Result<()> {
    let until = Instant::now() + limit;
    loop {
        if yes() {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("{what}: not within {limit:?}");
        }
        pause(Duration::from_millis(50));
    }
}

#[allow(clippy::disallowed_methods)] // a test that polls another process has nothing to await
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// A running process with its output in a file.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a command; stdout and stderr go to `log`, appended.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Running { child, log: log.to_path_buf() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a text in the log.
    pub fn logged(&self, text: &str, limit: Duration) -> Result<()> {
        wait_until(text, limit, || self.log().contains(text))
            .with_context(|| format!("the log says:\n{}", self.log()))
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// `kill -TERM`, and the exit code.
    pub fn terminate(&mut self, limit: Duration) -> Result<Option<i32>> {
        signal(self.id(), "-TERM")?;
        let mut code = None;
        wait_until("the process ends", limit, || match self.child.try_wait() {
            Ok(Some(status)) => {
                code = status.code();
                true
            }
            _ => false,
        })?;
        Ok(code)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Whether a process runs. One that ended and was not fetched by whoever inherited it does not.
pub fn is_alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // the name before the state may hold anything, even parentheses
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Sends a signal to a process by its id.
pub(crate) fn signal(id: u32, signal: &str) -> Result<()> {
    let status = Command::new("kill").args([signal, &id.to_string()]).status()?;
    if !status.success() {
        bail!("kill {signal} {id}: {status}");
    }
    Ok(())
}
