//! Writing the section, for tools that make images.

use sha2::{Digest, Sha256};

use super::{
    BUILT, BakedError, FLAGS, Flags, HEAD, IDENTITY, ISSUER, JWT, MAGIC, PIN, SECTION, SEED, SERVER_NAME,
    TIME_SERVER, URL, VERSION, pin_kind,
};
use crate::append::append;
use crate::x509pin::Pin;

/// One value. Kinds that may come several times come as several records.
#[derive(Debug, Clone, Copy)]
pub enum Record<'r> {
    ProvisioningJwt(&'r str),
    Issuer([u8; 32]),
    Pin(Pin),
    ServerName(&'r str),
    Url(&'r str),
    Identity(&'r str),
    /// Unix seconds.
    Built(u64),
    Seed([u8; 32]),
    Flags(Flags),
    /// `host[:port]`.
    TimeServer(&'r str),
}

/// Fills `section`; what is behind the body is 0xFF. The same records give the same bytes.
pub fn write(records: &[Record<'_>], section: &mut [u8; SECTION]) -> Result<(), BakedError> {
    section.fill(0xff);
    let (head, body) = section.split_at_mut_checked(HEAD).ok_or(BakedError::TooLarge)?;
    let mut at = 0_usize;
    for record in records {
        at = match record {
            Record::ProvisioningJwt(text) => put(body, at, JWT, &[text.as_bytes()]),
            Record::Issuer(key) => put(body, at, ISSUER, &[key]),
            Record::Pin(pin) => {
                let (kind, bytes) = pin_kind(pin);
                put(body, at, PIN, &[&[kind], bytes])
            }
            Record::ServerName(text) => put(body, at, SERVER_NAME, &[text.as_bytes()]),
            Record::Url(text) => put(body, at, URL, &[text.as_bytes()]),
            Record::Identity(text) => put(body, at, IDENTITY, &[text.as_bytes()]),
            Record::Built(seconds) => put(body, at, BUILT, &[&seconds.to_le_bytes()]),
            Record::Seed(seed) => put(body, at, SEED, &[seed]),
            Record::TimeServer(text) => put(body, at, TIME_SERVER, &[text.as_bytes()]),
            Record::Flags(flags) => put(body, at, FLAGS, &[&flags.bits().to_le_bytes()]),
        }?;
    }
    let body = body.get(..at).ok_or(BakedError::TooLarge)?;
    let length = u16::try_from(body.len()).map_err(|_| BakedError::TooLarge)?;
    let digest = Sha256::digest(body);
    let parts: [&[u8]; 4] = [MAGIC, &VERSION.to_le_bytes(), &length.to_le_bytes(), &digest];
    for (to, from) in head.iter_mut().zip(parts.iter().flat_map(|part| part.iter())) {
        *to = *from;
    }
    Ok(())
}

fn put(body: &mut [u8], at: usize, tag: u8, parts: &[&[u8]]) -> Result<usize, BakedError> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u16::try_from(length).map_err(|_| BakedError::TooLarge)?;
    let mut at = at;
    for part in [&[tag][..], &length.to_le_bytes()].iter().chain(parts) {
        at = append(body, at, part).ok_or(BakedError::TooLarge)?;
    }
    Ok(at)
}
