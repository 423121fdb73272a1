//! Somebody who plays a waiting node in front of a real provisioner, by the rules or not.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_host::clock;
use choria_protocol::event::LifecycleEvent;
use choria_protocol::rpc::{RpcReply, RpcRequest, StatusCode};
use serde_json::{Value, json};

use crate::forge::{self, Key};
use crate::liar::Liar;
use crate::request::Received;

/// How long it waits before it says again that it waits.
const SAY_AGAIN: Duration = Duration::from_secs(4);

/// One candidate.
#[derive(Debug)]
pub struct FalseNode {
    pub connection: Liar,
    pub identity: String,
    pub key: Key,
    /// What it answers to `jwt`; at first the token that it connected with.
    pub jwt: String,
    /// It said that it waits, and nobody has asked it anything yet.
    waits: bool,
}

/// What the provisioner asked it.
#[derive(Debug)]
pub struct Asked {
    pub received: Received,
    pub call: RpcRequest,
}

impl FalseNode {
    /// Connects under this name with a provisioning token and listens where such a node listens.
    pub async fn connect(
        broker: SocketAddr,
        ca: &Path,
        jwt: &str,
        identity: &str,
        from: Ipv4Addr,
    ) -> Result<FalseNode> {
        let mut connection = Liar::dial(broker, from, ca).await?;
        let hello = connection.hello(identity, jwt, None);
        connection.connect(&hello).await?;
        connection.is_admitted().await?;
        let refused = connection.subscribe(&format!("provisioning.node.{identity}")).await?;
        ensure!(refused.is_none(), "{refused:?}");
        Ok(FalseNode {
            connection,
            identity: identity.to_owned(),
            key: Key::generate()?,
            jwt: jwt.to_owned(),
            waits: false,
        })
    }

    /// Says that it waits.
    pub async fn announce(&mut self) -> Result<()> {
        let (now, id) = (clock::unix_seconds(), forge::random()?);
        let event = LifecycleEvent::new("startup", "provision_mode_server", &self.identity, now, id)
            .with("version", "0.99.0");
        self.connection.publish(&event.subject(), &event.to_bytes()?).await?;
        self.waits = true;
        Ok(())
    }

    /// What it is asked next; `None` when nobody asks in this time.
    pub async fn asked(&mut self, limit: Duration) -> Result<Option<Asked>> {
        let until = tokio::time::Instant::now() + limit;
        let message = loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            // a provisioner that says that it started may not have its subscription yet, and events are not kept
            let patience = if self.waits { left.min(SAY_AGAIN) } else { left };
            match self.connection.message(patience).await? {
                Some(message) => break message,
                None if patience < left => self.announce().await?,
                None => return Ok(None),
            }
        };
        self.waits = false;
        let received = Received::parse(&message.payload)?;
        let call = RpcRequest::parse(&received.request.message)?;
        Ok(Some(Asked { received, call }))
    }

    /// The answer that an honest node of this key would give.
    pub fn honest(&self, asked: &Asked) -> Result<RpcReply> {
        let data = match asked.call.action.as_str() {
            "jwt" => json!({"jwt": self.jwt, "ecdh_public": ""}),
            "gen25519" => {
                let nonce = asked.call.data.get("nonce").and_then(Value::as_str).context("no nonce")?;
                let proof = hex::encode(self.key.sign(nonce.as_bytes()));
                json!({"public_key": self.key.public(), "directory": "/etc/choria", "signature": proof})
            }
            "inventory" => json!({"facts": {}, "version": "0.99.0", "upgradable": false}),
            _ => json!({"message": "done"}),
        };
        Ok(RpcReply {
            action: asked.call.action.clone(),
            statuscode: StatusCode::Ok,
            statusmsg: "OK".into(),
            data,
        })
    }

    /// Sends an answer in the name of `sender`.
    pub async fn answer(&mut self, asked: &Asked, sender: &str, reply: &RpcReply) -> Result<()> {
        asked.received.answer(&mut self.connection, sender, reply.to_bytes()?).await
    }

    /// Answers honestly until it was told to restart, or nobody asks any more; returns all that it was asked.
    pub async fn enrol(&mut self, limit: Duration) -> Result<Vec<Asked>> {
        self.announce().await?;
        let mut all = Vec::new();
        while let Some(asked) = self.asked(limit).await? {
            let reply = self.honest(&asked)?;
            let identity = self.identity.clone();
            self.answer(&asked, &identity, &reply).await?;
            let last = asked.call.action == "restart";
            all.push(asked);
            if last {
                break;
            }
        }
        Ok(all)
    }
}
