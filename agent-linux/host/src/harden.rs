//! What a process that holds seeds does to itself first (docs/spec/10 §7, row `process`).

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

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

#[cfg(test)]
mod tests {
    #[test]
    fn the_process_leaves_no_core() {
        super::process();
        assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Core).maximum, Some(0));
    }
}
