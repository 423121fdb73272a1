//! What both halves of the users' guide to protocol version 2 share: an issuer that nobody connects to, and a broker.
//!
//! Lines of the guide stand as they are in the guide. Some of its lines lost their end; `docs/spec/07 §1.1` says how
//! they are read.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::process::{Running, free_port};

mod machine;

pub use machine::Machine;

/// Longest wait for a process to be ready.
const READY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Guide {
    folder: TempDir,
    addresses: Vec<(String, String)>,
    pub issuer: Machine,
    /// Public key of the organization issuer.
    pub issuer_key: String,
    pub broker: Machine,
}

impl Guide {
    /// Makes the issuer and the broker's files; nothing runs yet.
    pub fn prepare() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (client, monitor, login) = (free_port()?, free_port()?, free_port()?);
        let address = |guide: &str, here: String| (guide.to_owned(), here);
        let addresses = vec![
            address("broker.example.net:4222", format!("127.0.0.1:{client}")),
            address("aaa.example.net:8080", format!("127.0.0.1:{login}")),
            address("client_port = 4222", format!("client_port = {client}")),
            address("[::]:4222", format!("[::]:{client}")),
            address("stats_port = 8222", format!("stats_port = {monitor}")),
            address(r#""port": 8080"#, format!(r#""port": {login}"#)),
            address(r#""monitor_port": 8081"#, format!(r#""monitor_port": {}"#, free_port()?)),
        ];
        let issuer = Machine::new(folder.path(), "issuer.example.net", &addresses)?;
        let broker = Machine::new(folder.path(), "broker.example.net", &addresses)?;
        issuer.shell("mkdir -p development/issuer")?;
        let issuer_key =
            keys(&issuer, "choria jwt keys development/issuer/private.key development/issuer/public.key")?;
        let guide = Guide { folder, addresses, issuer, issuer_key, broker };
        guide.prepare_broker()?;
        Ok(guide)
    }

    /// Another machine of the guide.
    pub fn machine(&self, name: &str) -> Result<Machine> {
        Machine::new(self.folder.path(), name, &self.addresses)
    }

    fn prepare_broker(&self) -> Result<()> {
        let (issuer, broker) = (&self.issuer, &self.broker);
        let key = keys(broker, "choria jwt keys /etc/choria/private.key /etc/choria/public.key")?;
        issuer.shell("mkdir -p development/broker/broker.example.net")?;
        let given = format!(
            "choria jwt server development/broker/broker.example.net/token.jwt \\\n\
             broker.example.net \\\n{key} \\\ndevelopment/issuer/private.key \\\n"
        );
        saved(issuer, &given, "development/broker/broker.example.net/token.jwt")?;
        // docs/spec/07 §1.1: the flag that the line lost
        let whole = format!("{given}--collectives=choria");
        saved(issuer, &whole, "development/broker/broker.example.net/token.jwt")?;
        issuer.carry("development/broker/broker.example.net/token.jwt", broker, "/etc/choria/broker.jwt")?;
        self.make_broker_certificate()?;
        broker.place("/etc/choria/broker.conf", &BROKER_CONF.replace(GUIDE_ISSUER, &self.issuer_key))?;

        let found = broker.shell("find /etc/choria/ -type f")?;
        let mut names: Vec<&str> = found.lines().filter_map(|line| line.rsplit('/').next()).collect();
        names.sort_unstable();
        let expected =
            ["broker-tls.cert", "broker-tls.key", "broker.conf", "broker.jwt", "private.key", "public.key"];
        ensure!(names == expected, "{names:?}");
        Ok(())
    }

    /// A key and a self-signed certificate as the guide makes them: no alternative names, and a CA flag.
    pub fn make_broker_certificate(&self) -> Result<()> {
        self.broker.shell("openssl genrsa -out /etc/choria/broker-tls.key 2048")?;
        self.broker.shell(
            "openssl req -new -x509 -sha256 -key /etc/choria/broker-tls.key \\\n   \
             -out /etc/choria/broker-tls.cert -days 365 -subj \"/O=Choria.io/CN=broker.example.net\"",
        )?;
        Ok(())
    }

    /// Starts the broker and waits for the lines that the guide shows.
    pub fn start_broker(&self, log: &str) -> Result<Running> {
        let broker = self.broker.start("choria broker run --config /etc/choria/broker.conf", log)?;
        // "version" is followed by one, which the guide lost
        let version = format!("Choria Broker version {} starting", env!("CARGO_PKG_VERSION"));
        let lines = BROKER_LINES
            .replace("Choria Broker version starting", &version)
            .replace(GUIDE_ISSUER, &self.issuer_key);
        shows(&broker, &self.broker.moved(&lines))?;
        Ok(broker)
    }

    /// Takes the issuer away. Returns an error when any other machine has its private key, which none may have seen.
    pub fn remove_issuer(&self) -> Result<()> {
        let key = self.issuer.read("development/issuer/private.key")?;
        ensure!(key.len() == 64, "a seed of {} characters", key.len());
        std::fs::remove_dir_all(self.issuer.root())?;
        let found = holders(self.folder.path(), key.as_bytes())?;
        ensure!(found.is_empty(), "the issuer's private key is in {found:?}");
        Ok(())
    }
}

/// Files below `folder` that hold this text.
fn holders(folder: &Path, text: &[u8]) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(holders(&path, text)?);
        } else if std::fs::read(&path)?.windows(text.len()).any(|part| part == text) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Runs a `choria jwt keys` line and returns the public key that it shows.
pub fn keys(machine: &Machine, line: &str) -> Result<String> {
    let printed = machine.shell(line)?;
    let seed = line.split_whitespace().nth(3).context("a line that names its seed file")?;
    let shown = match seed.strip_prefix("~/") {
        Some(_) => machine.path(seed).display().to_string(),
        None => machine.moved(seed),
    };
    let key =
        printed.strip_prefix("Public Key: ").and_then(|rest| rest.get(..64)).context(printed.clone())?;
    ensure!(printed == format!("Public Key: {key}\n\nEd25519 seed saved in {shown}\n"), "{printed}");
    let mode = machine.shell(&format!("stat -c %a {seed}"))?;
    ensure!(mode.trim() == "600", "{seed} has mode {mode}");
    Ok(key.to_owned())
}

/// Runs a line that issues a token, and compares what it says.
pub fn saved(machine: &Machine, line: &str, file: &str) -> Result<()> {
    let printed = machine.shell(line)?;
    ensure!(
        printed == format!("Saved token to {file}, use 'choria jwt view {file}' to view it\n"),
        "{line}\n{printed}"
    );
    Ok(())
}

/// Compares a token's view with the guide's. A `*` at the end of an expected line stands for what differs each time.
pub fn views(machine: &Machine, line: &str, expected: &str) -> Result<()> {
    let printed = machine.shell(line)?;
    let (mut seen, mut wanted) = (printed.trim_end().lines(), expected.trim_end().lines());
    loop {
        match (seen.next(), wanted.next()) {
            (None, None) => return Ok(()),
            (Some(seen), Some(wanted)) if seen == wanted => {}
            (Some(seen), Some(wanted))
                if wanted.strip_suffix('*').is_some_and(|start| seen.starts_with(start)) => {}
            (seen, wanted) => anyhow::bail!("{line}: {seen:?} in place of {wanted:?}:\n{printed}"),
        }
    }
}

/// Waits until a log shows the guide's lines in their order. The guide saw them on a terminal; in a file they have the
/// other shape of docs/spec/07 §2.3.
pub fn shows(process: &Running, lines: &str) -> Result<()> {
    let lines: Vec<String> = lines.lines().map(in_a_file).collect::<Result<_>>()?;
    let all = || {
        let log = process.log();
        let mut rest = log.as_str();
        lines.iter().all(|line| match rest.split_once(line.as_str()) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    };
    crate::process::wait_until("the lines of the guide", READY, all)
        .with_context(|| format!("{lines:#?} are not, in this order, in\n{}", process.log()))
}

/// `WARN[0000] text  key=value` as it is in a file, from the level on.
fn in_a_file(line: &str) -> Result<String> {
    let (level, rest) = line.split_once("[0000] ").context("a line of a log")?;
    let level = match level {
        "INFO" => "info",
        "WARN" => "warning",
        other => anyhow::bail!("no level: {other}"),
    };
    let (message, fields) = rest.split_once("  ").unwrap_or((rest, ""));
    let line = format!("level={level} msg=\"{}\" {fields}", message.replace('"', "\\\""));
    Ok(line.trim_end().to_owned())
}

/// The issuer's public key in the guide, which every reader replaces.
pub const GUIDE_ISSUER: &str = "b3989a299278750427b00213693c2ca02146476a361667682446230842836da8";

const BROKER_CONF: &str = "\
# The name of the organization to configure, for now only supports choria
plugin.security.issuer.names = choria

# The public key from the issuer
plugin.security.issuer.choria.public = b3989a299278750427b00213693c2ca02146476a361667682446230842836da8

# Configures access to broker internal statistics and more
plugin.choria.network.system.password = sYst3m

# Used later in the Provisioner based setup
plugin.choria.network.provisioning.client_password = s3cret

plugin.choria.stats_port = 8222
plugin.choria.broker_network = true
plugin.choria.network.client_port = 4222
plugin.choria.network.stream.store = /data
plugin.choria.network.system.user = system
loglevel = info
plugin.choria.use_srv = false

plugin.security.provider = choria
plugin.security.choria.certificate = /etc/choria/broker-tls.cert
plugin.security.choria.key = /etc/choria/broker-tls.key
plugin.security.choria.token_file = /etc/choria/broker.jwt
plugin.security.choria.seed_file = /etc/choria/private.key
";

const BROKER_LINES: &str = "\
INFO[0000] Choria Broker version starting with config /etc/choria/broker.conf
INFO[0000] Starting Network Broker
WARN[0000] Allowing unverified TLS connections for Organization Issuer issued connections  component=network
WARN[0000] Loaded Organization Issuer choria with public key b3989a299278750427b00213693c2ca02146476a361667682446230842836da8  component=network
WARN[0000] Allowing Provisioner connections subject to JWT claims  component=network
INFO[0000] Listening for client connections on [::]:4222  component=network_broker";
