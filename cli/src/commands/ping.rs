//! `choria ping`: who answers, and how fast (docs/spec/07 §7.1).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::arguments::Global;
use crate::failure::{Doing, Failure};
use crate::filter_flags::FilterFlags;
use crate::fleet::{Fleet, Pong};
use crate::output::{self, format, harmless};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  choria ping\n  choria ping -F role=web --expect 10\n  choria ping --json"
)]
pub(crate) struct Options {
    #[command(flatten)]
    filter: FilterFlags,
    /// Only the summary
    #[arg(long)]
    silent: bool,
    /// Only the names of the nodes
    #[arg(long, conflicts_with_all = ["silent", "json"])]
    names: bool,
    /// Stop after this many replies
    #[arg(long, value_name = "N", default_value_t = 0)]
    expect: usize,
    /// How long to listen, in seconds or as a duration
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds)]
    timeout: Option<Duration>,
    /// Draw a histogram of the times
    #[arg(long)]
    graph: bool,
    /// Results as JSON
    #[arg(long, short)]
    json: bool,
    /// File with the nodes that should answer, one a line: those that do not are named
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Kept for compatibility; one connection receives all replies
    #[arg(long, value_name = "N", default_value_t = 3, hide = true)]
    workers: u16,
}

#[derive(Serialize)]
struct Document<'a> {
    replies: Vec<Reply<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    silent: Option<Vec<String>>,
    invalid: usize,
    stats: Stats,
}

#[derive(Serialize)]
struct Reply<'a> {
    identity: &'a str,
    time_ms: f64,
}

#[derive(Serialize)]
struct Stats {
    replies: usize,
    max_ms: f64,
    min_ms: f64,
    avg_ms: f64,
    overhead_ms: f64,
}

pub(crate) async fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let expected = match &options.against {
        Some(path) => Some(read_names(path)?),
        None => None,
    };
    let filter = options.filter.filter(None)?;
    let fleet = Fleet::connect(global, options.filter.target.as_deref()).await?;
    let live = !(options.silent || options.names || options.json);
    let result = fleet
        .ping(&filter, options.timeout, options.expect, |pong: &Pong| {
            if live {
                let name = harmless(&pong.identity);
                output::print(&format!("{name:<40} time={} ms\n", pong.time.as_millis()));
            }
            if options.names {
                output::print(&format!("{}\n", harmless(&pong.identity)));
            }
        })
        .await;
    fleet.close().await;
    let round = result?;
    let silent = expected.map(|names| {
        let seen: BTreeSet<&str> = round.pongs.iter().map(|pong| pong.identity.as_str()).collect();
        names.into_iter().filter(|name| !seen.contains(name.as_str())).collect::<Vec<_>>()
    });
    let stats = stats(&round.pongs, round.overhead);
    if options.json {
        let replies = round
            .pongs
            .iter()
            .map(|pong| Reply { identity: &pong.identity, time_ms: millis(pong.time) })
            .collect();
        output::print(&output::json(&Document { replies, silent, invalid: round.invalid, stats }));
    } else if !options.names {
        output::print(&summary(&round.pongs, round.overhead, options.silent));
        if round.invalid > 0 {
            output::note(&format!("invalid replies: {}\n", round.invalid));
        }
        if let Some(silent) = silent {
            output::print(&super::req::names("No Responses from", &silent, true));
        }
        if options.graph && !round.pongs.is_empty() {
            output::print(&histogram(&round.pongs));
        }
    }
    if round.pongs.is_empty() {
        return Err(options.filter.nobody("no responses received", fleet.collective()));
    }
    Ok(0)
}

fn read_names(path: &std::path::Path) -> Result<Vec<String>, Failure> {
    let text =
        std::fs::read_to_string(path).doing(|| format!("cannot read the names in {}", path.display()))?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn stats(pongs: &[Pong], overhead: Duration) -> Stats {
    Stats {
        replies: pongs.len(),
        max_ms: millis(longest(pongs)),
        min_ms: millis(shortest(pongs)),
        avg_ms: millis(mean(pongs)),
        overhead_ms: millis(overhead),
    }
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

fn summary(pongs: &[Pong], overhead: Duration, silent: bool) -> String {
    let gap = if silent { "" } else { "\n" };
    let mut out = format!("{gap}---- ping statistics ----\n");
    if !pongs.is_empty() {
        let short = |duration| format::short(duration, Duration::from_millis(1));
        out.push_str(&format!(
            "{} replies max: {} min: {} avg: {} overhead: {}\n",
            pongs.len(),
            short(longest(pongs)),
            short(shortest(pongs)),
            short(mean(pongs)),
            short(overhead)
        ));
    }
    out
}

/// Replies per 50 ms, 15 rows high.
fn histogram(pongs: &[Pong]) -> String {
    const BUCKET: u128 = 50;
    const ROWS: usize = 15;
    let mut buckets: Vec<usize> = Vec::new();
    for pong in pongs {
        let index = usize::try_from(pong.time.as_millis() / BUCKET).unwrap_or(0).min(59);
        if buckets.len() <= index {
            buckets.resize(index + 1, 0);
        }
        if let Some(count) = buckets.get_mut(index) {
            *count += 1;
        }
    }
    let highest = buckets.iter().copied().max().unwrap_or(1).max(1);
    let mut out = String::from("\n");
    let mut above = None;
    for row in (1..=ROWS).rev() {
        let count = highest * row / ROWS;
        // where rows are finer than nodes, a number stands once
        let label = if above == Some(count) || count == 0 { String::new() } else { count.to_string() };
        above = Some(count);
        let bars: String =
            buckets.iter().map(|count| if count * ROWS >= highest * row { '█' } else { ' ' }).collect();
        out.push_str(format!("{label:>6} ┤{bars}").trim_end());
        out.push('\n');
    }
    out.push_str("        Responses per 50ms\n");
    out
}

#[cfg(test)]
mod tests {
    use super::{Pong, summary};
    use std::time::Duration;

    #[test]
    fn the_summary_that_users_know() {
        let pong = |ms| Pong { identity: String::from("n"), time: Duration::from_millis(ms) };
        let text = summary(&[pong(12), pong(4), pong(11)], Duration::from_millis(44), false);
        assert_eq!(
            text,
            "\n---- ping statistics ----\n3 replies max: 12ms min: 4ms avg: 9ms overhead: 44ms\n"
        );
        assert_eq!(summary(&[], Duration::ZERO, true), "---- ping statistics ----\n");
    }
}
