//! Many nodes in one process, for trying out a fleet on one machine.
//!
//! Each is a whole node: own directory, own keys, own TLS connection, provisioned through the network like any other. What
//! they share is what does not tell them apart: the thread, the buffers of a step and the TLS configuration.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use choria_host::private_file::{self, PrivateFileError};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::driver::{Shared, TlsCache};
use crate::run::{ExitReason, Life, Stage, live};

/// Requests that one node of a swarm remembers.
const REPLAY_SLOTS: usize = 512;

/// What to run.
#[derive(Debug, Clone)]
pub struct SwarmOptions {
    pub count: usize,
    /// Each node keeps its files in a directory of its own below.
    pub state: PathBuf,
    pub provisioning_jwt: PathBuf,
    /// Nodes are `<prefix>1.<domain>` to `<prefix><count>.<domain>`.
    pub prefix: String,
    pub domain: String,
    /// Threads to spread over.
    pub threads: usize,
    /// Nodes started per second and thread.
    pub start_rate: u32,
}

impl SwarmOptions {
    /// `count` nodes named `swarm<n>.<domain>` on two threads.
    #[must_use]
    pub fn new(count: usize, state: PathBuf, provisioning_jwt: PathBuf, domain: &str) -> SwarmOptions {
        SwarmOptions {
            count,
            state,
            provisioning_jwt,
            prefix: "swarm".to_owned(),
            domain: domain.to_owned(),
            threads: 2,
            start_rate: 100,
        }
    }

    /// Name of node `number`, counted from 1.
    #[must_use]
    pub fn identity(&self, number: usize) -> String {
        format!("{}{number}.{}", self.prefix, self.domain)
    }
}

/// Where the nodes stand now. Read it from any thread.
#[derive(Debug, Default)]
pub struct Progress {
    candidates: AtomicUsize,
    members: AtomicUsize,
    ended: AtomicUsize,
}

impl Progress {
    /// Connected and waiting for a provisioner.
    pub fn candidates(&self) -> usize {
        self.candidates.load(Ordering::Relaxed)
    }

    /// Connected as members of the fleet.
    pub fn members(&self) -> usize {
        self.members.load(Ordering::Relaxed)
    }

    /// Gone for good.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    fn count(&self, stage: Stage) -> Option<&AtomicUsize> {
        match stage {
            Stage::Candidate => Some(&self.candidates),
            Stage::Member => Some(&self.members),
            Stage::Disconnected => None,
        }
    }

    fn moved(&self, from: Stage, to: Stage) {
        if let Some(count) = self.count(from) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(count) = self.count(to) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Why a swarm did not run.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    #[error("could not prepare a node: {0}")]
    Files(#[from] PrivateFileError),
    #[error("could not make {}: {source}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("could not start a thread of the swarm: {0}")]
    Thread(std::io::Error),
    #[error("a thread of the swarm ended with a panic")]
    Panicked,
    #[error("node {identity} ended: {reason}")]
    Node { identity: String, reason: String },
}

/// Runs the nodes until `stop` becomes true or one of them fails for good. Blocks.
///
/// # Errors
/// Files that cannot be written, and the first node that ended with a failure.
pub fn run(
    options: &SwarmOptions,
    progress: &Arc<Progress>,
    stop: &watch::Receiver<bool>,
) -> Result<(), SwarmError> {
    choria_host::harden::raise_open_files();
    for number in 1..=options.count {
        prepare(options, number)?;
    }
    let threads = options.threads.max(1);
    let mut running = Vec::with_capacity(threads);
    for thread in 0..threads {
        let (options, progress, stop) = (options.clone(), Arc::clone(progress), stop.clone());
        let handle = std::thread::Builder::new()
            .name(format!("swarm-{thread}"))
            .spawn(move || one_thread(&options, thread, threads, &progress, &stop))
            .map_err(SwarmError::Thread)?;
        running.push(handle);
    }
    let mut outcome = Ok(());
    for handle in running {
        let ended = handle.join().unwrap_or(Err(SwarmError::Panicked));
        outcome = outcome.and(ended);
    }
    outcome
}

fn prepare(options: &SwarmOptions, number: usize) -> Result<(), SwarmError> {
    let directory = options.state.join(options.identity(number));
    std::fs::create_dir_all(&directory)
        .map_err(|source| SwarmError::Directory { path: directory.clone(), source })?;
    // Facts that differ between nodes, so that filters have something to find.
    let role = match number % 4 {
        0 => "web",
        1 => "database",
        2 => "cache",
        _ => "queue",
    };
    let facts = serde_json::json!({
        "role": role,
        "rack": format!("r{}", number / 20 % 50),
        "site": if number.is_multiple_of(2) { "north" } else { "south" },
        "swarm": { "number": number },
    });
    let file = directory.join("facts.json");
    if !file.exists() {
        private_file::write_atomic(&file, facts.to_string().as_bytes(), 0o644)?;
    }
    Ok(())
}

fn one_thread(
    options: &SwarmOptions,
    thread: usize,
    threads: usize,
    progress: &Arc<Progress>,
    stop: &watch::Receiver<bool>,
) -> Result<(), SwarmError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SwarmError::Thread)?;
    let (shared, tls) = (Shared::new(1 << 20), TlsCache::default());
    let pause = Duration::from_secs(1) / options.start_rate.max(1);
    let mine: Vec<usize> = (1..=options.count).filter(|number| number % threads == thread).collect();
    LocalSet::new().block_on(&runtime, async move {
        let mut nodes = Vec::with_capacity(mine.len());
        for number in mine {
            let life = member(options, number, &shared, &tls, progress);
            let (identity, stop) = (options.identity(number), stop.clone());
            let progress = Arc::clone(progress);
            nodes.push(tokio::task::spawn_local(async move {
                let ended = live(life, stop).await;
                progress.ended.fetch_add(1, Ordering::Relaxed);
                (identity, ended)
            }));
            tokio::time::sleep(pause).await;
        }
        let mut outcome = Ok(());
        for node in nodes {
            match node.await {
                Ok((identity, ExitReason::Failed(reason))) => {
                    tracing::error!(identity, reason, "a node of the swarm ended");
                    outcome = outcome.and(Err(SwarmError::Node { identity, reason }));
                }
                Ok(_) => {}
                Err(_) => outcome = outcome.and(Err(SwarmError::Panicked)),
            }
        }
        outcome
    })
}

fn member(
    options: &SwarmOptions,
    number: usize,
    shared: &Shared,
    tls: &TlsCache,
    progress: &Arc<Progress>,
) -> Life {
    let identity = options.identity(number);
    let stage = Cell::new(Stage::Disconnected);
    let progress = Arc::clone(progress);
    Life {
        config: options.state.join(&identity).join("server.conf"),
        provisioning_jwt: Some(options.provisioning_jwt.clone()),
        identity,
        tls: Some(tls.clone()),
        shared: shared.clone(),
        reload: None,
        replay_slots: REPLAY_SLOTS,
        on_stage: Some(Rc::new(move |to| progress.moved(stage.replace(to), to))),
    }
}
