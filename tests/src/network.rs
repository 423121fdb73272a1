//! A whole network in one folder, as `choria lab` makes it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
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
        let output = Command::new(binary("choria")).args(&up).output()?;
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

    /// An operator who has logged in as the lab's user of that name.
    pub fn operator(&self, user: &str) -> Result<Operator> {
        let operator = Operator::new(&self.lab_folder().join("client.conf"), self.folder.path());
        let password = self.folder.path().join("password");
        std::fs::write(&password, "secret")?;
        let file = password.to_str().context("a file name that is text")?;
        operator.ok(&["login", "--username", user, "--password-file", file])?;
        Ok(operator)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let ended =
            Command::new(binary("choria")).args(["lab", "down", "--dir"]).arg(self.lab_folder()).output();
        if let Ok(output) = ended
            && !output.status.success()
        {
            eprintln!("lab down: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
