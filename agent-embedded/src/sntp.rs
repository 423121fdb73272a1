//! What time it is, from a time server, while no connection uses the buffers.

use core::net::Ipv4Addr;

use agent_core::sntp::{self, PACKET};
use embassy_net::udp::{PacketMetadata, UdpSocket};
use embassy_net::{IpAddress, Stack};
use embassy_time::{Duration, Instant, with_timeout};
use rand_core::RngCore as _;

use crate::generator::Generator;

/// Questions before the device goes on without an answer.
const TRIES: u8 = 3;
const PATIENCE: Duration = Duration::from_secs(1);

/// Unix nanoseconds and the monotonic milliseconds at which the answer came; `None` without one.
pub(crate) async fn ask(
    stack: Stack<'_>,
    server: (Ipv4Addr, u16),
    rng: &mut Generator,
    rx: &mut [u8],
    tx: &mut [u8],
) -> Option<(i64, u64)> {
    let (mut into, mut out) = ([PacketMetadata::EMPTY; 2], [PacketMetadata::EMPTY; 1]);
    let mut socket = UdpSocket::new(stack, &mut into, rx, &mut out, tx);
    socket.bind(0).ok()?;
    let to = (IpAddress::Ipv4(server.0), server.1);
    for _ in 0..TRIES {
        let mut nonce = [0; 8];
        rng.fill_bytes(&mut nonce);
        let talk = async {
            socket.send_to(&sntp::question(&nonce), to).await.ok()?;
            loop {
                let mut packet = [0; PACKET];
                // Longer ones are signed or extended, and end in an error here; others may ask the same server.
                let heard = socket.recv_from(&mut packet).await;
                if let Ok((PACKET, from)) = heard
                    && from.endpoint.addr == to.0
                    && let Some(nanos) = sntp::answer(&packet, &nonce)
                {
                    return Some((nanos, Instant::now().as_millis()));
                }
            }
        };
        if let Ok(Some(time)) = with_timeout(PATIENCE, talk).await {
            return Some(time);
        }
    }
    None
}
