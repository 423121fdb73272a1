//! Tokens that the product refuses to make. Made by hand from JSON, base64 and Ed25519, so that nothing stands between
//! a test and the bytes it wants to send.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_host::clock;
use choria_token::ksuid;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A key pair whose owner may be anybody.
#[derive(Debug, Clone)]
pub struct Key(SigningKey);

impl Key {
    pub fn generate() -> Result<Key> {
        Ok(Key(SigningKey::from_bytes(&random()?)))
    }

    /// The key of a seed file.
    pub fn of_seed(text: &str) -> Result<Key> {
        let mut seed = [0; 32];
        hex::decode_to_slice(text.trim(), &mut seed).map_err(|error| anyhow::anyhow!("no seed: {error}"))?;
        Ok(Key(SigningKey::from_bytes(&seed)))
    }

    pub fn public(&self) -> String {
        hex::encode(self.0.verifying_key().as_bytes())
    }

    /// The content of a seed file.
    pub fn seed(&self) -> String {
        hex::encode(self.0.to_bytes())
    }

    pub fn sign(&self, data: &[u8]) -> [u8; 64] {
        self.0.sign(data).to_bytes()
    }

    /// The signature of a broker's nonce as CONNECT carries it.
    pub fn sign_nonce(&self, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.sign(nonce.as_bytes()))
    }
}

/// Random bytes.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(bytes)
}

/// A token with this header and these claims, signed by this key whatever the header says.
pub fn token_with(header: &Value, claims: &Value, key: &Key) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A token whose claims are this text: JSON that no library would write.
pub fn token_of_text(claims: &str, key: &Key) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A token "signed" with a secret that everybody knows: HMAC-SHA-256 with a public key as the secret.
pub fn token_with_public_secret(claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(claims));
    let pad =
        |byte: u8| -> Vec<u8> { (0..64).map(|at| secret.get(at).copied().unwrap_or(0) ^ byte).collect() };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(signed.as_bytes()).finalize();
    let signature = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token of the ordinary form.
pub fn token(claims: &Value, key: &Key) -> String {
    token_with(&json!({"alg": "EdDSA", "typ": "JWT"}), claims, key)
}

/// An unsigned token that says so.
pub fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none", "typ": "JWT"})), part(claims))
}

/// Claims with some of them replaced; `null` removes one.
pub fn with(mut claims: Value, changes: Value) -> Value {
    if let (Some(claims), Value::Object(changes)) = (claims.as_object_mut(), changes) {
        for (name, value) in changes {
            if value.is_null() {
                claims.remove(&name);
            } else {
                claims.insert(name, value);
            }
        }
    }
    claims
}

/// The claims of a client who may manage the fleet for an hour.
pub fn client(caller: &str, holder: &Key) -> Result<Value> {
    with_times(json!({
        "purpose": "choria_client_id", "callerid": caller, "ou": "choria", "agents": ["*"],
        "public_key": holder.public(), "iss": "test", "permissions": {"fleet_management": true},
    }))
}

/// The claims of a node.
pub fn server(identity: &str, holder: &Key) -> Result<Value> {
    with_times(json!({
        "purpose": "choria_server", "identity": identity, "ou": "choria", "collectives": ["choria"],
        "public_key": holder.public(), "iss": "test", "permissions": {},
    }))
}

/// The claims of the token that waiting nodes share.
pub fn provisioning(secret: &str, urls: &str) -> Result<Value> {
    with_times(json!({
        "purpose": "choria_provisioning", "sub": "choria_provisioning", "ou": "choria", "cht": secret, "chs": false,
        "chu": urls, "chpd": true, "v2": true, "iss": "test",
    }))
}

fn with_times(claims: Value) -> Result<Value> {
    let now = clock::unix_seconds();
    let times = json!({"iat": now, "nbf": now, "exp": now + 3600, "jti": ksuid::new(now, &random()?)});
    Ok(with(claims, times))
}

/// Somebody who issues tokens for an organization, or says so.
#[derive(Debug, Clone)]
pub struct ChainIssuer {
    pub key: Key,
    pub jti: String,
    /// What the organization's signature for this issuer is, or is not.
    pub tcs: String,
    pub expires: i64,
}

impl ChainIssuer {
    /// An issuer that this key vouches for: the organization's, or one's own.
    pub fn vouched_by(voucher: &Key, key: Key) -> Result<ChainIssuer> {
        let now = clock::unix_seconds();
        let jti = ksuid::new(now, &random()?);
        let tcs = hex::encode(voucher.sign(format!("{jti}.{}", key.public()).as_bytes()));
        Ok(ChainIssuer { key, jti, tcs, expires: now + 30 * 86_400 })
    }

    /// The issuer's own token, for the services that issue in its name.
    pub fn own_token(&self, caller: &str, org: &Key) -> Result<String> {
        let claims = with(
            client(caller, &self.key)?,
            json!({"jti": self.jti, "tcs": self.tcs, "iss": format!("I-{}", org.public()), "exp": self.expires,
                   "agents": null, "permissions": {}}),
        );
        Ok(token(&claims, org))
    }

    /// These claims as this issuer would issue them.
    pub fn issue(&self, claims: Value) -> String {
        token(&self.claims(claims), &self.key)
    }

    /// The same, unsigned, for tests that change more.
    pub fn claims(&self, claims: Value) -> Value {
        let jti = claims.get("jti").and_then(Value::as_str).unwrap_or_default();
        let signature = hex::encode(self.key.sign(format!("{jti}.{}", self.tcs).as_bytes()));
        let changes = json!({
            "tcs": format!("{}.{signature}", self.tcs), "issexp": self.expires,
            "iss": format!("C-{}.{}", self.jti, self.key.public()),
        });
        with(claims, changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use choria_token::{PublicKey, Verifier};

    /// What the forger makes by the rules is accepted: a test that is refused is refused for its own reason.
    #[test]
    fn honest_work_is_accepted() {
        let (org, issuer, holder) =
            (Key::generate().unwrap(), Key::generate().unwrap(), Key::generate().unwrap());
        let verifier =
            Verifier::single(choria_token::Key::Ed25519(PublicKey::from_hex(&org.public()).unwrap()));
        let now = clock::unix_seconds();
        verifier.verify_client(&token(&client("up=a", &holder).unwrap(), &org), now).unwrap();
        verifier.verify_server(&token(&server("n1", &holder).unwrap(), &org), now).unwrap();
        verifier.verify_provisioning(&token(&provisioning("s", "nats://h:1").unwrap(), &org), now).unwrap();
        let chain = ChainIssuer::vouched_by(&org, issuer).unwrap();
        verifier.verify_client(&chain.issue(client("up=a", &holder).unwrap()), now).unwrap();
        verifier.verify_client(&chain.own_token("issuer", &org).unwrap(), now).unwrap();
    }
}
