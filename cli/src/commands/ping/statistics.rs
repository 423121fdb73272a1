//! What a round of pings amounts to (docs/spec/07 §7.1).

use std::time::Duration;

use serde::Serialize;

use crate::fleet::Pong;
use crate::output::format;

#[derive(Serialize)]
pub(super) struct Statistics {
    pub(super) replies: usize,
    /// Nobody's answer took no time at all: there is none.
    pub(super) max_ms: Option<f64>,
    pub(super) min_ms: Option<f64>,
    pub(super) avg_ms: Option<f64>,
    /// From the start of the command to the first question; later rounds have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) overhead_ms: Option<f64>,
}

impl Statistics {
    pub(super) fn of(pongs: &[Pong], overhead: Option<Duration>) -> Self {
        let of_some = |time: fn(&[Pong]) -> Duration| (!pongs.is_empty()).then(|| millis(time(pongs)));
        Statistics {
            replies: pongs.len(),
            max_ms: of_some(longest),
            min_ms: of_some(shortest),
            avg_ms: of_some(mean),
            overhead_ms: overhead.map(millis),
        }
    }
}

pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn longest(pongs: &[Pong]) -> Duration {
    pongs.iter().map(|pong| pong.time).max().unwrap_or_default()
}

fn shortest(pongs: &[Pong]) -> Duration {
    pongs.iter().map(|pong| pong.time).min().unwrap_or_default()
}

fn mean(pongs: &[Pong]) -> Duration {
    let count = u32::try_from(pongs.len()).unwrap_or(u32::MAX).max(1);
    pongs.iter().map(|pong| pong.time).sum::<Duration>() / count
}

/// `10 replies max: 12ms min: 4ms avg: 11ms`; without replies there are no times to tell.
pub(super) fn line(pongs: &[Pong]) -> String {
    if pongs.is_empty() {
        return String::from("0 replies");
    }
    let short = |duration| format::short(duration, Duration::from_millis(1));
    format!(
        "{} replies max: {} min: {} avg: {}",
        pongs.len(),
        short(longest(pongs)),
        short(shortest(pongs)),
        short(mean(pongs))
    )
}

/// The end of a ping, as users know it.
pub(super) fn summary(pongs: &[Pong], overhead: Duration, silent: bool) -> String {
    let gap = if silent { "" } else { "\n" };
    let mut out = format!("{gap}---- ping statistics ----\n");
    if !pongs.is_empty() {
        let overhead = format::short(overhead, Duration::from_millis(1));
        out.push_str(&format!("{} overhead: {overhead}\n", line(pongs)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Pong, line, summary};
    use std::time::Duration;

    #[test]
    fn the_summary_that_users_know() {
        let pong = |ms| Pong { identity: String::from("n"), time: Duration::from_millis(ms) };
        let text = summary(&[pong(12), pong(4), pong(11)], Duration::from_millis(44), false);
        assert_eq!(
            text,
            "\n---- ping statistics ----\n3 replies max: 12ms min: 4ms avg: 9ms overhead: 44ms\n"
        );
        assert_eq!(line(&[]), "0 replies");
        assert_eq!(summary(&[], Duration::ZERO, true), "---- ping statistics ----\n");
    }
}
