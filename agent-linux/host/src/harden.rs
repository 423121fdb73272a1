//! What a process that holds seeds does to itself first (docs/spec/10 §7, row `process`).

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// No core files, no debugger of the same user, files without group or world bits unless a mode is set
/// explicitly. Call it at the start of `main`, before a secret is read. A refusal by the kernel is logged and
/// not fatal: containers forbid some of it.
pub fn process() {
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "could not switch core files off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "could not close the process to debuggers");
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Lets the process open as many files as it may: a service with a connection for every node of a fleet needs more
/// than the usual soft limit of 1,024. Returns how many that are; `None` is no limit.
pub fn raise_open_files() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "could not raise the number of open files");
    }
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    #[test]
    fn open_files_reach_the_hard_limit() {
        super::raise_open_files();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn the_process_leaves_no_core() {
        super::process();
        assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Core).maximum, Some(0));
    }
}
