//! Those who talk HTTP, to the login port and to monitoring.

use anyhow::Result;
use tokio::io::AsyncReadExt as _;

use super::peer::{Peer, byte_by_byte, last_words, say};
use super::{Target, Way};

const LOGIN: &str = "POST /choria/v1/login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

pub(super) async fn misbehave(way: Way, target: &Target, peer: Peer) -> Result<Vec<u8>> {
    match way {
        Way::MonitoringSlowHead => {
            let stream = peer.dial(target.monitoring).await?;
            return Ok(byte_by_byte(Box::new(stream), b"GET /connz HTTP/1.1\r\n").await);
        }
        Way::MonitoringWithoutReading => {
            let mut stream = peer.dial(target.monitoring).await?;
            say(&mut stream, b"GET /connz?subs=1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            // the answer may fit into the kernel's buffers; then there is nothing more to wait for
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            return Ok(last_words(&mut stream).await);
        }
        Way::LoginSilence => {
            let mut stream = peer.dial(target.login).await?;
            return Ok(last_words(&mut stream).await);
        }
        _ => {}
    }
    let mut stream = target.tls.wrap(target.login, peer.dial(target.login).await?).await?;
    match way {
        Way::LoginSlowHead => Ok(byte_by_byte(stream, LOGIN.as_bytes()).await),
        Way::LoginSlowBody => {
            say(&mut *stream, format!("{LOGIN}content-length: 1000\r\n\r\n").as_bytes()).await;
            Ok(byte_by_byte(stream, b"{\"username\":\"choria").await)
        }
        Way::LoginHugeBody => {
            say(&mut *stream, format!("{LOGIN}content-length: 100000000\r\n\r\n").as_bytes()).await;
            let mut answer = vec![0; 4096];
            let count = stream.read(&mut answer).await.unwrap_or(0);
            answer.truncate(count);
            // whoever goes on is cut off
            for _ in 0..64 {
                say(&mut *stream, &[b'x'; 16 * 1024]).await;
            }
            Ok(answer)
        }
        _ => {
            say(&mut *stream, LOGIN.as_bytes()).await;
            say(&mut *stream, format!("x-large: {}\r\n", "x".repeat(1024 * 1024)).as_bytes()).await;
            Ok(last_words(&mut *stream).await)
        }
    }
}
