//! How much processor time a thread spent: bounds must hold on a busy machine too, where the clock on the wall runs on.

use std::time::Duration;

/// Processor time of this thread so far; zero where the system does not tell.
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_ascii_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Runs `work` and checks that it took no more than `limit` of this thread's processor time.
pub(crate) fn within<T>(limit: Duration, what: &dyn std::fmt::Debug, work: impl FnOnce() -> T) -> T {
    let before = spent();
    let result = work();
    let took = spent().saturating_sub(before);
    assert!(took <= limit, "{took:?} of processor time for {what:?}");
    result
}
