//! What the extensions of a certificate allow it to be.

use super::der::{self, Reader};
use super::{Refused, ServerName};

const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

/// Bits of keyUsage, first byte.
const DIGITAL_SIGNATURE: u8 = 0x80;
const KEY_CERT_SIGN: u8 = 0x04;

/// What a certificate says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extensions {
    pub(super) is_authority: bool,
    /// The first byte of keyUsage; `None`: anything.
    usage: Option<u8>,
    /// Whether it may be a server; true without a list of purposes.
    for_servers: bool,
    named: bool,
}

impl Extensions {
    /// Reads all of them; `name` is looked for on the way.
    pub(super) fn read(list: &[u8], name: Option<ServerName<'_>>) -> Result<Extensions, Refused> {
        let mut found = Extensions { is_authority: false, usage: None, for_servers: true, named: false };
        // Which of the four have been seen: a second one of a kind could contradict the first.
        let mut seen = [false; 4];
        let mut list = Reader::new(list);
        while !list.is_empty() {
            let mut extension = Reader::new(list.expect(der::SEQUENCE)?);
            let id = extension.expect(der::OID)?;
            let critical = match extension.optional(der::BOOLEAN)? {
                Some(content) => der::boolean(content)?,
                None => false,
            };
            let value = extension.expect(der::OCTET_STRING)?;
            extension.end()?;
            let number = match id {
                KEY_USAGE => 0,
                ALTERNATIVE_NAMES => 1,
                BASIC_CONSTRAINTS => 2,
                EXTENDED_KEY_USAGE => 3,
                // We evaluate none, and what they forbid would be allowed without: also where they are not critical.
                NAME_CONSTRAINTS => return Err(Refused::CriticalExtension),
                _ if critical => return Err(Refused::CriticalExtension),
                _ => continue,
            };
            match seen.get_mut(number) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(Refused::Malformed),
            }
            match number {
                0 => found.usage = Some(usage(value)?),
                1 => found.named = names(value, name)?,
                2 => found.is_authority = is_authority(value)?,
                _ => found.for_servers = for_servers(value)?,
            }
        }
        Ok(found)
    }

    /// A server's certificate for this name.
    pub(super) fn check_leaf(&self) -> Result<(), Refused> {
        if self.is_authority {
            return Err(Refused::Constraints);
        }
        if !self.for_servers || self.usage.is_some_and(|usage| usage & DIGITAL_SIGNATURE == 0) {
            return Err(Refused::Purpose);
        }
        if self.named { Ok(()) } else { Err(Refused::Name) }
    }

    /// An authority's certificate.
    pub(super) fn check_authority(&self) -> Result<(), Refused> {
        if !self.is_authority || self.usage.is_some_and(|usage| usage & KEY_CERT_SIGN == 0) {
            return Err(Refused::Constraints);
        }
        if self.for_servers { Ok(()) } else { Err(Refused::Purpose) }
    }
}

fn usage(value: &[u8]) -> Result<u8, Refused> {
    let mut value = Reader::new(value);
    let bits = value.expect(der::BIT_STRING)?;
    value.end()?;
    match bits {
        [0..=7, first] | [0..=7, first, _] => Ok(*first),
        _ => Err(Refused::Malformed),
    }
}

fn names(value: &[u8], wanted: Option<ServerName<'_>>) -> Result<bool, Refused> {
    let mut value = Reader::new(value);
    let mut list = Reader::new(value.expect(der::SEQUENCE)?);
    value.end()?;
    let mut found = false;
    while !list.is_empty() {
        let (tag, content, _) = list.any()?;
        if !matches!(tag, 0x81 | 0x82 | 0x86..=0x88 | 0xa0 | 0xa3..=0xa5) {
            return Err(Refused::Malformed);
        }
        found |= wanted.is_some_and(|wanted| wanted.is(tag, content));
    }
    Ok(found)
}

fn is_authority(value: &[u8]) -> Result<bool, Refused> {
    let mut value = Reader::new(value);
    let mut fields = Reader::new(value.expect(der::SEQUENCE)?);
    value.end()?;
    let authority = match fields.optional(der::BOOLEAN)? {
        Some(content) => der::boolean(content)?,
        None => false,
    };
    // How many authorities may follow: with at most one intermediate below a pin, any number will do.
    match fields.optional(der::INTEGER)? {
        None | Some([0..=0x7f]) => {}
        Some(_) => return Err(Refused::Malformed),
    }
    fields.end()?;
    Ok(authority)
}

fn for_servers(value: &[u8]) -> Result<bool, Refused> {
    let mut value = Reader::new(value);
    let mut list = Reader::new(value.expect(der::SEQUENCE)?);
    value.end()?;
    let mut found = false;
    while !list.is_empty() {
        found |= list.expect(der::OID)? == SERVER_AUTH;
    }
    Ok(found)
}
