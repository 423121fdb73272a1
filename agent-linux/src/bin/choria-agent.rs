//! The stand-alone agent of a fleet node: `choria server run` without the rest of the command.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use agent_linux::{ExitReason, RunOptions, VERSION};
use choria_host::{Settings, harden, log};
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
The agent of a fleet node.

usage: choria-agent run --config FILE [--provisioning-jwt FILE] [--pid FILE] [--debug]

  --config FILE            configuration; need not exist when the node is to be provisioned
  --provisioning-jwt FILE  provisioning token; default: CHORIA_PROVISIONING_JWT, then
                           provisioning.jwt beside the configuration, then /etc/choria
  --pid FILE               write the process id there
  --debug                  log everything
  --help, --version

exit codes: 0 ended as asked, 1 could not run, 2 wrong arguments
";

enum Request {
    Run(RunOptions),
    Help,
    Version,
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Request, String> {
    let mut arguments = arguments.peekable();
    let mut options = RunOptions::default();
    let mut config = None;
    let mut command = false;
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(PathBuf::from(value))),
            _ => (text, None),
        };
        let mut file = || {
            let value = inline.clone().or_else(|| arguments.next().map(PathBuf::from));
            value.filter(|path| !path.as_os_str().is_empty()).ok_or(format!("{name} needs a file"))
        };
        match name.as_str() {
            "--help" | "-h" | "help" => return Ok(Request::Help),
            "--version" => return Ok(Request::Version),
            "--config" => config = Some(file()?),
            "--provisioning-jwt" => options.provisioning_jwt = Some(file()?),
            "--pid" => options.pid = Some(file()?),
            "--debug" => options.debug = true,
            "run" if !command => command = true,
            other => return Err(format!("unknown argument '{other}'")),
        }
    }
    if !command {
        return Err("say what to do: choria-agent run --config FILE".to_owned());
    }
    options.config = config.ok_or("server run requires a configuration file: --config FILE")?;
    Ok(Request::Run(options))
}

fn fail(code: u8, text: &str) -> ExitCode {
    // Nobody can be told that standard error is closed.
    let _told = writeln!(std::io::stderr(), "choria-agent: error: {text}");
    ExitCode::from(code)
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Logs as the configuration says, before anything is decided: a file that cannot be read says nothing, and the
/// start then tells why.
fn start_log(options: &mut RunOptions) -> Result<(), log::LogError> {
    let settings = Settings::load(&options.config).unwrap_or_default();
    let level = if options.debug { "debug" } else { settings.get("loglevel").unwrap_or("info") };
    let destination = settings.get("logfile").unwrap_or("stdout");
    options.log = Some(log::init(level, destination, settings.bool("color", true))?);
    Ok(())
}

/// QUIT writes one line and goes on.
async fn attend() -> std::io::Result<()> {
    let mut quit = signal(SignalKind::quit())?;
    loop {
        quit.recv().await;
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        tracing::info!(tasks, pid = std::process::id(), "still here");
    }
}

fn main() -> ExitCode {
    let mut options = match parse(std::env::args_os().skip(1)) {
        Ok(Request::Help) => return say(HELP),
        Ok(Request::Version) => return say(&format!("{VERSION}\n")),
        Ok(Request::Run(options)) => options,
        Err(text) => return fail(2, &text),
    };
    harden::process();
    if let Err(error) = start_log(&mut options) {
        return fail(1, &error.to_string());
    }
    // One thread: a node has one connection and a handful of short calls.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("could not start: {error}")),
    };
    tracing::info!(
        "Choria Server version {VERSION} starting with config {} using protocol version 2",
        options.config.display()
    );
    let ended = runtime.block_on(async {
        tokio::spawn(attend());
        Box::pin(agent_linux::run(options)).await
    });
    runtime.shutdown_background();
    match ended {
        ExitReason::Stopped | ExitReason::Shutdown => ExitCode::SUCCESS,
        ExitReason::Failed(reason) => fail(1, &reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<RunOptions, String> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Request::Run(options) => Ok(options),
            Request::Help => Err("help".into()),
            Request::Version => Err("version".into()),
        }
    }

    #[test]
    fn arguments() {
        let options = run("run --config /c --provisioning-jwt=/j --pid /p --debug").unwrap();
        assert_eq!(options.config, PathBuf::from("/c"));
        assert_eq!(options.provisioning_jwt, Some(PathBuf::from("/j")));
        assert_eq!(options.pid, Some(PathBuf::from("/p")));
        assert!(options.debug);
        assert_eq!(run("--help").unwrap_err(), "help");
        assert_eq!(run("--version").unwrap_err(), "version");
        assert!(run("run").unwrap_err().contains("requires a configuration file"));
        assert!(run("run --config").unwrap_err().contains("--config needs a file"));
        assert!(run("run --nope").unwrap_err().contains("unknown argument '--nope'"));
        assert!(run("").unwrap_err().contains("choria-agent run"));
    }
}
