//! A row of docs/spec/10 §14 under test: attackers by number, what they must hear, what the logs must say, and a peer that
//! behaves well and is served all the time.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use choria_protocol::rpc::StatusCode;
use choria_protocol::subjects;
use serde_json::{Value, json};

use crate::forge::{self, Key};
use crate::levels::{Levels, attacker};
use crate::liar::Liar;
use crate::process::wait_until;
use crate::request::{self, Caller};
use crate::stage::{Control, NODE, Stage};

/// One row under test, or a few that share their attacks. It holds the five assertions that every row makes: the answer on
/// the wire, one line in the log with its reason, no secret anywhere, a peer that is served throughout, and nothing left
/// behind.
#[derive(Debug)]
pub struct Row {
    pub stage: Arc<Stage>,
    pub control: Control,
    number: u16,
    also: Vec<u16>,
    attempt: u8,
    before: Levels,
    seen: Vec<(String, u32)>,
}

impl Row {
    /// The row of this number; the stage of all rows is up.
    pub async fn begin(number: u16) -> Result<Row> {
        Row::on(Stage::shared()?, number).await
    }

    /// The row on a stage of its own.
    pub async fn on(stage: Arc<Stage>, number: u16) -> Result<Row> {
        let mut control = stage.control().await?;
        control.is_served().await.context("before")?;
        let before = Levels::of(&stage)?;
        Ok(Row { stage, control, number, also: Vec::new(), attempt: 0, before, seen: Vec::new() })
    }

    /// The same attacks are what another row asks for.
    #[must_use]
    pub fn also(mut self, number: u16) -> Row {
        self.also.push(number);
        self
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// Notes what was seen, for the table of `cargo xtask test security`: say it after it was asserted.
    pub fn saw(&mut self, what: impl Into<String>) {
        let what = what.into();
        match self.seen.iter_mut().find(|(known, _)| *known == what) {
            Some((_, times)) => *times += 1,
            None => self.seen.push((what, 1)),
        }
    }

    /// The name and the address of the next attacker.
    pub fn next_attacker(&mut self) -> (String, Ipv4Addr) {
        self.attempt += 1;
        let name = format!("t{:03}-{:03}.example.net", self.number, self.attempt);
        (name, attacker(7, self.number, self.attempt))
    }

    /// The name and the connection of the next attacker.
    pub async fn attacker(&mut self) -> Result<(String, Liar)> {
        let (name, address) = self.next_attacker();
        let connection = self.stage.dial(address).await?;
        Ok((name, connection))
    }

    /// These credentials are refused on the wire, and the log says this.
    pub async fn refused(&mut self, token: &str, key: Option<&Key>, reason: &str) -> Result<()> {
        self.refused_with(token, key, json!({}), &[reason]).await
    }

    /// The same with more in CONNECT, and more than one word that fits.
    pub async fn refused_with(
        &mut self,
        token: &str,
        key: Option<&Key>,
        more: Value,
        reasons: &[&str],
    ) -> Result<()> {
        let (name, mut connection) = self.attacker().await?;
        let hello = forge::with(connection.hello(&name, token, key), more);
        connection.connect(&hello).await?;
        self.control.is_served().await.context("during")?;
        let refused = connection.is_refused().await;
        refused.with_context(|| format!("{name}; the broker says\n{}", self.stage.log("broker")))?;
        self.logged("broker", &name, reasons)?;
        self.saw(format!("AV and closed, reason={}", reasons.join("/")));
        Ok(())
    }

    /// The log names this attacker once, with one of these words.
    pub fn logged(&self, process: &str, name: &str, reasons: &[&str]) -> Result<()> {
        let reason = self.stage.one_reason(process, name)?;
        ensure!(reasons.contains(&reason.as_str()), "{name}: reason {reason} instead of {reasons:?}");
        Ok(())
    }

    /// A member may not do this: the broker says which subject, logs one line, and keeps the connection.
    pub async fn may_not(&mut self, token: &str, key: Option<&Key>, doing: Doing<'_>) -> Result<()> {
        let (name, mut connection) = self.attacker().await?;
        let hello = connection.hello(&name, token, key);
        connection.connect(&hello).await?;
        connection.is_admitted().await?;
        let (answer, expected) = match doing {
            Doing::Subscribe(subject) => (
                connection.subscribe(subject).await?,
                format!("-ERR 'Permissions Violation for Subscription to \"{subject}\"'\r\n"),
            ),
            Doing::Publish(subject) => (
                connection.publish(subject, b"x").await?,
                format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n"),
            ),
        };
        ensure!(answer.as_deref() == Some(expected.as_str()), "{answer:?} instead of {expected:?}");
        self.logged("broker", &name, &["permission_missing"])?;
        self.control.is_served().await.context("during")?;
        connection.say("PING\r\n").await?;
        connection.settled().await.context("the connection did not stay")?;
        self.saw(expected.trim_end().to_owned());
        Ok(())
    }

    /// A member with good credentials carries a request of somebody else's: the node drops it, with this reason.
    pub async fn dropped_by_node(&mut self, caller: &Caller, reason: &str) -> Result<()> {
        let carrier = self.stage.caller(&caller.id)?;
        let mut connection = self.stage.connected(&carrier, attacker(8, self.number, 1)).await?;
        connection.subscribe(&carrier.inbox("choria")).await?;
        // one attacker at a time: the node's log names no peer, it knows none
        let _alone = ONE_AT_A_TIME.lock().await;
        let before = lines_with(&self.stage.log("node"), reason);
        let request = request::request(&caller.id, "choria", "rpcutil", "ping", &json!({}))?;
        let secure = request::signed(&request, caller)?;
        let subject = subjects::node("choria", NODE);
        let limit = Duration::from_millis(700);
        let reply = request::ask(&mut connection, &subject, &request, &secure, limit).await?;
        ensure!(reply.is_none(), "the node answered: {reply:?}");
        let since = || lines_with(&self.stage.log("node"), reason) - before;
        wait_until(reason, Duration::from_secs(20), || since() > 0)?;
        let lines = since();
        ensure!(lines == 1, "{lines} lines with {reason} in\n{}", self.stage.log("node"));
        self.saw(format!("node: no reply, reason={reason}"));
        self.control.is_served().await.context("after the node")
    }

    /// The signer is asked to sign for somebody: it says no and records why.
    pub async fn refused_by_signer(&mut self, caller: &Caller, reason: &str) -> Result<()> {
        self.stage.signer()?;
        let carrier = self.stage.caller(&caller.id)?;
        let mut connection = self.stage.connected(&carrier, attacker(9, self.number, 1)).await?;
        connection.subscribe(&carrier.inbox("choria")).await?;
        let wanted = request::request(&caller.id, "choria", "rpcutil", "ping", &json!({}))?.to_bytes()?;
        let data = json!({
            "request": String::from_utf8(wanted.clone())?, "token": caller.token,
            "signature": hex::encode(caller.key.sign(&wanted)),
        });
        let _alone = ONE_AT_A_TIME.lock().await;
        let before = lines_with(&self.stage.log("aaa"), reason);
        let subject = subjects::service("choria", "aaa_signer");
        // services come up in their own time
        for _ in 0..20 {
            let request = request::request(&caller.id, "choria", "aaa_signer", "sign", &data)?;
            let secure = request::insecure(&request, &carrier.token)?;
            let limit = Duration::from_secs(3);
            let Some(reply) = request::ask(&mut connection, &subject, &request, &secure, limit).await? else {
                continue;
            };
            ensure!(reply.statuscode == StatusCode::Aborted, "{reply:?}");
            ensure!(reply.statusmsg.eq_ignore_ascii_case("request denied"), "{reply:?}");
            ensure!(reply.data.get("secure_request").is_none(), "signed: {reply:?}");
            let lines = lines_with(&self.stage.log("aaa"), reason) - before;
            ensure!(lines == 1, "{lines} lines with {reason} in\n{}", self.stage.log("aaa"));
            self.saw(format!("signer: Request denied, reason={reason}"));
            return self.control.is_served().await.context("after the signer");
        }
        bail!("the signer does not answer:\n{}", self.stage.log("aaa"))
    }

    /// All three verifiers refuse this caller.
    pub async fn refused_by_all(&mut self, caller: &Caller, reason: &str) -> Result<()> {
        self.refused(&caller.token, Some(&caller.key), reason).await.context("at the broker")?;
        self.refused_by_signer(caller, reason).await.context("at the signer")?;
        self.dropped_by_node(caller, reason).await.context("at the node")
    }

    /// This row ends and the next begins, on the same stage.
    pub async fn then(self, number: u16) -> Result<Row> {
        let stage = Arc::clone(&self.stage);
        self.end().await?;
        Row::on(stage, number).await
    }

    /// All went on as before, and nobody wrote down what must stay secret.
    pub async fn end(mut self) -> Result<()> {
        self.stage.kept_secrets()?;
        self.control.is_served().await.context("after")?;
        self.before.are_back(&self.stage, self.number)?;
        let times = |(what, times): &(String, u32)| match times {
            1 => what.clone(),
            _ => format!("{what} ({times} times)"),
        };
        let seen: Vec<String> = self.seen.iter().map(times).collect();
        for number in [self.number].into_iter().chain(self.also) {
            choria_rows::row(number, "", seen.join("; "));
        }
        Ok(())
    }
}

/// What a member tries that it may not.
#[derive(Debug, Clone, Copy)]
pub enum Doing<'a> {
    Subscribe(&'a str),
    Publish(&'a str),
}

/// The node's and the signer's logs name no peer: whoever counts their lines is alone.
pub(crate) static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub(crate) fn lines_with(log: &str, reason: &str) -> usize {
    let reason = format!("reason={reason}");
    log.lines().filter(|line| line.split_whitespace().any(|word| word == reason)).count()
}
