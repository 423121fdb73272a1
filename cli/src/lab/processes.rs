//! Starting, watching and ending the lab's processes: by their ids, and only those.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::failure::{Doing as _, Failure};
use crate::lab::record::Process;

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(8);

/// Environment variables the lab's processes get, where there are any.
const ENVIRONMENT: [&str; 7] =
    ["PATH", "LANG", "LC_ALL", "TZ", "HOME", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"];

/// A process of ours and the handle that reaps it.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Process,
    child: Child,
}

/// Starts this very program with other arguments, in a process group of its own so that Ctrl-C reaches us alone.
pub(crate) fn start<S: AsRef<OsStr>>(
    name: &str,
    arguments: &[S],
    identity: Option<&str>,
    directory: &Path,
    log: &Path,
) -> Result<Started, Failure> {
    let program = std::env::current_exe().doing(|| String::from("cannot find my own program file"))?;
    let output = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .doing(|| format!("cannot write {}", log.display()))?;
    let errors = output.try_clone().doing(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(&program);
    command.args(arguments).env_clear().current_dir(directory).process_group(0);
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    for variable in ENVIRONMENT {
        if let Some(value) = std::env::var_os(variable) {
            command.env(variable, value);
        }
    }
    if let Some(identity) = identity {
        command.env("CHORIA_IDENTITY", identity);
    }
    let child = command.spawn().doing(|| format!("cannot start {}", program.display()))?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    // it can only be missing when the process ended already, which the next look at it will find out
    let started = stat(pid).map_or(0, |stat| stat.started);
    Ok(Started { process: Process { name: name.to_owned(), pid, started }, child })
}

impl Started {
    /// Whether it still runs; reaps it when not.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// Whether this very process, and not another with its id, is there and no corpse.
pub(crate) fn is_running(process: &Process) -> bool {
    stat(process.pid)
        .is_some_and(|stat| stat.started == process.started && stat.state != 'Z' && stat.state != 'X')
}

/// Asks all to end, waits, and kills what is left. Returns how many had to be killed.
pub(crate) fn end(processes: &[Process], mut reap: impl FnMut()) -> usize {
    let signal = |signal: Signal| {
        for process in processes.iter().filter(|process| is_running(process)) {
            if let Some(pid) = Pid::from_raw(process.pid)
                && let Err(error) = rustix::process::kill_process(pid, signal)
            {
                tracing::debug!(process = process.name, %error, "could not be signalled");
            }
        }
    };
    let wait = |limit: Duration, reap: &mut dyn FnMut()| {
        let until = Instant::now() + limit;
        loop {
            reap();
            let left = processes.iter().filter(|process| is_running(process)).count();
            if left == 0 || Instant::now() >= until {
                return left;
            }
            pause(Duration::from_millis(30));
        }
    };
    signal(Signal::TERM);
    let left = wait(PATIENCE, &mut reap);
    if left > 0 {
        signal(Signal::KILL);
        wait(Duration::from_secs(2), &mut reap);
    }
    left
}

/// Waits in a thread that has nothing else to do.
pub(crate) fn pause(duration: Duration) {
    std::thread::park_timeout(duration);
}

struct Stat {
    state: char,
    started: u64,
}

/// Reads `/proc/PID/stat`; the name in it may hold spaces and brackets, so fields are counted from the last bracket.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // the state is field 3
    let started = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_a_namesake_does_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let started = stat(pid).unwrap().started;
        let mut process = Process { name: "test".into(), pid, started };
        assert!(is_running(&process));
        process.started += 1;
        assert!(!is_running(&process));
    }

    #[test]
    fn ending_ends() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process { name: "sleep".into(), pid, started: stat(pid).unwrap().started };
        let killed = end(std::slice::from_ref(&process), || {
            child.try_wait().unwrap();
        });
        assert_eq!(killed, 0);
        assert!(!is_running(&process));
    }
}
