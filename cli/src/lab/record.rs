//! `lab.json`: which ports and processes belong to the lab.

use std::net::{Ipv4Addr, TcpListener};

use serde::{Deserialize, Serialize};

use crate::failure::{Doing as _, Failure};
use crate::lab::directory::{Directory, write};

/// How long anything the lab issues is good for, seconds.
pub(crate) const LIFE: i64 = 30 * 86_400;

/// Everything that has to be known to find the lab again.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    /// Always true: whoever reads this file should know what it is.
    pub(crate) lab: bool,
    /// Seconds since 1970.
    pub(crate) created: i64,
    pub(crate) servers: u16,
    pub(crate) swarm: u32,
    pub(crate) ports: Ports,
    #[serde(default)]
    pub(crate) processes: Vec<Process>,
}

/// TCP ports, on 127.0.0.1 but for those of broker and login service.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Ports {
    /// Where broker and login service listen.
    #[serde(default = "loopback")]
    pub(crate) bind: Ipv4Addr,
    pub(crate) broker: u16,
    pub(crate) broker_statistics: u16,
    pub(crate) login: u16,
    pub(crate) provisioner_metrics: u16,
    /// For microcontrollers, with `--devices`.
    #[serde(default)]
    pub(crate) devices: Option<u16>,
}

/// A process that the lab started. A process id alone may belong to somebody else by now; with the time of its start
/// it cannot.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub(crate) started: u64,
}

fn loopback() -> Ipv4Addr {
    Ipv4Addr::LOCALHOST
}

impl Ports {
    /// Who can reach the lab, for a person to read.
    pub(crate) fn reach(&self) -> &'static str {
        if self.bind.is_loopback() { "on 127.0.0.1 only" } else { "OPEN TO OTHER MACHINES (0.0.0.0)" }
    }

    /// Ports that nobody listens on now.
    pub(crate) fn choose(bind: Ipv4Addr, for_devices: bool) -> Result<Ports, Failure> {
        let listen = || {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .doing(|| String::from("cannot find a free port on 127.0.0.1"))
        };
        // held together, so that no two are the same
        let listeners = [listen()?, listen()?, listen()?, listen()?, listen()?];
        let mut ports = [0; 5];
        for (port, listener) in ports.iter_mut().zip(&listeners) {
            *port = listener.local_addr()?.port();
        }
        let [broker, broker_statistics, login, provisioner_metrics, devices] = ports;
        let devices = for_devices.then_some(devices);
        Ok(Ports { bind, broker, broker_statistics, login, provisioner_metrics, devices })
    }
}

impl Record {
    /// `None` when the lab was ended.
    pub(crate) fn load(directory: &Directory) -> Result<Option<Record>, Failure> {
        let path = directory.record();
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("cannot read {}", path.display())),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .doing(|| format!("cannot understand {}; remove it if its lab is gone", path.display())),
        }
    }

    pub(crate) fn save(&self, directory: &Directory) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).doing(|| String::from("cannot write the lab's record"))?;
        write(&directory.record(), &text, 0o600)
    }

    /// Names of the servers that are processes of their own.
    pub(crate) fn server_names(&self) -> Vec<String> {
        let width = self.servers.to_string().len().max(2);
        (1..=self.servers).map(|number| format!("node{number:0width$}.{DOMAIN}")).collect()
    }
}

/// The domain of all names in the lab.
pub(crate) const DOMAIN: &str = "lab.choria.local";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_names_sort() {
        let ports = Ports::choose(Ipv4Addr::LOCALHOST, true).unwrap();
        let mut all = vec![ports.broker, ports.broker_statistics, ports.login, ports.provisioner_metrics];
        all.extend(ports.devices);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5);
        let record = Record { lab: true, created: 0, servers: 120, swarm: 0, ports, processes: Vec::new() };
        let names = record.server_names();
        assert_eq!(names[0], "node001.lab.choria.local");
        assert!(names.is_sorted());
    }
}
