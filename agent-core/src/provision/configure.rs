//! Checks of a `configure` request (`docs/spec/04 §7.4`, `docs/spec/10` V9).

use crate::json::{Object, Text};

/// What is wrong with a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigReject {
    NotAnObject,
    Empty,
    /// Not a string.
    ValueType,
    /// Empty, or with a line break, NUL, `=`, blank or leading `#`.
    Key,
    /// A line break, NUL or another control character.
    Value,
    PolicyName,
    PolicyType,
}

impl ConfigReject {
    /// One sentence for the caller.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            ConfigReject::NotAnObject => {
                "Could not decode configuration data: it is not a JSON object of strings"
            }
            ConfigReject::Empty => {
                "Did not receive any configuration to write, cannot write a empty configuration file"
            }
            ConfigReject::ValueType => "Could not decode configuration data: every value must be a string",
            ConfigReject::Key => {
                "Refused configuration data: a setting name is empty or has characters that no setting has"
            }
            ConfigReject::Value => {
                "Refused configuration data: a value has a line break or another control character"
            }
            ConfigReject::PolicyName => {
                "Refused a policy: its file name must be letters, digits, '.', '-' and '_' with the right ending"
            }
            ConfigReject::PolicyType => {
                "Refused a policy: policies must be a JSON object of file name to text"
            }
        }
    }
}

/// Every key and value may become one line of a file.
pub fn check_config<'a>(json: &'a [u8]) -> Result<Object<'a>, ConfigReject> {
    let object = Object::parse(json).map_err(|_| ConfigReject::NotAnObject)?;
    let mut any = false;
    for (key, value) in object.entries() {
        any = true;
        let text = value.as_text().ok_or(ConfigReject::ValueType)?;
        if !is_key(&key) {
            return Err(ConfigReject::Key);
        }
        if text.chars().any(is_break) {
            return Err(ConfigReject::Value);
        }
    }
    if any { Ok(object) } else { Err(ConfigReject::Empty) }
}

/// What would end the line, or make every reader of settings pass over it.
fn is_break(c: char) -> bool {
    c.is_control() && c != '\t'
}

fn is_key(key: &Text<'_>) -> bool {
    let mut chars = key.chars();
    let fine = |c: char| !c.is_control() && !c.is_whitespace() && c != '=';
    match chars.next() {
        None | Some('#') => false,
        Some(first) => fine(first) && chars.all(fine),
    }
}

/// File names become files below a directory of ours: nothing in them may lead elsewhere.
pub fn check_policies(policies: &Object<'_>, ending: &str) -> Result<(), ConfigReject> {
    for (name, text) in policies.entries() {
        if text.as_text().is_none() {
            return Err(ConfigReject::PolicyType);
        }
        let mut buffer = [0u8; 256];
        let name = match name.plain() {
            Some(plain) => plain,
            None => name.unescape(&mut buffer).map_err(|_| ConfigReject::PolicyName)?,
        };
        let stem = name.strip_suffix(ending).unwrap_or_default();
        let clean = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if stem.is_empty()
            || !clean
            || name.as_bytes().windows(2).any(|pair| pair == b"..")
            || name.starts_with('.')
            || name.len() > 255
        {
            return Err(ConfigReject::PolicyName);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn injected_lines() {
        for (json, want) in [
            (r#"{"identity":"n1","a":"b c"}"#, Ok(())),
            ("{}", Err(ConfigReject::Empty)),
            ("[]", Err(ConfigReject::NotAnObject)),
            ("nonsense", Err(ConfigReject::NotAnObject)),
            (r#"{"a":1}"#, Err(ConfigReject::ValueType)),
            (r#"{"a":"x\nrpcauthorization=0"}"#, Err(ConfigReject::Value)),
            (r#"{"a":"x\u0000"}"#, Err(ConfigReject::Value)),
            (r#"{"a":"x\u001b[2J"}"#, Err(ConfigReject::Value)),
            (r#"{"a":"x\ty"}"#, Ok(())),
            (r#"{"a\nb":"x"}"#, Err(ConfigReject::Key)),
            (r##"{"#a":"x"}"##, Err(ConfigReject::Key)),
            (r#"{"":"x"}"#, Err(ConfigReject::Key)),
            (r#"{"a=b":"x"}"#, Err(ConfigReject::Key)),
        ] {
            assert_eq!(check_config(json.as_bytes()).map(|_| ()), want, "{json}");
        }
    }

    #[test]
    fn policy_names() {
        for (json, good) in [
            (r#"{"rpcutil.policy":"x"}"#, true),
            (r#"{"rpcutil":"x"}"#, false),
            (r#"{"../x.policy":"x"}"#, false),
            (r#"{"a/b.policy":"x"}"#, false),
            (r#"{"a..policy":"x"}"#, false),
            (r#"{".policy":"x"}"#, false),
            (r#"{"a.policy":1}"#, false),
        ] {
            let object = Object::parse(json.as_bytes()).unwrap();
            assert_eq!(check_policies(&object, ".policy").is_ok(), good, "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            check_config(&input).ok();
        }
    }
}
