//! Summaries over all replies, as the agent's schema declares them (docs/spec/07 §7.2).

use std::collections::BTreeMap;

use choria_protocol::ddl::{Action, Aggregate};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use crate::output::colour::{Colour, Paint};
use crate::output::harmless;

#[derive(Debug)]
enum Function {
    /// Counts per distinct value.
    Counts(BTreeMap<String, u64>),
    Average {
        sum: f64,
        count: u64,
    },
}

/// The running summary of one output.
#[derive(Debug)]
pub(crate) struct Summary {
    output: String,
    title: String,
    function: Function,
    renamed: Map<String, Value>,
    format: Option<String>,
}

impl Summary {
    /// The summaries of an action, by name of their output. Functions that this version does not know are left out.
    pub(crate) fn of(action: &Action) -> Vec<Summary> {
        let mut summaries: Vec<Summary> =
            action.aggregate.iter().filter_map(|aggregate| Summary::declared(aggregate, action)).collect();
        summaries.sort_by(|a, b| a.output.cmp(&b.output));
        summaries
    }

    fn declared(aggregate: &Aggregate, action: &Action) -> Option<Summary> {
        let output = aggregate.args.first()?.as_str()?.to_owned();
        let function = match aggregate.function.as_str() {
            "summary" | "boolean_summary" => Function::Counts(BTreeMap::new()),
            "average" => Function::Average { sum: 0.0, count: 0 },
            _ => return None,
        };
        let mut renamed = aggregate.args.get(1).and_then(Value::as_object).cloned().unwrap_or_default();
        let format = renamed.remove("format").and_then(|value| value.as_str().map(str::to_owned));
        let declared = action.output.get(&output).map(|declared| declared.display_as.clone());
        let title = declared.filter(|text| !text.is_empty()).unwrap_or_else(|| output.clone());
        Some(Summary { output, title, function, renamed, format })
    }

    pub(crate) fn add(&mut self, answer: &Answer) {
        let Some(value) = answer.data.get(&self.output) else { return };
        match &mut self.function {
            Function::Counts(counts) => {
                let elements = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                for element in elements {
                    let text = element.as_str().map_or_else(|| element.to_string(), str::to_owned);
                    let name = self.renamed.get(&text).and_then(Value::as_str).map_or(text, str::to_owned);
                    *counts.entry(name).or_default() += 1;
                }
            }
            Function::Average { sum, count } => {
                let number = value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
                if let Some(number) = number {
                    *sum += number;
                    *count += 1;
                }
            }
        }
    }

    /// Most frequent first; equal counts by value, so that two runs look alike.
    fn sorted(counts: &BTreeMap<String, u64>) -> Vec<(&String, &u64)> {
        let mut rows: Vec<_> = counts.iter().collect();
        rows.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        rows
    }

    pub(crate) fn text(&self, colour: Colour) -> String {
        let mut out = colour.paint(Paint::Bright, &format!("Summary of {}:", harmless(&self.title)));
        out.push_str("\n\n");
        match &self.function {
            Function::Counts(counts) if counts.is_empty() => out.push_str("   No summary received\n"),
            Function::Counts(counts) => {
                let rows = Summary::sorted(counts);
                let width = rows.iter().map(|(name, _)| harmless(name).chars().count()).max().unwrap_or(0);
                for (name, count) in rows {
                    let name = harmless(name);
                    match self.format.as_deref().and_then(|format| formatted(format, &name, *count)) {
                        Some(line) => out.push_str(&format!("   {line}\n")),
                        None => out.push_str(&format!("   {name:>width$}: {count}\n")),
                    }
                }
            }
            Function::Average { count: 0, .. } => out.push_str("   No summary received\n"),
            Function::Average { sum, count } => {
                out.push_str(&format!("   Average: {:.3}\n", average(*sum, *count)))
            }
        }
        out.push('\n');
        out
    }

    pub(crate) fn json(&self) -> (String, Value) {
        let value = match &self.function {
            Function::Counts(counts) => json!(counts),
            Function::Average { sum, count } => json!({"average": average(*sum, *count)}),
        };
        (self.output.clone(), value)
    }
}

#[allow(clippy::cast_precision_loss)] // a count of replies is far below 2^52
fn average(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// A declared pattern with one `%s` for the value and one `%d` for the count, in that order.
fn formatted(format: &str, name: &str, count: u64) -> Option<String> {
    let (before, rest) = format.split_once("%s")?;
    let (between, after) = rest.split_once("%d")?;
    Some(format!("{before}{name}{between}{count}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::colour::When;
    use choria_protocol::ddl::builtin;
    use choria_protocol::rpc::StatusCode;

    #[test]
    fn counts_values_most_frequent_first() {
        let ddl = builtin("choria_util").unwrap();
        let mut summaries = Summary::of(ddl.action("info").unwrap());
        for (index, flavour) in ["rs", "rs", "go"].iter().enumerate() {
            let answer = Answer {
                sender: format!("n{index}"),
                status: StatusCode::Ok,
                message: String::new(),
                data: json!({"client_flavour": flavour}).as_object().cloned().unwrap(),
                at: 0,
                verification: String::new(),
            };
            summaries.iter_mut().for_each(|summary| summary.add(&answer));
        }
        let summary = summaries.iter().find(|summary| summary.output == "client_flavour").unwrap();
        let text = summary.text(Colour::stdout(When::Never, true));
        assert!(text.starts_with("Summary of "), "{text}");
        assert!(text.ends_with(":\n\n   rs: 2\n   go: 1\n\n"), "{text}");
        assert_eq!(summary.json(), ("client_flavour".to_owned(), json!({"go": 1, "rs": 2})));
    }
}
