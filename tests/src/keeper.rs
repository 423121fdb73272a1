//! Whoever keeps a lab running: edits its files, issues keys and tokens, and hangs up on its processes, with the
//! commands and files that `docs/rotation.md` names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_host::private_file::write_atomic;

use crate::network::Network;
use crate::operator::Operator;
use crate::process::{signal, wait_until};

/// What each kind of process says when it has read its files again.
const READ_AGAIN: [(&str, &str); 4] = [
    ("broker", "Settings were read again"),
    ("aaa", "configuration reloaded"),
    ("provisioner", "choria-provisioner.yaml again"),
    ("node", "the configuration was read again"),
];

#[derive(Debug)]
pub struct Keeper<'n> {
    network: &'n Network,
    /// Runs `choria` without a network.
    tool: Operator,
}

impl<'n> Keeper<'n> {
    pub fn of(network: &'n Network) -> Self {
        let tool = Operator::new(&network.lab_folder().join("client.conf"), network.folder());
        Keeper { network, tool }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.network.lab_folder().join(name)
    }

    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Puts a file into place at once, as private as the one it replaces.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        let mode = if Path::new(name).extension().is_some_and(|e| e == "pem" || e == "public") {
            0o644
        } else {
            0o600
        };
        write_atomic(&self.path(name), content.as_bytes(), mode)?;
        Ok(())
    }

    /// Replaces a text in a file, where it must stand.
    pub fn edit(&self, name: &str, from: &str, to: &str) -> Result<()> {
        let text = self.read(name)?;
        ensure!(text.contains(from), "{name} does not hold {from:?}");
        self.write(name, &text.replace(from, to))
    }

    pub fn node_files(&self, name: &str) -> Result<Vec<String>> {
        let nodes = self.nodes()?;
        Ok(nodes.iter().map(|node| format!("nodes/{node}/{name}")).collect())
    }

    pub fn nodes(&self) -> Result<Vec<String>> {
        let processes = self.network.processes()?;
        Ok(processes.into_iter().map(|(name, _)| name).filter(|name| name.starts_with("node")).collect())
    }

    /// `choria jwt …`, which needs no network.
    pub fn issue(&self, arguments: &[&str]) -> Result<()> {
        self.tool.ok(&[&["jwt"], arguments].concat()).map(|_| ())
    }

    /// A new key pair: `NAME.seed`; returns the public half.
    pub fn keys(&self, name: &str) -> Result<String> {
        let seed = self.path(&format!("{name}.seed"));
        let public = self.path(&format!("{name}.public"));
        let (seed, public) = (text(&seed)?, text(&public)?);
        self.issue(&["keys", seed, public, "--force"])?;
        Ok(self.read(&format!("{name}.public"))?.trim().to_owned())
    }

    /// `kill -HUP` of the processes whose names begin so, and waits until each has read its files again.
    pub fn hang_up(&self, names: &str) -> Result<()> {
        let (_, told) =
            READ_AGAIN.iter().find(|(kind, _)| names.starts_with(kind)).context("no such process")?;
        self.hang_up_until(names, told)
    }

    /// The same, until each process has said this once more.
    pub fn hang_up_until(&self, names: &str, told: &str) -> Result<()> {
        let processes: Vec<(String, u32)> =
            self.network.processes()?.into_iter().filter(|(name, _)| name.starts_with(names)).collect();
        ensure!(!processes.is_empty(), "no process is called {names}");
        let told_by = |name: &str| self.network.log(name).matches(told).count();
        let mut before = Vec::new();
        for (name, id) in &processes {
            before.push(told_by(name));
            signal(*id, "-HUP")?;
        }
        wait_until(&format!("{names} says '{told}'"), Duration::from_secs(20), || {
            processes.iter().zip(&before).all(|((name, _), before)| told_by(name) > *before)
        })
    }

    /// How often nodes have connected since they were started, all together.
    pub fn connects(&self) -> Result<usize> {
        let nodes = self.nodes()?;
        Ok(nodes.iter().map(|node| self.network.log(node).matches("msg=\"connected\"").count()).sum())
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}
