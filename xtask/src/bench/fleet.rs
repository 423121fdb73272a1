//! `cargo xtask bench fleet`: how fast a fleet enrols and answers, and what it costs while idle.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{sizes, step};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Nodes that enrol, in one process
    #[arg(long, default_value_t = 2_000)]
    swarm: u32,
    /// How often to repeat what can be repeated; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Write the table into the README
    #[arg(long)]
    write: bool,
}

struct Row {
    what: String,
    measured: String,
    floor: &'static str,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let packages = ["-p", "choria", "-p", "choria-tests", "--bin", "choria", "--bin", "sign-load"];
    step::run("release build", step::cargo(&["build", "--locked", "--release"]).args(packages))?;
    let agent_size = sizes::agent_binary()?;
    let home = std::env::temp_dir().join(format!("choria-bench-{}", std::process::id()));
    std::fs::create_dir_all(&home)?;
    let result = measure(options, &home, agent_size);
    std::fs::remove_dir_all(&home).ok();
    let table = table(&result?);
    println!("\n{table}");
    if options.write {
        write(&table)?;
    }
    Ok(())
}

fn measure(options: &Options, home: &Path, agent_size: u64) -> Result<Vec<Row>> {
    let choria = step::target_directory().join("release/choria");
    let lab = Lab::up(&choria, home, options.swarm)?;
    lab.login()?;
    let mut rows = vec![Row {
        what: format!("provisioning, {} nodes", options.swarm),
        measured: format!("{:.0} nodes a minute", lab.rate),
        floor: "6,000",
    }];

    let mut first = Vec::new();
    let mut last = Vec::new();
    let mut replies = f64::INFINITY;
    for _ in 0..options.rounds {
        let stats = lab.ping()?;
        let number =
            |name: &str| stats.get(name).and_then(Value::as_f64).with_context(|| format!("no {name}"));
        replies = replies.min(number("replies")?);
        first.push(number("avg_ms")?);
        last.push(number("max_ms")?);
    }
    rows.push(Row {
        what: format!("`choria ping`, {replies} replies"),
        measured: format!("mean {:.0} ms, last {:.0} ms", median(&mut first), median(&mut last)),
        floor: "",
    });

    let hub: u64 =
        ["broker", "aaa", "provisioner"].iter().map(|name| lab.resident(name)).sum::<Result<u64>>()?;
    rows.push(Row {
        what: format!("resident memory of the hub with {} nodes", options.swarm),
        measured: format!("{:.1} MiB (broker {:.1})", mib(hub), mib(lab.resident("broker")?)),
        floor: "",
    });

    lab.lift_signing_limit()?;
    let mut rates = Vec::new();
    for _ in 0..options.rounds {
        rates.push(lab.signatures()?);
    }
    rows.push(Row {
        what: String::from("AAA signatures through the service, 64 at a time"),
        measured: format!("{:.0} a second", median(&mut rates)),
        floor: "",
    });

    let agent = lab.idle_agent()?;
    rows.push(Row {
        what: String::from("resident memory of an idle `choria-agent`, connected"),
        measured: format!("{:.1} MiB", mib(agent)),
        floor: "12 MiB, aim 8",
    });
    rows.push(Row {
        what: String::from("size of `choria-agent`, stripped"),
        measured: format!("{:.2} MiB", mib(agent_size)),
        floor: "6 MiB",
    });

    let mut starts = Vec::new();
    for _ in 0..options.rounds * 4 {
        let started = Instant::now();
        step::output(Command::new(&choria).arg("--help"))?;
        starts.push(started.elapsed().as_secs_f64() * 1e3);
    }
    rows.push(Row {
        what: String::from("`choria --help`, start to end"),
        measured: format!("{:.1} ms", median(&mut starts)),
        floor: "",
    });
    Ok(rows)
}

/// A lab whose nodes share one process. Ended when dropped.
struct Lab {
    choria: PathBuf,
    home: PathBuf,
    /// Nodes a minute, from the first configured node to the last.
    rate: f64,
}

impl Lab {
    fn up(choria: &Path, home: &Path, swarm: u32) -> Result<Self> {
        let mut lab = Lab { choria: choria.to_path_buf(), home: home.to_path_buf(), rate: 0.0 };
        let arguments = ["up", "--servers", "0", "--detach", "--accept", "bench-agent*"];
        let mut up = lab.lab(&arguments);
        up.args(["--swarm", &swarm.to_string()]).stdin(Stdio::null());
        eprintln!("\n==> a lab with {swarm} nodes in one process");
        let mut child = Ended(up.spawn().context("cannot start the lab")?);
        lab.rate = lab.watch_enrolment(&mut child, swarm)?;
        let status = child.0.wait()?;
        if !status.success() {
            bail!("lab up: {status}");
        }
        Ok(lab)
    }

    /// Reads the provisioner's own counter until all nodes are configured.
    fn watch_enrolment(&self, up: &mut Ended, swarm: u32) -> Result<f64> {
        let wanted = f64::from(swarm);
        let until = Instant::now() + Duration::from_secs(600);
        let mut began: Option<(Instant, f64)> = None;
        loop {
            let count = self.provisioned().unwrap_or(0.0);
            match began {
                None if count > 0.0 => began = Some((Instant::now(), count)),
                Some((at, first)) if count >= wanted => {
                    return Ok((wanted - first) / at.elapsed().as_secs_f64() * 60.0);
                }
                _ => {}
            }
            if let Some(status) = up.0.try_wait()?
                && !status.success()
            {
                bail!("lab up: {status}");
            }
            if Instant::now() > until {
                bail!("{count} of {swarm} nodes were enrolled in ten minutes");
            }
            pause(Duration::from_millis(20));
        }
    }

    fn provisioned(&self) -> Option<f64> {
        let record = self.record().ok()?;
        let port = record.pointer("/ports/provisioner_metrics")?.as_u64()?;
        let page = get(u16::try_from(port).ok()?)?;
        let line = page.lines().find(|line| line.starts_with("choria_provisioner_provisioned"))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn lab(&self, arguments: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("lab").args(arguments).arg("--dir").arg(self.folder());
        command.env("CHORIA_LAB_ALLOW_ROOT", "1");
        command
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.choria);
        command.env("HOME", &self.home).env("CHORIA_CONFIG", self.folder().join("client.conf"));
        command
    }

    fn folder(&self) -> PathBuf {
        self.home.join("lab")
    }

    fn record(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.folder().join("lab.json"))?)?)
    }

    fn login(&self) -> Result<()> {
        let file = self.home.join("password");
        let mut private = std::fs::OpenOptions::new();
        private.write(true).create(true).truncate(true).mode(0o600).open(&file)?.write_all(b"secret")?;
        let mut login = self.command();
        step::output(login.args(["login", "--username", "choria", "--password-file"]).arg(file))?;
        Ok(())
    }

    fn ping(&self) -> Result<Value> {
        let text = step::output(self.command().args(["ping", "--json", "--timeout", "10"]))?;
        let document: Value = serde_json::from_str(&text)?;
        document.get("stats").cloned().context("no stats")
    }

    fn signatures(&self) -> Result<f64> {
        let program = step::target_directory().join("release/sign-load");
        let config = self.folder().join("client.conf");
        let text =
            step::output(Command::new(program).arg(config).args(["4000", "64"]).env("HOME", &self.home))?;
        Ok(text.trim().parse()?)
    }

    fn pid(&self, name: &str) -> Result<u32> {
        let record = self.record()?;
        let processes = record.get("processes").and_then(Value::as_array).context("no processes")?;
        let named = |process: &&Value| process.get("name").and_then(Value::as_str) == Some(name);
        let process = processes.iter().find(named).with_context(|| format!("no process {name}"))?;
        Ok(u32::try_from(process.get("pid").and_then(Value::as_u64).context("no pid")?)?)
    }

    fn resident(&self, name: &str) -> Result<u64> {
        resident(self.pid(name)?)
    }

    /// One caller asks for thousands of signatures: the lab's limit for each caller is lifted for that.
    fn lift_signing_limit(&self) -> Result<()> {
        let path = self.folder().join("hub/aaasvc.conf");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let signer = config.get_mut("basicjwt_signer").and_then(Value::as_object_mut).context("no signer")?;
        signer.insert(String::from("rate"), Value::from(0));
        std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        step::output(Command::new("kill").args(["-HUP", &self.pid("aaa")?.to_string()]))?;
        pause(Duration::from_secs(2));
        Ok(())
    }

    /// A node of the lab that runs the stand-alone agent: enrols, connects, and is left alone for a while.
    fn idle_agent(&self) -> Result<u64> {
        let folder = self.home.join("agent");
        std::fs::create_dir_all(&folder)?;
        let jwt = self.folder().join("nodes/provisioning.jwt");
        let program = step::target_directory().join("agent/choria-agent");
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(folder.join("server.conf")).arg("--provisioning-jwt").arg(jwt);
        command.env("CHORIA_IDENTITY", "bench-agent.lab.choria.local").stdin(Stdio::null());
        let log = std::fs::File::create(folder.join("log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        let agent = Ended(command.spawn().context("cannot start choria-agent")?);
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let ping =
                self.command().args(["ping", "--names", "-I", "bench-agent.lab.choria.local"]).output()?;
            if ping.status.success() && folder.join("server.jwt").exists() {
                break;
            }
            if Instant::now() > until {
                bail!("choria-agent did not join: {}", std::fs::read_to_string(folder.join("log"))?);
            }
        }
        pause(Duration::from_secs(5));
        resident(agent.0.id())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.lab(&["down"]).status().ok();
    }
}

/// A child that does not outlive us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib * 1024)
}

/// A page of the lab's own HTTP servers.
fn get(port: u16) -> Option<String> {
    use std::io::{Read, Write};
    let address = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.take(1 << 20).read_to_string(&mut page).ok()?;
    Some(page)
}

#[allow(clippy::disallowed_methods)] // watches other processes: there is nothing to await
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

#[allow(clippy::cast_precision_loss)] // sizes of processes
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(rows: &[Row]) -> String {
    let mut out = String::from("| what | measured | floor |\n| --- | --- | --- |\n");
    for row in rows {
        out.push_str(&format!("| {} | {} | {} |\n", row.what, row.measured, row.floor));
    }
    out
}

/// Puts the table between the README's two marks.
fn write(table: &str) -> Result<()> {
    let path = step::root().join("README.md");
    let page = std::fs::read_to_string(&path)?;
    let (before, rest) =
        page.split_once("<!-- numbers -->\n").context("README.md has no <!-- numbers --> mark")?;
    let (_, after) =
        rest.split_once("<!-- /numbers -->").context("README.md has no <!-- /numbers --> mark")?;
    std::fs::write(&path, format!("{before}<!-- numbers -->\n{table}<!-- /numbers -->{after}"))?;
    Ok(())
}
