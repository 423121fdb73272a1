//! What must not leave the node through a reply, a filter, a log or the audit file (docs/spec/10 §10).

use serde_json::Value;
use sha2::{Digest, Sha256};

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";
/// Deepest value looked into; deeper ones are redacted whole.
const MAX_DEPTH: usize = 32;

/// Whether the value of a setting, or an input of this name, is a secret: `pass`, `secret`, `seed` or
/// `credential` anywhere in the name, `token` or `key` at its end. Public keys are not.
///
/// `plugin.security.choria.token_file` names a file, not a token, and stays readable.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if name.ends_with("_public") || name.ends_with(".public") || name.ends_with("public_key") {
        return false;
    }
    let anywhere = ["pass", "secret", "seed", "credential"].iter().any(|word| name.contains(word));
    // `seed_file` and friends hold a path; upstream's list has `seed` anywhere, and so the path goes too.
    anywhere || name.ends_with("token") || name.ends_with("key")
}

/// Inputs that are secrets in one agent only.
fn is_secret_input(agent: &str, name: &str) -> bool {
    match agent {
        "choria_provision" => matches!(name, "token" | "key" | "config" | "server_jwt"),
        "requests" => matches!(name, "password" | "authorization"),
        _ => false,
    }
}

/// A copy of the inputs of a request that may be written to the audit file.
pub fn inputs(agent: &str, data: &Value) -> Value {
    redact(agent, data, 0)
}

fn redact(agent: &str, value: &Value, depth: usize) -> Value {
    if depth >= MAX_DEPTH {
        return REDACTED.into();
    }
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let secret = is_secret_name(name) || is_secret_input(agent, name);
                (name.clone(), if secret { REDACTED.into() } else { redact(agent, value, depth + 1) })
            })
            .collect(),
        Value::Array(items) => items.iter().map(|item| redact(agent, item, depth + 1)).collect(),
        other => other.clone(),
    }
}

/// Names a token without showing it: the first 8 hex digits of its SHA-256.
pub fn token_label(token: &str) -> String {
    hex::encode(Sha256::digest(token)).chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secret_names() {
        for secret in [
            "plugin.nats.pass",
            "plugin.nats.credentials",
            "plugin.x.Password",
            "plugin.x.api_token",
            "plugin.machines.signing_key",
            "plugin.security.choria.seed_file",
            "CLIENT_SECRET",
        ] {
            assert!(is_secret_name(secret), "{secret}");
        }
        for open in [
            "identity",
            "plugin.security.issuer.choria.public",
            "plugin.security.choria.token_file",
            "public_key",
            "plugin.choria.use_srv",
        ] {
            assert!(!is_secret_name(open), "{open}");
        }
    }

    #[test]
    fn inputs_lose_their_secrets_at_any_depth() {
        let data = json!({"token":"t","config":"{}","nonce":"n","nested":[{"password":"p","user":"u"}]});
        assert_eq!(
            inputs("choria_provision", &data),
            json!({"token":REDACTED,"config":REDACTED,"nonce":"n","nested":[{"password":REDACTED,"user":"u"}]})
        );
        assert_eq!(inputs("myco", &json!({"config":"x"})), json!({"config":"x"}));
        let mut deep = json!("bottom");
        for _ in 0..100 {
            deep = json!([deep]);
        }
        assert!(inputs("myco", &deep).to_string().contains(REDACTED));
    }

    #[test]
    fn a_token_has_a_label() {
        assert_eq!(token_label("abc").len(), 8);
        assert_ne!(token_label("abc"), token_label("abd"));
    }
}
