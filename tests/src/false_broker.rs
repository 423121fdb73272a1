//! Somebody who plays a broker in front of a device, by the rules or not.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::forge;
use crate::liar::Message;

/// INFO of an ordinary broker.
pub const INFO: &str = r#"{"server_id":"x","nonce":"abcdefghijk","tls_required":true,"max_payload":1048576}"#;
/// How long a read waits before it looks whether there is something to say.
const TURN: Duration = Duration::from_millis(20);

/// What is done with a connection.
#[derive(Clone)]
pub enum Act {
    /// All is handed on to a broker on this port of the loopback address.
    Forward(u16),
    /// These bytes at once, then noise until the device has enough.
    Noise(&'static [u8]),
    /// INFO, then TLS, then this.
    Face { info: String, tls: Arc<ServerConfig>, then: Then },
}

/// What follows the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// A broker that lets everybody in: PONG to PING, and what the test has it say.
    Obey,
    /// Noise where records of TLS should be.
    NoisyRecords,
    /// Noise within TLS, before the device is let in.
    NoisyData,
    /// The device is let in, then there is noise that begins like the protocol.
    NoisyProtocol,
}

impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Act")
    }
}

/// A listener on the loopback address; it ends with the test.
#[derive(Debug)]
pub struct FalseBroker {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// One for each of the next connections; the last one stays.
    acts: Mutex<VecDeque<Act>>,
    live: Mutex<Vec<TcpStream>>,
    told: Mutex<Told>,
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Told {
    calls: u32,
    /// Handshakes that were completed.
    handshakes: u32,
    /// Whatever a device said within TLS.
    heard: Vec<u8>,
    /// Messages that it published.
    messages: Vec<Message>,
    /// Subjects that it asked for, with their numbers.
    subscriptions: Vec<(String, String)>,
    /// What it is to be told next.
    to_say: Vec<u8>,
}

impl FalseBroker {
    /// Does this with the first connections, the last of them with all that follow.
    pub fn start(acts: Vec<Act>) -> Result<FalseBroker> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared { acts: Mutex::new(acts.into()), ..Shared::default() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if accepting.over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let shared = Arc::clone(&accepting);
                // how a connection ends is seen at the device
                std::thread::spawn(move || drop(shared.meet(connection)));
            }
        });
        Ok(FalseBroker { port, shared })
    }

    /// Does this with the connections that follow, and ends those that there are.
    pub fn turns_to(&self, act: Act) {
        *lock(&self.shared.acts) = [act].into();
        for connection in lock(&self.shared.live).drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    /// Does this with the connections that follow, each in turn; those that there are go on.
    pub fn goes_on_with(&self, acts: Vec<Act>) {
        *lock(&self.shared.acts) = acts.into();
    }

    /// Connections so far.
    pub fn calls(&self) -> u32 {
        lock(&self.shared.told).calls
    }

    pub fn handshakes(&self) -> u32 {
        lock(&self.shared.told).handshakes
    }

    /// What devices said within TLS, to a [`Act::Face`].
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&lock(&self.shared.told).heard).into_owned()
    }

    /// Has a message delivered to whoever subscribed to this subject.
    pub fn deliver(&self, subject: &str, payload: &[u8]) -> Result<()> {
        let mut told = lock(&self.shared.told);
        let found = told.subscriptions.iter().rfind(|(wanted, _)| wanted == subject);
        let (_, number) = found.with_context(|| format!("nobody listens on {subject}"))?;
        let line = format!("MSG {subject} {number} {}\r\n", payload.len());
        told.to_say.extend([line.as_bytes(), payload, b"\r\n"].concat());
        Ok(())
    }

    /// Whether somebody has subscribed to it.
    pub fn is_heard_on(&self, subject: &str) -> bool {
        lock(&self.shared.told).subscriptions.iter().any(|(wanted, _)| wanted == subject)
    }

    /// What was published to this subject.
    pub fn published(&self, subject: &str) -> Vec<Vec<u8>> {
        let told = lock(&self.shared.told);
        told.messages.iter().filter(|m| m.subject == subject).map(|m| m.payload.clone()).collect()
    }
}

impl Drop for FalseBroker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.turns_to(Act::Noise(b""));
        // wakes the one who accepts
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

impl Shared {
    /// One connection; when the act is over, so is the connection.
    fn meet(&self, connection: TcpStream) -> Result<()> {
        lock(&self.told).calls += 1;
        let end = connection.try_clone()?;
        lock(&self.live).push(connection.try_clone()?);
        let outcome = self.perform(connection);
        drop(end.shutdown(Shutdown::Both));
        outcome
    }

    fn perform(&self, mut connection: TcpStream) -> Result<()> {
        connection.set_nodelay(true)?;
        let act = {
            let mut acts = lock(&self.acts);
            let next = acts.pop_front().context("no act")?;
            if acts.is_empty() {
                acts.push_back(next.clone());
            }
            next
        };
        match act {
            Act::Forward(port) => {
                let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
                lock(&self.live).push(broker.try_clone()?);
                let (mut from, mut to) = (connection.try_clone()?, broker.try_clone()?);
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Both));
                });
                let (mut from, mut to) = (broker, connection);
                drop(std::io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Both));
                Ok(())
            }
            Act::Noise(head) => {
                connection.write_all(head)?;
                noise(&mut connection, 64)
            }
            Act::Face { info, tls, then } => {
                connection.write_all(format!("INFO {info}\r\n").as_bytes())?;
                let mut session = ServerConnection::new(tls)?;
                while session.is_handshaking() {
                    session.complete_io(&mut connection)?;
                }
                lock(&self.told).handshakes += 1;
                connection.set_read_timeout(Some(TURN))?;
                let mut stream = StreamOwned::new(session, connection);
                match then {
                    Then::NoisyRecords => noise(&mut stream.sock, 64),
                    Then::NoisyData => noise(&mut stream, 64),
                    Then::Obey | Then::NoisyProtocol => self.serve(&mut stream, then),
                }
            }
        }
    }

    /// A broker's side of the protocol until the connection is gone.
    fn serve(&self, stream: &mut StreamOwned<ServerConnection, TcpStream>, then: Then) -> Result<()> {
        {
            let mut told = lock(&self.told);
            told.subscriptions.clear();
            told.to_say.clear();
        }
        let mut unread = Vec::new();
        loop {
            let to_say = std::mem::take(&mut lock(&self.told).to_say);
            if !to_say.is_empty() {
                stream.write_all(&to_say)?;
                stream.flush()?;
            }
            let mut bytes = [0; 4096];
            let read = match stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(read) => bytes.get(..read).unwrap_or_default(),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error.into()),
            };
            lock(&self.told).heard.extend_from_slice(read);
            unread.extend_from_slice(read);
            while let Some((line, used)) = self.take_line(&unread)? {
                unread.drain(..used);
                if line.starts_with("PING") {
                    stream.write_all(b"PONG\r\n")?;
                    stream.flush()?;
                }
                if line.starts_with("SUB") && then == Then::NoisyProtocol {
                    return noisy_protocol(stream);
                }
            }
        }
    }

    /// The next whole line with what belongs to it, and its bytes.
    fn take_line(&self, unread: &[u8]) -> Result<Option<(String, usize)>> {
        let Some(end) = unread.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(unread.get(..end).unwrap_or_default()).into_owned();
        let mut used = end.saturating_add(2);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["PUB", subject, .., size] => {
                let size: usize = size.parse()?;
                let Some(payload) = unread.get(used..used.saturating_add(size)) else { return Ok(None) };
                used = used.saturating_add(size).saturating_add(2);
                if unread.len() < used {
                    return Ok(None);
                }
                let message = Message { subject: (*subject).to_owned(), payload: payload.to_vec() };
                lock(&self.told).messages.push(message);
            }
            ["SUB", subject, .., number] => {
                lock(&self.told).subscriptions.push(((*subject).to_owned(), (*number).to_owned()));
            }
            ["HPUB", ..] => bail!("a device publishes no headers"),
            _ => {}
        }
        Ok(Some((line, used)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many KiB of random bytes, or fewer when nobody takes them.
fn noise(to: &mut impl std::io::Write, kib: u32) -> Result<()> {
    for _ in 0..kib {
        to.write_all(&forge::random::<1024>()?)?;
        to.flush()?;
    }
    Ok(())
}

/// Beginnings that a device knows, each followed by what does not belong there.
fn noisy_protocol(to: &mut impl std::io::Write) -> Result<()> {
    const HEADS: [&[u8]; 10] = [
        b"MSG choria.node.x 1 ",
        b"MSG provisioning.node.x 1 40\r\n",
        b"HMSG a 1 12 2048\r\nNATS/1.0\r\n\r\n",
        b"MSG a 99 18446744073709551616\r\n",
        b"INFO {\"nonce\":",
        b"INFO [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\r\n",
        b"-ERR '",
        b"PING\r\nPONG\r\n+OK\r\n",
        b"MSG a 1 reply 16\r\n",
        b"\r\n\r\n\0\0",
    ];
    // half of the messages are whole ones, so that what is inside of them is read as well
    for _ in 0..8 {
        let [choice, length, ..] = forge::random::<2>()?;
        let filling = forge::random::<256>()?;
        let filling = filling.get(..usize::from(length)).unwrap_or_default();
        let whole = format!("MSG choria.node.x {} {length}\r\n", choice % 8);
        to.write_all(&[whole.as_bytes(), filling, b"\r\n"].concat())?;
    }
    let [choice, ..] = forge::random::<1>()?;
    let head = HEADS.get(usize::from(choice) % HEADS.len()).copied().unwrap_or_default();
    to.write_all(head)?;
    to.flush()?;
    noise(to, 32)
}
