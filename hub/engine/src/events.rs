//! Events that the engine publishes in the system account, and the answer to "who am I" in every account
//! (`docs/spec/09 §A13`). Nothing is built when nobody listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::account::Account;
use crate::authenticator::Permissions;
use crate::client::{Client, Limits, Profile};
use crate::clock::{now_nanos, rfc3339};
use crate::close::CloseReason;
use crate::connect::ConnectOptions;
use crate::engine::Shared;
use crate::router::{Message, Outcome, Scratch};

impl Shared {
    /// Who answers and when, as every system message carries it.
    pub(crate) fn server_info(&self) -> Value {
        let mut info = json!({
            "name": self.name(), "host": self.host(), "id": self.server_id, "ver": self.config.version,
            "jetstream": self.config.jetstream, "flags": u8::from(self.config.jetstream),
            "seq": self.event_seq.fetch_add(1, Ordering::Relaxed), "time": rfc3339(now_nanos()),
        });
        if !self.config.cluster_name.is_empty()
            && let Some(map) = info.as_object_mut()
        {
            map.insert("cluster".to_owned(), self.config.cluster_name.as_str().into());
        }
        info
    }

    /// The address of the first listener.
    pub(crate) fn host(&self) -> String {
        let listening = self.listening.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        listening.first().map(|bound| bound.address.ip().to_string()).unwrap_or_default()
    }

    fn client_info(&self, client: &Client) -> Value {
        json!({
            "start": rfc3339(client.started),
            "host": client.remote.map(|remote| remote.ip().to_string()).unwrap_or_default(),
            "id": client.cid, "acc": client.account.name, "user": client.user, "name": client.name,
            "lang": client.lang, "ver": client.version, "server": self.name(), "kind": "Client",
            "client_type": "nats", "tags": client.tags, "rtt": client.rtt.load(Ordering::Relaxed),
        })
    }

    /// Publishes `body` in the system account if somebody listens.
    pub(crate) fn publish_event(&self, subject: &str, body: impl FnOnce() -> Value) {
        let Some(system) = self.system_account() else { return };
        if !system.has_interest(subject.as_bytes()) {
            return;
        }
        self.publish_as_engine(&system, subject, "", &body());
    }

    /// Publishes JSON in an account, from nobody's connection.
    pub(crate) fn publish_as_engine(&self, account: &Arc<Account>, subject: &str, reply: &str, body: &Value) {
        let body = body.to_string();
        let message = Message {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            header_len: 0,
            body: body.as_bytes(),
        };
        let origin = engine_client(account, self.limits());
        self.publish_in(account, message, &origin, &mut Scratch::default(), 0);
    }

    pub(crate) fn connect_event(&self, client: &Client) {
        self.publish_event(&format!("$SYS.ACCOUNT.{}.CONNECT", client.account.name), || {
            self.advisory("client_connect", json!({ "client": self.client_info(client) }))
        });
    }

    pub(crate) fn disconnect_event(&self, client: &Client, reason: CloseReason) {
        self.publish_event(&format!("$SYS.ACCOUNT.{}.DISCONNECT", client.account.name), || {
            let (sent_msgs, sent_bytes) = {
                let out = client.lock_out();
                (out.msgs, out.bytes)
            };
            let mut info = self.client_info(client);
            if let Some(map) = info.as_object_mut() {
                map.insert("stop".to_owned(), rfc3339(now_nanos()).into());
            }
            let fields = json!({
                "client": info,
                "sent": { "msgs": sent_msgs, "bytes": sent_bytes },
                "received": {
                    "msgs": client.in_msgs.load(Ordering::Relaxed),
                    "bytes": client.in_bytes.load(Ordering::Relaxed),
                },
                "reason": reason.text(),
            });
            self.advisory("client_disconnect", fields)
        });
    }

    /// A refused connection: what it called itself and the reason's word, never a credential.
    pub(crate) fn auth_error_event(
        &self,
        remote: SocketAddr,
        options: &ConnectOptions,
        reason: &'static str,
    ) {
        let subject = format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", self.server_id);
        self.publish_event(&subject, || {
            let fields = json!({
                "client": {
                    "host": remote.ip().to_string(), "name": options.name, "lang": options.lang,
                    "ver": options.version, "kind": "Client", "client_type": "nats",
                },
                "reason": CloseReason::AuthenticationFailure.text(),
                "detail": reason,
            });
            self.advisory("client_disconnect", fields)
        });
    }

    /// Lame duck and shutdown notices.
    pub(crate) fn server_event(&self, what: &str) {
        self.publish_event(&format!("$SYS.SERVER.{}.{what}", self.server_id), || self.server_info());
    }

    fn advisory(&self, kind: &str, fields: Value) -> Value {
        let mut body = json!({
            "type": format!("io.nats.server.advisory.v1.{kind}"),
            "id": self.random_name().unwrap_or_default(),
            "timestamp": rfc3339(now_nanos()),
            "server": self.server_info(),
        });
        if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
            body.extend(fields);
        }
        body
    }

    /// Answers `$SYS.REQ.USER.INFO` in the account that asks.
    pub(crate) fn answer_user_info(
        &self,
        message: Message<'_>,
        client: &Client,
        scratch: &mut Scratch,
    ) -> Outcome {
        let mut data = json!({ "user": client.user, "account": client.account.name });
        if let Some(map) = data.as_object_mut() {
            if client.granted != Permissions::default() {
                map.insert("permissions".to_owned(), json!(client.granted));
            }
            if let Some(at) = client.expires_unix {
                let left = at.saturating_mul(1_000_000_000).saturating_sub(now_nanos());
                map.insert("expires".to_owned(), left.max(0).into());
            }
        }
        let body = json!({ "server": self.server_info(), "data": data }).to_string();
        let answer = Message { subject: message.reply, reply: b"", header_len: 0, body: body.as_bytes() };
        let origin = engine_client(&client.account, self.limits());
        self.deliver(&client.account.matches(message.reply), answer, &origin, scratch);
        // Answered, whether or not somebody listened for the answer.
        Outcome { delivered: 1, stalled: false }
    }
}

/// A publisher that is no connection: id 0.
fn engine_client(account: &Arc<Account>, limits: Limits) -> Client {
    let profile = Profile {
        cid: 0,
        account: Arc::clone(account),
        remote: None,
        user: String::new(),
        name: String::new(),
        lang: String::new(),
        version: String::new(),
        tags: Vec::new(),
        tls: None,
        permissions: Permissions::default(),
        expires_unix: None,
        started: 0,
        echo: true,
        headers: true,
        protocol: 1,
    };
    Client::new(profile, limits)
}
