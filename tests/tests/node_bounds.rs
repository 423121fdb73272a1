//! Rows of docs/spec/10 §14.6: what keeps a running node busy, and what it does when its own credentials change.
#![allow(clippy::large_futures)] // a test has few of them

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use choria_host::clock;
use choria_host::private_file::write_private;
use choria_protocol::rpc::StatusCode;
use choria_protocol::subjects;
use choria_tests::forge::{self, Key};
use choria_tests::request::{Caller, read_reply};
use choria_tests::{NODE, Row, Running, Shot, Stage, free_port, wait_until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(60);

/// A discovery as clients send it, to everybody who matches.
fn discovery(caller: &Caller, filter: &Value) -> Result<Shot> {
    let shot = Shot::edited(caller, |document| {
        let changes = json!({"agent": "discovery", "message": "Y0dsdVp3PT0=", "filter": filter});
        forge::with(serde_json::from_str(document).unwrap_or_default(), changes).to_string()
    })?;
    Ok(shot.with(|shot| shot.subject = subjects::broadcast("choria", "discovery")))
}

fn compound(expression: &str) -> Value {
    json!({"compound": [[{"expr": expression}]]})
}

fn fact(path: &str, operator: &str, value: &str) -> Value {
    json!({"fact": [{"fact": path, "operator": operator, "value": value}]})
}

/// Each of these filters matches nothing; the node answers everybody else all the time.
async fn never_match(number: u16, filters: Vec<Value>) -> Result<()> {
    let mut row = Row::begin(number).await?;
    let caller = row.stage.caller("up=curious")?;
    let reply = row.node_answers(&discovery(&caller, &json!({"identity": [NODE]}))?).await;
    // pong is no RPC reply: that it came is what counts
    ensure!(reply.is_err_and(|error| format!("{error:#}").contains("body")), "discovery is not served");
    for filter in filters {
        row.node_is_not_meant(&discovery(&caller, &filter)?).await.with_context(|| short(&filter))?;
    }
    row.end().await
}

fn short(filter: &Value) -> String {
    filter.to_string().chars().take(80).collect()
}

/// This build evaluates no expressions, and what is not evaluated does not match.
#[tokio::test]
async fn t_250_t_251_compound_filters_match_nothing() -> Result<()> {
    let questions = ["a", "b", ""]
        .map(|prefix| compound(&format!("config_item('plugin.nats.pass').value startsWith '{prefix}'")));
    never_match(250, questions.to_vec()).await?;
    let bombs = [
        "(".repeat(5_000),
        format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000)),
        // three layers of base64 make it the largest message that a broker takes
        "x".repeat(300 * 1024),
        "1%0".to_owned(),
        String::new(),
    ];
    let mut filters: Vec<Value> = bombs.iter().map(|bomb| compound(bomb)).collect();
    filters.push(json!({"compound": [[]]}));
    filters.push(json!({"compound": vec![json!([{"expr": "true"}]); 2_000]}));
    never_match(251, filters).await
}

#[tokio::test]
async fn t_252_t_254_paths_and_kinds_that_lead_nowhere() -> Result<()> {
    let parts = vec!["a"; 20_000].join(".");
    let long = "a".repeat(40 * 1024);
    let wild = "*.".repeat(2_000) + "*";
    let paths = [parts.as_str(), long.as_str(), wild.as_str(), "#(#(#(", "a|@this|@this"];
    never_match(252, paths.iter().map(|path| fact(path, "==", "x")).collect()).await?;
    let unknown = [
        json!({"geo": ["earth"]}),
        json!({"geo": {"planet": "earth"}}),
        json!({"identity": [7]}),
        json!({"fact": [{"fact": "a"}]}),
        json!({"agent": ["rpcutil", "nothing"]}),
    ];
    never_match(254, unknown.to_vec()).await
}

#[tokio::test]
async fn t_253_patterns_without_end() -> Result<()> {
    let bomb = "(a{1,1000}){1,1000}".to_owned();
    let long = "a|".repeat(32 * 1024);
    let deep = "(".repeat(1_000) + &")".repeat(1_000);
    let mut filters = Vec::new();
    for pattern in [&bomb, &long, &deep] {
        filters.push(json!({"identity": [format!("/{pattern}x/")]}));
        filters.push(json!({"cf_class": [format!("/{pattern}x/")]}));
    }
    // thousands of small patterns take as long as they may together, not as long as they would
    let many: Vec<String> = (0..8_000).map(|n| format!("/^(x{n}|[y-z]{{1,200}})$/")).collect();
    filters.push(json!({"identity": many}));
    never_match(253, filters).await
}

/// A policy that computes until it is stopped. Who has it is denied, 200 ms later.
const SLOW: &str = "package io.choria.aaasvc\ndefault allow := false\nallow if {\n  some i in numbers.range(1, 9000)\n  \
                    some j in numbers.range(1, 9000)\n  i * j == -1\n}\n";

#[tokio::test]
async fn t_255_one_caller_with_a_thousand_slow_calls() -> Result<()> {
    let mut row = Row::on(Arc::new(Stage::start()?), 255).await?;
    let greedy = row.stage.caller_with("up=greedy", json!({"agents": null, "opa_policy": SLOW}))?;
    let mut connection = row.stage.connected(&greedy, Ipv4Addr::new(127, 9, 2, 55)).await?;
    connection.subscribe(&greedy.inbox("choria")).await?;
    let (mut fastest, mut sent) = (Duration::MAX, 0);
    for _ in 0..10 {
        for _ in 0..100 {
            let shot = Shot::of(&greedy, |_| {})?;
            ensure!(connection.publish(&shot.subject, &shot.to_bytes()?).await?.is_none(), "refused");
            sent += 1;
        }
        // another caller, while 32 of these run and up to 128 wait
        let asked = Instant::now();
        row.control.is_served().await.context("beside the slow calls")?;
        fastest = fastest.min(asked.elapsed());
    }
    let (mut busy, mut ran, mut late) = (0, 0, 0);
    for _ in 0..sent {
        let message = connection.message(PATIENCE).await?;
        let message =
            message.with_context(|| format!("{busy} busy, {ran} ran, {late} late, then silence"))?;
        let reply = read_reply(&message.payload)?;
        match (reply.statuscode, reply.statusmsg.as_str()) {
            (StatusCode::Aborted, "server is busy") => busy += 1,
            (StatusCode::Aborted, _) => ran += 1,
            (StatusCode::UnknownError, "Timeout after 2s") => late += 1,
            _ => bail!("{reply:?}"),
        }
    }
    ensure!(busy > 0 && ran > 0, "{busy} busy, {ran} ran, {late} late");
    ensure!(fastest < Duration::from_secs(1), "another caller waited {fastest:?} at best");
    let lines = row.stage.log("node").matches("reason=busy").count();
    ensure!(lines <= 200, "{lines} lines about one caller");
    row.saw(format!(
        "{sent} slow calls: {busy} busy, {ran} ran, {late} late; another caller after {fastest:?}"
    ));
    row.end().await
}

/// A node beside the stage's own, with a token that holds for so many seconds.
struct Second {
    folder: std::path::PathBuf,
    key: Key,
    log: std::path::PathBuf,
}

impl Second {
    fn new(stage: &Stage, identity: &str, more: &str) -> Result<Second> {
        let folder = stage.path(identity);
        std::fs::create_dir(&folder)?;
        let second = Second { key: Key::generate()?, log: folder.join("log"), folder };
        write_private(&second.folder.join("server.seed"), second.key.seed().as_bytes())?;
        let text = format!(
            "identity = {identity}\nplugin.security.provider = choria\nplugin.security.issuer.names = choria\n\
             plugin.security.issuer.choria.public = {issuer}\nplugin.security.choria.ca = {ca}\n\
             plugin.security.choria.token_file = {folder}/server.jwt\n\
             plugin.security.choria.seed_file = {folder}/server.seed\nplugin.choria.use_srv = false\n\
             plugin.choria.middleware_hosts = nats://{broker}\nrpcauthprovider = aaasvc\n{more}\n",
            issuer = stage.org.public(),
            ca = stage.ca.display(),
            folder = second.folder.display(),
            broker = stage.broker,
        );
        write_private(&second.folder.join("server.conf"), text.as_bytes())?;
        Ok(second)
    }

    fn token(&self, stage: &Stage, identity: &str, seconds: i64) -> Result<()> {
        let until = json!({"exp": clock::unix_seconds() + seconds});
        let claims = forge::with(forge::server(identity, &self.key)?, until);
        write_private(&self.folder.join("server.jwt"), forge::token(&claims, &stage.org).as_bytes())?;
        Ok(())
    }

    fn start(&self, stage: &Stage, identity: &str) -> Result<Running> {
        Running::start(&mut stage.node_command(identity), &self.log)
    }
}

async fn answers(row: &mut Row, identity: &str) -> Result<()> {
    for _ in 0..20 {
        if row.control.is_answered_by(identity, Duration::from_secs(2)).await? {
            return Ok(());
        }
    }
    bail!("{identity} does not answer")
}

#[tokio::test]
async fn t_263_a_token_that_is_renewed_while_the_node_runs() -> Result<()> {
    let identity = "renewed.example.net";
    let mut row = Row::begin(263).await?;
    let node = Second::new(&row.stage, identity, "")?;
    node.token(&row.stage, identity, 20)?;
    let running = node.start(&row.stage, identity)?;
    answers(&mut row, identity).await?;
    // the broker ends the session with the token, and the node has nothing to come back with
    running.logged("the token in", PATIENCE)?;
    running.logged("has expired", PATIENCE)?;
    ensure!(!row.control.is_answered_by(identity, Duration::from_millis(500)).await?, "it still answers");
    row.saw("disconnected with its token, then reason=no_credentials");
    node.token(&row.stage, identity, 3600)?;
    answers(&mut row, identity).await.with_context(|| running.log())?;
    row.saw("connected again with the new token, same process");
    row.end().await
}

#[tokio::test]
async fn t_264_a_node_with_anothers_token() -> Result<()> {
    let identity = "clone.example.net";
    let mut row = Row::begin(264).await?;
    let node = Second::new(&row.stage, identity, "")?;
    node.token(&row.stage, "original.example.net", 3600)?;
    let mut running = node.start(&row.stage, identity)?;
    let why = "identity clone.example.net does not match caller original.example.net";
    running.logged(why, PATIENCE)?;
    wait_until("the node ends", PATIENCE, || !running.is_running())?;
    ensure!(!running.log().contains("connected"), "{}", running.log());
    row.saw(format!("refused to start: {why}"));
    row.end().await
}

/// 1 GB in a minute is too long for a test that runs every day: 64 MiB, offered to every listener of this stage at once.
#[tokio::test]
async fn t_266_random_bytes_to_all_listeners() -> Result<()> {
    let identity = "metered.example.net";
    let mut row = Row::on(Arc::new(Stage::start()?), 266).await?;
    let port = free_port()?;
    let node = Second::new(&row.stage, identity, &format!("plugin.choria.stats_port = {port}"))?;
    node.token(&row.stage, identity, 3600)?;
    let mut running = node.start(&row.stage, identity)?;
    answers(&mut row, identity).await?;
    let metrics = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let until = Instant::now() + Duration::from_secs(60);
    let mut offered = 0;
    let mut round = 0_u8;
    while offered < 64 << 20 && Instant::now() < until {
        round = round.wrapping_add(1);
        let (broker, noise) = (row.stage.broker, noise()?);
        let within_tls = row.stage.dial(Ipv4Addr::new(127, 9, 66, round)).await;
        let (a, b) = tokio::join!(flood(broker, &noise), flood(metrics, &noise));
        offered += a + b;
        if let Ok(mut connection) = within_tls {
            // the TLS layer is in order and what is inside is not
            let text: String = noise.iter().take(256 * 1024).map(|byte| char::from(*byte)).collect();
            offered += text.len();
            drop(tokio::time::timeout(Duration::from_secs(3), connection.say(&text)).await);
        }
        if round.is_multiple_of(8) {
            row.control.is_served().await.context("during the flood")?;
        }
    }
    ensure!(offered >= 64 << 20, "only {offered} bytes in a minute");
    ensure!(running.is_running(), "{}", running.log());
    answers(&mut row, identity).await?;
    let page = tokio::time::timeout(PATIENCE, metrics_page(metrics)).await??;
    ensure!(page.contains("choria_server_total"), "{page}");
    for log in [row.stage.log("broker"), row.stage.log("node"), running.log()] {
        ensure!(!log.contains("panicked"), "{log}");
    }
    row.saw(format!(
        "{} MiB to broker (before and in TLS) and metrics page: nobody fell, all served",
        offered >> 20
    ));
    row.end().await
}

fn noise() -> Result<Vec<u8>> {
    // 4 KiB of true noise, many times: what a parser meets first is what differs
    Ok(forge::random::<4096>()?.repeat(256))
}

/// Bytes that went out before the peer hung up.
async fn flood(to: std::net::SocketAddr, noise: &[u8]) -> usize {
    let mut out = 0;
    let sending = async {
        let Ok(mut stream) = tokio::net::TcpStream::connect(to).await else { return };
        for part in noise.chunks(16 * 1024) {
            match stream.write(part).await {
                Ok(size) if size > 0 => out += size,
                _ => return,
            }
        }
    };
    drop(tokio::time::timeout(Duration::from_secs(3), sending).await);
    out
}

async fn metrics_page(from: std::net::SocketAddr) -> Result<String> {
    let mut stream = tokio::net::TcpStream::connect(from).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}
