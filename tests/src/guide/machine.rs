//! A machine of a written guide: shell lines and files are taken as the guide gives them, with `/etc`, `/data` and the
//! home directory moved below a folder of its own and addresses replaced by those of this test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::operator::Finished;
use crate::process::{Running, binary};

/// Longest time that one shell line may take, as `timeout` takes it.
const LIMIT: &str = "60s";

#[derive(Debug)]
pub struct Machine {
    name: String,
    root: PathBuf,
    /// Text of the guide and what it is here.
    replaced: Vec<(String, String)>,
}

impl Machine {
    /// `name` is the host name; `addresses` are texts such as `broker.example.net:4222` and what stands for them.
    pub fn new(folder: &Path, name: &str, addresses: &[(String, String)]) -> Result<Self> {
        let root = folder.join(name);
        let below = |path: &str| format!("{}{path}", root.display());
        let mut replaced = vec![
            ("/etc/".to_owned(), below("/etc/")),
            ("= /data".to_owned(), format!("= {}", below("/data"))),
        ];
        replaced.extend_from_slice(addresses);
        for path in ["etc/choria", "home/choria", "data"] {
            std::fs::create_dir_all(root.join(path))?;
        }
        Ok(Machine { name: name.to_owned(), root, replaced })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the guide's `~` is.
    pub fn home(&self) -> PathBuf {
        self.root.join("home/choria")
    }

    /// The guide's text as it is on this machine.
    pub fn moved(&self, text: &str) -> String {
        let replace = |text: String, (from, to): &(String, String)| text.replace(from, to);
        self.replaced.iter().fold(text.to_owned(), replace)
    }

    /// Where a path of the guide is: `/etc/…`, `~/…` or relative to the home directory.
    pub fn path(&self, path: &str) -> PathBuf {
        match path.strip_prefix("~/") {
            Some(rest) => self.home().join(rest),
            None => self.home().join(self.moved(path)),
        }
    }

    /// Stores a file with the guide's content.
    pub fn place(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, self.moved(text)).with_context(|| path.display().to_string())
    }

    pub fn read(&self, path: &str) -> Result<String> {
        let path = self.path(path);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Carries a file to another machine, as the guide's "pass it back" and "copy it to".
    pub fn carry(&self, path: &str, to: &Machine, there: &str) -> Result<()> {
        to.place(there, "")?;
        std::fs::copy(self.path(path), to.path(there)).with_context(|| format!("{path} to {there}"))?;
        Ok(())
    }

    /// Runs the guide's text in a shell, to its end.
    pub fn try_shell(&self, text: &str) -> Result<Finished> {
        let started = Instant::now();
        let output = self.command("timeout").args([LIMIT, "sh", "-c", &self.moved(text)]).output()?;
        Ok(Finished {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: started.elapsed(),
        })
    }

    /// Runs the guide's text, which must succeed, and returns what it printed.
    pub fn shell(&self, text: &str) -> Result<String> {
        let finished = self.try_shell(text)?;
        if finished.code != 0 {
            bail!(
                "on {}: {text}\nexit code {}\nstdout: {}\nstderr: {}",
                self.name,
                finished.code,
                finished.stdout,
                finished.stderr
            );
        }
        Ok(finished.stdout)
    }

    /// Starts the guide's command and leaves it running. Its output goes to `LOG` in the machine's folder.
    pub fn start(&self, text: &str, log: &str) -> Result<Running> {
        let line = format!("exec {}", self.moved(text));
        Running::start(self.command("sh").args(["-c", &line]), &self.root.join(log))
    }

    fn command(&self, program: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = binary("choria");
        let programs = programs.parent().unwrap_or(Path::new("/"));
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("HOME", self.home())
            .env("USER", "choria")
            // the host name and /etc/choria/client.conf of a machine that shares this one with others
            .env("CHORIA_IDENTITY", &self.name)
            .env("CHORIA_CONFIG", self.path("/etc/choria/client.conf"))
            .current_dir(self.home())
            .stdin(Stdio::null());
        command
    }
}
