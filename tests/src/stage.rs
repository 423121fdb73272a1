//! A small network made by hand for tests that attack it: a broker, a node and a request signer as real processes, and
//! an organization whose key the test holds.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use choria_host::private_file::{write_atomic, write_private};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::authority::certificates;
use crate::canaries::none_written_down;
use crate::forge::{self, ChainIssuer, Key};
use crate::liar::Liar;
use crate::operator::Operator;
use crate::process::{Running, binary, free_port, signal, wait_until};
use crate::request::{self, Caller};

/// Identity of the node.
pub const NODE: &str = "n1.example.net";
/// Password of user `provisioner`.
pub const PROVISIONER_PASSWORD: &str = "correct horse battery staple";
/// `cht` of the provisioning token.
pub const PROVISIONING_TOKEN: &str = "s3cret-of-the-waiting-nodes";

/// A secret among the node's settings.
pub const CONFIGURED_SECRET: &str = "canary-of-the-nodes-settings";

/// What no file of the stage has as its only content.
const SECRETS: [&str; 3] = [PROVISIONER_PASSWORD, PROVISIONING_TOKEN, CONFIGURED_SECRET];

/// Longest wait for a process to be ready.
const READY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Stage {
    folder: TempDir,
    pub org: Key,
    pub broker: SocketAddr,
    pub ca: PathBuf,
    processes: Mutex<Vec<(String, Running)>>,
    signer: Mutex<bool>,
    provisioner: Mutex<bool>,
}

static SHARED: Mutex<Weak<Stage>> = Mutex::new(Weak::new());

impl Stage {
    /// The stage of all tests of this process that run at the same time. It ends with the last of them.
    pub fn shared() -> Result<Arc<Stage>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = shared.upgrade() {
            return Ok(stage);
        }
        let stage = Arc::new(Stage::start()?);
        *shared = Arc::downgrade(&stage);
        Ok(stage)
    }

    /// A stage that no other test uses.
    pub fn start() -> Result<Stage> {
        Stage::with_broker_settings("")
    }

    /// The same with more lines in the broker's configuration.
    pub fn with_broker_settings(lines: &str) -> Result<Stage> {
        let folder = tempfile::tempdir()?;
        let ca = certificates(folder.path(), &["broker"])?;
        let mut stage = Stage::empty(folder, ca)?;
        stage.write_broker(lines)?;
        stage.run("broker", &["broker", "run", "--config"], &stage.path("broker.conf"))?;
        stage.broker_listens()?;
        stage.start_node()?;
        Ok(stage)
    }

    /// Broker and provisioner in one process, as `choria hub run` runs them; its log is the broker's.
    pub fn hub() -> Result<Stage> {
        let folder = tempfile::tempdir()?;
        let ca = certificates(folder.path(), &["broker"])?;
        let mut stage = Stage::empty(folder, ca)?;
        // the provisioner's file names the broker before it runs
        stage.broker.set_port(free_port()?);
        stage.write_broker(&format!("plugin.choria.network.client_port = {}", stage.broker.port()))?;
        stage.write_provisioner()?;
        stage.run("broker", &["hub", "run", "--dir"], &stage.path(""))?;
        stage.broker_listens()?;
        stage.said("broker", "provisioner started")?;
        stage.start_node()?;
        *stage.provisioner.get_mut().unwrap_or_else(PoisonError::into_inner) = true;
        Ok(stage)
    }

    fn empty(folder: TempDir, ca: PathBuf) -> Result<Stage> {
        Ok(Stage {
            folder,
            org: Key::generate()?,
            broker: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            ca,
            processes: Mutex::new(Vec::new()),
            signer: Mutex::new(false),
            provisioner: Mutex::new(false),
        })
    }

    /// Starts the provisioner, once. It enrols everybody in `example.net`.
    pub fn provisioner(&self) -> Result<()> {
        let mut started = self.provisioner.lock().unwrap_or_else(PoisonError::into_inner);
        if !*started {
            self.start_provisioner()?;
            *started = true;
        }
        Ok(())
    }

    /// Somebody who may enter the provisioning account as its provisioner.
    pub fn provisioner_caller(&self) -> Result<Caller> {
        let permissions = json!({"permissions": {"provisioner": true, "fleet_management": true}});
        self.caller_with("provisioner_signer", permissions)
    }

    /// The token of a node that waits here.
    pub fn provisioning_token(&self) -> Result<String> {
        let claims = forge::provisioning(PROVISIONING_TOKEN, &format!("nats://{}", self.broker))?;
        Ok(forge::token(&claims, &self.org))
    }

    /// Starts a real node that knows nothing but its provisioning token. Its folder and log are named after it.
    pub fn waiting_node(&self, identity: &str) -> Result<PathBuf> {
        self.waiting_node_with(identity, &self.provisioning_token()?)
    }

    /// The same with a token of the test's.
    pub fn waiting_node_with(&self, identity: &str, token: &str) -> Result<PathBuf> {
        let folder = self.path(identity);
        std::fs::create_dir(&folder)?;
        write_private(&folder.join("provisioning.jwt"), token.as_bytes())?;
        self.keep(identity, &mut self.node_command(identity))?;
        self.said(identity, "connected")?;
        Ok(folder)
    }

    /// The command of a node whose configuration is in the folder of its name.
    pub fn node_command(&self, identity: &str) -> Command {
        let folder = self.path(identity);
        let mut command = Command::new(binary("choria"));
        command.args(["server", "run", "--config"]).arg(folder.join("server.conf"));
        command.env_clear().env("HOME", &folder).env("CHORIA_IDENTITY", identity);
        command
    }

    /// Starts the request signer, once.
    pub fn signer(&self) -> Result<()> {
        let mut started = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        if !*started {
            self.start_signer()?;
            *started = true;
        }
        Ok(())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_broker(&self, more: &str) -> Result<()> {
        let config = self.path("broker.conf");
        let path = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "identity = broker.example.net\nloglevel = info\nplugin.choria.broker_network = true\n\
             plugin.choria.use_srv = false\nplugin.choria.network.listen_address = 127.0.0.1\n\
             plugin.choria.network.client_port = 0\n\
             plugin.choria.network.provisioning.client_password = {PROVISIONER_PASSWORD}\n\
             plugin.security.provider = choria\nplugin.security.issuer.names = choria\n\
             plugin.security.issuer.choria.public = {issuer}\nplugin.security.choria.certificate = {certificate}\n\
             plugin.security.choria.key = {key}\n{more}\n",
            issuer = self.org.public(),
            certificate = path("broker.pem"),
            key = path("broker.key"),
        );
        Ok(write_private(&config, text.as_bytes())?)
    }

    fn broker_listens(&mut self) -> Result<()> {
        let listening = "Listening for client connections on ";
        self.said("broker", listening)?;
        let log = self.log("broker");
        let (_, address) = log.split_once(listening).context("an address")?;
        let address: String = address.chars().take_while(|c| !c.is_whitespace() && *c != '"').collect();
        self.broker = address.parse().with_context(|| format!("{address:?} is no address"))?;
        Ok(())
    }

    fn start_node(&self) -> Result<()> {
        let key = Key::generate()?;
        let token = forge::token(&forge::server(NODE, &key)?, &self.org);
        write_private(&self.path("server.seed"), key.seed().as_bytes())?;
        write_private(&self.path("server.jwt"), token.as_bytes())?;
        // a member that could be sent back to provisioning
        write_private(&self.path("provisioning.jwt"), self.provisioning_token()?.as_bytes())?;
        let config = self.path("server.conf");
        let more = format!(
            "rpcauthorization = 1\nrpcauthprovider = aaasvc\nloglevel = debug\n\
             plugin.choria.server.provision = false\nplugin.nats.pass = {CONFIGURED_SECRET}\n\
             plugin.choria.some.token = {CONFIGURED_SECRET}\nplugin.x.secret = {CONFIGURED_SECRET}\n"
        );
        write_private(&config, (self.member(NODE, "server") + &more).as_bytes())?;
        self.run("node", &["server", "run", "--config"], &config)?;
        self.said("node", "connected")
    }

    fn start_signer(&self) -> Result<()> {
        let key = Key::generate()?;
        let host = forge::with(
            forge::server("aaa.example.net", &key)?,
            json!({"permissions": {"service_host": true}}),
        );
        write_private(&self.path("aaa.seed"), key.seed().as_bytes())?;
        write_private(&self.path("aaa.jwt"), forge::token(&host, &self.org).as_bytes())?;
        write_private(&self.path("aaa.conf"), self.member("aaa.example.net", "aaa").as_bytes())?;
        let delegate = Key::generate()?;
        let claims = forge::with(
            forge::client("aaa_request_signer", &delegate)?,
            json!({"permissions": {"authentication_delegator": true}, "agents": null}),
        );
        write_private(&self.path("delegate.seed"), delegate.seed().as_bytes())?;
        write_private(&self.path("delegate.jwt"), forge::token(&claims, &self.org).as_bytes())?;
        write_atomic(&self.path("issuer.public"), self.org.public().as_bytes(), 0o644)?;
        let config = self.path("aaasvc.conf");
        let text = json!({
            "choria_config": self.path("aaa.conf"), "loglevel": "debug", "site": "test", "authorizer": "actionlist",
            "signer": "basicjwt",
            "basicjwt_signer": {
                "signing_certificate": self.path("issuer.public"), "signing_token": self.path("delegate.jwt"),
                "signing_seed": self.path("delegate.seed"), "max_validity": "2h", "choria_service": true,
            },
        });
        write_private(&config, text.to_string().as_bytes())?;
        self.run("aaa", &["aaa", "run", "--config"], &config)
    }

    fn write_provisioner(&self) -> Result<()> {
        let issuer = ChainIssuer::vouched_by(&self.org, Key::generate()?)?;
        write_private(&self.path("issuer.seed"), issuer.key.seed().as_bytes())?;
        write_private(
            &self.path("issuer.jwt"),
            issuer.own_token("provisioner_issuer", &self.org)?.as_bytes(),
        )?;
        let caller = self.provisioner_caller()?;
        write_private(&self.path("provisioner.seed"), caller.key.seed().as_bytes())?;
        write_private(&self.path("provisioner.jwt"), caller.token.as_bytes())?;
        let client = self.path("provisioner-client.conf");
        write_private(&client, self.member("provisioner.example.net", "provisioner").as_bytes())?;
        let config = self.path("choria-provisioner.yaml");
        let text = json!({
            "jwt_verify_cert": self.org.public(), "interval": "1m", "loglevel": "debug", "logfile": "stderr",
            "token": PROVISIONING_TOKEN, "broker_provisioning_password": PROVISIONER_PASSWORD,
            "jwt_signing_key": self.path("issuer.seed"), "jwt_signing_token": self.path("issuer.jwt"),
            "features": {"jwt": true, "ed25519": true}, "helper": self.helper()?,
        });
        Ok(write_private(&config, text.to_string().as_bytes())?)
    }

    fn start_provisioner(&self) -> Result<()> {
        self.write_provisioner()?;
        let mut command = Command::new(binary("choria"));
        command.args(["provisioner", "run", "--config"]).arg(self.path("choria-provisioner.yaml"));
        command.arg("--choria-config").arg(self.path("provisioner-client.conf"));
        command.env_clear().env("HOME", self.folder.path());
        self.keep("provisioner", &mut command)?;
        self.said("provisioner", "provisioner started")
    }

    /// A program that accepts every node, with policies, so that all kinds of files are written.
    fn helper(&self) -> Result<PathBuf> {
        let directory = "__DIRECTORY__";
        let answer = json!({
            "configuration": {
                "plugin.choria.server.provision": "false", "plugin.choria.middleware_hosts": self.broker.to_string(),
                "plugin.security.provider": "choria", "plugin.security.issuer.names": "choria",
                "plugin.security.issuer.choria.public": self.org.public(), "plugin.security.choria.ca": self.ca,
                "plugin.security.choria.seed_file": format!("{directory}/server.seed"),
                "plugin.security.choria.token_file": format!("{directory}/server.jwt"),
                "plugin.choria.use_srv": "false", "rpcauthorization": "1", "rpcauthprovider": "aaasvc",
            },
            "action_policies": {"rpcutil.policy": "policy default allow\n"},
            "opa_policies": {"rpcutil.rego": "package io.choria.aaasvc\ndefault allow = true\n"},
        });
        let program = format!(
            "#!/bin/sh\ndirectory=$(tr ',' '\\n' | sed -n 's/.*\"directory\":\"\\([^\"]*\\)\".*/\\1/p')\n\
             sed \"s#{directory}#$directory#g\" <<'ANSWER'\n{answer}\nANSWER\n"
        );
        let path = self.path("helper.sh");
        write_atomic(&path, program.as_bytes(), 0o700)?;
        Ok(path)
    }

    /// Configuration of a member whose files are `NAME.jwt` and `NAME.seed`.
    fn member(&self, identity: &str, name: &str) -> String {
        format!(
            "identity = {identity}\nplugin.security.provider = choria\nplugin.security.issuer.names = choria\n\
             plugin.security.issuer.choria.public = {issuer}\nplugin.security.choria.ca = {ca}\n\
             plugin.security.choria.token_file = {token}\nplugin.security.choria.seed_file = {seed}\n\
             plugin.choria.middleware_hosts = nats://{broker}\nplugin.choria.use_srv = false\n",
            issuer = self.org.public(),
            ca = self.ca.display(),
            token = self.path(&format!("{name}.jwt")).display(),
            seed = self.path(&format!("{name}.seed")).display(),
            broker = self.broker,
        )
    }

    /// Starts a `choria` command that takes a configuration file.
    fn run(&self, name: &str, arguments: &[&str], config: &Path) -> Result<()> {
        let mut command = Command::new(binary("choria"));
        command.args(arguments).arg(config).env_clear().env("HOME", self.folder.path());
        self.keep(name, &mut command)
    }

    fn keep(&self, name: &str, command: &mut Command) -> Result<()> {
        let running = Running::start(command, &self.path(&format!("{name}.log")))?;
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), running));
        Ok(())
    }

    fn said(&self, name: &str, text: &str) -> Result<()> {
        wait_until(&format!("{name} says '{text}'"), READY, || self.log(name).contains(text))
            .with_context(|| format!("the log of {name}:\n{}", self.log(name)))
    }

    /// The names of its processes.
    pub fn names(&self) -> Vec<String> {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Open descriptors, and resident memory in KiB, of a process.
    pub fn held_by(&self, name: &str) -> Result<(usize, u64)> {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, process) = processes.iter().find(|(known, _)| known == name).context("no such process")?;
        let folder = PathBuf::from(format!("/proc/{}", process.id()));
        let descriptors = std::fs::read_dir(folder.join("fd"))?.count();
        let status = std::fs::read_to_string(folder.join("status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok((descriptors, resident.trim().trim_end_matches(" kB").parse()?))
    }

    /// `kill -HUP`
    pub fn hang_up(&self, name: &str) -> Result<()> {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, process) = processes.iter().find(|(known, _)| known == name).context("no such process")?;
        signal(process.id(), "-HUP")
    }

    /// What a process logged so far.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// No log holds a token, a seed, a key or a password.
    pub fn kept_secrets(&self) -> Result<()> {
        none_written_down(self.folder.path(), &SECRETS, &[]).map(drop)
    }

    /// Waits until exactly one line of this log names `who`, and returns its `reason`.
    pub fn one_reason(&self, process: &str, who: &str) -> Result<String> {
        let lines = || -> Vec<String> {
            let log = self.log(process);
            log.lines()
                .filter(|line| line.contains(who) && line.contains("reason="))
                .map(str::to_owned)
                .collect()
        };
        wait_until(&format!("a line about {who}"), Duration::from_secs(10), || !lines().is_empty())
            .with_context(|| format!("the log of {process}:\n{}", self.log(process)))?;
        let lines = lines();
        let [line] = lines.as_slice() else { bail!("{} lines instead of one: {lines:#?}", lines.len()) };
        let (_, after) = line.split_once("reason=").context("a reason")?;
        Ok(after.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned())
    }

    /// A caller whom the organization itself vouches for.
    pub fn caller(&self, id: &str) -> Result<Caller> {
        self.caller_with(id, json!({}))
    }

    /// The same with some claims replaced.
    pub fn caller_with(&self, id: &str, changes: Value) -> Result<Caller> {
        let key = Key::generate()?;
        let claims = forge::with(forge::client(id, &key)?, changes);
        Ok(Caller { id: id.to_owned(), token: forge::token(&claims, &self.org), key })
    }

    /// `kill -9` of the broker, and a new one in its place. Only for stages whose broker has a port of its own.
    pub fn crash_broker(&self) -> Result<()> {
        {
            let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
            let at = processes.iter().position(|(name, _)| name == "broker").context("no broker")?;
            let (_, mut broker) = processes.remove(at);
            broker.kill()?;
        }
        let listening = "Listening for client connections on ";
        let before = self.log("broker").matches(listening).count();
        self.run("broker", &["broker", "run", "--config"], &self.path("broker.conf"))?;
        wait_until("the new broker listens", READY, || self.log("broker").matches(listening).count() > before)
    }

    /// Waits until the provisioner has found a broker again.
    pub fn provisioner_is_back(&self) -> Result<()> {
        wait_until("the provisioner is back", READY, || {
            self.log("provisioner")
                .rsplit_once("event: disconnected")
                .is_none_or(|(_, after)| after.contains("event: connected"))
        })
    }

    /// A person at a terminal with this caller's token and seed.
    pub fn operator(&self, name: &str, caller: &Caller) -> Result<Operator> {
        write_private(&self.path(&format!("{name}.seed")), caller.key.seed().as_bytes())?;
        write_private(&self.path(&format!("{name}.jwt")), caller.token.as_bytes())?;
        let config = self.path(&format!("{name}.conf"));
        write_private(&config, self.member("workstation.example.net", name).as_bytes())?;
        Ok(Operator::new(&config, self.folder.path()))
    }

    pub async fn dial(&self, from: Ipv4Addr) -> Result<Liar> {
        Liar::dial(self.broker, from, &self.ca).await
    }

    /// A connection of a caller who may connect.
    pub async fn connected(&self, caller: &Caller, from: Ipv4Addr) -> Result<Liar> {
        let mut connection = self.dial(from).await?;
        let hello = connection.hello(&caller.id, &caller.token, Some(&caller.key));
        connection.connect(&hello).await?;
        connection
            .is_admitted()
            .await
            .with_context(|| format!("the log of the broker:\n{}", self.log("broker")))?;
        Ok(connection)
    }

    /// A peer that behaves well, whom attacks on others must not disturb.
    pub async fn control(&self) -> Result<Control> {
        let caller = self.caller("up=control")?;
        let mut connection = self.connected(&caller, Ipv4Addr::LOCALHOST).await?;
        let refused = connection.subscribe(&caller.inbox("choria")).await?;
        ensure!(refused.is_none(), "{refused:?}");
        Ok(Control { caller, connection, node_log: self.path("node.log") })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // a failing test has shown what it wanted; a process that broke tells more
        for (name, process) in self.processes.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if !process.is_running() {
                eprintln!("{name} ended by itself:\n{}", process.log());
            }
        }
    }
}

/// See [`Stage::control`].
#[derive(Debug)]
pub struct Control {
    caller: Caller,
    connection: Liar,
    node_log: PathBuf,
}

impl Control {
    /// Whether a member of this name answers within this time.
    pub async fn is_answered_by(&mut self, identity: &str, limit: Duration) -> Result<bool> {
        let request = request::request(&self.caller.id, "choria", "rpcutil", "ping", &json!({}))?;
        let secure = request::signed(&request, &self.caller)?;
        let subject = format!("choria.node.{identity}");
        match request::ask(&mut self.connection, &subject, &request, &secure, limit).await? {
            Some(reply) if reply.statuscode.is_ok() => Ok(true),
            Some(reply) => bail!("the control was refused: {}", reply.statusmsg),
            None => Ok(false),
        }
    }

    /// The node answers a ping on the control's connection, which was never closed.
    pub async fn is_served(&mut self) -> Result<()> {
        for _ in 0..20 {
            if self.is_answered_by(NODE, Duration::from_secs(2)).await? {
                return Ok(());
            }
        }
        let log = std::fs::read_to_string(&self.node_log).unwrap_or_default();
        bail!("the control is not served; the log of the node:\n{log}")
    }
}
