//! The flags of `choria req` (docs/spec/07 §7.2).

use std::path::{Path, PathBuf};
use std::time::Duration;

use choria_client::targets::Amount;
use clap::{Args, ValueEnum};

use super::inputs;
use crate::discovery_flags::DiscoveryFlags;
use crate::environment;
use crate::failure::Failure;
use crate::filter_flags::FilterFlags;
use crate::output::form::{Form, FormFlag};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  choria req choria_util info\n  choria req rpcutil ping -F memory.size=7959\n  choria req rpcutil get_fact fact=role --json\n  choria req rpcutil get_fact --input-file inputs.yaml -O csv\n  choria req rpcutil get_fact fact=role --filter-replies 'data(\"value\") in [\"web\", \"db\"]'\n  choria req choria_provision restart token=@token.txt --batch 10 --batch-sleep 5"
)]
pub(crate) struct Options {
    /// The agent to call
    pub(super) agent: String,
    /// The action to call
    pub(super) action: String,
    /// Inputs of the action as key=value; `key=@FILE` reads a file, `key=@-` stdin, and `token=-` asks for the value
    #[arg(value_name = "KEY=VALUE")]
    pub(super) inputs: Vec<String>,
    /// JSON or YAML object with inputs, at most 1 MiB; `-` reads stdin. Inputs of the command line replace its own
    #[arg(long, value_name = "FILE")]
    pub(super) input_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) form: FormFlag,
    /// Results as one JSON document
    #[arg(long, short, group = "form")]
    pub(super) json: bool,
    /// Results as JSON lines, as they arrive
    #[arg(long, group = "form")]
    pub(super) jsonl: bool,
    /// Successful replies as a table
    #[arg(long, short, group = "form")]
    pub(super) table: bool,
    /// Only the names of the nodes that succeeded
    #[arg(long)]
    pub(super) senders: bool,
    /// Only this many nodes, or this share of them
    #[arg(long, value_name = "N|P%")]
    pub(super) limit: Option<Amount>,
    /// Seed for the choice of nodes when the limit is a random one
    #[arg(long, value_name = "SEED", requires = "limit")]
    pub(super) limit_seed: Option<u64>,
    /// Call nodes in groups of this size
    #[arg(long, value_name = "SIZE", default_value_t = 0)]
    pub(super) batch: usize,
    /// Pause between groups, in seconds or as a duration
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = crate::arguments::seconds)]
    pub(super) batch_sleep: Duration,
    /// How long to wait for replies, in seconds or as a duration
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds)]
    pub(super) timeout: Option<Duration>,
    /// End when no reply has come for so long, once there was one; in seconds or as a duration
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds)]
    pub(super) quiet_after: Option<Duration>,
    /// Only replies for which this expression is true, such as `ok() && data("count") > 3`. It may ask for msg, code,
    /// sender(), time(), data(PATH), ok(), aborted(), unknown_action(), missing_data(), invalid_data(), unknown_error(),
    /// include(LIST, ITEM) and semver(VERSION, CONSTRAINT)
    #[arg(long, value_name = "EXPRESSION")]
    pub(super) filter_replies: Option<String>,
    /// Have nodes reply to this subject: nothing is awaited, the request's id is printed
    #[arg(
        long,
        short,
        value_name = "SUBJECT",
        conflicts_with_all = ["batch_sleep", "display", "fail_on", "filter_replies", "output_file", "quiet_after", "senders", "sort", "table", "timeout"]
    )]
    pub(super) reply_to: Option<String>,
    /// Do not draw a progress bar
    #[arg(long, visible_alias = "no-progress")]
    pub(super) np: bool,
    /// Raw replies and more statistics
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// Which replies to print
    #[arg(long, value_name = "WHICH")]
    pub(super) display: Option<Shown>,
    /// Write results to a file, once they are whole
    #[arg(long, short, value_name = "FILE")]
    pub(super) output_file: Option<PathBuf>,
    /// Sort replies by node
    #[arg(long)]
    pub(super) sort: bool,
    /// Find nodes and check inputs, then say what would be sent
    #[arg(long)]
    pub(super) dry_run: bool,
    /// End with code 4 when nodes failed or stayed silent; none when not given [environment: CHORIA_FAIL_ON]
    #[arg(long, value_name = "WHAT")]
    pub(super) fail_on: Option<FailOn>,
    /// Ask before an action that reaches more nodes than this
    #[arg(long, value_name = "N")]
    pub(super) confirm_over: Option<usize>,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Kept for compatibility; one connection receives all replies
    #[arg(long, value_name = "N", default_value_t = 3, hide = true)]
    pub(super) workers: u16,
    // last: their headings in the help would hold for what comes after them
    #[command(flatten)]
    pub(super) filter: FilterFlags,
    #[command(flatten)]
    pub(super) discovery: DiscoveryFlags,
}

impl Options {
    /// What makes the request end with a code of its own. Where no reply is awaited there is nothing to tell, whatever
    /// the environment says.
    pub(super) fn fail_on(&self) -> Result<FailOn, Failure> {
        match self.fail_on {
            Some(given) => Ok(given),
            None if self.reply_to.is_some() => Ok(FailOn::None),
            None => Ok(environment::word("CHORIA_FAIL_ON")?.unwrap_or(FailOn::None)),
        }
    }

    /// Stdin can be read once.
    pub(super) fn check_stdin(&self) -> Result<(), Failure> {
        let is_stdin = |path: &Option<PathBuf>| path.as_deref().is_some_and(|path| path == Path::new("-"));
        let flags = [("--input-file -", &self.input_file), ("--nodes -", &self.discovery.nodes)];
        let flags = flags.into_iter().filter_map(|(flag, path)| is_stdin(path).then_some(flag));
        let mut readers = flags.chain(inputs::from_stdin(&self.inputs));
        match (readers.next(), readers.next()) {
            (Some(one), Some(other)) => {
                Err(Failure::usage(format!("{one} and {other} cannot both read stdin"))
                    .hint("put one of them into a file"))
            }
            _ => Ok(()),
        }
    }

    /// The form of the results, once it is clear that they can have it.
    pub(super) fn form(&self) -> Result<Form, Failure> {
        // what somebody types outweighs what the environment says, --senders too
        let classic = [
            (self.json, Form::Json),
            (self.jsonl, Form::Jsonl),
            (self.table, Form::Table),
            (self.senders, Form::Names),
        ];
        let chosen = self.form.form(&classic)?;
        let form = chosen.form;
        if form == Form::Jsonl && self.output_file.is_some() {
            let failure =
                Failure::usage("JSON lines are written as they come, --output-file only at the end");
            return Err(chosen.blamed(failure).hint("redirect stdout instead: choria req … -O jsonl >FILE"));
        }
        if form == Form::Jsonl && self.senders {
            return Err(Failure::usage("JSON lines are whole replies, --senders only names")
                .hint("use --senders alone, or with -O json or yaml"));
        }
        if self.reply_to.is_some() {
            if matches!(form, Form::Table | Form::Csv | Form::Names) {
                let failure = Failure::usage("with --reply-to no reply is awaited that could be written so");
                return Err(chosen
                    .blamed(failure)
                    .hint("use text, json, jsonl or yaml for the request's id"));
            }
            if self.batch > 0 {
                return Err(Failure::usage(
                    "--reply-to cannot be used with --batch: nobody awaits the end of a batch",
                ));
            }
        }
        Ok(form)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shown {
    Ok,
    Failed,
    All,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FailOn {
    None,
    Failed,
    Missing,
    Any,
}

#[cfg(test)]
mod tests {
    use super::Options;
    use crate::output::form::Form;
    use clap::{Args, FromArgMatches};

    fn options(words: &[&str]) -> Result<Options, u8> {
        let command = Options::augment_args(clap::Command::new("req"));
        let words = [&["req", "rpcutil", "ping"], words].concat();
        let matches = command.try_get_matches_from(words).map_err(|_| 2)?;
        Options::from_arg_matches(&matches).map_err(|_| 2)
    }

    /// The code that a command line ends with, or its form.
    fn form(words: &[&str]) -> Result<Form, u8> {
        options(words)?.form().map_err(|failure| failure.exit_code())
    }

    #[test]
    fn stdin_is_read_once() {
        let check =
            |words: &[&str]| options(words).unwrap().check_stdin().map_err(|failure| failure.exit_code());
        for words in
            [&["--input-file", "-", "--nodes", "-"][..], &["a=@-", "--nodes", "-"], &["a=@-", "b=@-"]]
        {
            assert_eq!(check(words), Err(2), "{words:?}");
        }
        for words in [&["--input-file", "-", "--nodes", "./-"][..], &["a=@-", "b=-"], &["--nodes", "-"]] {
            assert_eq!(check(words), Ok(()), "{words:?}");
        }
    }

    #[test]
    fn a_request_without_replies_takes_no_flag_that_needs_them() {
        let to = |more: &[&str]| form(&[&["--reply-to", "site.replies"], more].concat());
        for more in [
            &["-O", "table"][..],
            &["-O", "csv"],
            &["-O", "names"],
            &["--table"],
            &["--senders"],
            &["--fail-on", "none"],
            &["--batch-sleep", "1"],
            &["--batch", "1"],
        ] {
            assert_eq!(to(more), Err(2), "{more:?}");
        }
        assert_eq!(to(&["--batch", "0", "-O", "json"]), Ok(Form::Json));
        assert_eq!(to(&["-O", "text"]), Ok(Form::Text));
    }

    #[test]
    fn lines_of_json_are_whole_replies() {
        assert_eq!(form(&["--senders", "-O", "jsonl"]), Err(2));
        assert_eq!(form(&["--senders", "--jsonl"]), Err(2));
        assert_eq!(form(&["-O", "jsonl", "-o", "file"]), Err(2));
        assert_eq!(form(&["--senders", "-O", "yaml"]), Ok(Form::Yaml));
        assert_eq!(form(&["--senders"]), Ok(Form::Names));
    }
}
