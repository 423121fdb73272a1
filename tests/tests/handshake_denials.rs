//! Rows of docs/spec/10 §14 about the first bytes of a connection: what comes before CONNECT, in it, and without TLS.
#![allow(clippy::large_futures)] // a test has few of them

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use choria_host::tls::{self, Trust};
use choria_tests::forge::{self, Key};
use choria_tests::request::Caller;
use choria_tests::{Row, certificates};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn t_012_a_header_that_must_be_understood() -> Result<()> {
    let mut row = Row::begin(12).await?;
    let holder = Key::generate()?;
    let header = json!({"alg": "EdDSA", "typ": "JWT", "crit": ["x"]});
    let token = forge::token_with(&header, &forge::client("up=t012", &holder)?, &row.stage.org);
    row.refused_by_all(&Caller::new("up=t012", &holder, token), "token_malformed").await?;
    row.end().await
}

/// A key for which a signature of 64 known bytes holds whatever was signed, when the verifier is lax.
#[tokio::test]
async fn t_017_a_key_of_small_order() -> Result<()> {
    let mut row = Row::begin(17).await?;
    let holder = Key::generate()?;
    let point = format!("01{}", "00".repeat(31));
    let mut universal = [0_u8; 64];
    if let Some(first) = universal.first_mut() {
        *first = 1;
    }
    let claims = forge::with(forge::client("up=t017", &holder)?, json!({"public_key": point}));
    let token = forge::token(&claims, &row.stage.org);
    let more = json!({"sig": URL_SAFE_NO_PAD.encode(universal)});
    row.refused_with(&token, None, more, &["claim_invalid"]).await?;
    let caller = Caller::new("up=t017", &holder, token);
    row.refused_by_signer(&caller, "claim_invalid").await?;
    let shot = choria_tests::Shot::of(&caller, |_| {})?.with(|shot| shot.signature = universal.to_vec());
    // the device's verifier looks at the key when it verifies with it
    row.node_drops(&shot, "sig_bad").await?;
    row.end().await
}

#[tokio::test]
async fn upper_case_keys_are_the_same_keys() -> Result<()> {
    let mut row = Row::begin(19).await?;
    let holder = Key::generate()?;
    let issuer = forge::ChainIssuer::vouched_by(&row.stage.org, Key::generate()?)?;
    let claims = issuer.claims(forge::client("up=t019", &holder)?);
    let iss = format!("C-{}.{}", issuer.jti, issuer.key.public().to_uppercase());
    let claims = forge::with(claims, json!({"public_key": holder.public().to_uppercase(), "iss": iss}));
    let token = forge::token(&claims, &issuer.key);
    let (name, mut connection) = row.attacker().await?;
    let hello = connection.hello(&name, &token, Some(&holder));
    connection.connect(&hello).await?;
    connection.is_admitted().await?;
    Ok(())
}

#[tokio::test]
async fn t_023_an_id_of_another_time() -> Result<()> {
    let mut row = Row::begin(23).await?;
    let holder = Key::generate()?;
    let issuer = forge::ChainIssuer::vouched_by(&row.stage.org, Key::generate()?)?;
    let claims = issuer.claims(forge::client("up=t023", &holder)?);
    let issued = claims.get("iat").and_then(Value::as_i64).context("no iat")?;
    let token = forge::token(&forge::with(claims, json!({"iat": issued - 1})), &issuer.key);
    row.refused_by_all(&Caller::new("up=t023", &holder, token), "chain_forged").await?;
    row.end().await
}

#[tokio::test]
async fn t_035_t_071_signatures_in_another_spelling() -> Result<()> {
    let mut row = Row::begin(35).await?.also(71);
    let own = row.stage.caller("up=t035")?;
    type Spelling = fn(&Key, &str) -> String;
    let spellings: [(&str, Spelling); 5] = [
        ("padded", |key, nonce| URL_SAFE.encode(key.sign(nonce.as_bytes()))),
        ("standard alphabet", |key, nonce| STANDARD.encode(key.sign(nonce.as_bytes()))),
        ("63 bytes", |key, nonce| {
            URL_SAFE_NO_PAD.encode(key.sign(nonce.as_bytes()).get(..63).unwrap_or_default())
        }),
        ("65 bytes", |key, nonce| {
            URL_SAFE_NO_PAD.encode([key.sign(nonce.as_bytes()).as_slice(), &[0]].concat())
        }),
        ("over the decoded nonce", |key, nonce| {
            let decoded = URL_SAFE_NO_PAD.decode(nonce).unwrap_or_default();
            URL_SAFE_NO_PAD.encode(key.sign(&decoded))
        }),
    ];
    for (what, spell) in spellings {
        let (name, mut connection) = row.attacker().await?;
        ensure!(
            URL_SAFE_NO_PAD.decode(connection.nonce()).is_ok(),
            "the nonce is no base64: {what} means nothing"
        );
        let sig = spell(&own.key, connection.nonce());
        let hello = forge::with(connection.hello(&name, &own.token, None), json!({"sig": sig}));
        connection.connect(&hello).await?;
        connection.is_refused().await.context(what)?;
        row.logged("broker", &name, &["nonce_bad"]).context(what)?;
        row.saw(format!("{what}: AV, nonce_bad"));
    }
    row.end().await
}

#[tokio::test]
async fn t_049_operations_before_connect() -> Result<()> {
    let mut row = Row::begin(49).await?;
    for text in ["PUB choria.node.x 1\r\nx\r\n", "SUB > 1\r\n", "HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n"] {
        let (_, from) = row.next_attacker();
        let mut connection = row.stage.dial(from).await?;
        connection.say(text).await?;
        connection.is_refused().await.with_context(|| text.to_owned())?;
        let reason = row.stage.one_reason("broker", &format!("{from}:"))?;
        ensure!(reason == "no_credentials", "{text:?}: {reason}");
        row.saw("AV and closed, reason=no_credentials");
    }
    row.end().await
}

#[tokio::test]
async fn t_070_a_connect_of_nested_arrays() -> Result<()> {
    let mut row = Row::begin(70).await?;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
    for value in [deep, objects] {
        let (_, from) = row.next_attacker();
        let mut connection = row.stage.dial(from).await?;
        connection.say(&format!("CONNECT {{\"name\":\"deep\",\"x\":{value}}}\r\nPING\r\n")).await?;
        let answer = connection.last_words().await?;
        ensure!(!answer.contains("PONG"), "{answer:?}");
        let reason = row.stage.one_reason("broker", &format!("{from}:"))?;
        ensure!(reason == "connect_malformed", "{reason}");
        row.saw(format!("closed with {:?}, reason=connect_malformed", answer.trim_end()));
    }
    row.end().await
}

/// The broker speaks TLS only: a client that a liar in between talked out of it gets nowhere, and its token is not read.
#[tokio::test]
async fn t_046_a_token_without_tls() -> Result<()> {
    let mut row = Row::begin(46).await?;
    let own = row.stage.caller("up=t046")?;
    for token in [own.token.as_str(), "not.a.token", ""] {
        let (_, from) = row.next_attacker();
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
        let mut stream = socket.connect(row.stage.broker).await?;
        let info = first_line(&mut stream).await?;
        let info: Value = serde_json::from_str(info.strip_prefix("INFO ").context("no INFO")?)?;
        ensure!(info.get("tls_required") == Some(&json!(true)), "{info}");
        let nonce = info.get("nonce").and_then(Value::as_str).unwrap_or_default();
        let hello = json!({
            "name": "t046", "auth_token": token, "sig": own.key.sign_nonce(nonce), "tls_required": false, "protocol": 1,
        });
        stream.write_all(format!("CONNECT {hello}\r\nPING\r\n").as_bytes()).await?;
        let answer = rest(&mut stream).await?;
        ensure!(!answer.contains("PONG") && !answer.contains("INFO"), "{answer:?}");
        let reason = row.stage.one_reason("broker", &format!("{from}:"))?;
        ensure!(reason == "tls_required", "{reason}");
        // whatever the token is, the one word: nobody looked at it
        row.saw("closed, reason=tls_required");
    }
    row.control.is_served().await?;
    row.end().await
}

/// Who refuses whom decides about the word: a client that does not trust the broker has shown no certificate.
#[tokio::test]
async fn a_client_that_refuses_the_broker() -> Result<()> {
    let mut row = Row::begin(81).await?;
    let (_, from) = row.next_attacker();
    let other = tempfile::tempdir()?;
    let other = certificates(other.path(), &["broker"])?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    let mut stream = socket.connect(row.stage.broker).await?;
    first_line(&mut stream).await?;
    let config = tls::client_config(&Trust::CaFile(other), None)?;
    let name = ServerName::IpAddress(row.stage.broker.ip().into());
    let refused = TlsConnector::from(config).connect(name, stream).await;
    ensure!(refused.is_err(), "a certificate of another CA was trusted");
    let reason = row.stage.one_reason("broker", &format!("{from}:"))?;
    ensure!(reason == "tls_refused", "{reason}");

    // and one that just hangs up
    let (_, from) = row.next_attacker();
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    let mut stream = socket.connect(row.stage.broker).await?;
    first_line(&mut stream).await?;
    drop(stream);
    let reason = row.stage.one_reason("broker", &format!("{from}:"))?;
    ensure!(reason == "tls_required", "{reason}");
    Ok(())
}

async fn first_line(stream: &mut TcpStream) -> Result<String> {
    let read = async {
        let mut line = Vec::new();
        loop {
            match stream.read_u8().await? {
                b'\n' => return Ok::<_, anyhow::Error>(String::from_utf8(line)?),
                byte => line.push(byte),
            }
            ensure!(line.len() < 65_536, "INFO without end");
        }
    };
    tokio::time::timeout(PATIENCE, read).await.context("no INFO")?
}

/// Everything until the broker hangs up.
async fn rest(stream: &mut TcpStream) -> Result<String> {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // a reset is a way to hang up
    drop(read.context("still connected")?);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
