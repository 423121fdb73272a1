//! Replies for a person: a block per node, then what was silent (docs/spec/07 §7.2).

use choria_protocol::ddl::Action;
use choria_protocol::rpc::StatusCode;
use serde_json::Value;

use super::answer::{Answer, status_text};
use crate::output::colour::{Colour, Paint};
use crate::output::{harmless, json};

/// The block of one node.
pub(crate) fn block(answer: &Answer, action: &Action, verbose: bool, colour: Colour) -> String {
    let status = status_text(answer.status);
    let paint = match answer.status {
        StatusCode::Aborted | StatusCode::UnknownError | StatusCode::Other(_) => Paint::Red,
        _ => Paint::Yellow,
    };
    let shown = if status.is_empty() { String::new() } else { colour.paint(paint, status) };
    let mut out = format!("{:<40} {shown}", harmless(&answer.sender)).trim_end().to_owned();
    out.push_str("\n\n");
    if verbose {
        let data = Value::Object(answer.data.clone());
        out.push_str(&indented(&json::pretty(&data), 3));
        if !answer.is_ok() {
            out.push_str(&format!("    {}\n", harmless(&answer.message)));
        }
    } else if answer.is_ok() {
        out.push_str(&outputs(answer, action));
    } else {
        out.push_str(&format!("    {}\n", harmless(&answer.message)));
    }
    out.push('\n');
    out
}

/// One line per output, by key; the label is the declared one.
fn outputs(answer: &Answer, action: &Action) -> String {
    let mut data = answer.data.clone();
    action.fill_output_defaults(&mut data);
    let mut rows: Vec<(&str, String, String)> = data
        .iter()
        .map(|(key, value)| {
            let declared = action.output.get(key).map(|output| output.display_as.as_str());
            let label = declared.filter(|text| !text.is_empty()).unwrap_or(key);
            (key.as_str(), harmless(label), plain(value))
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(b.0));
    let width = rows.iter().map(|(_, label, _)| label.chars().count()).max().unwrap_or(0) + 3;
    let mut out = String::new();
    for (_, label, value) in rows {
        let mut lines = value.lines();
        out.push_str(format!("{label:>width$}: {}", lines.next().unwrap_or_default()).trim_end());
        out.push('\n');
        for line in lines {
            out.push_str(format!("{:width$}  {line}", "").trim_end());
            out.push('\n');
        }
    }
    out
}

/// A value as text: strings as they are, structures as indented JSON.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => harmless(text),
        Value::Array(_) | Value::Object(_) => json::pretty(value),
        other => other.to_string(),
    }
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{}\n", "", harmless(line))).collect()
}

/// `No Responses from: N` and the names in three columns, sorted.
pub(crate) fn names(title: &str, names: &[String], verbose: bool) -> String {
    const SHOWN: usize = 200;
    if names.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<String> = names.iter().map(|name| harmless(name)).collect();
    sorted.sort();
    let mut out = if sorted.len() > SHOWN && !verbose {
        let total = sorted.len();
        sorted.truncate(SHOWN);
        format!("\n{title} (showing first {SHOWN}): {total}\n\n")
    } else {
        format!("\n{title}: {}\n\n", sorted.len())
    };
    let width = sorted.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for row in sorted.chunks(3) {
        let cells: Vec<String> = row.iter().map(|name| format!("{name:<width$}")).collect();
        out.push_str(format!("    {}", cells.join("  ")).trim_end());
        out.push('\n');
    }
    out
}

/// What a form has no place for, for stderr: who was silent, and who failed.
pub(crate) fn left_out(silent: &[String], failed: &[String], verbose: bool) -> String {
    names("No Responses from", silent, verbose) + &names("Failed Replies from", failed, verbose)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::colour::When;
    use choria_protocol::ddl::builtin;
    use serde_json::json;

    fn answer(status: StatusCode, data: Value) -> Answer {
        Answer {
            sender: "n1.example.net".into(),
            status,
            message: "could not write /opt/x: permission denied".into(),
            data: data.as_object().cloned().unwrap_or_default(),
            at: 0,
            verification: "verified".into(),
        }
    }

    #[test]
    fn a_successful_reply_lists_its_outputs() {
        let ddl = builtin("rpcutil").unwrap();
        let colour = Colour::stdout(When::Never, true);
        let shown = block(
            &answer(StatusCode::Ok, json!({"pong": 1_670_928_037})),
            ddl.action("ping").unwrap(),
            false,
            colour,
        );
        assert_eq!(shown, "n1.example.net\n\n   Timestamp: 1670928037\n\n");
    }

    #[test]
    fn a_failed_reply_says_why() {
        let ddl = builtin("rpcutil").unwrap();
        let colour = Colour::stdout(When::Never, true);
        let shown =
            block(&answer(StatusCode::Aborted, json!({})), ddl.action("ping").unwrap(), false, colour);
        let expected = "n1.example.net                           Request Aborted\n\n    could not write /opt/x: permission denied\n\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn silent_nodes_stand_in_columns() {
        let silent: Vec<String> = ["n4", "n10.example.net", "n2", "n3"].map(String::from).to_vec();
        let shown = names("No Responses from", &silent, false);
        assert_eq!(shown, "\nNo Responses from: 4\n\n    n10.example.net  n2               n3\n    n4\n");
        let told = left_out(&["n1".to_owned()], &["n2".to_owned()], false);
        assert_eq!(told, "\nNo Responses from: 1\n\n    n1\n\nFailed Replies from: 1\n\n    n2\n");
        assert_eq!(left_out(&[], &[], false), "");
    }
}
