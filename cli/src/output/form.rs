//! In which form results are written: `-O FORMAT`, `CHORIA_OUTPUT`, and the flags that were there before them
//! (docs/spec/07 §2.9).

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::failure::Failure;
use crate::output;

/// Takes the place of `-O` for whoever never wants text.
const VARIABLE: &str = "CHORIA_OUTPUT";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Text,
    /// One JSON document
    Json,
    /// JSON, an object on each line
    Jsonl,
    /// One YAML document
    Yaml,
    /// A table with a frame
    Table,
    /// Comma-separated values with a line of headers
    Csv,
    /// Names of nodes, one on each line
    Names,
}

impl Form {
    /// A value in one of the forms that hold any; nothing in the others.
    pub(crate) fn document<T: Serialize>(self, value: &T) -> Result<Option<String>, Failure> {
        Ok(match self {
            Form::Json => Some(output::json(value)),
            Form::Jsonl => Some(output::json_line(value)),
            Form::Yaml => Some(output::yaml(value)?),
            Form::Text | Form::Table | Form::Csv | Form::Names => None,
        })
    }

    /// A form that the results of a command cannot have.
    pub(crate) fn refused(self, instead: &str) -> Failure {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        Failure::usage(format!("these results cannot be written as {name}")).hint(format!("use {instead}"))
    }
}

#[derive(Debug, Args)]
pub(crate) struct FormFlag {
    /// Form of the results [environment: CHORIA_OUTPUT]
    #[arg(long, short = 'O', value_name = "FORMAT", group = "form")]
    output: Option<Form>,
}

impl FormFlag {
    /// The form asked for; `classic` is what an older flag such as `--json` asks for.
    pub(crate) fn form(&self, classic: Option<Form>) -> Result<Form, Failure> {
        match self.output.or(classic) {
            Some(form) => Ok(form),
            None => of_environment(std::env::var(VARIABLE).ok().as_deref()),
        }
    }
}

fn of_environment(value: Option<&str>) -> Result<Form, Failure> {
    let Some(word) = value.filter(|word| !word.is_empty()) else { return Ok(Form::Text) };
    Form::from_str(word, true).map_err(|_| {
        let known: Vec<String> = Form::value_variants()
            .iter()
            .filter_map(|form| Some(form.to_possible_value()?.get_name().to_owned()))
            .collect();
        Failure::usage(format!("{VARIABLE} is {word:?}, which is no form of results"))
            .hint(format!("it may be {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::{Form, FormFlag, of_environment};

    #[test]
    fn the_environment_speaks_where_the_command_line_is_silent() {
        assert_eq!(of_environment(None).unwrap(), Form::Text);
        assert_eq!(of_environment(Some("")).unwrap(), Form::Text);
        assert_eq!(of_environment(Some("csv")).unwrap(), Form::Csv);
        assert_eq!(of_environment(Some("xml")).unwrap_err().exit_code(), 2);
        let given = FormFlag { output: Some(Form::Yaml) };
        assert_eq!(given.form(None).unwrap(), Form::Yaml);
        assert_eq!(FormFlag { output: None }.form(Some(Form::Table)).unwrap(), Form::Table);
    }
}
