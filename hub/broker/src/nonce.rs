//! Proof that the holder of a token's key is on the connection, docs/spec/02 §1.2.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use choria_token::PublicKey;

/// What a connection shows for the key of its token.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a>(Kind<'a>);

#[derive(Debug, Clone, Copy)]
enum Kind<'a> {
    Signature {
        nonce: &'a str,
        signature: &'a str,
    },
    /// There is no connection: somebody asks what would happen.
    Assumed,
}

impl<'a> Proof<'a> {
    /// The nonce of the connection's INFO and `sig` of its CONNECT.
    pub fn signature(nonce: &'a str, signature: &'a str) -> Proof<'a> {
        Proof(Kind::Signature { nonce, signature })
    }

    /// For [`crate::explain`], which has no connection to prove anything on.
    pub(crate) fn assumed() -> Proof<'static> {
        Proof(Kind::Assumed)
    }

    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.0, Kind::Signature { signature: "", .. })
    }
}

/// Checks the signature of the nonce's ASCII text by this key; the error is a reason word and a sentence.
pub(crate) fn check_proof(holder: &PublicKey, proof: &Proof<'_>) -> Result<(), (&'static str, &'static str)> {
    let Kind::Signature { nonce, signature } = proof.0 else { return Ok(()) };
    if signature.is_empty() {
        return Err(("nonce_missing", "the nonce was not signed"));
    }
    if nonce.is_empty() {
        return Err(("nonce_bad", "the connection had no nonce to sign"));
    }
    // Exactly this alphabet without padding: one signature has one text.
    let decoded = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| ("nonce_bad", "sig is not base64url without padding"))?;
    if !holder.verify(nonce.as_bytes(), &decoded) {
        return Err(("nonce_bad", "the nonce's signature is not by the key of the token"));
    }
    Ok(())
}
