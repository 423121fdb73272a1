//! A wire tap: hands bytes on between a client and a broker, and keeps what the broker said.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a record beside what it carries, in TLS 1.3: the kind and the tag.
pub const RECORD_OVERHEAD: usize = 17;

/// One tapped connection.
#[derive(Debug)]
pub struct Tap {
    /// Where to connect instead.
    pub address: SocketAddr,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// In front of this broker, for one connection.
    pub async fn before(broker: SocketAddr) -> Result<Tap> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&said);
        tokio::spawn(async move {
            let (client, _) = listener.accept().await?;
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_broker, mut to_broker) = TcpStream::connect(broker).await?.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_broker).await });
            let mut bytes = [0; 16 * 1024];
            loop {
                let read = from_broker.read(&mut bytes).await?;
                let new = bytes.get(..read).unwrap_or_default();
                if new.is_empty() {
                    return std::io::Result::Ok(());
                }
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(new);
                to_client.write_all(new).await?;
            }
        });
        Ok(Tap { address, said })
    }

    /// Kind and length of each whole TLS record that the broker has sent behind its INFO.
    pub fn records(&self) -> Result<Vec<(u8, usize)>> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ensure!(said.starts_with(b"INFO "), "a broker begins with INFO");
        let end = said.iter().position(|byte| *byte == b'\n').context("INFO without end")?;
        let mut rest = said.get(end.saturating_add(1)..).unwrap_or_default();
        let mut records = Vec::new();
        while let [kind, 3, _, high, low, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(next) = after.get(length..) else { break };
            records.push((*kind, length));
            rest = next;
        }
        Ok(records)
    }
}
