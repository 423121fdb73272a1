//! What the processes of a stage hold, and whether an attack left something behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::process::wait_until;
use crate::stage::Stage;

/// More memory than this after a row is growth, in KiB. Less is an allocator that keeps pages.
const MEMORY: u64 = 32 * 1024;
/// Rows run side by side on one stage: the others' connections come and go.
const DESCRIPTORS: usize = 64;

/// Descriptors and resident memory (KiB) of every process, by name.
#[derive(Debug)]
pub(crate) struct Levels(BTreeMap<String, (usize, u64)>);

impl Levels {
    pub(crate) fn of(stage: &Stage) -> Result<Levels> {
        let held = stage.names().into_iter().map(|name| {
            let held = stage.held_by(&name)?;
            Ok((name, held))
        });
        Ok(Levels(held.collect::<Result<_>>()?))
    }

    /// Whether everything that ran before holds about what it held then, and no socket of an attacker who is gone.
    pub(crate) fn are_back(&self, stage: &Stage, number: u16) -> Result<()> {
        wait_until("the attackers' sockets are closed", Duration::from_secs(15), || {
            abandoned(stage.broker.port(), number).is_ok_and(|left| left.is_empty())
        })
        .with_context(|| format!("the broker keeps {:?}", abandoned(stage.broker.port(), number)))?;
        for (name, (descriptors, memory)) in &self.0 {
            let (descriptors_now, memory_now) = stage.held_by(name)?;
            ensure!(
                descriptors_now <= descriptors + DESCRIPTORS,
                "{name} holds {descriptors_now} descriptors after the row, {descriptors} before"
            );
            ensure!(
                memory_now <= memory + MEMORY,
                "{name} holds {memory_now} KiB after the row, {memory} KiB before"
            );
        }
        Ok(())
    }
}

/// The addresses of a row's attackers: those who came with nothing, members who misbehave, carriers to the signer.
pub(crate) fn attacker(kind: u8, number: u16, attempt: u8) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, kind + 10 * high, low, attempt)
}

/// Sockets that the broker still has open to attackers of this row who have closed theirs.
fn abandoned(port: u16, number: u16) -> Result<Vec<SocketAddrV4>> {
    let text = std::fs::read_to_string("/proc/net/tcp").context("/proc/net/tcp")?;
    let mut ours = BTreeSet::new();
    let mut theirs = Vec::new();
    for line in text.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, _, _, _, _, _, _, inode, ..] = words.as_slice() else { continue };
        let (Some(local), Some(remote)) = (address(local), address(remote)) else { continue };
        if *inode == "0" {
            continue; // nobody holds it any more
        }
        if local.port() == port && is_attacker(*remote.ip(), number) {
            theirs.push(remote);
        } else if remote.port() == port {
            ours.insert(local);
        }
    }
    Ok(theirs.into_iter().filter(|peer| !ours.contains(peer)).collect())
}

fn is_attacker(address: Ipv4Addr, number: u16) -> bool {
    (7..=9).any(|kind| {
        let [a, b, c, _] = attacker(kind, number, 0).octets();
        address.octets().starts_with(&[a, b, c])
    })
}

/// `0100007F:1F90` is 127.0.0.1:8080.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (host, port) = text.split_once(':')?;
    let host = u32::from_str_radix(host, 16).ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(host.to_ne_bytes()), u16::from_str_radix(port, 16).ok()?))
}
