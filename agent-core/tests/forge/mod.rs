//! Tokens and requests made for a test, by an implementation that shares nothing with the one under test.
#![allow(dead_code, reason = "each test binary uses its part")]

use agent_core::json::SliceSink;
use agent_core::wire::transport::Headers;
use agent_core::wire::{request, secure_request, transport};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

/// Clock of the vectors: 2027-01-01T00:00:00Z.
pub(crate) const NOW: i64 = 1_798_761_600;

pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub(crate) fn public(key: &SigningKey) -> String {
    hex::encode(key.verifying_key().to_bytes())
}

pub(crate) fn sign_token(header: &str, claims: &[u8], key: &SigningKey) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = key.sign(input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

pub(crate) fn token(claims: &Value, key: &SigningKey) -> String {
    sign_token(r#"{"alg":"EdDSA","typ":"JWT"}"#, &serde_json::to_vec(claims).unwrap(), key)
}

/// A client token by the organization itself.
pub(crate) fn client(caller: &str, permissions: &Value, holder: &SigningKey, issuer: &SigningKey) -> String {
    token(
        &json!({"callerid": caller, "ou": "choria", "permissions": permissions, "purpose": "choria_client_id",
            "public_key": public(holder), "iss": "test", "exp": NOW + 60, "nbf": NOW, "iat": NOW}),
        issuer,
    )
}

/// A complete request on the wire.
pub(crate) fn wire(
    caller: &str,
    signed_by: &SigningKey,
    caller_token: &str,
    signer_token: Option<&str>,
) -> Vec<u8> {
    let mut room = vec![0; 65536];
    let mut sink = SliceSink::new(&mut room);
    let fields = request::Fields {
        message: br#"{"agent":"rpcutil","action":"ping","data":{}}"#,
        id: "3OGEejHfgFrmUWU32uyu6DSNmhS",
        sender: "ws.example.net",
        caller,
        collective: "choria",
        agent: "rpcutil",
        ttl: 60,
        time: NOW * 1_000_000_000,
        filter: request::EMPTY_FILTER,
    };
    request::emit(&mut sink, &fields).unwrap();
    let document = sink.written().to_vec();
    let signature = signed_by.sign(&document).to_bytes();
    envelope(&document, &signature, caller_token, signer_token)
}

pub(crate) fn envelope(
    document: &[u8],
    signature: &[u8],
    caller_token: &str,
    signer_token: Option<&str>,
) -> Vec<u8> {
    let mut room = vec![0; 65536];
    let mut sink = SliceSink::new(&mut room);
    transport::emit(&mut sink, &Headers::default(), &mut |inner| {
        secure_request::emit(inner, document, signature, caller_token, signer_token)
    })
    .unwrap();
    sink.written().to_vec()
}
