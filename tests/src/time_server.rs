//! A time server that says what a test wants.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

/// Seconds from 1900 to 1970.
const ERA: i64 = 2_208_988_800;
/// Says nothing.
const SILENT: i64 = i64::MIN;

/// Answers questions of RFC 4330 on a loopback port until it is dropped.
#[derive(Debug)]
pub struct TimeServer {
    port: u16,
    says: Arc<AtomicI64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TimeServer {
    /// A server that is right.
    pub fn new() -> Result<TimeServer> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let (says, over) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let port = socket.local_addr()?.port();
        let (its, ends) = (Arc::clone(&says), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !ends.load(Ordering::Relaxed) {
                let Ok((48, from)) = socket.recv_from(&mut packet) else { continue };
                let offset = its.load(Ordering::Relaxed);
                if offset != SILENT {
                    let reply = answer(&packet, choria_host::clock::unix_nanos() + offset * 1_000_000_000);
                    // whoever asked is gone: so is the question
                    drop(socket.send_to(&reply, from));
                }
            }
        });
        Ok(TimeServer { port, says, over, thread: Some(thread) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on its time is so many seconds away from the true one.
    pub fn is_wrong_by(&self, seconds: i64) {
        self.says.store(seconds, Ordering::Relaxed);
    }

    /// Says this Unix second instead of the true one.
    pub fn says(&self, seconds: i64) {
        self.is_wrong_by(seconds - choria_host::clock::unix_nanos() / 1_000_000_000);
    }

    pub fn is_silent(&self) {
        self.is_wrong_by(SILENT);
    }
}

impl Drop for TimeServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Version 4, mode "server", stratum 2, with the question's own time as origin.
fn answer(question: &[u8], unix_nanos: i64) -> [u8; 48] {
    let mut reply = [0; 48];
    reply[..2].copy_from_slice(&[0x24, 2]);
    reply[24..32].copy_from_slice(question.get(40..48).unwrap_or(&[0; 8]));
    let (seconds, nanos) = (unix_nanos.div_euclid(1_000_000_000), unix_nanos.rem_euclid(1_000_000_000));
    // Only the low half goes on the wire: the format begins anew every 136 years.
    let counted = (seconds + ERA).rem_euclid(1 << 32);
    reply[40..44].copy_from_slice(&u32::try_from(counted).unwrap_or(0).to_be_bytes());
    let fraction = u32::try_from((nanos << 32) / 1_000_000_000).unwrap_or(0);
    reply[44..48].copy_from_slice(&fraction.to_be_bytes());
    reply
}
