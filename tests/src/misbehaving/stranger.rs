//! Those who never become anybody.

use anyhow::Result;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::peer::{Peer, byte_by_byte, last_words, say};
use super::{Target, Way};
use crate::forge::{self, Key};

/// The first bytes of a ClientHello that announces 512 and never brings them.
const HALF_A_HELLO: [u8; 11] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

pub(super) async fn misbehave(way: Way, target: &Target, peer: Peer) -> Result<Vec<u8>> {
    let (mut plain, info) = peer.greeted(target.broker).await?;
    match way {
        Way::Silence => return Ok(last_words(&mut plain).await),
        Way::HalfAHandshake => {
            say(&mut plain, &HALF_A_HELLO).await;
            return Ok(last_words(&mut plain).await);
        }
        Way::GarbageBeforeTls => {
            say(&mut plain, &forge::random::<512>()?).await;
            return Ok(last_words(&mut plain).await);
        }
        _ => {}
    }
    let mut stream = target.tls.wrap(target.broker, plain).await?;
    let text = match way {
        Way::ConnectByteByByte => return Ok(byte_by_byte(stream, b"CONNECT {\"verbose\":false,").await),
        Way::TenMebibytesWithoutALine => {
            let (mut reading, mut writing) = tokio::io::split(stream);
            let mut heard = Vec::new();
            let flood = async {
                for _ in 0..160 {
                    if writing.write_all(&[b'C'; 64 * 1024]).await.is_err() {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = flood => {}
                // a reset is an end as well
                _ = reading.read_to_end(&mut heard) => {}
            }
            return Ok(heard);
        }
        Way::SilenceInTls => String::new(),
        Way::ConnectCutInTheMiddle => String::from("CONNECT {\"verbose\":fal"),
        Way::ConnectTooLong => format!("CONNECT {{\"name\":\"{}\"}}\r\n", "n".repeat(64 * 1024 + 1)),
        Way::DeepJson => format!("CONNECT {{\"name\":{}{}}}\r\n", "[".repeat(10_000), "]".repeat(10_000)),
        Way::PublishBeforeConnect => String::from("PUB choria.broadcast.agent.discovery 2\r\nhi\r\n"),
        _ => {
            let (forger, key) = (Key::generate()?, Key::generate()?);
            let token = forge::token(&forge::client("up=mallory", &key)?, &forger);
            let nonce = info.get("nonce").and_then(serde_json::Value::as_str).unwrap_or_default();
            let hello = json!({"verbose": false, "name": "mallory", "lang": "test", "version": "1", "protocol": 1,
                "auth_token": token, "sig": key.sign_nonce(nonce)});
            format!("CONNECT {hello}\r\nPING\r\n")
        }
    };
    say(&mut *stream, text.as_bytes()).await;
    Ok(last_words(&mut *stream).await)
}
