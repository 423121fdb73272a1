//! The flags that choose nodes, shared by every fleet command (docs/spec/07 §5).

use choria_protocol::{Filter, parse_combined_filter, parse_fact_filter};
use clap::Args;

use crate::failure::{Code, Failure};
use crate::output;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Choosing nodes")]
pub(crate) struct FilterFlags {
    /// Nodes whose fact matches, such as `os.family=Debian` or `memory.size>4000`; all must match
    #[arg(long = "wf", short = 'F', visible_alias = "fact", value_name = "EXPRESSION")]
    facts: Vec<String>,
    /// Nodes with this class, or a class that matches /regex/; all must match
    #[arg(long = "wc", short = 'C', visible_alias = "class", value_name = "CLASS")]
    classes: Vec<String>,
    /// Nodes with this agent, or an agent that matches /regex/; all must match
    #[arg(long = "wa", short = 'A', visible_alias = "agent", value_name = "AGENT")]
    agents: Vec<String>,
    /// Nodes with this identity, or one that matches /regex/; any may match
    #[arg(long = "wi", short = 'I', visible_alias = "identity", value_name = "IDENTITY")]
    identities: Vec<String>,
    /// Facts and classes in one text, with spaces between them
    #[arg(long = "with", short = 'W', visible_alias = "group", value_name = "TEXT")]
    combined: Vec<String>,
    /// Nodes for which this expression is true; nodes of this version cannot evaluate any and stay silent
    #[arg(long, short = 'S', value_name = "EXPRESSION")]
    select: Option<String>,
    /// Collective to ask, one of the configured
    #[arg(long, short = 'T', value_name = "COLLECTIVE")]
    pub(crate) target: Option<String>,
}

impl FilterFlags {
    /// The filter that the flags describe; `agent` is added where a command needs nodes that have it.
    pub(crate) fn filter(&self, agent: Option<&str>) -> Result<Filter, Failure> {
        let mut filter = Filter::default();
        for text in &self.facts {
            filter.add_fact(parse_fact_filter(text).map_err(|error| Failure::usage(error.to_string()))?);
        }
        self.classes.iter().for_each(|class| filter.add_class(class));
        self.agents.iter().chain(&agent.map(str::to_owned)).for_each(|agent| filter.add_agent(agent));
        self.identities.iter().for_each(|identity| filter.add_identity(identity));
        for text in &self.combined {
            let combined = parse_combined_filter(text);
            for word in &combined.suspicious {
                output::note(&format!("warning: {word:?} is no fact expression, it is taken as a class\n"));
            }
            combined.add_to(&mut filter);
        }
        if let Some(expression) = &self.select {
            filter.add_compound(expression);
        }
        for text in filter.identity.iter().chain(&filter.cf_class).chain(&filter.agent) {
            check_pattern(text)?;
        }
        Ok(filter)
    }

    /// Says what was looked for, when nobody answered.
    pub(crate) fn nobody(&self, message: &str, collective: &str) -> Failure {
        let given: Vec<String> = [
            ("-F", &self.facts),
            ("-C", &self.classes),
            ("-A", &self.agents),
            ("-I", &self.identities),
            ("-W", &self.combined),
        ]
        .into_iter()
        .flat_map(|(flag, values)| values.iter().map(move |value| format!("{flag} {value}")))
        .chain(self.select.iter().map(|text| format!("-S {text}")))
        .collect();
        Failure::new(message).code(Code::NoReplies).hint(if given.is_empty() {
            format!("asked all of collective {collective:?}: no node is connected, or none obeys this token")
        } else {
            let filter = given.join(" ");
            format!(
                "asked collective {collective:?} with filter {filter}; `choria ping` shows which nodes answer at all"
            )
        })
    }
}

/// A node drops a request whose pattern it cannot read, without a word.
fn check_pattern(text: &str) -> Result<(), Failure> {
    let Some(pattern) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) else {
        return Ok(());
    };
    regex::Regex::new(pattern).map(drop).map_err(|error| {
        // the lines before show the pattern, which the person has just typed
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Failure::usage(format!("{text} is no regular expression: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use super::FilterFlags;

    #[test]
    fn flags_become_a_filter() {
        let flags = FilterFlags {
            facts: vec!["memory.size=7959".into()],
            identities: vec!["/^n/".into()],
            combined: vec!["roles::web os.family=Debian".into()],
            ..FilterFlags::default()
        };
        let filter = flags.filter(Some("rpcutil")).unwrap();
        let json = serde_json::to_value(&filter).unwrap();
        assert_eq!(
            json["fact"][0],
            serde_json::json!({"fact": "memory.size", "operator": "==", "value": "7959"})
        );
        assert_eq!(json["fact"][1]["fact"], "os.family");
        assert_eq!(json["cf_class"], serde_json::json!(["roles::web"]));
        assert_eq!(json["identity"], serde_json::json!(["/^n/"]));
        assert_eq!(json["agent"], serde_json::json!(["rpcutil"]));
    }

    #[test]
    fn a_bad_fact_expression_is_a_usage_error_that_names_it() {
        let flags = FilterFlags { facts: vec!["memory".into()], ..FilterFlags::default() };
        let failure = flags.filter(None).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
    }

    #[test]
    fn a_pattern_that_no_node_could_read_is_a_usage_error() {
        let flags = FilterFlags { classes: vec!["/[/".into()], ..FilterFlags::default() };
        assert_eq!(flags.filter(None).unwrap_err().exit_code(), 2);
    }
}
