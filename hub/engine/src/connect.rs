//! The JSON of a CONNECT line (`docs/spec/09 §A4`), read with bounds: at most 8 levels, no key twice.

use std::fmt;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// Levels of objects and arrays in a CONNECT line.
const MAX_DEPTH: usize = 8;
/// Bytes of a connection name that are kept.
const MAX_NAME: usize = 256;

/// What a client says about itself. Absent and `null` fields take the protocol's defaults. `Debug` shows no
/// credential.
#[derive(Clone, Deserialize)]
pub struct ConnectOptions {
    #[serde(default = "yes", deserialize_with = "or_yes")]
    pub verbose: bool,
    #[serde(default = "yes", deserialize_with = "or_yes")]
    pub pedantic: bool,
    #[serde(default = "yes", deserialize_with = "or_yes")]
    pub echo: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub tls_required: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub auth_token: String,
    #[serde(default, deserialize_with = "or_default")]
    pub user: String,
    #[serde(default, deserialize_with = "or_default")]
    pub pass: String,
    #[serde(default, deserialize_with = "or_default")]
    pub jwt: String,
    #[serde(default, deserialize_with = "or_default")]
    pub sig: String,
    #[serde(default, deserialize_with = "or_default")]
    pub nkey: String,
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub lang: String,
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub headers: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub no_responders: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub account: String,
    #[serde(default, deserialize_with = "or_default")]
    pub new_account: bool,
    /// Only server-to-server connections send these two.
    #[serde(default, deserialize_with = "present")]
    pub(crate) remote_account: bool,
    #[serde(default, deserialize_with = "present")]
    pub(crate) hub: bool,
}

/// Why a CONNECT line was refused.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("CONNECT has more than {MAX_DEPTH} levels of JSON")]
    TooDeep,
    /// The position, never the text: it may hold a credential.
    #[error("CONNECT is not the JSON of the protocol, column {column}")]
    Json { column: usize },
}

impl ConnectOptions {
    /// Reads the argument of a CONNECT line.
    ///
    /// # Errors
    /// Malformed, too deeply nested, or a known key that is there twice.
    pub fn parse(json: &[u8]) -> Result<ConnectOptions, ConnectError> {
        if too_deep(json) {
            return Err(ConnectError::TooDeep);
        }
        // serde would read a list as the fields in their order, which no other reader does.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(ConnectError::Json { column: 1 });
        }
        let mut options: ConnectOptions =
            serde_json::from_slice(json).map_err(|error| ConnectError::Json { column: error.column() })?;
        for text in [&mut options.name, &mut options.lang, &mut options.version] {
            truncate(text);
        }
        Ok(options)
    }

    /// Whether any field that could prove an identity is set.
    pub fn has_credentials(&self) -> bool {
        [&self.auth_token, &self.user, &self.pass, &self.jwt, &self.sig, &self.nkey]
            .iter()
            .any(|field| !field.is_empty())
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            verbose: true,
            pedantic: true,
            echo: true,
            tls_required: false,
            auth_token: String::new(),
            user: String::new(),
            pass: String::new(),
            jwt: String::new(),
            sig: String::new(),
            nkey: String::new(),
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            protocol: 0,
            headers: false,
            no_responders: false,
            account: String::new(),
            new_account: false,
            remote_account: false,
            hub: false,
        }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("name", &self.name)
            .field("user", &self.user)
            .field("lang", &self.lang)
            .field("version", &self.version)
            .field("protocol", &self.protocol)
            .field("credentials", &self.has_credentials())
            .finish_non_exhaustive()
    }
}

fn yes() -> bool {
    true
}

fn or_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(deserializer)?.unwrap_or(true))
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Cuts at a character boundary.
fn truncate(text: &mut String) {
    if text.len() > MAX_NAME {
        let mut end = MAX_NAME;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

/// Counts brackets outside strings: no parser runs on text that is nested deeper than allowed.
fn too_deep(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn defaults_and_nulls() {
        let options =
            ConnectOptions::parse(br#"{"user":null,"verbose":null,"protocol":1,"other":[1,{}]}"#).unwrap();
        assert!(options.verbose && options.pedantic && options.echo && !options.headers);
        assert_eq!((options.protocol, options.user.as_str()), (1, ""));
        assert!(!options.has_credentials());
    }

    #[test]
    fn a_credential_key_twice_is_refused() {
        for text in [
            r#"{"auth_token":"a","auth_token":"b"}"#,
            r#"{"auth_token":"a","auth\u005ftoken":"a"}"#,
            r#"{"sig":"a","user":"x","sig":"a"}"#,
        ] {
            assert!(ConnectOptions::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_is_no_connect() {
        for text in ["[]", " [true,false]", r#"[false,false,true,false,"token"]"#, "null", ""] {
            assert!(ConnectOptions::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(ConnectOptions::parse(b" {} ").is_ok());
    }

    #[test]
    fn nesting_is_bounded_and_strings_do_not_count() {
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert!(matches!(ConnectOptions::parse(deep.as_bytes()), Err(ConnectError::TooDeep)));
        assert!(ConnectOptions::parse(br#"{"name":"[[[[[[[[[[[[\"[["}"#).is_ok());
    }

    #[test]
    fn long_names_are_cut_and_debug_shows_no_secret() {
        let text = format!(r#"{{"name":"{}","auth_token":"sesame"}}"#, "é".repeat(300));
        let options = ConnectOptions::parse(text.as_bytes()).unwrap();
        assert_eq!(options.name.len(), 256);
        assert!(!format!("{options:?}").contains("sesame"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            drop(ConnectOptions::parse(text.as_bytes()));
        }
    }
}
