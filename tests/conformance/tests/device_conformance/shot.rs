//! A request with every layer in the test's hand, and the device that it goes to.

use agent_core::dispatch::Inbox;
use agent_core::ids::Ksuid;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use choria_conformance::{IDENTITY, Kind};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use crate::bench::Case;
use crate::forge::{NOW, public, token};

pub(crate) const NANOS: i64 = NOW * 1_000_000_000;

/// Everything of a request; any of it may be changed before it is sent.
#[derive(Clone)]
pub(crate) struct Shot {
    pub(crate) subject: String,
    pub(crate) document: String,
    pub(crate) signature: Vec<u8>,
    pub(crate) caller: String,
    pub(crate) signer: Option<String>,
    pub(crate) headers: Value,
    pub(crate) now: i64,
}

/// Where a caller hears the answer to a request.
pub(crate) fn inbox(caller: &str, id: &str) -> String {
    format!("choria.reply.{}.{id}", Inbox::of(caller).md5.as_str())
}

/// `rpcutil ping` of this caller as it is before it is signed.
pub(crate) fn document(caller: &str, id: &str) -> Value {
    json!({
        "protocol": "io.choria.protocol.v2.request", "id": id, "sender": "ws.example.net", "caller": caller,
        "collective": "choria", "agent": "rpcutil", "ttl": 60, "time": NANOS,
        "message": STANDARD.encode(r#"{"agent":"rpcutil","action":"ping","data":{}}"#),
        "filter": {"fact": [], "cf_class": [], "agent": [], "identity": [], "compound": []},
    })
}

impl Shot {
    /// A good request, with something changed before it is signed.
    pub(crate) fn of(who: &Caller, id: &str, change: impl FnOnce(&mut Value)) -> Shot {
        let mut document = document(&who.id, id);
        change(&mut document);
        Shot::text(who, id, document.to_string())
    }

    /// A document that no library would write.
    pub(crate) fn text(who: &Caller, id: &str, document: String) -> Shot {
        Shot {
            subject: format!("choria.node.{IDENTITY}"),
            signature: who.key.sign(document.as_bytes()).to_bytes().to_vec(),
            document,
            caller: who.token.clone(),
            signer: None,
            headers: json!({"reply": inbox(&who.id, id), "sender": "ws.example.net"}),
            now: NANOS,
        }
    }

    /// With this body.
    pub(crate) fn asking(who: &Caller, id: &str, agent: &str, body: &str) -> Shot {
        Shot::of(who, id, |document| {
            document["agent"] = agent.into();
            document["message"] = STANDARD.encode(body).into();
        })
    }

    #[must_use]
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Shot)) -> Shot {
        change(&mut self);
        self
    }

    /// Signed by somebody else in the caller's name.
    #[must_use]
    pub(crate) fn delegated(self, signer: &Caller) -> Shot {
        self.with(|shot| {
            shot.signature = signer.key.sign(shot.document.as_bytes()).to_bytes().to_vec();
            shot.signer = Some(signer.token.clone());
        })
    }

    pub(crate) fn secure(&self) -> Value {
        let mut secure = json!({
            "protocol": "io.choria.protocol.v2.secure_request", "request": STANDARD.encode(&self.document),
            "signature": STANDARD.encode(&self.signature), "caller": self.caller,
        });
        if let Some(signer) = &self.signer {
            secure["signer"] = signer.as_str().into();
        }
        secure
    }

    pub(crate) fn wire(&self) -> String {
        transport(self.secure().to_string().as_bytes(), &self.headers)
    }

    /// On its way to a member.
    pub(crate) fn sent(&self) -> Case {
        message(&self.subject, self.wire(), 0, self.now)
    }
}

pub(crate) fn transport(data: &[u8], headers: &Value) -> String {
    json!({"protocol": "io.choria.protocol.v2.transport", "data": STANDARD.encode(data), "headers": headers})
        .to_string()
}

/// Bytes on their way to a member, with blanks behind them.
pub(crate) fn message(subject: &str, bytes: impl AsRef<[u8]>, blanks: i64, now: i64) -> Case {
    Case::new(Kind::Message).number(1000).number(now).bytes(subject).bytes(bytes).number(blanks)
}

/// A member of the fleet that trusts these issuers.
pub(crate) fn member(issuers: &[(&str, [u8; 32])]) -> Case {
    start(true, issuers, false, "nobody")
}

/// A device that begins; `policies` says who judges what tokens say of actions.
pub(crate) fn start(member: bool, issuers: &[(&str, [u8; 32])], any_caller: bool, policies: &str) -> Case {
    let info: &[u8] = b"INFO {\"server_id\":\"b\",\"max_payload\":1048576,\"tls_required\":true,\"nonce\":\"Z4T9x1kQmB2aVwE\"}\r\n";
    let case = Case::new(Kind::Start).number(member.into()).trust(issuers);
    case.number(any_caller.into()).bytes(policies).number(0).bytes(info)
}

/// What a member says of itself when it has come up.
pub(crate) const READY: &str = "dial=1 tls sent=";

/// Who asks: a name, its key and its token, which need not belong together.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) id: String,
    pub(crate) key: SigningKey,
    pub(crate) token: String,
}

impl Caller {
    /// With a token of this issuer that says this about permissions.
    pub(crate) fn with(id: &str, key: &SigningKey, permissions: &Value, issuer: &SigningKey) -> Caller {
        let token = crate::forge::client(id, permissions, key, issuer);
        Caller { id: id.to_owned(), key: key.clone(), token }
    }

    pub(crate) fn fleet(id: &str, key: &SigningKey, issuer: &SigningKey) -> Caller {
        Caller::with(id, key, &json!({"fleet_management": true}), issuer)
    }
}

/// Somebody who issues tokens for an organization, or says so.
#[derive(Clone)]
pub(crate) struct ChainIssuer {
    pub(crate) key: SigningKey,
    pub(crate) jti: String,
    /// What the organization's signature for this issuer is, or is not.
    pub(crate) tcs: String,
}

impl ChainIssuer {
    /// An issuer that this key vouches for: the organization's, or its own.
    pub(crate) fn vouched_by(voucher: &SigningKey, key: &SigningKey) -> ChainIssuer {
        let jti = Ksuid::new(NOW - 60, &[8; 16]).as_str().to_owned();
        let tcs = hex::encode(voucher.sign(format!("{jti}.{}", public(key)).as_bytes()).to_bytes());
        ChainIssuer { key: key.clone(), jti, tcs }
    }

    /// The claims of a client of this issuer's.
    pub(crate) fn claims(&self, caller: &str, holder: &SigningKey) -> Value {
        let jti = Ksuid::new(NOW, &[9; 16]).as_str().to_owned();
        let signature = self.key.sign(format!("{jti}.{}", self.tcs).as_bytes()).to_bytes();
        json!({
            "callerid": caller, "ou": "choria", "permissions": {"fleet_management": true},
            "purpose": "choria_client_id", "public_key": public(holder), "exp": NOW + 60, "nbf": NOW, "iat": NOW,
            "jti": jti, "issexp": NOW + 600, "iss": format!("C-{}.{}", self.jti, public(&self.key)),
            "tcs": format!("{}.{}", self.tcs, hex::encode(signature)),
        })
    }

    pub(crate) fn issue(&self, caller: &str, holder: &SigningKey) -> String {
        token(&self.claims(caller, holder), &self.key)
    }
}
