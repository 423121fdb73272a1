//! `choria ping`: who answers, and how fast (docs/spec/07 §7.1).

mod histogram;
mod rounds;
mod statistics;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::filter_flags::FilterFlags;
use crate::fleet::{Fleet, PingRound, Pong};
use crate::nodes_file;
use crate::output::form::{Chosen, Form, FormFlag};
use crate::output::table::Table;
use crate::output::{self, csv, harmless};
use statistics::{Statistics, millis};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  choria ping\n  choria ping -F role=web --expect 10\n  choria ping --sort name -O csv\n  choria ping --watch --interval 30s --against nodes.txt"
)]
pub(crate) struct Options {
    #[command(flatten)]
    form: FormFlag,
    /// Only the summary
    #[arg(long)]
    silent: bool,
    /// Only the names of the nodes
    #[arg(long, conflicts_with = "silent", group = "form")]
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
    #[arg(long, short, group = "form")]
    json: bool,
    /// Order of the replies; that of their arrival when not given
    #[arg(long, value_name = "BY")]
    sort: Option<Sort>,
    /// File with the nodes that should answer, one a line: those that do not are named; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Ask so many times, and print a line each time
    #[arg(
        long,
        value_name = "N",
        conflicts_with_all = ["graph", "silent", "sort"],
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    count: Option<u32>,
    /// Ask until Ctrl-C, and print a line each time
    #[arg(long, conflicts_with_all = ["count", "graph", "silent", "sort"])]
    watch: bool,
    /// Pause between two rounds, in seconds or as a duration; a second when not given
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    interval: Option<Duration>,
    /// Kept for compatibility; one connection receives all replies
    #[arg(long, value_name = "N", default_value_t = 3, hide = true)]
    workers: u16,
    // last: their headings in the help would hold for what comes after them
    #[command(flatten)]
    filter: FilterFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By identity
    Name,
    /// The fastest first
    Time,
}

/// A whole fleet answers each round.
fn interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(100);
    let interval = crate::arguments::seconds(text)?;
    if interval < SHORTEST { Err(String::from("the shortest is 100ms")) } else { Ok(interval) }
}

#[derive(Serialize)]
struct Document<'a> {
    replies: Vec<Reply<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    silent: Option<Vec<String>>,
    invalid: usize,
    stats: Statistics,
}

#[derive(Serialize)]
struct Reply<'a> {
    identity: &'a str,
    time_ms: f64,
}

impl<'a> Document<'a> {
    fn new(round: &'a PingRound, silent: Option<Vec<String>>, overhead: Option<Duration>) -> Self {
        let reply = |pong: &'a Pong| Reply { identity: &pong.identity, time_ms: millis(pong.time) };
        Document {
            replies: round.pongs.iter().map(reply).collect(),
            silent,
            invalid: round.invalid,
            stats: Statistics::of(&round.pongs, overhead),
        }
    }
}

pub(crate) async fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let chosen = options.form.form(&[(options.json, Form::Json), (options.names, Form::Names)])?;
    let form = chosen.form;
    let again = options.watch || options.count.is_some();
    if again {
        rounds::check(chosen)?;
    } else if options.interval.is_some() {
        return Err(Failure::usage("--interval is the pause between rounds: add --count N or --watch"));
    }
    fits(options, chosen)?;
    let expected = options.against.as_deref().map(names).transpose()?;
    let filter = options.filter.filter(None)?;
    let fleet = Fleet::connect(global, options.filter.target.as_deref()).await?;
    let heard = if again {
        rounds::run(&fleet, options, &filter, form, expected.as_deref()).await
    } else {
        once(&fleet, options, &filter, form, expected.as_deref()).await
    };
    fleet.close().await;
    if heard? { Ok(0) } else { Err(options.filter.nobody("no responses received", fleet.collective())) }
}

/// Flags that say something of text, with a form that is none.
fn fits(options: &Options, chosen: Chosen) -> Result<(), Failure> {
    let refused = |told: &str| Err(chosen.blamed(Failure::usage(told)));
    if options.silent && chosen.form == Form::Names {
        return refused("--silent prints no names, so that nothing would be left of them");
    }
    if options.graph && chosen.form != Form::Text {
        return refused("--graph draws below the text, which is not what is asked for");
    }
    Ok(())
}

/// One round; whether anybody answered.
async fn once(
    fleet: &Fleet,
    options: &Options,
    filter: &choria_protocol::Filter,
    form: Form,
    expected: Option<&[String]>,
) -> Result<bool, Failure> {
    let wanted = matches!(form, Form::Text | Form::Names) && !options.silent;
    let live = wanted && options.sort.is_none();
    let mut round = fleet
        .ping(filter, options.timeout, options.expect, |pong: &Pong| {
            if live {
                output::print(&line(pong, form));
            }
        })
        .await?;
    match options.sort {
        None => {}
        Some(Sort::Name) => round.pongs.sort_by(|a, b| a.identity.cmp(&b.identity)),
        Some(Sort::Time) => round.pongs.sort_by_key(|pong| pong.time),
    }
    if wanted && !live {
        let lines: String = round.pongs.iter().map(|pong| line(pong, form)).collect();
        output::print(&lines);
    }
    let silent = expected.map(|names| silent(names, &round));
    match form {
        Form::Json | Form::Jsonl | Form::Yaml => {
            let document = Document::new(&round, silent, Some(round.overhead));
            output::print(&form.document(&document)?.unwrap_or_default());
        }
        Form::Csv | Form::Table => {
            output::print(&grid(&round.pongs, form));
            tell(&silent.unwrap_or_default(), round.invalid);
        }
        Form::Names => tell(&silent.unwrap_or_default(), round.invalid),
        Form::Text => {
            output::print(&statistics::summary(&round.pongs, round.overhead, options.silent));
            if round.invalid > 0 {
                output::note(&format!("invalid replies: {}\n", round.invalid));
            }
            output::print(&super::req::names("No Responses from", &silent.unwrap_or_default(), true));
            if options.graph && !round.pongs.is_empty() {
                output::print(&histogram::histogram(&round.pongs));
            }
        }
    }
    Ok(!round.pongs.is_empty())
}

/// A node as it is shown when it answers.
fn line(pong: &Pong, form: Form) -> String {
    let name = harmless(&pong.identity);
    if form == Form::Names {
        return format!("{name}\n");
    }
    format!("{name:<40} time={} ms\n", pong.time.as_millis())
}

fn grid(pongs: &[Pong], form: Form) -> String {
    let row = |pong: &Pong| vec![pong.identity.clone(), millis(pong.time).to_string()];
    if form == Form::Csv {
        let rows: String = pongs.iter().map(|pong| csv::line(&row(pong))).collect();
        return csv::line(&["identity", "time_ms"]) + &rows;
    }
    let mut table = Table::new(&["Identity", "Time (ms)"]);
    pongs.iter().for_each(|pong| table.row(row(pong)));
    table.render()
}

/// What has no place in rows and columns.
fn tell(silent: &[String], invalid: usize) {
    if invalid > 0 {
        output::note(&format!("invalid replies: {invalid}\n"));
    }
    output::note(&super::req::names("No Responses from", silent, true));
}

fn silent(expected: &[String], round: &PingRound) -> Vec<String> {
    let seen: BTreeSet<&str> = round.pongs.iter().map(|pong| pong.identity.as_str()).collect();
    expected.iter().filter(|name| !seen.contains(name.as_str())).cloned().collect()
}

fn names(path: &Path) -> Result<Vec<String>, Failure> {
    let text = nodes_file::contents(path)?;
    Ok(listed(&text))
}

/// Each name once, in the order of the list.
fn listed(text: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter(|line| seen.insert(*line)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{Chosen, Form, Options, fits, interval, listed};
    use crate::output::form::FormFlag;
    use clap::{Args, FromArgMatches};

    #[test]
    fn a_name_is_expected_once() {
        assert_eq!(listed("b\n # x\n#y\na\n\n b \na\n"), ["b", "a"]);
    }

    #[test]
    fn flags_for_text_need_text() {
        let read = |words: &[&str]| -> Result<(Options, Chosen), Box<dyn std::error::Error>> {
            let command = Options::augment_args(clap::Command::new("ping"));
            let options =
                Options::from_arg_matches(&command.try_get_matches_from([&["ping"], words].concat())?)?;
            let chosen = FormFlag::form(&options.form, &[(true, Form::Text)])
                .map_err(|failure| failure.message().to_owned())?;
            Ok((options, chosen))
        };
        for (words, fit) in [
            (&["-O", "names", "--silent"][..], false),
            (&["-O", "csv", "--graph"], false),
            (&["-O", "json", "--graph"], false),
            (&["-O", "csv", "--silent"], true),
            (&["--graph", "--silent"], true),
        ] {
            let (options, chosen) = read(words).unwrap();
            assert_eq!(
                fits(&options, chosen).map_err(|failure| failure.exit_code()).err(),
                (!fit).then_some(2),
                "{words:?}"
            );
        }
        for words in [&["--count", "2", "--silent"][..], &["--watch", "--silent"], &["--names", "--silent"]] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn rounds_have_a_pause_between_them() {
        assert!(interval("0").is_err() && interval("50ms").is_err());
        assert_eq!(interval("2").unwrap().as_secs(), 2);
        assert_eq!(interval("100ms").unwrap().as_millis(), 100);
    }
}
