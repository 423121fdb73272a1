//! The results of a request in the form that was asked for (docs/spec/07 §2.9, §7.2).

use std::time::Duration;

use choria_protocol::ddl::{Action, Display};
use serde_json::Value;

use super::answer::Answer;
use super::options::{Options, Shown};
use super::summary::Summary;
use super::{document, text};
use crate::failure::Failure;
use crate::output::colour::{Colour, Paint};
use crate::output::form::Form;
use crate::output::table::{self, Table};
use crate::output::{self, csv, format, harmless};

/// All that is known when a request is over.
pub(super) struct Results<'a> {
    pub(super) answers: &'a [Answer],
    pub(super) action: &'a Action,
    pub(super) summaries: &'a [Summary],
    pub(super) summary: &'a crate::fleet::Summary,
    pub(super) colour: Colour,
    /// Whether a table may be as wide as it likes: not where a person looks at it.
    pub(super) wide: bool,
}

impl Results<'_> {
    /// What is printed at the end; JSON lines were printed as they came.
    pub(super) fn written(&self, options: &Options, form: Form) -> Result<String, Failure> {
        let document = || {
            if options.senders {
                self.successful().map(|answer| answer.sender.as_str()).collect()
            } else {
                document::whole(&options.agent, &options.action, self.answers, self.summary, self.summaries)
            }
        };
        Ok(match form {
            Form::Json => output::json(&document()),
            Form::Yaml => output::yaml(&document())?,
            Form::Jsonl => document::summaries(self.summaries) + &document::stats(self.summary),
            Form::Names => self.names(),
            Form::Text | Form::Table | Form::Csv if options.senders => self.names(),
            Form::Table => self.table(),
            Form::Csv => self.csv(),
            Form::Text => self.text(options),
        })
    }

    fn successful(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| answer.is_ok())
    }

    fn names(&self) -> String {
        self.successful().map(|answer| format!("{}\n", harmless(&answer.sender))).collect()
    }

    fn table(&self) -> String {
        let labels = self.action.output.iter().map(|(name, output)| {
            if output.display_as.is_empty() { name.as_str() } else { output.display_as.as_str() }
        });
        let headers: Vec<&str> = std::iter::once("Sender").chain(labels).collect();
        let mut table = Table::new(&headers);
        if self.wide {
            table = table.unlimited();
        }
        self.successful().for_each(|answer| table.row(self.row(answer)));
        table.render()
    }

    /// As the table, with the names that programs know outputs by.
    fn csv(&self) -> String {
        let headers: Vec<&str> =
            std::iter::once("sender").chain(self.action.output.keys().map(String::as_str)).collect();
        let rows: String = self.successful().map(|answer| csv::line(&self.row(answer))).collect();
        csv::line(&headers) + &rows
    }

    fn row(&self, answer: &Answer) -> Vec<String> {
        let mut data = answer.data.clone();
        self.action.fill_output_defaults(&mut data);
        let outputs = self.action.output.keys().map(|name| match data.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => output::json::compact(value),
            None => String::new(),
        });
        std::iter::once(answer.sender.clone()).chain(outputs).collect()
    }

    fn text(&self, options: &Options) -> String {
        let shown = options.display.unwrap_or(match self.action.display {
            Display::Ok => Shown::Ok,
            Display::Failed => Shown::Failed,
            Display::Always => Shown::All,
        });
        let visible = |answer: &&Answer| match shown {
            Shown::All => true,
            Shown::Ok => answer.is_ok(),
            Shown::Failed => !answer.is_ok(),
            Shown::None => false,
        };
        let mut out = String::new();
        for answer in self.answers.iter().filter(visible) {
            out.push_str(&text::block(answer, self.action, options.verbose, self.colour));
        }
        for summary in self.summaries {
            out.push_str(&summary.text(self.colour));
        }
        out.push('\n');
        out.push_str(&footer(options, self.summary, self.colour));
        out.push_str(&text::names("No Responses from", &self.summary.silent, options.verbose));
        out.push_str(&text::names("Unexpected Responses from", &self.summary.unexpected, options.verbose));
        if self.summary.invalid > 0 {
            out.push_str(&format!("\nInvalid replies: {}\n", self.summary.invalid));
        }
        out
    }
}

fn footer(options: &Options, summary: &crate::fleet::Summary, colour: Colour) -> String {
    let milli = Duration::from_millis(1);
    let counts = format!("{} / {}", summary.responses, summary.discovered);
    let paint = match summary.responses {
        0 => Paint::Red,
        responses if responses != summary.discovered => Paint::Yellow,
        _ => Paint::Green,
    };
    let total = summary.took + summary.discovery;
    if !options.verbose {
        let took = format::short(total, milli);
        return format!("Finished processing {} hosts in {took}\n", colour.paint(paint, &counts));
    }
    let started = jiff::Timestamp::from_second(summary.started)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string());
    let rows = [
        ("Nodes", counts),
        ("Pass / Fail", format!("{} / {}", summary.ok, summary.failed)),
        ("No Responses", summary.silent.len().to_string()),
        ("Unexpected Responses", summary.unexpected.len().to_string()),
        ("Start Time", started.unwrap_or_default()),
        ("Discovery Time", format::short(summary.discovery, milli)),
        ("Publish Time", format::short(summary.publish, Duration::from_micros(100))),
        ("Agent Time", format::short(summary.took.saturating_sub(summary.publish), milli)),
        ("Total Time", format::short(total, milli)),
    ];
    format!("{}\n{}", colour.paint(Paint::Yellow, "---- request stats ----"), table::labels(&rows, 0))
}
