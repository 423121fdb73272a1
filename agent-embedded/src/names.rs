//! Where a host is: what a name server says, asked anew for each connection.
//!
//! Nobody vouches for the answer. It does not have to be true: whoever answers at the address has to have the certificate.

use core::net::Ipv4Addr;

use embassy_net::{IpAddress, Stack};

// for two of its features only
use smoltcp as _;

use crate::brokers::Host;

/// The address of `host`; of a name with several the one whose `turn` it is. `None`: no name server has one.
pub(crate) async fn address(stack: Stack<'_>, host: &Host, turn: usize) -> Option<Ipv4Addr> {
    let name = match host {
        Host::Address(address) => return Some(*address),
        Host::Name(name) => name,
    };
    let found = stack.dns_query(name, embassy_net::dns::DnsQueryType::A).await.ok()?;
    let at = turn.checked_rem(found.len())?;
    // By their order as numbers: many servers turn the list with each question, which would take the turn out of ours.
    let place = |one: &IpAddress| found.iter().filter(|other| *other < one).count();
    let one = found.iter().find(|one| place(one) == at).or(found.first());
    one.map(|IpAddress::Ipv4(address)| *address)
}
