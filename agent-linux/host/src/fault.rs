//! Sudden death on order, for tests: with `CHORIA_FAULT_EXIT_AT=N` in the environment the process is killed (as by
//! `kill -9`) at its Nth step of changing files. Only in builds with debug assertions; elsewhere this is nothing.

/// One step at which a machine could lose its power. Called before and after each change of the file system that
/// must not be half done.
#[cfg(debug_assertions)]
pub fn step() {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static AT: OnceLock<Option<u32>> = OnceLock::new();
    static STEPS: AtomicU32 = AtomicU32::new(0);

    let at = AT.get_or_init(|| std::env::var("CHORIA_FAULT_EXIT_AT").ok()?.parse().ok());
    if let Some(at) = *at
        && STEPS.fetch_add(1, Ordering::Relaxed) + 1 == at
    {
        // nothing is flushed, closed or undone: no destructor runs
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
    }
}

/// See the other one.
#[cfg(not(debug_assertions))]
pub fn step() {}
