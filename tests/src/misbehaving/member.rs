//! Those who are let in, and then misbehave.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::peer::{Bytes, Peer, last_words, say};
use super::{Target, Way};
use crate::forge::{self, Key};

/// Where floods go.
const FLOODED: &str = "flood.water";
/// Nobody may flood longer before it begins anew.
const ROUND: Duration = Duration::from_secs(10);

pub(super) async fn misbehave(way: Way, target: &Target, peer: Peer) -> Result<Vec<u8>> {
    let (plain, info) = peer.greeted(target.broker).await?;
    let nonce = info.get("nonce").and_then(Value::as_str).unwrap_or_default();
    let mut hello = json!({"verbose": false, "lang": "test", "version": "1", "protocol": 1, "headers": true});
    let said = hello.as_object_mut().context("an object")?;
    if way == Way::CandidateFlood {
        said.insert("name".into(), format!("candidate{}.example.net", peer.number).into());
        said.insert("auth_token".into(), target.provisioning.clone().into());
    } else {
        let (key, caller) = (Key::generate()?, format!("up=member{}", peer.number));
        let claims = forge::with(
            forge::client(&caller, &key)?,
            json!({"pub_subjects": ["flood.>"], "sub_subjects": ["flood.>"]}),
        );
        said.insert("name".into(), caller.into());
        said.insert("auth_token".into(), forge::token(&claims, &target.org).into());
        said.insert("sig".into(), key.sign_nonce(nonce).into());
    }
    let mut stream = target.tls.wrap(target.broker, plain).await?;
    say(&mut *stream, format!("CONNECT {hello}\r\nPING\r\n").as_bytes()).await;
    let admitted = until(&mut *stream, "PONG").await?;
    anyhow::ensure!(admitted.contains("PONG"), "not admitted: {admitted}");
    let text = match way {
        Way::Churn => return Ok(Vec::new()),
        Way::SlowConsumer => return slow(stream).await,
        Way::Flood => return Ok(flood(stream, FLOODED, 32 * 1024).await),
        Way::CandidateFlood => {
            say(&mut *stream, b"PUB choria.broadcast.agent.discovery 2\r\nhi\r\nPING\r\n").await;
            let refused = until(&mut *stream, "PONG").await?;
            flood(stream, "choria.lifecycle.event.startup.provision_mode_server", 512).await;
            return Ok(refused.into_bytes());
        }
        Way::HugeSize => String::from("PUB flood.x 999999999\r\nx"),
        Way::NegativeSize => String::from("PUB flood.x -1\r\n\r\n"),
        Way::PayloadTooLarge => String::from("PUB flood.x 1048577\r\nxxxx"),
        Way::ManySubscriptions => {
            let mut text = String::new();
            for sid in 0..5000 {
                text += &format!("SUB flood.s{sid} {sid}\r\n");
            }
            text + "PING\r\n"
        }
        Way::StrangeSubjects => {
            let (deep, long) = (vec!["flood"; 33].join("."), format!("flood.{}", "x".repeat(1025)));
            format!("SUB {deep} 1\r\nSUB {long} 2\r\nSUB flood..x 3\r\nPING\r\n")
        }
        _ => "PING\r\n".repeat(100_000),
    };
    say(&mut *stream, text.as_bytes()).await;
    match way {
        Way::ManySubscriptions | Way::StrangeSubjects => Ok(until(&mut *stream, "PONG").await?.into_bytes()),
        Way::PingsWithoutReading => {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(Vec::new())
        }
        _ => Ok(last_words(&mut *stream).await),
    }
}

/// Everything until this was said.
async fn until(stream: &mut dyn Bytes, word: &str) -> Result<String> {
    let mut heard = String::new();
    let mut buffer = vec![0; 64 * 1024];
    while !heard.contains(word) {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        heard += &String::from_utf8_lossy(buffer.get(..count).unwrap_or_default());
    }
    Ok(heard)
}

/// Wants the flood, and takes a sip of it every second.
async fn slow(mut stream: Box<dyn Bytes>) -> Result<Vec<u8>> {
    say(&mut *stream, format!("SUB {FLOODED} 1\r\nPING\r\n").as_bytes()).await;
    let mut sip = [0; 512];
    while let Ok(1..) = stream.read(&mut sip).await {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // whoever hung up does not take this either, whatever is still to be read
        if stream.write_all(b"PONG\r\n").await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
    Ok(Vec::new())
}

async fn flood(stream: Box<dyn Bytes>, subject: &str, size: usize) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let message = format!("PUB {subject} {size}\r\n{}\r\n", "f".repeat(size));
    let batch = message.repeat((64 * 1024 / message.len()).max(1));
    let flood = async { while writing.write_all(batch.as_bytes()).await.is_ok() {} };
    let mut sink = [0; 4096];
    let listen = async { while let Ok(1..) = reading.read(&mut sink).await {} };
    tokio::select! {
        () = flood => {}
        () = listen => {}
        () = tokio::time::sleep(ROUND) => {}
    }
    Vec::new()
}
