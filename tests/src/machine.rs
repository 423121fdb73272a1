//! A machine of the users' guide: a root folder with `/etc` and a home, where the guide's command lines run as they are
//! printed. Paths below `/etc` and `/data` move into the root; other texts, such as host names and ports, are replaced
//! by a list.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use choria_host::private_file::write_private;

use crate::process::{Running, binary};

#[derive(Debug, Clone)]
pub struct Machine {
    name: String,
    root: PathBuf,
    replaced: Vec<(String, String)>,
}

impl Machine {
    /// A machine in `folder/NAME`, whose host name is `NAME.example.net`.
    pub fn new(folder: &Path, name: &str, replaced: &[(&str, &str)]) -> Result<Machine> {
        let root = folder.join(name);
        for folder in ["etc/choria", "home", "data"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        let mut replaced: Vec<(String, String)> =
            replaced.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        for folder in ["/etc/", "/data"] {
            replaced.push((format!(" {folder}"), format!(" {}{folder}", root.display())));
            replaced.push((format!("\"{folder}"), format!("\"{}{folder}", root.display())));
        }
        Ok(Machine { name: name.to_owned(), root, replaced })
    }

    /// Where a file of the machine is on this one. `~` is its home.
    pub fn path(&self, path: &str) -> PathBuf {
        match path.strip_prefix('~') {
            Some(rest) => self.root.join("home").join(rest.trim_start_matches('/')),
            None => self.root.join(path.trim_start_matches('/')),
        }
    }

    fn moved(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// Writes a file as the guide prints it.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(write_private(&path, self.moved(text).as_bytes())?)
    }

    pub fn read(&self, path: &str) -> Result<String> {
        let path = self.path(path);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Carries a file from another machine, by hand.
    pub fn receive(&self, path: &str, from: &Machine, source: &str) -> Result<()> {
        let path = self.path(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(write_private(&path, from.read(source)?.as_bytes())?)
    }

    /// Runs command lines in the machine's shell; returns what they print. A command that fails ends it.
    pub fn shell(&self, lines: &str) -> Result<String> {
        let output = self.in_shell(&format!("set -e\n{lines}")).output()?;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("on {}: {lines}\n{}\nstdout: {stdout}\nstderr: {stderr}", self.name, output.status);
        }
        Ok(stdout.into_owned())
    }

    /// The same for a command that must fail; returns what it complains about.
    pub fn fails(&self, lines: &str) -> Result<String> {
        let output = self.in_shell(lines).output()?;
        if output.status.success() {
            bail!("on {}: {lines}\nsucceeded: {}", self.name, String::from_utf8_lossy(&output.stdout));
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts a command that stays; it must not need a shell.
    pub fn start(&self, line: &str) -> Result<Running> {
        let line = self.moved(line);
        let mut words = line.split_whitespace();
        let program = words.next().context("a command")?;
        let mut command = Command::new(binary(program));
        command.args(words);
        self.settle(&mut command);
        Running::start(&mut command, &self.root.join("service.log"))
    }

    fn in_shell(&self, lines: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &self.moved(lines)]);
        self.settle(&mut command);
        command
    }

    fn settle(&self, command: &mut Command) {
        let programs =
            binary("choria").parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", format!("{programs}:{path}"))
            .env("HOME", self.root.join("home"))
            .env("USER", "choria")
            // the container's host name
            .env("CHORIA_IDENTITY", format!("{}.example.net", self.name))
            // where a machine has its own /etc, the client finds this by itself
            .env("CHORIA_CONFIG", self.path("/etc/choria/client.conf"))
            .current_dir(self.root.join("home"))
            .stdin(std::process::Stdio::null());
    }
}

/// The word that follows `label` in what a command printed.
pub fn word_after(text: &str, label: &str) -> Result<String> {
    let (_, rest) = text.split_once(label).with_context(|| format!("no {label:?} in {text:?}"))?;
    Ok(rest.split_whitespace().next().with_context(|| format!("nothing after {label:?}"))?.to_owned())
}
