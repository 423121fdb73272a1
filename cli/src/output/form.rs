//! In which form results are written: `-O FORMAT`, `CHORIA_OUTPUT`, and the flags that were there before them
//! (docs/spec/07 §2.9).

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::environment;
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
}

/// A form, and who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) form: Form,
    by_variable: bool,
}

impl Chosen {
    /// A form that the results of a command cannot have.
    pub(crate) fn refused(self, instead: &str) -> Failure {
        let failure = Failure::usage(format!("these results cannot be written as {}", self.name()));
        self.blamed(failure).hint(format!("use {instead}"))
    }

    /// A failure over this form; who has not typed it is told where it comes from.
    pub(crate) fn blamed(self, failure: Failure) -> Failure {
        if self.by_variable {
            failure.because(format!("the environment asks for {}: {VARIABLE}", self.name()))
        } else {
            failure
        }
    }

    fn name(self) -> String {
        self.form.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[derive(Debug, Args)]
pub(crate) struct FormFlag {
    /// Form of the results; cells of csv are not defused for spreadsheets [environment: CHORIA_OUTPUT]
    #[arg(long, short = 'O', value_name = "FORMAT", group = "form")]
    output: Option<Form>,
}

impl FormFlag {
    /// The form asked for; `classic` are older flags such as `--json`, whether each was given and what it asks for.
    pub(crate) fn form(&self, classic: &[(bool, Form)]) -> Result<Chosen, Failure> {
        let classic = classic.iter().find_map(|(given, form)| given.then_some(*form));
        if let Some(form) = self.output.or(classic) {
            return Ok(Chosen { form, by_variable: false });
        }
        let said = environment::word(VARIABLE)?;
        Ok(Chosen { form: said.unwrap_or(Form::Text), by_variable: said.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::{Chosen, Form, FormFlag};

    #[test]
    fn what_is_typed_outweighs_the_environment() {
        let given = FormFlag { output: Some(Form::Yaml) };
        assert_eq!(
            given.form(&[(false, Form::Table)]).unwrap(),
            Chosen { form: Form::Yaml, by_variable: false }
        );
        let classic = FormFlag { output: None }.form(&[(false, Form::Json), (true, Form::Table)]).unwrap();
        assert_eq!(classic, Chosen { form: Form::Table, by_variable: false });
    }

    #[test]
    fn a_form_that_nobody_typed_is_explained() {
        let told = |by_variable| format!("{:?}", Chosen { form: Form::Csv, by_variable }.refused("text"));
        assert!(told(false).contains("as csv") && !told(false).contains("CHORIA_OUTPUT"));
        assert!(told(true).contains("as csv") && told(true).contains("CHORIA_OUTPUT"));
    }
}
