//! What we read of a broker's INFO.

use crate::json::{self, Object};
use crate::nonce;

/// The parts of INFO that a node believes.
///
/// `connect_urls` is ignored on purpose: before TLS anyone may have written it, and a node knows its brokers from its
/// configuration (`docs/spec/10` N19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    pub tls_required: bool,
    pub tls_available: bool,
    /// Largest payload the broker takes, bytes.
    pub max_payload: u32,
    nonce: [u8; 64],
    nonce_len: u8,
    /// A nonce was there but is none that we would sign.
    pub nonce_refused: bool,
}

impl Info {
    /// Reads the JSON behind the word INFO.
    pub fn parse(json: &[u8]) -> Result<Info, json::Error> {
        let object = Object::parse(json)?;
        let mut scratch = [0u8; 128];
        let mut info = Info {
            tls_required: object.bool("tls_required")?.unwrap_or(false),
            tls_available: object.bool("tls_available")?.unwrap_or(false),
            max_payload: object
                .i64("max_payload")?
                .and_then(|size| u32::try_from(size).ok())
                .unwrap_or(1 << 20),
            nonce: [0; 64],
            nonce_len: 0,
            nonce_refused: false,
        };
        match object.str("nonce", &mut scratch) {
            Ok(Some(text)) if nonce::is_nonce(text) => {
                for (to, from) in info.nonce.iter_mut().zip(text.bytes()) {
                    *to = from;
                }
                info.nonce_len = u8::try_from(text.len()).unwrap_or(0);
            }
            Ok(None | Some("")) => {}
            // Too long for the scratch is no nonce either.
            Ok(Some(_)) | Err(json::Error::NoSpace) => info.nonce_refused = true,
            Err(other) => return Err(other),
        }
        Ok(info)
    }

    /// The nonce, of a shape that [`nonce::sign_nonce`] accepts.
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        let bytes = self.nonce.get(..usize::from(self.nonce_len))?;
        core::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_counts() {
        let info = Info::parse(
            br#"{"server_id":"x","max_payload":1048576,"tls_required":true,"nonce":"Z4T9x1kQmB2aVwE","connect_urls":["evil:1"]}"#,
        )
        .unwrap();
        assert_eq!(info.nonce(), Some("Z4T9x1kQmB2aVwE"));
        assert!(info.tls_required && !info.nonce_refused);
    }

    #[test]
    fn a_request_is_no_nonce() {
        let info = Info::parse(br#"{"nonce":"{\"protocol\":\"io.choria.protocol.v2.request\"}"}"#).unwrap();
        assert_eq!(info.nonce(), None);
        assert!(info.nonce_refused);
        let mut long = std::string::String::from("{\"nonce\":\"");
        long.push_str(&"\\u0041".repeat(300));
        long.push_str("\"}");
        assert!(Info::parse(long.as_bytes()).unwrap().nonce_refused);
    }

    proptest! {
        #[test]
        fn any_bytes(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            Info::parse(&input).ok();
        }
    }
}
