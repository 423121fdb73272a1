//! Who signs a request: our own seed, or a remote signer that may say no (docs/spec/01 §9, 05 §8).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use choria_host::tls::Trust;
use choria_protocol::rpc::{RpcReply, RpcRequest};
use choria_protocol::{INSECURE_SIGNATURE, Request, SIGNER_AGENT, SecureRequest, subjects};
use serde::{Deserialize, Serialize};

use crate::config::SignerMode;
use crate::credentials::Identity;
use crate::http::{self, ServerTrust};
use crate::inbox::Inbox;
use crate::{ClientError, Connection};

/// How long a signer may take.
const TIMEOUT: Duration = Duration::from_secs(12);

#[derive(Serialize)]
struct HttpBody<'a> {
    token: &'a str,
    request: String,
    signature: String,
}

#[derive(Deserialize)]
struct HttpAnswer {
    #[serde(default)]
    secure_request: String,
    #[serde(default)]
    error: String,
}

impl Connection {
    /// Makes the secure request of a request, by whichever signer is configured.
    ///
    /// # Errors
    /// [`ClientError::SignerDenied`] when the signer says no, [`ClientError::SignerAltered`] when what it signed is
    /// not what was asked.
    pub async fn sign(&self, request: &Request) -> Result<SecureRequest, ClientError> {
        let identity = self.identity()?;
        let bytes = request.to_bytes()?;
        let caller = identity.token().to_owned();
        if request.agent == SIGNER_AGENT {
            return Ok(SecureRequest {
                request: bytes,
                signature: INSECURE_SIGNATURE.to_vec(),
                caller,
                signer: None,
            });
        }
        let signature = own_signature(&identity, &bytes)?;
        let returned = match &self.config().signer {
            SignerMode::OwnSeed => {
                return Ok(SecureRequest {
                    request: bytes,
                    signature: signature.to_vec(),
                    caller,
                    signer: None,
                });
            }
            SignerMode::Http(urls) => {
                Box::pin(self.ask_http(urls, request, &bytes, &signature, &identity)).await?
            }
            SignerMode::Service => Box::pin(self.ask_service(request, bytes, &signature, &identity)).await?,
        };
        let mut secure = SecureRequest::parse(&returned)?;
        check_unaltered(request, &secure)?;
        // the signer puts its own token there; nodes want ours, and it is not covered by the signature
        secure.caller = caller;
        Ok(secure)
    }

    async fn ask_http(
        &self,
        urls: &[String],
        request: &Request,
        bytes: &[u8],
        signature: &[u8; 64],
        identity: &Identity,
    ) -> Result<Vec<u8>, ClientError> {
        let body = HttpBody {
            token: identity.token(),
            request: STANDARD.encode(bytes),
            signature: hex::encode(signature),
        };
        let trust = || {
            ServerTrust::Chain(match &self.config().ca {
                Some(ca) => Trust::CaFile(ca.clone()),
                None => Trust::PlatformRoots,
            })
        };
        let mut last = ClientError::SignerFailed("no URL is configured".to_owned());
        for url in urls {
            let (status, text) = match http::post_json("request signer", url, &body, trust(), TIMEOUT).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::warn!(url = http::shown(url), %error, "request signer not reachable");
                    last = error;
                    continue;
                }
            };
            if status != 200 {
                last = ClientError::SignerFailed(format!("invalid response code {status}"));
                continue;
            }
            let answer: HttpAnswer = serde_json::from_str(&text)
                .map_err(|e| ClientError::SignerFailed(format!("unreadable answer: {e}")))?;
            if !answer.error.is_empty() {
                return Err(self.denied(&answer.error, request));
            }
            return STANDARD
                .decode(answer.secure_request)
                .map_err(|e| ClientError::SignerFailed(format!("unreadable answer: {e}")));
        }
        Err(last)
    }

    async fn ask_service(
        &self,
        request: &Request,
        bytes: Vec<u8>,
        signature: &[u8; 64],
        identity: &Identity,
    ) -> Result<Vec<u8>, ClientError> {
        let text = String::from_utf8(bytes).map_err(|e| ClientError::SignerFailed(e.to_string()))?;
        let mut data = serde_json::Map::new();
        data.insert("request".to_owned(), text.into());
        data.insert("token".to_owned(), identity.token().into());
        data.insert("signature".to_owned(), hex::encode(signature).into());
        let body =
            RpcRequest { agent: SIGNER_AGENT.to_owned(), action: "sign".to_owned(), data }.to_bytes()?;
        let sign_request = self.new_request(SIGNER_AGENT, body, Default::default(), self.config().ttl)?;
        let secure = SecureRequest {
            request: sign_request.to_bytes()?,
            signature: INSECURE_SIGNATURE.to_vec(),
            caller: identity.token().to_owned(),
            signer: None,
        };
        let reply_subject = self.reply_subject(&sign_request.id);
        let mut inbox = Inbox::open(self, reply_subject.clone()).await?;
        let payload = self.transport(&secure, &reply_subject)?;
        let subject = subjects::service(&sign_request.collective, SIGNER_AGENT);
        self.publish(subject.clone(), payload).await?;

        let answer = tokio::time::timeout(TIMEOUT, async {
            loop {
                let payload = inbox.next().await?;
                match self.reply_verifier().read(&payload, &sign_request.id) {
                    Ok(received) => return Some(received),
                    Err(error) => {
                        tracing::warn!(reason = error.reason(), "message of the signer dropped: {error}")
                    }
                }
            }
        });
        let answered = tokio::select! {
            answered = answer => answered,
            refused = self.refusal(&subject) => return Err(refused),
        };
        let received = answered
            .ok()
            .flatten()
            .ok_or_else(|| ClientError::SignerFailed("expected 1 response received 0".to_owned()))?;
        if let crate::Verification::Invalid(reason) = received.verification {
            return Err(ClientError::SignerFailed(format!("the signer's reply does not verify ({reason})")));
        }
        let reply = RpcReply::parse(&received.reply.message)?;
        if !reply.statuscode.is_ok() {
            return Err(self.denied(&reply.statusmsg, request));
        }
        match reply.data.get("secure_request").and_then(serde_json::Value::as_str) {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => Err(ClientError::SignerFailed("the answer holds no secure_request".to_owned())),
        }
    }

    fn denied(&self, reason: &str, request: &Request) -> ClientError {
        let action = RpcRequest::parse(&request.message).map(|body| body.action).unwrap_or_default();
        // services and HTTP signers spell it differently; people search for this one
        let reason = if reason.eq_ignore_ascii_case("request denied") { "Request denied" } else { reason };
        ClientError::SignerDenied {
            reason: choria_host::one_line(reason),
            caller: self.caller().to_owned(),
            agent: request.agent.clone(),
            action,
        }
    }
}

fn own_signature(identity: &Identity, bytes: &[u8]) -> Result<[u8; 64], ClientError> {
    let seed = identity.seed().ok_or_else(|| ClientError::Seed {
        path: "seed_file".into(),
        reason: "no seed is configured".to_owned(),
    })?;
    Ok(seed.sign(bytes))
}

/// Compares what the signer signed with what was asked: only the caller's name may differ, and only by the
/// rewriting of `@` and `.` (docs/spec/10 C12).
fn check_unaltered(asked: &Request, signed: &SecureRequest) -> Result<(), ClientError> {
    let token = signed
        .signer
        .as_deref()
        .ok_or_else(|| ClientError::SignerFailed("remote signer did not set a signer JWT".to_owned()))?;
    let returned = signed.request()?;
    let altered = |field| Err(ClientError::SignerAltered { field });
    if returned.caller != asked.caller && returned.caller != asked.caller.replace(['@', '.'], "_") {
        return altered("caller");
    }
    if returned.message != asked.message {
        return altered("message");
    }
    if returned.filter != asked.filter {
        return altered("filter");
    }
    for (field, ours, theirs) in [
        ("id", &asked.id, &returned.id),
        ("sender", &asked.sender, &returned.sender),
        ("collective", &asked.collective, &returned.collective),
        ("agent", &asked.agent, &returned.agent),
    ] {
        if ours != theirs {
            return altered(field);
        }
    }
    if returned.ttl != asked.ttl {
        return altered("ttl");
    }
    if returned.time != asked.time {
        return altered("time");
    }
    // Nodes decide whom they trust to sign; a signature that does not even fit its own token helps nobody.
    let claims = choria_token::peek_client(token).map_err(|e| ClientError::SignerFailed(e.to_string()))?;
    let fits = claims
        .claims()
        .standard
        .public_key
        .as_deref()
        .and_then(|key| choria_token::PublicKey::from_hex(key).ok())
        .is_some_and(|key| key.verify(&signed.request, &signed.signature));
    if fits {
        Ok(())
    } else {
        Err(ClientError::SignerFailed("the signature is not by the signer's key".to_owned()))
    }
}
