//! Inputs of an action as a person gives them: `key=value`, and a file of them (docs/spec/07 §7.2).

use std::collections::BTreeMap;
use std::path::Path;

use choria_protocol::ProtocolError;
use serde_json::{Map, Value};

use crate::bounded_text;
use crate::failure::{Doing, Failure};
use crate::output::prompt::Prompts;
use crate::output::{self, harmless};

/// What a broker of ours takes in one message; more could not be sent.
const LIMIT: u64 = 1024 * 1024;

/// Names of inputs whose values are never shown.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "token" || name.contains("password") || name.starts_with("secret")
}

/// `key=value`, split at the first `=`.
fn split(argument: &str) -> Result<(&str, &str), Failure> {
    argument
        .split_once('=')
        .or_else(|| argument.split_once(':'))
        .ok_or_else(|| Failure::usage(format!("{argument:?} is no input: inputs are written key=value")))
}

/// Inputs whose values come from stdin, as they were typed.
pub(super) fn from_stdin(arguments: &[String]) -> impl Iterator<Item = &str> {
    arguments.iter().map(String::as_str).filter(|argument| matches!(split(argument), Ok((_, "@-"))))
}

/// The inputs of the command line as texts.
pub(super) fn texts(arguments: &[String], prompts: Prompts) -> Result<BTreeMap<String, String>, Failure> {
    let mut texts = BTreeMap::new();
    for argument in arguments {
        let (key, value) = split(argument)?;
        let value = match value {
            "-" if is_secret(key) => prompts.secret(key, &format!("{key}=@FILE"))?.expose().to_owned(),
            _ => match value.strip_prefix('@') {
                Some(file) => {
                    let from = if file == "-" { "stdin" } else { file };
                    let what = || format!("cannot read input {key} from {from}");
                    let text = bounded_text::read(Path::new(file), LIMIT, what)?;
                    text.trim_end_matches(['\r', '\n']).to_owned()
                }
                None => {
                    if is_secret(key) && !value.is_empty() {
                        output::note(&format!(
                            "warning: {key}=… shows in the list of processes: {key}=@FILE and {key}=- keep it private\n"
                        ));
                    }
                    value.to_owned()
                }
            },
        };
        texts.insert(key.to_owned(), value);
    }
    Ok(texts)
}

/// The inputs in a file, a JSON or YAML object; `-` is stdin.
pub(super) fn document(path: &Path) -> Result<Map<String, Value>, Failure> {
    let what = || format!("cannot read inputs from {}", path.display());
    let text = bounded_text::read(path, LIMIT, what)?;
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let value: Value = if json {
        let usage = |failure: Failure| failure.code(crate::failure::Code::Usage);
        let value = serde_json::from_str(&text).doing(what).map_err(usage)?;
        // YAML refuses a name that stands twice on its own
        choria_protocol::check_unambiguous("inputs", &[], text.as_bytes()).map_err(|error| {
            Failure::usage(what()).because(match error {
                ProtocolError::Ambiguous { key, .. } => format!("it has {key:?} more than once"),
                other => harmless(&other.to_string()),
            })
        })?;
        value
    } else {
        // JSON is YAML, so that stdin and files of any name may hold either
        serde_saphyr::from_str(&text).map_err(|error| {
            let error = error.to_string();
            let line = error.lines().next().unwrap_or_default();
            Failure::usage(what()).because(harmless(line))
        })?
    };
    let Value::Object(inputs) = value else {
        return Err(Failure::usage(what()).because("it is no JSON or YAML object of inputs and their values"));
    };
    // names of inputs are lower-case: which of two values was meant nobody can say
    let mut seen = BTreeMap::new();
    for name in inputs.keys() {
        if let Some(other) = seen.insert(name.to_lowercase(), name) {
            return Err(Failure::usage(what())
                .because(format!("{other:?} and {name:?} are one input: case is no difference")));
        }
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::{document, from_stdin, is_secret, texts};
    use crate::output::prompt::Prompts;
    use serde_json::json;
    use std::path::PathBuf;

    #[test]
    fn inputs_split_at_the_first_equals_sign() {
        let read = |arguments: &[String]| texts(arguments, Prompts::new(true));
        let texts = read(&["url=https://x/?a=b".into(), "headers={\"a\":\"b\"}".into()]).unwrap();
        assert_eq!(texts["url"], "https://x/?a=b");
        assert_eq!(texts["headers"], "{\"a\":\"b\"}");
        assert_eq!(read(&["nothing".into()]).unwrap_err().exit_code(), 2);
        assert_eq!(read(&["token=-".into()]).unwrap_err().exit_code(), 6);
    }

    #[test]
    fn only_a_file_of_that_name_is_stdin() {
        let arguments = ["a=@-", "b=-", "c=@./-", "d:@-", "nothing"].map(String::from);
        assert!(from_stdin(&arguments).eq(["a=@-", "d:@-"]));
    }

    #[test]
    fn secrets_are_known_by_name() {
        assert!(
            ["token", "password", "db_password", "secret_key", "Token"].iter().all(|name| is_secret(name))
        );
        assert!(!is_secret("fact"));
    }

    fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_of_inputs_is_an_object_in_json_or_yaml() {
        let expected = json!({"fact": "role", "count": 3, "deep": {"a": [1]}});
        for (name, text) in [
            ("i.json", "{\n\t\"fact\": \"role\", \"count\": 3,\n\t\"deep\": {\"a\": [1]}}"),
            ("i.yaml", "fact: role\ncount: 3\ndeep:\n  a: [1]\n"),
            ("inputs", "{\"fact\": \"role\", \"count\": 3, \"deep\": {\"a\": [1]}}"),
        ] {
            let (_folder, path) = file(name, text);
            assert_eq!(serde_json::Value::Object(document(&path).unwrap()), expected, "{name}");
        }
        for (name, text) in
            [("i.json", "[1]"), ("i.json", "{"), ("i.yaml", "role"), ("i.yaml", "a: ["), ("i", "")]
        {
            let (_folder, path) = file(name, text);
            assert_eq!(document(&path).unwrap_err().exit_code(), 2, "{name} {text:?}");
        }
    }

    #[test]
    fn an_input_has_one_value() {
        for (name, text) in [
            ("i.json", "{\"a\": 1, \"b\": 2, \"a\": 3}"),
            ("i.json", "{\"a\": {\"b\": 1, \"b\": 2}}"),
            ("i.json", "{\"a\": 1, \"\\u0061\": 2}"),
            ("i.yaml", "a: 1\na: 2\n"),
            ("i", "{\"a\": 1, \"a\": 2}"),
            ("i.json", "{\"fact\": 1, \"Fact\": 2}"),
            ("i.yaml", "fact: 1\nFACT: 2\n"),
        ] {
            let (_folder, path) = file(name, text);
            assert_eq!(document(&path).unwrap_err().exit_code(), 2, "{name} {text:?}");
        }
        let (_folder, path) = file("i.json", "{\"a\": {\"b\": 1, \"B\": 2}, \"c\": {\"b\": 1}}");
        assert!(document(&path).is_ok());
    }

    #[test]
    fn a_file_that_no_broker_would_take_is_not_read() {
        let (_folder, path) = file("i.json", &format!("{{\"a\": \"{}\"}}", "x".repeat(1024 * 1024)));
        assert_eq!(document(&path).unwrap_err().exit_code(), 1);
    }
}
