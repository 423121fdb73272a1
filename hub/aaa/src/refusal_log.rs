//! Which refusals are written to the log: one line each, thinned out by reason and address (docs/spec/10 §8). The audit
//! and the counters have all of them.

use std::sync::{Mutex, PoisonError};

use choria_host::thinning::Thinning;

/// Lines of one reason and address in a minute.
const LINES: u64 = 60;

/// Lines written lately.
#[derive(Debug)]
pub(crate) struct RefusalLog(Mutex<Thinning<(&'static str, String)>>);

impl Default for RefusalLog {
    fn default() -> RefusalLog {
        RefusalLog(Mutex::new(Thinning::new(LINES)))
    }
}

impl RefusalLog {
    /// Whether to write a line, and how many were left out before it. `from`: an address, or `broker`.
    pub(crate) fn may_log(&self, reason: &'static str, from: &str) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).may_log((reason, from.to_owned()))
    }
}
