//! The CONNECT line (`docs/spec/01 §8.3`).

use crate::encoding::base64url;
use crate::nats::Outgoing;
use crate::nats::sender::SendError;
use crate::nonce::{NonceRefused, sign_nonce};

/// How the program names itself to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client<'c> {
    /// A node's identity. A broker narrows an unprovisioned node to the subject of this name.
    pub name: &'c str,
    pub lang: &'c str,
    pub version: &'c str,
}

/// What proves the node to the broker. Lent for one step; the core keeps none of it.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The node's own token, or the provisioning token; without surrounding blanks.
    pub token: Option<&'a str>,
    /// Signs the broker's nonce. Absent while provisioning.
    pub seed: Option<&'a [u8; 32]>,
    pub user: Option<&'a str>,
    pub pass: Option<&'a str>,
    /// Send the token as `jwt` too, as the original client library does. Brokers read `auth_token`; sending it once
    /// keeps the line short.
    pub repeat_token: bool,
}

impl core::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Credentials")
            .field("token", &self.token.is_some())
            .field("seed", &self.seed.is_some())
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Why no CONNECT was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    NoRoom,
    /// There is a seed but the broker sent no nonce, or none that we sign.
    Nonce,
}

impl From<SendError> for ConnectError {
    fn from(_: SendError) -> ConnectError {
        ConnectError::NoRoom
    }
}

impl From<NonceRefused> for ConnectError {
    fn from(_: NonceRefused) -> ConnectError {
        ConnectError::Nonce
    }
}

/// Writes CONNECT and the PING whose PONG tells that it was accepted.
pub fn write_connect(
    out: &mut Outgoing<'_>,
    client: &Client<'_>,
    credentials: &Credentials<'_>,
    nonce: Option<&str>,
    tls: bool,
) -> Result<(), ConnectError> {
    out.put(b"CONNECT {\"verbose\":false,\"pedantic\":false")?;
    let signed = match (credentials.token, credentials.seed) {
        (Some(token), Some(seed)) => {
            let signature = sign_nonce(seed, nonce.ok_or(ConnectError::Nonce)?)?;
            if credentials.repeat_token {
                member(out, "jwt", token)?;
            }
            let mut text = [0u8; 88];
            let text = base64url::encode_to_slice(&signature, &mut text).map_err(|_| ConnectError::NoRoom)?;
            member(out, "sig", text)?;
            Some(token)
        }
        (token, _) => token,
    };
    if let Some(token) = signed {
        member(out, "auth_token", token)?;
    }
    if let (Some(user), Some(pass)) = (credentials.user, credentials.pass) {
        member(out, "user", user)?;
        member(out, "pass", pass)?;
    }
    out.put(if tls { b",\"tls_required\":true" } else { b",\"tls_required\":false" })?;
    member(out, "name", client.name)?;
    member(out, "lang", client.lang)?;
    member(out, "version", client.version)?;
    out.put(b",\"protocol\":1,\"echo\":true,\"headers\":true,\"no_responders\":true}\r\n")?;
    out.ping()?;
    Ok(())
}

fn member(out: &mut Outgoing<'_>, name: &str, value: &str) -> Result<(), SendError> {
    out.put(b",\"")?;
    out.put(name.as_bytes())?;
    out.put(b"\":")?;
    out.json_string(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn vector(kind: &str) -> (serde_json::Value, [u8; 32]) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let load = |name: &str| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(root.join(name)).unwrap()).unwrap()
        };
        let chain = load("tokens/chain.json");
        let seed = find_seed(&chain, load("connect/nats_connect.json")[kind]["connect"]["jwt"].as_str());
        (load("connect/nats_connect.json")[kind].clone(), seed)
    }

    /// The key file names its seeds; take the one whose signature over the vector's nonce is the vector's.
    fn find_seed(chain: &serde_json::Value, _token: Option<&str>) -> [u8; 32] {
        let mut stack = std::vec![chain];
        let mut seeds = std::vec::Vec::new();
        while let Some(value) = stack.pop() {
            match value {
                serde_json::Value::String(text) if text.len() == 64 => {
                    if let Ok(bytes) = hex::decode(text) {
                        seeds.push(<[u8; 32]>::try_from(bytes).unwrap());
                    }
                }
                serde_json::Value::Array(list) => stack.extend(list),
                serde_json::Value::Object(map) => stack.extend(map.values()),
                _ => {}
            }
        }
        let want = "IusYiFK_47xXa3Uc25BKpkW_iRICRg0Kq1CkYuKREMor5IuxKrAA_4s0I2gAjQYIgM8OsV5dQYkqdq-Dq3SIAg";
        for seed in seeds {
            let mut text = [0u8; 88];
            let signature = sign_nonce(&seed, "Z4T9x1kQmB2aVwE").unwrap();
            if base64url::encode_to_slice(&signature, &mut text).unwrap() == want {
                return seed;
            }
        }
        panic!("no seed of the key file signs the server's vector");
    }

    fn rendered(client: Client<'_>, credentials: Credentials<'_>, nonce: Option<&str>) -> serde_json::Value {
        let mut buffer = [0u8; 8192];
        let mut out = Outgoing::new(&mut buffer);
        write_connect(&mut out, &client, &credentials, nonce, true).unwrap();
        let text = core::str::from_utf8(out.finish()).unwrap();
        let json = text.strip_prefix("CONNECT ").unwrap().strip_suffix("\r\nPING\r\n").unwrap();
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_server_connects_as_the_vector_says() {
        let (vector, seed) = vector("server");
        let connect = &vector["connect"];
        let client = Client { name: "n2.example.net", lang: "go", version: "1.52.0" };
        let credentials = Credentials {
            token: connect["auth_token"].as_str(),
            seed: Some(&seed),
            repeat_token: true,
            ..Credentials::default()
        };
        assert_eq!(&rendered(client, credentials, vector["info_nonce"].as_str()), connect);
        let once = rendered(
            client,
            Credentials { repeat_token: false, ..credentials },
            vector["info_nonce"].as_str(),
        );
        assert!(once.get("jwt").is_none() && once["auth_token"] == connect["auth_token"]);
    }

    #[test]
    fn an_unprovisioned_node_signs_nothing() {
        let (vector, _) = vector("provisioning");
        let connect = &vector["connect"];
        let client = Client { name: "n3.example.net", lang: "go", version: "1.52.0" };
        let credentials = Credentials { token: connect["auth_token"].as_str(), ..Credentials::default() };
        assert_eq!(&rendered(client, credentials, Some("Z4T9x1kQmB2aVwE")), connect);
    }

    #[test]
    fn no_nonce_no_connect() {
        let mut buffer = [0u8; 4096];
        let client = Client { name: "n", lang: "rust", version: "0" };
        let credentials = Credentials { token: Some("t"), seed: Some(&[1; 32]), ..Credentials::default() };
        for nonce in [None, Some("{\"a\":1}")] {
            let mut out = Outgoing::new(&mut buffer);
            assert_eq!(write_connect(&mut out, &client, &credentials, nonce, true), Err(ConnectError::Nonce));
        }
    }
}
