//! `choria ping --count` and `--watch`: a line for each round (docs/spec/07 §7.1).

use std::time::Duration;

use serde::Serialize;

use super::statistics::{self, Statistics};
use super::{Document, Options, silent};
use crate::failure::Failure;
use crate::fleet::{Fleet, PingRound};
use crate::output::form::{Chosen, Form};
use crate::output::{self, csv, harmless};

const PAUSE: Duration = Duration::from_secs(1);
/// Names of silent nodes that stand in a line.
const NAMED: usize = 10;

#[derive(Serialize)]
struct Line<'a> {
    round: u64,
    time_utc: &'a str,
    #[serde(flatten)]
    document: Document<'a>,
}

/// Rounds have no end that a document or a table could wait for.
pub(super) fn check(chosen: Chosen) -> Result<(), Failure> {
    match chosen.form {
        Form::Text | Form::Jsonl | Form::Csv => Ok(()),
        Form::Json | Form::Yaml | Form::Table | Form::Names => {
            let failure = Failure::usage("--count and --watch print a line for each round, not one result");
            Err(chosen.blamed(failure).hint("use text, -O jsonl or -O csv"))
        }
    }
}

/// Asks again and again; whether anybody ever answered.
pub(super) async fn run(
    fleet: &Fleet,
    options: &Options,
    filter: &choria_protocol::Filter,
    form: Form,
    expected: Option<&[String]>,
) -> Result<bool, Failure> {
    if form == Form::Csv {
        output::print(&csv::line(&["time_utc", "replies", "max_ms", "min_ms", "avg_ms", "silent"]));
    }
    let mut heard = false;
    let mut number: u64 = 0;
    loop {
        number += 1;
        let time = choria_host::clock::rfc3339_seconds(choria_host::clock::unix_seconds());
        let round = fleet.ping(filter, options.timeout, options.expect, |_| {}).await?;
        heard |= !round.pongs.is_empty();
        let silent = expected.map(|names| silent(names, &round));
        output::print(&match form {
            Form::Jsonl => output::json_line(&Line {
                round: number,
                time_utc: &time,
                document: Document::new(&round, silent, None),
            }),
            Form::Csv => row(&time, &round, silent.as_deref()),
            _ => text(&time, &round, &silent.unwrap_or_default()),
        });
        if options.count.is_some_and(|count| number >= u64::from(count)) {
            return Ok(heard);
        }
        tokio::time::sleep(options.interval.unwrap_or(PAUSE)).await;
    }
}

fn text(time: &str, round: &PingRound, silent: &[String]) -> String {
    let mut line = format!("{time} {}", statistics::line(&round.pongs));
    if round.invalid > 0 {
        line.push_str(&format!(" invalid: {}", round.invalid));
    }
    if !silent.is_empty() {
        let names: Vec<String> = silent.iter().take(NAMED).map(|name| harmless(name)).collect();
        line.push_str(&format!(" silent: {}", names.join(", ")));
        let more = silent.len().saturating_sub(NAMED);
        if more > 0 {
            line.push_str(&format!(" and {more} more"));
        }
    }
    line + "\n"
}

fn row(time: &str, round: &PingRound, silent: Option<&[String]>) -> String {
    let statistics = Statistics::of(&round.pongs, None);
    let time_of = |millis: Option<f64>| millis.map(|millis| millis.to_string()).unwrap_or_default();
    csv::line(&[
        time.to_owned(),
        statistics.replies.to_string(),
        time_of(statistics.max_ms),
        time_of(statistics.min_ms),
        time_of(statistics.avg_ms),
        silent.map_or_else(String::new, |silent| silent.len().to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Pong;

    #[test]
    fn a_line_names_some_of_the_silent() {
        let pongs = vec![Pong { identity: String::from("n"), time: Duration::from_millis(4) }];
        let round = PingRound { pongs, invalid: 1, overhead: Duration::ZERO };
        let silent: Vec<String> = (1..=12).map(|number| format!("s{number}")).collect();
        let line = text("2026-12-01T00:00:00Z", &round, &silent);
        assert!(line.starts_with(
            "2026-12-01T00:00:00Z 1 replies max: 4ms min: 4ms avg: 4ms invalid: 1 silent: s1, s2,"
        ));
        assert!(line.ends_with("s10 and 2 more\n"), "{line}");
        assert_eq!(row("t", &round, Some(&silent)), "t,1,4,4,4,12\n");
        assert_eq!(row("t", &round, None), "t,1,4,4,4,\n");
        let nobody = PingRound { pongs: Vec::new(), invalid: 0, overhead: Duration::ZERO };
        assert_eq!(row("t", &nobody, Some(&silent)), "t,0,,,,12\n");
        let line = output::json_line(&Document::new(&nobody, None, None));
        assert!(line.contains("\"replies\":0,\"max_ms\":null,\"min_ms\":null,\"avg_ms\":null"), "{line}");
    }
}
