//! `choria lab up`: make everything, start everything, wait until the nodes have enrolled themselves.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::failure::{Code, Doing as _, Failure};
use crate::lab::directory::{Directory, make};
use crate::lab::processes::{self, Started};
use crate::lab::record::{DOMAIN, Ports, Process, Record};
use crate::lab::show::{self, Node};
use crate::lab::{UpOptions, certificates, configuration, credentials, permit};
use crate::output;
use crate::output::colour::{Colour, When};
use crate::output::progress::Progress;

/// Longest wait for a service to listen.
const SERVICE_READY: Duration = Duration::from_secs(30);

/// Longest wait without any node making progress.
const NODE_PATIENCE: Duration = Duration::from_secs(120);

/// How many servers may start at once: each start is a burst of work for a small machine.
const START_TOGETHER: usize = 8;

pub(crate) fn run(options: &UpOptions, color: When) -> Result<u8, Failure> {
    permit::check(options.allow_root)?;
    permit::check_bind(options.bind, options.insecure_lab)?;
    let directory = Directory::find(&options.place)?;
    if let Some(record) = Record::load(&directory).unwrap_or(None) {
        let running = record.processes.iter().filter(|process| processes::is_running(process)).count();
        if running > 0 {
            return Err(Failure::new(format!("a lab runs in {} already", directory.root().display()))
                .hint("see `choria lab status`, or end it with `choria lab down`"));
        }
    }
    directory.prepare()?;
    let now = choria_host::clock::unix_seconds();
    let record = Record {
        lab: true,
        created: now,
        servers: options.servers,
        swarm: options.swarm,
        ports: Ports::choose(options.bind, options.devices)?,
        processes: Vec::new(),
    };
    output::note(&format!("Making a lab in {}, {}.\n", directory.root().display(), record.ports.reach()));
    if !options.bind.is_loopback() {
        output::note(
            "WARNING: whoever reaches this machine can log in with the password `secret` and command every node.\n",
        );
    }
    let certificate = certificates::create(&directory, now)?;
    if options.devices {
        certificates::create_for_devices(&directory, now)?;
    }
    let credentials = credentials::create(&directory, record.ports, &certificate, now)?;
    configuration::create(&directory, &record, &credentials, &options.accept)?;

    let mut lab = Lab { directory, record, started: Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| String::from("cannot start the runtime"))?;
    let outcome = runtime.block_on(async {
        // from the first process on, so that an early Ctrl-C leaves none behind
        let mut interrupt = Interrupt::new()?;
        tokio::select! {
            result = lab.bring_up(color) => result.map(|()| Ended::Up),
            () = interrupt.wait() => Ok(Ended::Interrupted),
        }
        .map(|ended| (ended, interrupt))
    });
    let (ended, mut interrupt) = match outcome {
        Ok(outcome) => outcome,
        Err(failure) => {
            lab.end()?;
            return Err(failure);
        }
    };
    if ended == Ended::Up {
        output::note(&lab.what_next(options.detach));
        if options.detach {
            return Ok(0);
        }
        runtime.block_on(async {
            tokio::select! {
                () = interrupt.wait() => {}
                () = lab.watch() => {}
            }
        });
    }
    output::note("\nEnding the lab.\n");
    lab.end()?;
    output::note("Every process has ended, and the lab's keys and tokens are removed.\n");
    // ending a lab that stands is what Ctrl-C is for; one that does not stand yet was wanted
    Ok(if ended == Ended::Up { 0 } else { Code::Interrupted as u8 })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Up,
    Interrupted,
}

/// Ctrl-C, a polite request to end, or the end of the terminal.
struct Interrupt {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// The terminal was closed: nobody is left to press Ctrl-C.
    hangup: tokio::signal::unix::Signal,
}

impl Interrupt {
    fn new() -> Result<Interrupt, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let doing = || String::from("cannot listen for Ctrl-C");
        Ok(Interrupt {
            interrupt: signal(SignalKind::interrupt()).doing(doing)?,
            terminate: signal(SignalKind::terminate()).doing(doing)?,
            hangup: signal(SignalKind::hangup()).doing(doing)?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

struct Lab {
    directory: Directory,
    record: Record,
    started: Vec<Started>,
}

impl Lab {
    async fn bring_up(&mut self, color: When) -> Result<(), Failure> {
        let hub = |file: &str| self.directory.hub(file).to_string_lossy().into_owned();
        let (broker, aaa, provisioner, client) =
            (hub("broker.conf"), hub("aaasvc.conf"), hub("choria-provisioner.yaml"), hub("provisioner.conf"));
        let ports = self.record.ports;
        self.service("broker", &["broker", "run", "--config", &broker], ports.broker).await?;
        self.service("aaa", &["aaa", "run", "--config", &aaa], ports.login).await?;
        let arguments = ["provisioner", "run", "--config", &provisioner, "--choria-config", &client];
        self.service("provisioner", &arguments, ports.provisioner_metrics).await?;
        self.nodes(color).await
    }

    /// Starts a service and waits until it listens.
    async fn service(&mut self, name: &str, arguments: &[&str], port: u16) -> Result<(), Failure> {
        self.start(name, arguments, None)?;
        let until = Instant::now() + SERVICE_READY;
        loop {
            if listens(port) {
                return Ok(());
            }
            let running = self.started.last_mut().is_some_and(Started::is_running);
            if !running || Instant::now() >= until {
                let what = if running { "does not listen" } else { "ended at once" };
                return Err(self.told(name, &format!("the {name} {what}")));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    fn start(&mut self, name: &str, arguments: &[&str], identity: Option<&str>) -> Result<(), Failure> {
        let node = self.directory.node(name);
        let working = if identity.is_some() { node } else { self.directory.root().to_path_buf() };
        let started = processes::start(name, arguments, identity, &working, &self.directory.log(name))?;
        self.record.processes.push(started.process.clone());
        self.started.push(started);
        // at once: what is not recorded cannot be ended by `lab down`
        self.record.save(&self.directory)
    }

    /// Starts the servers, a few at a time, and waits until all are members.
    async fn nodes(&mut self, color: When) -> Result<(), Failure> {
        let names = self.record.server_names();
        let swarm = usize::try_from(self.record.swarm).unwrap_or(usize::MAX);
        let total = names.len().saturating_add(swarm);
        if swarm > 0 {
            let token = self.directory.root().join("nodes/provisioning.jwt").to_string_lossy().into_owned();
            let state = self.directory.node("swarm").to_string_lossy().into_owned();
            make(&self.directory.node("swarm"))?;
            let count = swarm.to_string();
            let arguments =
                ["lab", "swarm-nodes", "--provisioning-jwt", &token, "--count", &count, "--state", &state];
            self.start("swarm", &arguments, None)?;
        }
        output::note(&format!("Starting {total} nodes that know nothing but their provisioning token.\n"));
        let mut bar =
            Progress::start(total, true, "Waiting for the nodes to enrol", Colour::stderr(color, true));
        let mut waiting: Vec<String> = names.into_iter().rev().collect();
        let mut starting: Vec<String> = Vec::new();
        let mut members = 0;
        let mut done = 0;
        let mut last_progress = Instant::now();
        // where no bar can be drawn, lines say the same
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let mut last_line = Instant::now();
        loop {
            while starting.len() < START_TOGETHER {
                let Some(name) = waiting.pop() else { break };
                let config = self.directory.node(&name).join("server.conf").to_string_lossy().into_owned();
                self.start(&name, &["server", "run", "--config", &config], Some(&name))?;
                starting.push(name);
            }
            let before = starting.len();
            starting.retain(|name| show::node(&self.directory.node(name)) != Node::Member);
            members += before - starting.len();
            let swarm_done = if swarm > 0 { crate::lab::swarm::members(&self.directory) } else { 0 };
            let now_done = members + swarm_done;
            if now_done != done {
                done = now_done;
                last_progress = Instant::now();
                bar.advance(done);
                if !terminal && (done >= total || last_line.elapsed() >= Duration::from_secs(1)) {
                    last_line = Instant::now();
                    output::note(&format!("{done} of {total} nodes are members.\n"));
                }
            }
            if done >= total {
                bar.finish();
                return Ok(());
            }
            if let Some(ended) = self
                .started
                .iter_mut()
                .find_map(|one| if one.is_running() { None } else { Some(one.process.name.clone()) })
            {
                bar.finish();
                return Err(self.told(&ended, &format!("{ended} ended while the nodes enrolled")));
            }
            if last_progress.elapsed() > NODE_PATIENCE {
                bar.finish();
                let stuck = starting.first().cloned().unwrap_or_else(|| String::from("swarm"));
                return Err(self.told(&stuck, &format!("{} of {total} nodes did not enrol", total - done)));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A failure that ends with what the process logged last.
    fn told(&self, process: &str, message: &str) -> Failure {
        let log = self.directory.log(process);
        let mut failure = Failure::new(message);
        for line in last_lines(&log, 5) {
            failure = failure.because(output::harmless(&line));
        }
        failure.hint(format!("its log is {}", log.display()))
    }

    /// Says when a process ends that nobody asked to end. Returns when all have.
    async fn watch(&mut self) {
        loop {
            self.started.retain_mut(|one| {
                let running = one.is_running();
                if !running {
                    output::note(&format!("{} ended.\n", one.process.name));
                }
                running
            });
            if self.started.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        let processes: Vec<Process> = self.record.processes.clone();
        processes::end(&processes, || {
            for one in &mut self.started {
                one.is_running();
            }
        });
        self.directory.remove_secrets()
    }

    fn what_next(&self, detached: bool) -> String {
        let mut program = std::env::args_os().next().unwrap_or_default().to_string_lossy().into_owned();
        if program.is_empty() {
            program = String::from("choria");
        }
        let place = format!(" --dir {}", show::quoted(self.directory.root()));
        let end = if detached { format!("{program} lab down{place}") } else { String::from("Ctrl-C here") };
        let devices = self.record.ports.devices.map_or_else(String::new, |port| {
            let path = |name: &str| show::quoted(&self.directory.root().join(name));
            format!(
                "An image for a microcontroller in QEMU on this machine (see docs/device-images.md):\n\n\
                 \x20 cargo xtask image --elf FIRMWARE --jwt {} --issuer {} --ca {} \\\n\
                 \x20     --url nats://10.0.2.2:{port} --identity device1.{DOMAIN} --out images\n\n",
                path("nodes/provisioning.jwt"),
                path("issuer/issuer.public"),
                path("tls/devices-ca.pem"),
            )
        });
        format!(
            "\nThe lab is up: a broker, login and request signing, a provisioner and {} nodes.\n\n\
             In a shell, type:\n\n\
             \x20 eval \"$({program} lab env{place})\"\n\
             \x20 choria login           # users choria, admin and streams; the password is `{}`\n\
             \x20 choria ping\n\
             \x20 choria req rpcutil ping\n\
             \x20 choria req choria_provision reprovision token=@\"$CHORIA_LAB/hub/provisioning-token\"\n\n\
             {devices}To end it: {end}\n",
            usize::from(self.record.servers) + usize::try_from(self.record.swarm).unwrap_or(0),
            credentials::PASSWORD,
        )
    }
}

/// Whether somebody listens on 127.0.0.1. The kernel is asked, because a connection without a word would be a failed
/// handshake in the service's log.
fn listens(port: u16) -> bool {
    match std::fs::read_to_string("/proc/net/tcp") {
        Ok(table) => is_listening(&table, port),
        Err(_) => {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
        }
    }
}

/// Looks for `0100007F:PORT` or `00000000:PORT` in state `0A` in the text of `/proc/net/tcp`.
fn is_listening(table: &str, port: u16) -> bool {
    let local = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED]
        .map(|address| format!("{:08X}:{port:04X}", u32::from_ne_bytes(address.octets())));
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|field| local.iter().any(|local| local == field))
            && fields.nth(1) == Some("0A")
    })
}

fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let mut text = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        if file.seek(SeekFrom::Start(length.saturating_sub(4096))).is_ok() {
            // a log that cannot be read has nothing to tell
            drop(file.read_to_end(&mut text));
        }
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<String> = text.lines().rev().take(count).map(str::to_owned).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_seen_and_a_connection_is_not() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listens(port));
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!listens(client.local_addr().unwrap().port()));
        drop(listener);
        assert!(!listens(port));
    }

    #[test]
    fn the_end_of_a_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        std::fs::write(&log, "one\ntwo\nthree\n".repeat(1000)).unwrap();
        assert_eq!(last_lines(&log, 2), ["two", "three"]);
        assert!(last_lines(&directory.path().join("none"), 2).is_empty());
    }
}
