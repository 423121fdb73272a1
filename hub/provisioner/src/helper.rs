//! What a helper is told about a node and what it may answer: the JSON of `docs/spec/04 §10.7`, for programs and
//! for the builtin rules alike.

use std::collections::BTreeMap;
use std::fmt;

use choria_host::Secret;
use serde::{Deserialize, Deserializer, Serialize};

/// The proof that a node holds its new key, as `gen25519` returned it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyProof {
    /// 64 hex digits.
    pub public_key: String,
    /// Where the node keeps seed, token and configuration.
    pub directory: String,
    /// 128 hex digits over the nonce.
    pub signature: String,
}

/// The input of a helper.
#[derive(Clone, Serialize)]
pub struct HelperRequest {
    pub identity: String,
    /// Always null here: certificate requests belong to x509 networks.
    pub csr: Option<()>,
    pub ed25519_pubkey: Option<KeyProof>,
    /// JSON *as text*: that is how helpers have always received it.
    pub inventory: String,
    /// The verified claims of the provisioning token.
    pub jwt: Option<serde_json::Value>,
    /// Whether this name was enrolled before with another key [ours].
    pub known: bool,
    /// Whether a node of this name is connected as a member now; absent when that cannot be known [ours].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// The address the candidate connects from; absent when that cannot be known [ours].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl fmt::Debug for HelperRequest {
    // the claims hold the provisioning token
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HelperRequest").field("identity", &self.identity).field("known", &self.known).finish()
    }
}

impl HelperRequest {
    /// The one line that goes to the standard input of a program.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

/// What the helper wants in the server token; [`crate::claims`] decides what it gets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RequestedClaims {
    #[serde(rename = "ou", deserialize_with = "null_is_default")]
    pub org: String,
    /// Absolute, seconds since 1970.
    pub exp: Option<f64>,
    /// A duration from now, in the words of the configuration files [ours].
    pub validity: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub collectives: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub pub_subjects: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub permissions: BTreeMap<String, serde_json::Value>,
}

/// The answer of a helper.
#[derive(Debug, Default)]
pub struct HelperReply {
    pub defer: bool,
    pub shutdown: bool,
    pub msg: String,
    pub configuration: BTreeMap<String, String>,
    pub certificate: String,
    pub ca: String,
    pub key: Option<Secret>,
    pub ssldir: String,
    pub server_claims: RequestedClaims,
    pub action_policies: BTreeMap<String, String>,
    pub opa_policies: BTreeMap<String, String>,
    /// The version the node should run; empty for the one it has.
    pub upgrade: String,
}

/// Why an answer of a helper was not used.
#[derive(Debug, thiserror::Error)]
pub enum HelperReplyError {
    #[error("the helper printed nothing")]
    Empty,
    #[error("the helper did not print one JSON object")]
    NotAnObject,
    #[error("the helper did not print one JSON object: {0}")]
    Json(serde_json::Error),
    #[error("the helper returned neither a configuration nor `defer` nor `shutdown`")]
    NoConfiguration,
    #[error("`{map}` of the helper: the value of `{key}` is not text")]
    NotText { map: &'static str, key: String },
    #[error("`configuration` of the helper: {0}")]
    Configuration(#[from] LineError),
    #[error(
        "`{map}` of the helper: `{name}` is not a policy file name (letters, digits, `_`, `.`, `-`, then `.{extension}`)"
    )]
    PolicyName { map: &'static str, name: String, extension: &'static str },
}

/// Why a pair of key and value cannot be a line of a configuration file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("an empty key")]
    EmptyKey,
    #[error("the key `{0}` holds a character that would make it another line or a comment")]
    Key(String),
    #[error("the value of `{0}` spans lines")]
    Value(String),
    #[error("`{0}` or its value holds a control character, which no reader of settings takes")]
    Control(String),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(deserialize_with = "null_is_default")]
    defer: bool,
    #[serde(deserialize_with = "null_is_default")]
    shutdown: bool,
    #[serde(deserialize_with = "null_is_default")]
    msg: String,
    #[serde(deserialize_with = "null_is_default")]
    configuration: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_default")]
    certificate: String,
    #[serde(deserialize_with = "null_is_default")]
    ca: String,
    #[serde(deserialize_with = "null_is_default")]
    key: String,
    #[serde(deserialize_with = "null_is_default")]
    ssldir: String,
    #[serde(deserialize_with = "null_is_default")]
    server_claims: RequestedClaims,
    #[serde(deserialize_with = "null_is_default")]
    action_policies: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_default")]
    opa_policies: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_default")]
    upgrade: String,
}

impl HelperReply {
    /// Reads what a helper printed. The caller bounds the size; unknown keys are ignored.
    pub fn parse(output: &[u8]) -> Result<HelperReply, HelperReplyError> {
        if output.trim_ascii().is_empty() {
            return Err(HelperReplyError::Empty);
        }
        // a list would be read as the fields in their order
        if !output.trim_ascii_start().starts_with(b"{") {
            return Err(HelperReplyError::NotAnObject);
        }
        let wire: Wire = serde_json::from_slice(output).map_err(HelperReplyError::Json)?;
        let reply = HelperReply {
            defer: wire.defer,
            shutdown: wire.shutdown,
            msg: wire.msg,
            configuration: texts("configuration", wire.configuration)?,
            certificate: wire.certificate,
            ca: wire.ca,
            key: if wire.key.is_empty() { None } else { Some(Secret::new(wire.key)) },
            ssldir: wire.ssldir,
            server_claims: wire.server_claims,
            action_policies: texts("action_policies", wire.action_policies)?,
            opa_policies: texts("opa_policies", wire.opa_policies)?,
            upgrade: wire.upgrade,
        };
        if !reply.defer && !reply.shutdown {
            reply.check()?;
        }
        Ok(reply)
    }

    /// What a node would refuse, found before the node has to (`docs/spec/10` V9).
    pub fn check(&self) -> Result<(), HelperReplyError> {
        if self.configuration.is_empty() {
            return Err(HelperReplyError::NoConfiguration);
        }
        for (key, value) in &self.configuration {
            check_line(key, value)?;
        }
        for (map, extension, policies) in [
            ("action_policies", "policy", &self.action_policies),
            ("opa_policies", "rego", &self.opa_policies),
        ] {
            if let Some(name) = policies.keys().find(|name| !policy_file_name(name, extension)) {
                return Err(HelperReplyError::PolicyName { map, name: name.clone(), extension });
            }
        }
        Ok(())
    }

    /// Whether the node would start as a member with this configuration, instead of asking to be provisioned again.
    pub fn leaves_provisioning(&self) -> bool {
        self.configuration.get("plugin.choria.server.provision").is_some_and(|value| {
            ["0", "n", "f", "no", "false"].iter().any(|no| value.trim().eq_ignore_ascii_case(no))
        })
    }
}

/// Whether `key=value` stays one line that says what it says.
pub fn check_line(key: &str, value: &str) -> Result<(), LineError> {
    if key.trim().is_empty() {
        return Err(LineError::EmptyKey);
    }
    if key.starts_with('#') || key.trim() != key || key.contains(['=', '\r', '\n', '\0']) {
        return Err(LineError::Key(key.escape_debug().take(256).collect()));
    }
    if value.contains(['\r', '\n', '\0']) {
        return Err(LineError::Value(key.to_string()));
    }
    // The node would pass over the whole line.
    if key.chars().chain(value.chars()).any(|c| c.is_control() && c != '\t') {
        return Err(LineError::Control(key.escape_debug().take(256).collect()));
    }
    Ok(())
}

fn policy_file_name(name: &str, extension: &str) -> bool {
    let stem = name.strip_suffix(extension).and_then(|rest| rest.strip_suffix('.'));
    stem.is_some_and(|stem| {
        !stem.is_empty()
            && name.len() <= 255
            && !name.contains("..")
            && stem.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    })
}

fn texts(
    map: &'static str,
    values: BTreeMap<String, serde_json::Value>,
) -> Result<BTreeMap<String, String>, HelperReplyError> {
    values
        .into_iter()
        .map(|(key, value)| match value {
            serde_json::Value::String(text) => Ok((key, text)),
            _ => Err(HelperReplyError::NotText { map, key }),
        })
        .collect()
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_parses() {
        let reply = HelperReply::parse(
            br#"{"defer":false,"msg":"done","extra":[1],"key":null,
                "configuration":{"identity":"n1.example.net","plugin.choria.server.provision":"false"},
                "action_policies":null,"opa_policies":{"main.rego":"package x"},
                "server_claims":{"exp":1767225600,"permissions":{"streams":true,"submission":true}}}"#,
        )
        .unwrap();
        assert_eq!(reply.configuration.len(), 2);
        assert!(reply.leaves_provisioning() && reply.key.is_none());
        assert_eq!(reply.server_claims.exp, Some(1767225600.0));
        assert_eq!(reply.server_claims.permissions.len(), 2);
    }

    #[test]
    fn refusals() {
        for (text, part) in [
            ("", "printed nothing"),
            (" \n", "printed nothing"),
            ("[]", "one JSON object"),
            ("{}{}", "one JSON object"),
            ("{}", "neither a configuration"),
            (r#"{"configuration":{"a":1}}"#, "`a` is not text"),
            (r#"{"configuration":{"a":"x\nplugin.choria.server.provision=1"}}"#, "spans lines"),
            (r#"{"configuration":{"a":"x\u001b[2J"}}"#, "control character"),
            (r#"{"configuration":{"a\u0007b":"x"}}"#, "control character"),
            (r##"{"configuration":{"#a":"x"}}"##, "comment"),
            (r#"{"configuration":{"a=b":"x"}}"#, "another line"),
            (r#"{"configuration":{" ":"x"}}"#, "empty key"),
            (r#"{"configuration":{"a":"x"},"opa_policies":{"../x.rego":"p"}}"#, "not a policy file name"),
            (r#"{"configuration":{"a":"x"},"opa_policies":{".rego":"p"}}"#, "not a policy file name"),
            (r#"{"configuration":{"a":"x"},"action_policies":{"a/b.policy":"p"}}"#, "not a policy file name"),
        ] {
            let error = HelperReply::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(HelperReply::parse(br#"{"defer":true,"msg":"not yet"}"#).unwrap().defer);
        assert!(HelperReply::parse(br#"{"shutdown":true}"#).unwrap().shutdown);
    }

    #[test]
    fn the_request_has_the_keys_helpers_know() {
        let request = HelperRequest {
            identity: "n1".into(),
            csr: None,
            ed25519_pubkey: Some(KeyProof {
                public_key: "p".into(),
                directory: "/d".into(),
                signature: "s".into(),
            }),
            inventory: "{\"facts\":{}}".into(),
            jwt: Some(serde_json::json!({"cht": "s3cret"})),
            known: false,
            online: None,
            address: None,
        };
        let value: serde_json::Value = serde_json::from_slice(&request.to_json().unwrap()).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"identity":"n1","csr":null,"inventory":"{\"facts\":{}}","jwt":{"cht":"s3cret"},
                "ed25519_pubkey":{"public_key":"p","directory":"/d","signature":"s"},"known":false})
        );
        assert!(!format!("{request:?}").contains("s3cret"));
    }

    proptest::proptest! {
        #[test]
        fn any_output_is_an_answer_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            drop(HelperReply::parse(&bytes));
        }

        #[test]
        fn a_line_that_passes_is_one_line(key in "\\PC{0,12}|[a-z.=#\\n]{0,8}", value in "[ -~\\n\\r]{0,12}") {
            if check_line(&key, &value).is_ok() {
                let line = format!("{key}={value}");
                proptest::prop_assert_eq!(line.lines().count(), 1);
                proptest::prop_assert_eq!(line.split_once('='), Some((key.as_str(), value.as_str())));
            }
        }
    }
}
