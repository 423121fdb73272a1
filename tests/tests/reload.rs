//! A HUP makes every process read its files again; a file that is no good changes nothing.
#![allow(clippy::large_futures)] // a test has few of them

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_host::private_file::write_private;
use choria_tests::{NODE, Stage, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the broker says.
const READ: &str = "Settings were read again";

/// A process of the stage and its file.
struct Reloaded<'s> {
    stage: &'s Stage,
    process: &'static str,
    file: &'static str,
}

impl Reloaded<'_> {
    fn text(&self) -> Result<String> {
        std::fs::read_to_string(self.stage.path(self.file)).context(self.file)
    }

    /// Puts this into the file, hangs up, and waits until the log holds each of `told` once more. Returns what was
    /// logged since.
    fn with(&self, text: &str, told: &[&str]) -> Result<String> {
        // A hang-up before this one may still be under way: it may be the one that reads this, and the two may be one.
        let before = self.stage.log(self.process).len();
        write_private(&self.stage.path(self.file), text.as_bytes())?;
        let since = || self.stage.log(self.process).get(before..).unwrap_or_default().to_owned();
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            self.stage.hang_up(self.process)?;
            let said = wait_until(&format!("{} says {told:?}", self.process), PATIENCE / 4, || {
                told.iter().all(|told| since().contains(told))
            });
            match said {
                Ok(()) => return Ok(since()),
                Err(error) if std::time::Instant::now() >= until => {
                    return Err(error).with_context(|| format!("it said\n{}", since()));
                }
                Err(_) => {}
            }
        }
    }
}

#[tokio::test]
async fn a_broker_reads_its_settings_again() -> Result<()> {
    let stage = Stage::start()?;
    let mut control = stage.control().await?;
    let broker = Reloaded { stage: &stage, process: "broker", file: "broker.conf" };
    let good = broker.text()?;
    let line = |text: &str| good.lines().position(|line| line.contains(text)).map(|line| line + 1);

    let issuer = line("issuer.choria.public").context("a line")?;
    let bad = good.replace(&stage.org.public(), "no key at all");
    let place = format!("broker.conf:{issuer}: plugin.security.issuer.choria.public");
    broker.with(&bad, &["the old ones stay", &place])?;
    let lines = good.lines().count();
    broker.with(
        &format!("{good}no equals sign\n"),
        &["the old ones stay", &format!("broker.conf:{}: ", lines + 1)],
    )?;
    broker.with(&good.replace("broker.pem", "missing.pem"), &["the old ones stay", "missing.pem"])?;
    // without its list of issuers the file would cut everybody off
    let unlisted = good.replace("plugin.security.issuer.names = choria\n", "");
    broker.with(&unlisted, &["the old ones stay", "no issuer is left"])?;
    control.is_served().await?;
    // and somebody new is let in by the issuer that stayed
    let caller = stage.caller("up=later")?;
    stage.connected(&caller, std::net::Ipv4Addr::LOCALHOST).await?;

    let more = format!(
        "{good}plugin.choria.stats_port = 1\nplugin.choria.network.max_connections = 7\n\
         plugin.choria.network.session_expiry = none\nplugin.choria.network.require_token_expiry = false\n"
    );
    let told = ["stats_port", "max_connections", "session_expiry"]
        .map(|key| format!("{key} changed; restart the broker"));
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    let since = broker.with(&more, &told)?;
    ensure!(!since.contains("require_token_expiry changed"), "what took effect needs no restart: {since}");
    broker.with(&format!("{good}plugin.choria.network.deny_server_connections = true\n"), &[READ])?;
    broker.with(&good, &[READ])?;

    // a refusal is a warning, which nobody reads at level error
    let asked = std::sync::atomic::AtomicU16::new(0);
    let refused = async |who: &str| -> Result<String> {
        let before = stage.log("broker").len();
        // of one address only so many refusals are written in a minute
        let [high, low] = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_be_bytes();
        let mut stranger = stage.dial(std::net::Ipv4Addr::new(127, 40, high, low)).await?;
        let hello = stranger.hello(who, "eyJ.no.token", None);
        stranger.connect(&hello).await?;
        ensure!(stranger.is_admitted().await.is_err(), "a stranger is let in");
        stage.connected(&caller, std::net::Ipv4Addr::LOCALHOST).await?;
        Ok(stage.log("broker").get(before..).unwrap_or_default().to_owned())
    };
    ensure!(refused("up=loud").await?.contains("reason=token_malformed"), "a refusal is not logged");
    let quiet = good.replace("loglevel = info", "loglevel = error");
    write_private(&stage.path("broker.conf"), quiet.as_bytes())?;
    stage.hang_up("broker")?;
    let until = std::time::Instant::now() + PATIENCE;
    while refused("up=quiet").await?.contains("reason=") {
        ensure!(std::time::Instant::now() < until, "the level did not change");
    }
    broker.with(&good, &[READ])?;
    ensure!(refused("up=loud").await?.contains("reason=token_malformed"), "the level did not come back");
    broker.with(
        &good.replace("loglevel = info", "loglevel = loud"),
        &["keeping the log level in use: 'loud'"],
    )?;
    control.is_served().await
}

#[tokio::test]
async fn a_node_reads_its_configuration_again() -> Result<()> {
    let stage = Stage::start()?;
    let mut control = stage.control().await?;
    let node = Reloaded { stage: &stage, process: "node", file: "server.conf" };
    let good = node.text()?;
    let lines = good.lines().count();
    let stays = "the old one stays";

    node.with(&good.replace(&stage.org.public(), &"g".repeat(64)), &[stays, "issuer.choria.public"])?;
    node.with(&format!("{good}no equals sign\n"), &[stays, &format!("server.conf:{}: ", lines + 1)])?;
    control.is_served().await?;

    let more = format!("{good}plugin.choria.stats_port = 1\nmain_collective = choria\n");
    node.with(
        &more,
        &["stats_port changed; restart the server", "main_collective changed; restart the server"],
    )?;
    control.is_served().await?;

    // policies: another provider decides from now on, and its files count as they are
    let denying = good.replace("rpcauthprovider = aaasvc", "rpcauthprovider = action_policy");
    node.with(&denying, &["was read again"])?;
    let denied = control.is_answered_by(NODE, PATIENCE).await;
    ensure!(denied.is_err(), "no policy file denies: {denied:?}");
    std::fs::create_dir(stage.path("policies"))?;
    std::fs::write(stage.path("policies/rpcutil.policy"), "policy default allow\n")?;
    control.is_served().await?;
    node.with(&good, &["was read again"])?;
    control.is_served().await?;

    // nobody is obeyed any more whom only the other issuer knows
    let other = choria_tests::forge::Key::generate()?.public();
    node.with(&good.replace(&stage.org.public(), &other), &["was read again"])?;
    ensure!(!control.is_answered_by(NODE, Duration::from_secs(2)).await?, "obeys an issuer that is gone");
    node.with(
        &good.replace(&stage.org.public(), &format!("{other},{}", stage.org.public())),
        &["was read again"],
    )?;
    control.is_served().await?;
    // below its level nothing is written, whatever it says; an error is. That it has read this shows in whom it obeys.
    let quiet = good.replace("loglevel = debug", "loglevel = error").replace(&stage.org.public(), &other);
    write_private(&stage.path("server.conf"), quiet.as_bytes())?;
    stage.hang_up("node")?;
    let until = std::time::Instant::now() + PATIENCE;
    while control.is_answered_by(NODE, Duration::from_secs(2)).await? {
        ensure!(std::time::Instant::now() < until, "the configuration was not read again");
    }
    let since = node.with(
        &format!(
            "{quiet}no equals sign
"
        ),
        &[stays],
    )?;
    ensure!(!since.contains("level=warn"), "{since}");
    let loud =
        node.with(&good.replace("loglevel = debug", "loglevel = loud"), &["keeping the log level in use"])?;
    ensure!(loud.contains("keeping the log level in use: 'loud' is not a log level"), "{loud}");
    node.with(&good, &["was read again"])?;
    control.is_served().await
}

#[tokio::test]
async fn signer_and_provisioner_read_their_files_again() -> Result<()> {
    let stage = Stage::start()?;
    stage.signer()?;
    stage.provisioner()?;
    let aaa = Reloaded { stage: &stage, process: "aaa", file: "aaasvc.conf" };
    let good = aaa.text()?;
    wait_until("aaa is up", PATIENCE, || stage.log("aaa").contains("AAA is up"))?;
    aaa.with("{\n \"site\": 1\n", &["nothing changed", "aaasvc.conf is not valid JSON", "line 2"])?;
    aaa.with(
        &good.replace("actionlist", "nobody"),
        &["nothing changed", "aaasvc.conf:1: setting 'authorizer'"],
    )?;
    aaa.with(
        &good.replace("\"site\":\"test\"", "\"site\":\"other\""),
        &["configuration reloaded", "site changed; restart"],
    )?;
    let since = aaa
        .with(&good.replace("\"loglevel\":\"debug\"", "\"loglevel\":\"loud\""), &["keeping the log level"])?;
    ensure!(since.contains("'loud' is not a log level"), "{since}");

    let provisioner = Reloaded { stage: &stage, process: "provisioner", file: "choria-provisioner.yaml" };
    let good = provisioner.text()?;
    provisioner.with(
        "interval: 1m\n  token: [\n",
        &["keeping the configuration in use", "choria-provisioner.yaml"],
    )?;
    provisioner.with(
        &good.replace("\"interval\":\"1m\"", "\"interval\":\"soon\""),
        &["keeping the configuration in use", "interval"],
    )?;
    let other = good.replace(choria_tests::PROVISIONER_PASSWORD, "another password of some length");
    provisioner.with(&other, &["again", "broker_provisioning_password changed; restart"])?;
    provisioner.with(&good, &["choria-provisioner.yaml again"])?;
    let folder = stage.waiting_node("later.example.net")?;
    wait_until("a node is enrolled", Duration::from_secs(60), || folder.join("server.jwt").is_file())
}
