//! A microcontroller to send things to, and what it does with them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_protocol::subjects;
use serde_json::json;

use crate::device::{Device, DeviceTls, HOST, Personality};
use crate::request;
use crate::{Liar, Shot, Stage, free_port, wait_until};

/// Its name.
pub const IDENTITY: &str = "dd.example.net";
const PATIENCE: Duration = Duration::from_secs(60);

/// A device that is a member, and a caller who hears all replies.
#[derive(Debug)]
pub struct Range {
    pub stage: Arc<Stage>,
    pub device: Device,
    pub connection: Liar,
    _folder: tempfile::TempDir,
}

impl Range {
    /// `more` are choices for its image.
    pub async fn new(more: &[&str]) -> Result<Range> {
        Range::with(more, |_| Ok(())).await
    }

    /// The same with something to be done to the device before it is started for the first time.
    pub async fn with(more: &[&str], prepare: impl FnOnce(&mut Device) -> Result<()>) -> Result<Range> {
        let folder = tempfile::tempdir()?;
        let (tls, port) = (DeviceTls::new(folder.path())?, free_port()?);
        let stage = Arc::new(Stage::with_broker_settings(&tls.listener(port))?);
        stage.provisioner()?;
        let personality = Personality {
            provisioning_jwt: stage.provisioning_token()?,
            issuer: stage.org.public(),
            ca: tls.ca.clone(),
            broker: format!("nats://{HOST}:{port}"),
            identity: IDENTITY.to_owned(),
        };
        let mut device = Device::with(&folder.path().join("device"), &personality, more)?;
        prepare(&mut device)?;
        device.start()?;
        device.said("member=true")?;
        device.said_times("connected", 2)?;
        let everything = json!({"permissions": {"org_admin": true, "fleet_management": true}});
        let carrier = stage.caller_with("up=carrier", everything)?;
        let mut connection = stage.connected(&carrier, Ipv4Addr::new(127, 7, 9, 9)).await?;
        ensure!(connection.subscribe("choria.>").await?.is_none(), "the carrier may not listen");
        Ok(Range { stage, device, connection, _folder: folder })
    }

    /// Power off and on; it is a member again, and listens.
    pub async fn restart(&mut self) -> Result<()> {
        self.device.cut()?;
        while self.connection.message(Duration::ZERO).await?.is_some() {}
        self.device.start()?;
        self.starts().await
    }

    /// Waits until it says that it has started, which it says once it listens.
    pub async fn starts(&mut self) -> Result<()> {
        loop {
            let message = self.connection.message(PATIENCE).await?;
            let message =
                message.with_context(|| format!("it does not start:\n{}", self.device.console()))?;
            if message.subject.starts_with("choria.lifecycle.event.startup.") {
                return Ok(());
            }
        }
    }

    /// Publishes it to the device.
    pub async fn send(&mut self, shot: &Shot) -> Result<()> {
        let subject = subjects::node("choria", IDENTITY);
        let refused = self.connection.publish(&subject, &shot.to_bytes()?).await?;
        ensure!(refused.is_none(), "the broker refused it: {refused:?}");
        Ok(())
    }

    /// The answer to this; `None` when there is none before that to a good request behind it.
    pub async fn answer(&mut self, shot: &Shot) -> Result<Option<choria_protocol::rpc::RpcReply>> {
        self.send(shot).await?;
        let good = Shot::of(&self.stage.caller("up=good")?, |_| {})?;
        self.send(&good).await?;
        let mut answer = None;
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let message = self.connection.message(left).await?;
            let message =
                message.with_context(|| format!("it answers no more:\n{}", self.device.console()))?;
            if message.subject == good.reply {
                return Ok(answer);
            }
            if message.subject == shot.reply {
                ensure!(answer.is_none(), "it answered twice");
                answer = Some(request::read_reply(&message.payload)?);
            }
        }
    }

    /// The most that its stack has held, bytes.
    pub async fn stack(&mut self) -> Result<u64> {
        let fact = json!({"fact": "stack_high_water"});
        let asked = Shot::calling(&self.stage.caller("up=asker")?, "rpcutil", "get_fact", &fact)?;
        let answer = self.answer(&asked).await?.context("no answer")?;
        answer.data.get("value").and_then(serde_json::Value::as_u64).context("no number")
    }

    /// Not a word to anybody, one line with the reason on its console, and the next request is served.
    pub async fn drops(&mut self, shot: &Shot, reason: &str) -> Result<()> {
        let line = format!("request dropped reason={reason} ");
        let before = self.device.console().matches(&line).count();
        ensure!(self.answer(shot).await?.is_none(), "it answered what it should drop for {reason}");
        wait_until(reason, PATIENCE, || self.device.console().matches(&line).count() == before + 1)
            .with_context(|| self.device.console())
    }
}
