//! Where the brokers are: URLs with an address or a name, as images and configurations hold them.

use core::fmt;
use core::net::Ipv4Addr;

use agent_core::json::integer;
use heapless::Vec;

/// Brokers that are kept of a list; the rest is not tried.
pub(crate) const MAX_BROKERS: usize = 4;
const DEFAULT_PORT: u16 = 4222;

/// Longest text of a host, bytes.
pub(crate) const MAX_HOST: usize = if cfg!(feature = "dns") { 128 } else { 15 };
/// Longest URL of a broker, bytes.
pub(crate) const MAX_URL: usize = "nats://".len() + MAX_HOST + ":65535".len();

/// One broker, or a time server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// A machine of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Address(Ipv4Addr),
    /// For a name server.
    #[cfg(feature = "dns")]
    Name(heapless::String<MAX_HOST>),
}

impl Host {
    fn parse(text: &str) -> Option<Host> {
        if let Some(address) = address(text) {
            return Some(Host::Address(address));
        }
        #[cfg(feature = "dns")]
        if is_name(text) {
            let mut name = heapless::String::try_from(text).ok()?;
            // as zones are spelled: the answer has to be about this name to the letter
            name.make_ascii_lowercase();
            return Some(Host::Name(name));
        }
        None
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => address.fmt(f),
            #[cfg(feature = "dns")]
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// Labels of letters, digits, `-` and `_`. The last is no number: what looks like an address is one, or a mistake.
#[cfg(feature = "dns")]
fn is_name(text: &str) -> bool {
    let fine = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let mut last = "";
    for label in text.split('.') {
        if !(1..=63).contains(&label.len()) || !label.bytes().all(fine) {
            return false;
        }
        last = label;
    }
    !last.bytes().all(|c| c.is_ascii_digit())
}

/// The brokers of a comma separated list. What is neither address nor name is passed over, and in a build without `dns` a
/// name, too.
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
        Some((host, port)) => (host, u16::try_from(plain(port)?).ok().filter(|port| *port > 0)?),
        None => (rest, port),
    };
    Some(Broker { host: Host::parse(host)?, port })
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
        let broker = |last, port| Broker { host: Host::Address(Ipv4Addr::new(192, 0, 2, last)), port };
        #[cfg(not(feature = "dns"))]
        assert_eq!(brokers.as_slice(), [broker(1, 4223), broker(2, 4222), broker(4, 4222)]);
        #[cfg(feature = "dns")]
        {
            let named = Broker { host: Host::Name("broker.example.net".try_into().unwrap()), port: 4222 };
            assert_eq!(brokers.as_slice(), [broker(1, 4223), broker(2, 4222), named, broker(4, 4222)]);
        }
        for wrong in [
            "010.0.0.1",
            "+10.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.",
            "256.0.0.1",
            "1.2.3.4:-0",
            "1.2.3.4:0",
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

    #[cfg(feature = "dns")]
    #[test]
    fn names() {
        for fine in ["a", "broker.example.net", "b-1.x_y.net", "1.2.3.4x"] {
            let read = one(fine, 1).map(|broker| std::format!("{}", broker.host));
            assert_eq!(read.as_deref(), Some(fine));
        }
        let shouted = one("Broker.Example.NET:1", 1).map(|broker| std::format!("{}", broker.host));
        assert_eq!(shouted.as_deref(), Some("broker.example.net"));
        let long = "a".repeat(64);
        let many = ["abcdefg"; 17].join(".");
        for wrong in ["a..b", ".a", "a.", "a b", "user@host", "a/b", "::1", "host.7", &long, &many] {
            assert_eq!(one(wrong, 1), None, "{wrong}");
        }
    }
}
