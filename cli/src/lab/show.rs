//! `choria lab status` and `choria lab env`

use std::path::Path;

use crate::failure::Failure;
use crate::lab::directory::Directory;
use crate::lab::processes;
use crate::lab::record::{LIFE, Process, Record};
use crate::lab::swarm;
use crate::lab::{Place, StatusOptions};
use crate::output;

/// What a node's own files say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// It has no configuration yet.
    Waiting,
    /// It was configured, and restarts.
    Enrolled,
    /// It is connected as a member.
    Member,
}

/// Looks into a node's directory.
pub(crate) fn node(directory: &Path) -> Node {
    if !directory.join("server.conf").is_file() {
        return Node::Waiting;
    }
    let status = std::fs::read(directory.join("status.json")).unwrap_or_default();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap_or_default();
    let connected =
        status.get("connected_server").and_then(|server| server.as_str()).is_some_and(|s| !s.is_empty());
    let provisioning = status.get("provisioning_mode").and_then(serde_json::Value::as_bool).unwrap_or(true);
    if connected && !provisioning { Node::Member } else { Node::Enrolled }
}

/// One process, as it is now.
#[derive(Debug, serde::Serialize)]
struct State {
    name: String,
    pid: i32,
    running: bool,
    state: String,
}

fn states(directory: &Directory, record: &Record) -> Vec<State> {
    let look = |process: &Process| {
        let running = processes::is_running(process);
        let node = directory.node(&process.name);
        let state = match (running, node.is_dir()) {
            (false, _) => String::from("ended"),
            (true, true) if process.name == swarm::NAME => {
                format!("{} of {} nodes are members", swarm::members(directory), record.swarm)
            }
            (true, false) => String::from("running"),
            (true, true) => String::from(match self::node(&node) {
                Node::Waiting => "waits to be provisioned",
                Node::Enrolled => "provisioned, not connected yet",
                Node::Member => "member",
            }),
        };
        State { name: process.name.clone(), pid: process.pid, running, state }
    };
    record.processes.iter().map(look).collect()
}

/// The exit code says whether everything runs.
pub(crate) fn status(options: &StatusOptions) -> Result<u8, Failure> {
    let directory = Directory::existing(&options.place)?;
    let record = Record::load(&directory)?;
    let states = record.as_ref().map(|record| states(&directory, record)).unwrap_or_default();
    let ended = states.iter().filter(|state| !state.running).count();
    let code = u8::from(record.is_none() || ended > 0);
    if options.json {
        let ports = record.as_ref().map(|record| record.ports);
        let until = record.as_ref().map(|record| record.created.saturating_add(LIFE));
        output::print(&output::json(&serde_json::json!({
            "lab": true,
            "directory": directory.root(),
            "up": record.is_some(),
            "good_until": until,
            "ports": ports,
            "processes": states,
        })));
        return Ok(code);
    }
    let Some(record) = record else {
        output::print(&format!("The lab in {} is down.\n", directory.root().display()));
        return Ok(code);
    };
    let ports = record.ports;
    let mut text = format!("Lab in {}, {}\n\n", directory.root().display(), ports.reach());
    let until = choria_host::clock::rfc3339_seconds(record.created.saturating_add(LIFE));
    for (label, value) in [
        ("Good until", until),
        ("Broker", format!("nats://127.0.0.1:{}", ports.broker)),
        ("Broker statistics", format!("http://127.0.0.1:{}/varz", ports.broker_statistics)),
        ("Login", format!("https://127.0.0.1:{}/choria/v1/login", ports.login)),
        ("Provisioner metrics", format!("http://127.0.0.1:{}/metrics", ports.provisioner_metrics)),
    ] {
        text.push_str(&format!("{label:>20}: {value}\n"));
    }
    text.push('\n');
    for state in &states {
        text.push_str(&format!("{:>28}  {:>8}  {}\n", state.name, state.pid, state.state));
    }
    if ended > 0 {
        text.push_str(&format!(
            "\n{ended} ended; their logs are in {}\n",
            directory.root().join("logs").display()
        ));
    }
    output::print(&text);
    Ok(code)
}

pub(crate) fn environment(place: &Place) -> Result<u8, Failure> {
    let directory = Directory::existing(place)?;
    if Record::load(&directory)?.is_none() {
        return Err(Failure::new(format!("the lab in {} is down", directory.root().display()))
            .hint("start it with `choria lab up`"));
    }
    let mut text = format!("export CHORIA_CONFIG={}\n", quoted(&directory.client_conf()));
    text.push_str(&format!("export CHORIA_LAB={}\n", quoted(directory.root())));
    let program = std::env::current_exe().ok();
    if let Some(folder) = program.as_deref().and_then(Path::parent) {
        text.push_str(&format!("export PATH={}:\"$PATH\"\n", quoted(folder)));
    }
    output::print(&text);
    Ok(0)
}

/// A path as one word of a shell.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words() {
        assert_eq!(quoted(Path::new("/tmp/lab-1")), "/tmp/lab-1");
        assert_eq!(quoted(Path::new("/tmp/my lab's")), r"'/tmp/my lab'\''s'");
        assert_eq!(quoted(Path::new("/tmp/$HOME")), "'/tmp/$HOME'");
    }

    #[test]
    fn a_node_grows_up() {
        let directory = tempfile::tempdir().unwrap();
        let at = |file: &str, text: &str| std::fs::write(directory.path().join(file), text).unwrap();
        assert_eq!(node(directory.path()), Node::Waiting);
        at("server.conf", "identity=n1\n");
        assert_eq!(node(directory.path()), Node::Enrolled);
        at("status.json", r#"{"connected_server":"nats://127.0.0.1:4222","provisioning_mode":true}"#);
        assert_eq!(node(directory.path()), Node::Enrolled);
        at("status.json", r#"{"connected_server":"nats://127.0.0.1:4222","provisioning_mode":false}"#);
        assert_eq!(node(directory.path()), Node::Member);
    }
}
