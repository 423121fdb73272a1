//! A message to a node with every layer in the test's hand, and what the node does with it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use choria_protocol::rpc::RpcReply;
use choria_protocol::{Headers, INSECURE_SIGNATURE, Request, Transport, subjects};
use serde_json::{Value, json};

use crate::levels::attacker;
use crate::request::{self, Caller};
use crate::row::{ONE_AT_A_TIME, Row, lines_with};
use crate::stage::NODE;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message on its way to a node. All fields may be changed before it is sent.
#[derive(Debug, Clone)]
pub struct Shot {
    pub subject: String,
    /// Where the answer shall go.
    pub reply: String,
    /// The request document.
    pub document: Vec<u8>,
    pub signature: Vec<u8>,
    /// The caller's token.
    pub caller: String,
    /// The token of who signed in the caller's name.
    pub signer: Option<String>,
}

impl Shot {
    /// A good request of `caller` for `rpcutil ping`, signed by its own key, with something changed before signing.
    pub fn of(caller: &Caller, change: impl FnOnce(&mut Request)) -> Result<Shot> {
        let mut request = request::request(&caller.id, "choria", "rpcutil", "ping", &json!({}))?;
        change(&mut request);
        Shot::signed(&request, caller)
    }

    /// The same for another action.
    pub fn calling(caller: &Caller, agent: &str, action: &str, data: &Value) -> Result<Shot> {
        Shot::signed(&request::request(&caller.id, "choria", agent, action, data)?, caller)
    }

    pub fn signed(request: &Request, caller: &Caller) -> Result<Shot> {
        let document = request.to_bytes()?;
        Ok(Shot {
            subject: subjects::node("choria", NODE),
            reply: subjects::reply("choria", &caller.id, &request.id),
            signature: caller.key.sign(&document).to_vec(),
            document,
            caller: caller.token.clone(),
            signer: None,
        })
    }

    /// A request document that no library would write, signed as it is.
    pub fn edited(caller: &Caller, edit: impl FnOnce(&str) -> String) -> Result<Shot> {
        let mut shot = Shot::of(caller, |_| {})?;
        shot.document = edit(std::str::from_utf8(&shot.document)?).into_bytes();
        shot.signature = caller.key.sign(&shot.document).to_vec();
        Ok(shot)
    }

    /// Signed by somebody else in the caller's name.
    #[must_use]
    pub fn delegated(mut self, signer: &Caller) -> Shot {
        self.signature = signer.key.sign(&self.document).to_vec();
        self.signer = Some(signer.token.clone());
        self
    }

    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Shot)) -> Shot {
        change(&mut self);
        self
    }

    #[must_use]
    pub fn unsigned(self) -> Shot {
        self.with(|shot| shot.signature = INSECURE_SIGNATURE.to_vec())
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        // by hand: the library refuses to write what has no signature
        let mut secure = json!({
            "protocol": "io.choria.protocol.v2.secure_request", "request": STANDARD.encode(&self.document),
            "signature": STANDARD.encode(&self.signature), "caller": self.caller,
        });
        if let (Some(signer), Some(fields)) = (&self.signer, secure.as_object_mut()) {
            fields.insert("signer".into(), signer.clone().into());
        }
        let headers =
            Headers { reply: self.reply.clone(), sender: "tests.example.net".into(), ..Headers::default() };
        Ok(Transport { data: secure.to_string().into_bytes(), headers }.to_bytes()?)
    }
}

/// What followed a message: every other message on the whole network until the node had answered a good request sent
/// behind it.
struct Aftermath(Vec<(String, Vec<u8>)>);

impl Row {
    /// The node drops this without a word to anybody, and says why once.
    pub async fn node_drops(&mut self, shot: &Shot, reason: &str) -> Result<()> {
        self.node_drops_bytes(&shot.subject, &shot.to_bytes()?, &shot.reply, reason).await
    }

    /// The same for a message that is not even the outermost layer.
    pub async fn node_drops_bytes(
        &mut self,
        subject: &str,
        bytes: &[u8],
        reply: &str,
        reason: &str,
    ) -> Result<()> {
        let _alone = ONE_AT_A_TIME.lock().await;
        let before = lines_with(&self.stage.log("node"), reason);
        let aftermath = self.after(subject, bytes).await?;
        let answers = aftermath.0.iter().filter(|(subject, _)| subject == reply).count();
        ensure!(answers == 0, "the node answered on {reply}");
        let lines = lines_with(&self.stage.log("node"), reason) - before;
        ensure!(lines == 1, "{lines} lines with {reason} in\n{}", tail(&self.stage.log("node")));
        self.control.is_served().await.context("after the node")?;
        self.saw(format!("silence, reason={reason}"));
        Ok(())
    }

    /// The node has no subscription that this reaches: no answer, and no line in its log.
    pub async fn node_does_not_hear(&mut self, shot: &Shot) -> Result<()> {
        let _alone = ONE_AT_A_TIME.lock().await;
        let before = self.stage.log("node").matches("reason=").count();
        let aftermath = self.after(&shot.subject, &shot.to_bytes()?).await?;
        let answers = aftermath.0.iter().filter(|(subject, _)| *subject == shot.reply).count();
        ensure!(answers == 0, "the node answered on {}", shot.reply);
        let lines = self.stage.log("node").matches("reason=").count() - before;
        ensure!(lines == 0, "{lines} lines: it heard something\n{}", tail(&self.stage.log("node")));
        self.saw("silence, not even heard");
        Ok(())
    }

    /// The node finds that it is not meant: no answer, one more filtered request in its own counters.
    pub async fn node_is_not_meant(&mut self, shot: &Shot) -> Result<()> {
        let _alone = ONE_AT_A_TIME.lock().await;
        let before = self.filtered().await?;
        let aftermath = self.after(&shot.subject, &shot.to_bytes()?).await?;
        let answers = aftermath.0.iter().filter(|(subject, _)| *subject == shot.reply).count();
        ensure!(answers == 0, "the node answered on {}", shot.reply);
        let filtered = self.filtered().await? - before;
        ensure!(filtered == 1, "{filtered} requests were filtered\n{}", tail(&self.stage.log("node")));
        self.saw("no match");
        Ok(())
    }

    async fn filtered(&mut self) -> Result<u64> {
        let shot = Shot::calling(&self.stage.caller("up=asker")?, "rpcutil", "daemon_stats", &json!({}))?;
        let aftermath = self.after(&shot.subject, &shot.to_bytes()?).await?;
        let (_, payload) =
            aftermath.0.iter().find(|(subject, _)| *subject == shot.reply).context("no counters")?;
        let reply = request::read_reply(payload)?;
        reply.data.get("filtered").and_then(Value::as_u64).context("no counter of filtered requests")
    }

    /// The node answers this, once.
    pub async fn node_answers(&mut self, shot: &Shot) -> Result<RpcReply> {
        let _alone = ONE_AT_A_TIME.lock().await;
        let aftermath = self.after(&shot.subject, &shot.to_bytes()?).await?;
        let answers: Vec<_> = aftermath.0.iter().filter(|(subject, _)| *subject == shot.reply).collect();
        let [(_, payload)] = answers.as_slice() else {
            bail!("{} answers; the node says\n{}", answers.len(), tail(&self.stage.log("node")));
        };
        let reply = request::read_reply(payload)?;
        self.saw(format!("status {:?}: {}", reply.statuscode, reply.statusmsg));
        Ok(reply)
    }

    /// Sends it as a member who hears everything, then a good request, and collects what came until that was answered.
    async fn after(&mut self, subject: &str, bytes: &[u8]) -> Result<Aftermath> {
        let carrier = self.stage.caller_with(
            "up=carrier",
            json!({"permissions": {"org_admin": true,
            "fleet_management": true}}),
        )?;
        let mut connection = self.stage.connected(&carrier, attacker(8, self.number(), 1)).await?;
        ensure!(connection.subscribe("choria.>").await?.is_none(), "the carrier may not listen");
        let refused = connection.publish(subject, bytes).await?;
        ensure!(refused.is_none(), "the broker refused it: {refused:?}");
        let mut heard = Vec::new();
        let good = Shot::of(&carrier, |_| {})?;
        ensure!(connection.publish(&good.subject, &good.to_bytes()?).await?.is_none(), "refused");
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let Some(message) = connection.message(left).await? else {
                bail!("the node does not answer any more:\n{}", tail(&self.stage.log("node")));
            };
            if message.subject == good.reply {
                break;
            }
            heard.push((message.subject, message.payload));
        }
        // handlers run side by side: what the first one says may come behind the answer to the second
        while let Some(message) = connection.message(Duration::from_millis(150)).await? {
            heard.push((message.subject, message.payload));
        }
        Ok(Aftermath(heard))
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
