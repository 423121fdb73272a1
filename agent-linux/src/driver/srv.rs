//! SRV records, as far as finding a broker needs them: one UDP question to the resolvers of the system.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::broker_target::Broker;

const SRV: u16 = 33;
const TIMEOUT: Duration = Duration::from_secs(2);
/// Records taken from one answer.
const MAX_RECORDS: usize = 64;

/// Why a lookup gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum SrvError {
    #[error("'{0}' is no DNS name")]
    BadName(String),
    #[error("/etc/resolv.conf names no DNS server")]
    NoResolver,
    #[error("no DNS server answered: {0}")]
    Io(#[from] std::io::Error),
    #[error("the DNS server's answer could not be read")]
    Malformed,
}

/// The targets of an SRV name, best priority first; empty when there are none.
pub(super) async fn lookup(name: &str) -> Result<Vec<Broker>, SrvError> {
    let id = u16::from_be_bytes(choria_host::random::array());
    let question = question(id, name).ok_or_else(|| SrvError::BadName(name.to_owned()))?;
    let resolvers = resolvers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let mut last = SrvError::NoResolver;
    for resolver in resolvers {
        match ask(resolver, &question, id).await {
            Ok(found) => return Ok(found),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask(resolver: SocketAddr, question: &[u8], id: u16) -> Result<Vec<Broker>, SrvError> {
    let local: SocketAddr = if resolver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0u8; 4096];
    let size = tokio::time::timeout(TIMEOUT, socket.recv(&mut answer))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    parse(answer.get(..size).unwrap_or_default(), id).ok_or(SrvError::Malformed)
}

fn resolvers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .take(3)
        .collect()
}

fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&id.to_be_bytes());
    // Recursion desired, one question.
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&SRV.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    (bytes.len() <= 280).then_some(bytes)
}

struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u16(&mut self) -> Option<u16> {
        let bytes = self.all.get(self.at..self.at.checked_add(2)?)?;
        self.at = self.at.checked_add(2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.all.len())?;
        Some(())
    }

    /// A name, following at most 16 pointers.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut after, mut jumps) = (self.at, None, 0);
        loop {
            let length = usize::from(*self.all.get(at)?);
            if length & 0xc0 == 0xc0 {
                let low = usize::from(*self.all.get(at.checked_add(1)?)?);
                after = after.or(at.checked_add(2));
                at = ((length & 0x3f) << 8) | low;
                jumps += 1;
                if jumps > 16 {
                    return None;
                }
                continue;
            }
            let start = at.checked_add(1)?;
            if length == 0 {
                self.at = after.unwrap_or(start);
                return Some(name);
            }
            let end = start.checked_add(length)?;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(std::str::from_utf8(self.all.get(start..end)?).ok()?);
            if name.len() > 253 {
                return None;
            }
            at = end;
        }
    }
}

fn parse(answer: &[u8], id: u16) -> Option<Vec<Broker>> {
    let mut reader = Reader { all: answer, at: 0 };
    let (answered, flags) = (reader.u16()?, reader.u16()?);
    if answered != id || flags & 0x8000 == 0 {
        return None;
    }
    let (questions, records) = (reader.u16()?, reader.u16()?);
    reader.skip(4)?;
    for _ in 0..questions {
        reader.name()?;
        reader.skip(4)?;
    }
    let mut found = Vec::new();
    for _ in 0..usize::from(records).min(MAX_RECORDS) {
        reader.name()?;
        let kind = reader.u16()?;
        reader.skip(6)?;
        let length = usize::from(reader.u16()?);
        let end = reader.at.checked_add(length)?;
        if kind == SRV {
            let (priority, weight, port) = (reader.u16()?, reader.u16()?, reader.u16()?);
            let host = reader.name()?;
            if !host.is_empty() && port != 0 {
                found.push((priority, std::cmp::Reverse(weight), Broker { host, port }));
            }
        }
        reader.at = end;
    }
    found.sort_by_key(|(priority, weight, _)| (*priority, *weight));
    Some(found.into_iter().map(|(_, _, broker)| broker).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_compressed_names() {
        let mut answer = question(7, "_choria-provisioner._tcp.example.net").unwrap();
        answer[2] = 0x81;
        answer[7] = 2;
        for (priority, weight, host) in [(20u16, 0u16, "b"), (10, 5, "a")] {
            answer.extend_from_slice(&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
            let mut data = Vec::new();
            data.extend_from_slice(&priority.to_be_bytes());
            data.extend_from_slice(&weight.to_be_bytes());
            data.extend_from_slice(&4222u16.to_be_bytes());
            data.push(1);
            data.extend_from_slice(host.as_bytes());
            // The domain stands behind the two labels of the question.
            data.extend_from_slice(&[0xc0, 12 + 20 + 5]);
            answer.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            answer.extend_from_slice(&data);
        }
        let found = parse(&answer, 7).unwrap();
        let names: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["nats://a.example.net:4222", "nats://b.example.net:4222"]);
        assert!(parse(&answer, 8).is_none(), "another question's answer");
        for cut in 0..answer.len() {
            parse(&answer[..cut], 7);
        }
    }

    #[test]
    fn pointer_loops_end() {
        let mut answer = vec![0, 7, 0x81, 0x80, 0, 0, 0, 1, 0, 0, 0, 0];
        answer.extend_from_slice(&[0xc0, 12]);
        assert!(parse(&answer, 7).is_none());
        assert!(question(1, "a..b").is_none() && question(1, &"x".repeat(64)).is_none());
    }

    #[test]
    fn resolvers_of_the_system() {
        let found =
            resolvers("# comment\nnameserver 192.0.2.1\noptions x\nnameserver 2001:db8::1\nnameserver bad\n");
        assert_eq!(found.len(), 2);
    }
}
