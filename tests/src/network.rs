//! A whole network in one folder, as `choria lab` makes it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use choria_host::private_file::write_private;
use tempfile::TempDir;

use crate::operator::Operator;
use crate::process::binary;

#[derive(Debug)]
pub struct Network {
    folder: TempDir,
}

impl Network {
    /// Starts a lab with this many server processes and waits until all are enrolled.
    pub fn lab(servers: usize) -> Result<Self> {
        Network::lab_with(&["--servers", &servers.to_string()])
    }

    pub fn lab_with(arguments: &[&str]) -> Result<Self> {
        let network = Network { folder: tempfile::tempdir()? };
        let mut up = vec!["lab", "up", "--detach", "--dir"];
        let folder = network.lab_folder();
        let name = folder.to_str().context("a folder name that is text")?;
        up.push(name);
        up.extend(arguments);
        let output = Command::new(binary("choria")).args(&up).env("CHORIA_LAB_ALLOW_ROOT", "1").output()?;
        if !output.status.success() {
            bail!(
                "lab up: {}\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(network)
    }

    pub fn lab_folder(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the lab and returns what the command said. Dropping a network ends it, too.
    pub fn down(&self) -> Result<String> {
        let output =
            Command::new(binary("choria")).args(["lab", "down", "--dir"]).arg(self.lab_folder()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            bail!("lab down: {}\n{said}", output.status);
        }
        Ok(said)
    }

    /// The lab's processes: name and process id.
    pub fn processes(&self) -> Result<Vec<(String, u32)>> {
        let record = std::fs::read(self.lab_folder().join("lab.json")).context("the lab's record")?;
        let record: serde_json::Value = serde_json::from_slice(&record)?;
        let processes =
            record.get("processes").and_then(serde_json::Value::as_array).context("no processes")?;
        let process = |entry: &serde_json::Value| {
            let name = entry.get("name")?.as_str()?.to_owned();
            Some((name, u32::try_from(entry.get("pid")?.as_u64()?).ok()?))
        };
        processes.iter().map(|entry| process(entry).context("a process without name or id")).collect()
    }

    /// What a process of the lab logged.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.lab_folder().join("logs").join(format!("{name}.log")))
            .unwrap_or_default()
    }

    /// A test's outcome; to an error, what every process logged last is added.
    pub fn told<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| {
            let mut logs = String::new();
            for (name, _) in self.processes().unwrap_or_default() {
                let log = self.log(&name);
                let lines: Vec<&str> = log.lines().collect();
                logs += &format!(
                    "---- {name}\n{}\n",
                    lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
                );
            }
            error.context(logs)
        })
    }

    /// An operator who has logged in as the lab's user of that name.
    pub fn operator(&self, user: &str) -> Result<Operator> {
        let operator = Operator::new(&self.lab_folder().join("client.conf"), self.folder.path());
        let password = self.folder.path().join("password");
        write_private(&password, b"secret")?;
        let file = password.to_str().context("a file name that is text")?;
        operator.ok(&["login", "--username", user, "--password-file", file])?;
        Ok(operator)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("{error}");
        }
    }
}
