//! Addresses from `plugin.choria.network.client_hosts`: single ones or ranges in CIDR form.

use std::net::IpAddr;

/// A set of addresses.
#[derive(Debug, Clone, Default)]
pub struct AllowList(Vec<Range>);

#[derive(Debug, Clone, Copy)]
struct Range {
    address: u128,
    mask: u128,
}

impl AllowList {
    /// From addresses and CIDR ranges; the first that is neither is the error.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<AllowList, String> {
        entries
            .into_iter()
            .map(|text| Range::parse(text).ok_or_else(|| text.to_owned()))
            .collect::<Result<_, _>>()
            .map(AllowList)
    }

    /// Whether the list was left empty, which switches it off.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the address is in the set. IPv4 and its form inside IPv6 are the same address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.0.iter().any(|range| bits & range.mask == range.address)
    }
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let (address, length) = match text.split_once('/') {
            None => (text.parse::<IpAddr>().ok()?, None),
            Some((address, length)) => (address.parse::<IpAddr>().ok()?, Some(length.parse::<u32>().ok()?)),
        };
        let width = if address.is_ipv4() { 32_u32 } else { 128 };
        let host_bits = width.checked_sub(length.unwrap_or(width))?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(Range { address: bits(address) & mask, mask })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from_be_bytes(v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => u128::from_be_bytes(v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ranges() {
        let list = AllowList::parse(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]).unwrap();
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7", "2001:db8::1"] {
            assert!(list.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::1"] {
            assert!(!list.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(AllowList::parse(["0.0.0.0/0"]).unwrap().contains("203.0.113.1".parse().unwrap()));
        assert!(!AllowList::parse(["0.0.0.0/0"]).unwrap().contains("2001:db8::1".parse().unwrap()));
        for bad in ["10.0.0.0/33", "x", "", "10.0.0.0/-1"] {
            assert_eq!(AllowList::parse([bad]).unwrap_err(), bad);
        }
    }
}
