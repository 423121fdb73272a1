//! A name server that says what a test wants, to a device in QEMU.
//!
//! QEMU's user network has a name server of its own, which asks this machine's. So the device's cable does not lead there: it
//! leads here, and a second one from here to the user network. Frames go through, but for questions about names.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};

/// An address of the user network where nobody is.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 101);

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
/// Of an answer, before the question.
const HEADER: usize = 12;
/// Longest frame that is handed on.
const FRAME: usize = 2048;

/// What it answers.
#[derive(Debug, Default)]
struct Says {
    /// Of every name that is asked for; without one there is no such name.
    addresses: Vec<Ipv4Addr>,
    /// Copies that come instead of it, each cut off or with a wrong byte, and always another.
    damaged: usize,
    /// Damaged copies so far.
    turn: usize,
    silent: bool,
}

/// Answers one device after the other until it is dropped.
#[derive(Debug)]
pub struct NameServer {
    /// Where the device's cable ends, and the user network's.
    ports: [u16; 2],
    says: Arc<Mutex<Says>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// A server that knows no name.
    pub fn new() -> Result<NameServer> {
        let [device, network] = [listen()?, listen()?];
        let ports = [device.local_addr()?.port(), network.local_addr()?.port()];
        let (says, over) = (Arc::new(Mutex::new(Says::default())), Arc::new(AtomicBool::new(false)));
        let (its, ends) = (Arc::clone(&says), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while let (Some(device), Some(network)) = (accept(&device, &ends), accept(&network, &ends)) {
                // QEMU has ended, or is switched on again
                drop(join(device, network, &its));
            }
        });
        Ok(NameServer { ports, says, over, thread: Some(thread) })
    }

    /// From now on every name has these addresses; without one there is no such name.
    pub fn says(&self, addresses: &[Ipv4Addr]) {
        *lock(&self.says) = Says { addresses: addresses.to_vec(), ..Says::default() };
    }

    /// From now on each answer comes as so many damaged ones.
    pub fn stutters(&self, damaged: usize) {
        lock(&self.says).damaged = damaged;
    }

    /// From now on nothing is answered.
    pub fn is_silent(&self) {
        lock(&self.says).silent = true;
    }

    /// Arguments of QEMU for a device of this network.
    pub fn network(&self) -> Vec<String> {
        let [device, network] = self.ports;
        let netdevs = [
            format!("socket,id=device,connect=127.0.0.1:{device}"),
            "user,id=user".to_owned(),
            format!("socket,id=network,connect=127.0.0.1:{network}"),
            "hubport,id=one,hubid=0,netdev=user".to_owned(),
            "hubport,id=two,hubid=0,netdev=network".to_owned(),
        ];
        let netdevs = netdevs.into_iter().flat_map(|netdev| ["-netdev".to_owned(), netdev]);
        netdevs.chain(["-net".to_owned(), "nic,netdev=device".to_owned()]).collect()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // it waits for a cable
        for port in self.ports {
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

/// The next cable; `None` when the test is over.
fn accept(listener: &TcpListener, over: &AtomicBool) -> Option<TcpStream> {
    let (cable, _) = listener.accept().ok()?;
    (!over.load(Ordering::Relaxed)).then_some(cable)
}

/// Hands frames on until a cable is pulled, which ends both.
fn join(mut device: TcpStream, network: TcpStream, says: &Mutex<Says>) -> Result<()> {
    let to_device = Mutex::new(device.try_clone()?);
    let (mut from_network, mut to_network) = (network.try_clone()?, network);
    std::thread::scope(|both| {
        let back = both.spawn(|| -> Result<()> {
            loop {
                let frame = receive(&mut from_network)?;
                send(&mut lock(&to_device), &frame)?;
            }
        });
        let mut there = || -> Result<()> {
            loop {
                let frame = receive(&mut device)?;
                let Some(question) = Question::of(&frame) else {
                    send(&mut to_network, &frame)?;
                    continue;
                };
                let answers = question.answers(&mut lock(says));
                for text in answers.unwrap_or_default() {
                    let reply = question.reply(&text).context("an answer that is too long")?;
                    send(&mut lock(&to_device), &reply)?;
                }
            }
        };
        let ended = there();
        to_network.shutdown(std::net::Shutdown::Both)?;
        drop(back.join());
        ended
    })
}

/// One frame behind its length, as QEMU writes them.
fn receive(cable: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    cable.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    ensure!(length <= FRAME, "a frame of {length} bytes");
    let mut frame = vec![0; length];
    cable.read_exact(&mut frame)?;
    Ok(frame)
}

fn send(cable: &mut TcpStream, frame: &[u8]) -> Result<()> {
    let length = u32::try_from(frame.len()).context("a long frame")?;
    Ok(cable.write_all(&[&length.to_be_bytes(), frame].concat())?)
}

/// A question about a name, in the frame that it came in.
struct Question<'f> {
    ethernet: &'f [u8],
    ip: &'f [u8],
    udp: &'f [u8],
    text: &'f [u8],
}

impl Question<'_> {
    /// `None` for all other frames.
    fn of(frame: &[u8]) -> Option<Question<'_>> {
        let (ethernet, rest) = frame.split_at_checked(ETHERNET)?;
        let (ip, rest) = rest.split_at_checked(IPV4)?;
        let (udp, text) = rest.split_at_checked(UDP)?;
        let asks = ethernet.ends_with(&[0x08, 0x00])
            && ip.first() == Some(&0x45)
            && ip.get(9) == Some(&17)
            && udp.get(2..4) == Some(&53_u16.to_be_bytes());
        let text = text.get(..usize::from(number(udp, 4)?).checked_sub(UDP)?)?;
        asks.then_some(Question { ethernet, ip, udp, text })
    }

    /// What is said to it, one packet after the other.
    fn answers(&self, says: &mut Says) -> Option<Vec<Vec<u8>>> {
        if says.silent {
            return None;
        }
        let mut reply = Message::from_vec(self.text).ok()?.into_response();
        let name = reply.queries.first()?.name().clone();
        if says.addresses.is_empty() {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        for address in &says.addresses {
            reply.add_answer(Record::from_rdata(name.clone(), 0, RData::A(A(*address))));
        }
        // many servers do
        if let Some(last) = says.addresses.pop() {
            says.addresses.insert(0, last);
        }
        let whole = reply.to_vec().ok()?;
        if says.damaged == 0 {
            return Some(vec![whole]);
        }
        // The header stays: a copy that is no answer to this question is not read any further.
        let (first, places) = (says.turn, whole.len().checked_sub(HEADER)?.max(1));
        says.turn += says.damaged;
        let damaged = |turn: usize| {
            let mut copy = whole.clone();
            let at = HEADER + turn % places;
            match copy.get_mut(at) {
                Some(byte) if (turn / places + turn).is_multiple_of(2) => *byte ^= 0xc1,
                _ => copy.truncate(at),
            }
            copy
        };
        Some((first..says.turn).map(damaged).collect())
    }

    /// The frame that brings `text` to whoever asked.
    fn reply(&self, text: &[u8]) -> Option<Vec<u8>> {
        let Question { ethernet, ip, udp, .. } = self;
        let length = |head: usize| u16::try_from(text.len() + head).ok().map(u16::to_be_bytes);
        let mut packet = [ethernet.get(6..12)?, ethernet.get(..6)?, &[0x08, 0x00]].concat();
        let mut header = [&[0x45, 0], &length(IPV4 + UDP)?[..], &[0, 0, 0, 0, 64, 17, 0, 0]].concat();
        header.extend([ip.get(16..20)?, ip.get(12..16)?].concat());
        let sum = checksum(&header).to_be_bytes();
        header.get_mut(10..12)?.copy_from_slice(&sum);
        packet.extend(header);
        // no checksum: over IPv4 it may be left out
        packet.extend([udp.get(2..4)?, udp.get(..2)?, &length(UDP)?, &[0, 0]].concat());
        packet.extend(text);
        Some(packet)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// The sum of RFC 1071 over an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(number(pair, 0).unwrap_or(0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}
