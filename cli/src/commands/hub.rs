//! `choria hub run --dir DIR`: all of the hub in one process (decision D8). Each part reads the same unchanged file that
//! its own command reads; a part whose file is not there is not run.

use std::path::PathBuf;
use std::sync::Arc;

use choria_broker::admission::{ACCOUNT_CHORIA, ACCOUNT_PROVISIONING};
use choria_provisioner::Surround;
use choria_provisioner::presence::{Candidate, Presence};
use clap::{Args, Subcommand};
use nats_engine::{ConnectionInfo, Engine};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::service::{self, PidFile, Shutdown};
use super::{aaa, broker, provisioner};
use crate::arguments::Global;
use crate::failure::{Doing, Failure};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run what the folder holds: broker.conf, aaasvc.conf, choria-provisioner.yaml
    #[command(after_help = "Example:\n  choria hub run --dir /etc/choria/hub")]
    Run(Run),
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    service: service::Options,
    /// Folder with the configuration files
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Client configurations that the provisioner's guide names, in this order.
const PROVISIONER_CLIENT: [&str; 2] = ["provisioner-client.conf", "client.cfg"];

pub(crate) fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let Command::Run(options) = &options.command;
    let file = |name: &str| Some(options.dir.join(name)).filter(|path| path.exists());
    let dir = options.dir.display();
    let broker_file = file("broker.conf");
    let aaa_file = file("aaasvc.conf");
    let provisioner_file = file("choria-provisioner.yaml");
    if broker_file.is_none() && aaa_file.is_none() && provisioner_file.is_none() {
        return Err(Failure::new(format!("there is nothing to run in {dir}"))
            .hint("put broker.conf, aaasvc.conf or choria-provisioner.yaml there"));
    }
    // Everything is read before anything starts: a hub with a broken part is not half a hub.
    let broker = broker_file.as_deref().map(broker::load).transpose()?;
    let aaa = aaa_file.as_deref().map(aaa::load).transpose()?;
    let client = PROVISIONER_CLIENT.iter().find_map(|name| file(name));
    let provisioner =
        provisioner_file.as_deref().map(|path| provisioner::load(path, client.as_deref())).transpose()?;
    let setting = |key: &str| broker.as_ref().and_then(|(settings, _)| settings.get(key)).map(str::to_owned);
    let level = setting("loglevel").unwrap_or_else(|| String::from("info"));
    let destination = setting("logfile").unwrap_or_else(|| String::from("stderr"));
    let log = service::prepare(global, &level, &destination)?;
    let _pid = PidFile::write(&options.service)?;
    service::runtime()?.block_on(async {
        let shutdown = Shutdown::listen()?;
        let logged = options.dir.join("broker.conf");
        service::renew_log_on_hangup(log, global, move || service::level_in(&logged))?;
        let mut parts: JoinSet<(&'static str, Result<(), Failure>)> = JoinSet::new();
        let mut engine = None;
        if let Some((_, config)) = broker {
            let end = shutdown.wait();
            let (known, arrives) = oneshot::channel();
            engine = Some(arrives);
            let started = move |engine: &Engine| drop(known.send(engine.clone()));
            parts.spawn(async move {
                let ended = choria_broker::run_with(config, started, end).await;
                ("broker", ended.doing(|| String::from("the broker failed")))
            });
        }
        if let Some(config) = aaa {
            let end = shutdown.wait();
            parts.spawn(async move {
                ("aaa", choria_aaa::run(config, end).await.doing(|| String::from("the AAA service failed")))
            });
        }
        if let (Some(path), Some((config, client))) = (provisioner_file, provisioner) {
            provisioner::announce(&path);
            let end = shutdown.wait();
            parts.spawn(async move {
                // a broker that does not start ends the hub with its own reason
                let engine = match engine {
                    Some(arrives) => arrives.await.ok(),
                    None => None,
                };
                let presence = engine.map(|engine| Arc::new(Connected(engine)) as Arc<dyn Presence>);
                let surround = Surround { presence, ..Surround::default() };
                let ended = Box::pin(choria_provisioner::run_with(config, client, surround, end)).await;
                ("provisioner", ended.doing(|| String::from("the provisioner failed")))
            });
        }
        outcome(&mut parts, &shutdown).await
    })
}

/// What the broker in this process knows of a name (docs/spec/10 V1, V2, V4, V13).
struct Connected(Engine);

impl Presence for Connected {
    fn candidates(&self, identity: &str) -> Vec<Candidate> {
        let named = self.0.connections_named(identity).into_iter();
        named
            .filter(|connection| connection.account == ACCOUNT_PROVISIONING && connection.name == identity)
            .map(|connection| Candidate {
                address: connection.remote.map(|peer| peer.ip().to_string()).unwrap_or_default(),
                token_sha256: connection
                    .tags
                    .iter()
                    .find_map(|tag| tag.strip_prefix("sha256:"))
                    .unwrap_or_default()
                    .to_owned(),
            })
            .collect()
    }

    fn member_online(&self, identity: &str) -> bool {
        // As whom a broker admitted it, not how it calls itself: a client may take any name, and would keep others out.
        let admitted = |connection: &ConnectionInfo| {
            // a certificate without a token is let in under the name that it gives itself
            let by_token = connection.tags.iter().any(|tag| tag.starts_with("ou:"));
            connection.account == ACCOUNT_CHORIA && connection.user == identity && by_token
        };
        self.0.connections_named(identity).iter().any(admitted)
    }
}

/// One failed part ends the process with its name and reason; the others get to end in order.
async fn outcome(
    parts: &mut JoinSet<(&'static str, Result<(), Failure>)>,
    shutdown: &Shutdown,
) -> Result<u8, Failure> {
    let mut failed = None;
    while let Some(part) = parts.join_next().await {
        let (name, result) = part.doing(|| String::from("a part of the hub broke off"))?;
        let failure = match result {
            Err(failure) => failure,
            Ok(()) if !shutdown.is_asked() => {
                Failure::new(format!("the {name} ended although nobody asked it to"))
            }
            Ok(()) => continue,
        };
        shutdown.ask();
        failed.get_or_insert(failure);
    }
    failed.map_or(Ok(0), Err)
}
