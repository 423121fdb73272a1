//! What the long-running commands share: log, runtime, pid file, and an orderly end (docs/spec/07 §2.11, §9).

use std::path::{Path, PathBuf};
use std::time::Duration;

use choria_host::Settings;
use choria_host::log::LogHandle;
use choria_host::{harden, log, private_file};
use clap::Args;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::arguments::Global;
use crate::failure::{Doing, Failure};

/// How long a service may take to end before the process ends without it.
const GRACE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid: Option<PathBuf>,
}

/// The configuration file that a service cannot do without.
pub(crate) fn configuration(global: &Global) -> Result<&Path, Failure> {
    global
        .config
        .as_deref()
        .ok_or_else(|| Failure::usage("configuration file required").hint("give --config FILE"))
}

/// Starts the log and makes the process unreadable for others; secrets are about to be loaded.
pub(crate) fn prepare(global: &Global, level: &str, destination: &str) -> Result<LogHandle, Failure> {
    harden::process();
    let level = if global.debug { "debug" } else { level };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let colour = crate::output::colour::Colour::stderr(global.color, true);
    log::init(level, destination, terminal && colour.is_on()).doing(|| String::from("cannot start the log"))
}

/// A process id in a file, removed at the end.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    pub(crate) fn write(options: &Options) -> Result<Option<PidFile>, Failure> {
        let Some(path) = &options.pid else { return Ok(None) };
        private_file::write_atomic(path, std::process::id().to_string().as_bytes(), 0o644)
            .doing(|| format!("cannot write the process id to {}", path.display()))?;
        Ok(Some(PidFile(path.clone())))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

pub(crate) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .doing(|| String::from("cannot start the runtime"))
}

/// The end of a process, asked for by SIGINT or SIGTERM, or because one of several services failed.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(watch::Sender<bool>);

impl Shutdown {
    /// Listens for the signals; to be called inside the runtime.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let shutdown = Shutdown(watch::Sender::new(false));
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let asked = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            asked.ask();
            // A second signal, or a service that does not end, must not keep the process.
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = tokio::time::sleep(GRACE) => tracing::error!("the service did not end in time"),
            }
            std::process::exit(1);
        });
        Ok(shutdown)
    }

    pub(crate) fn ask(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the end has been asked for.
    pub(crate) fn wait(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut asked = self.0.subscribe();
        async move {
            // The sender lives as long as the process; its end would be one, too.
            drop(asked.wait_for(|asked| *asked).await);
        }
    }
}

/// SIGHUP opens the log file again, after rotation, and takes over the level that `level` reads from the configuration;
/// `None` when it cannot be read, which the service itself tells. To be called inside the runtime.
pub(crate) fn renew_log_on_hangup(
    log: LogHandle,
    global: &Global,
    level: impl Fn() -> Option<String> + Send + 'static,
) -> Result<(), Failure> {
    let mut hangup = signal(SignalKind::hangup())?;
    let debug = global.debug;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if let Err(error) = log.reopen() {
                tracing::error!(%error, "keeping the old log file");
            }
            if !debug
                && let Some(level) = level()
                && let Err(error) = log.set_level(&level)
            {
                tracing::error!("keeping the log level in use: {error}");
            }
        }
    });
    Ok(())
}

/// The `loglevel` of a settings file, with the default.
pub(crate) fn level_in(path: &Path) -> Option<String> {
    Some(Settings::load(path).ok()?.get("loglevel").unwrap_or("info").to_owned())
}
