//! Where the brokers are: URLs with an address, as images and configurations hold them.

use core::net::Ipv4Addr;

use agent_core::json::integer;
use heapless::Vec;

/// Brokers that are kept of a list; the rest is not tried.
pub(crate) const MAX_BROKERS: usize = 4;
const DEFAULT_PORT: u16 = 4222;

/// One broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
}

/// The brokers of a comma separated list. What is no IPv4 address is passed over: this build resolves no names.
pub(crate) fn parse<'t>(lists: impl Iterator<Item = &'t str>) -> Vec<Broker, MAX_BROKERS> {
    let mut brokers = Vec::new();
    for list in lists {
        for url in list.split(',') {
            if let Some(broker) = one(url.trim_ascii(), DEFAULT_PORT)
                && brokers.push(broker).is_err()
            {
                return brokers;
            }
        }
    }
    brokers
}

/// The server of one URL, or of an address with or without a port.
pub(crate) fn one(url: &str, port: u16) -> Option<Broker> {
    let rest = ["nats://", "tls://"].iter().find_map(|scheme| url.strip_prefix(scheme)).unwrap_or(url);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, u16::try_from(plain(port)?).ok()?),
        None => (rest, port),
    };
    Some(Broker { address: address(host)?, port })
}

/// Digits alone, without a zero before another one.
fn plain(number: &str) -> Option<i64> {
    match number.as_bytes() {
        [b'0', _, ..] | [b'+' | b'-', ..] => None,
        _ => integer(number),
    }
}

/// Four numbers with points between them, no sign and no zero before another digit.
fn address(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = parts.next().and_then(plain)?.try_into().ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_urls() {
        let brokers = parse(
            ["nats://192.0.2.1:4223, tls://192.0.2.2/", "broker.example.net:4222,192.0.2.3:x,,192.0.2.4"]
                .into_iter(),
        );
        let broker = |last, port| Broker { address: Ipv4Addr::new(192, 0, 2, last), port };
        assert_eq!(brokers.as_slice(), [broker(1, 4223), broker(2, 4222), broker(4, 4222)]);
        for wrong in [
            "010.0.0.1",
            "+10.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.",
            "256.0.0.1",
            "1.2.3.4:-0",
            "1.2.3.4:+1",
            "",
        ] {
            assert_eq!(one(wrong, 1), None, "{wrong}");
        }
        assert_eq!(
            parse(["192.0.2.1,192.0.2.1,192.0.2.1,192.0.2.1,192.0.2.1"].into_iter()).len(),
            MAX_BROKERS
        );
    }
}
