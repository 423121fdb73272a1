//! The process behind `lab up --swarm`, and how it tells the lab where its nodes stand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_linux::swarm::{Progress, SwarmOptions as Swarm};
use choria_host::{harden, log};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::{Doing as _, Failure};
use crate::lab::SwarmOptions;
use crate::lab::directory::{Directory, write};
use crate::lab::record::DOMAIN;

/// Name of the process and of its directory.
pub(crate) const NAME: &str = "swarm";

/// The file with the counts, in the swarm's directory.
const COUNTS: &str = "counts.json";

/// How often the counts are written.
const BETWEEN: Duration = Duration::from_millis(500);

#[derive(Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
struct Counts {
    candidates: usize,
    members: usize,
    ended: usize,
}

/// How many nodes of the swarm are members, as it said last.
pub(crate) fn members(directory: &Directory) -> usize {
    std::fs::read(directory.node(NAME).join(COUNTS))
        .ok()
        .and_then(|text| serde_json::from_slice::<Counts>(&text).ok())
        .map_or(0, |counts| counts.members)
}

/// Runs the nodes until SIGTERM.
pub(crate) fn run(options: &SwarmOptions) -> Result<u8, Failure> {
    harden::process();
    let _log = log::init("warn", "stderr", false).doing(|| String::from("cannot start the log"))?;
    let count = usize::try_from(options.count).unwrap_or(usize::MAX);
    let swarm = Swarm::new(count, options.state.clone(), options.provisioning_jwt.clone(), DOMAIN);
    let progress = Arc::new(Progress::default());
    let (stop, stopped) = watch::channel(false);
    let (counted, state) = (Arc::clone(&progress), options.state.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| String::from("cannot start the runtime"))?;
    let mut ending = stop.subscribe();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let end = async {
                match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
                    (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    },
                    _ => tracing::error!("cannot listen for signals"),
                }
            };
            tokio::select! {
                () = end => {}
                () = count_on(&counted, &state) => {}
                _ = ending.changed() => {}
            }
            stop.send_replace(true);
        });
    });
    agent_linux::swarm::run(&swarm, &progress, &stopped).doing(|| String::from("the swarm ended"))?;
    Ok(0)
}

async fn count_on(progress: &Progress, state: &Path) {
    let mut last = None;
    loop {
        let counts = Counts {
            candidates: progress.candidates(),
            members: progress.members(),
            ended: progress.ended(),
        };
        if last.as_ref() != Some(&counts) {
            let written = serde_json::to_vec(&counts)
                .doing(|| String::from("cannot write the counts"))
                .and_then(|text| write(&state.join(COUNTS), &text, 0o600));
            if written.is_err() {
                tracing::warn!("cannot write {}", state.join(COUNTS).display());
            }
            last = Some(counts);
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
