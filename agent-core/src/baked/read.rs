//! Reading the section.

use heapless::Vec;
use sha2::{Digest, Sha256};

use super::{
    BUILT, BakedError, FLAGS, Flags, HEAD, IDENTITY, ISSUER, JWT, MAGIC, MAX_BODY, MAX_OF_A_KIND, PIN,
    SECTION, SEED, SERVER_NAME, TIME_SERVER, URL, VERSION, pin_of,
};
use crate::x509pin::Pin;

/// A section whose digest is right. All text borrows it.
#[derive(Clone)]
pub struct Baked<'b> {
    pub provisioning_jwt: &'b str,
    pub issuers: Vec<[u8; 32], MAX_OF_A_KIND>,
    pub pins: Vec<Pin, MAX_OF_A_KIND>,
    pub server_name: Option<&'b str>,
    pub urls: Vec<&'b str, MAX_OF_A_KIND>,
    pub identity: Option<&'b str>,
    /// Unix seconds of the personalisation.
    pub built: i64,
    /// A key that was made elsewhere. A secret.
    pub seed: Option<[u8; 32]>,
    pub flags: Flags,
    /// `host[:port]` of a time server, instead of the broker's host.
    pub time_server: Option<&'b str>,
    /// First bytes of the digest, for fixtures that compare.
    pub digest: [u8; 8],
}

impl core::fmt::Debug for Baked<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Baked")
            .field("identity", &self.identity)
            .field("server_name", &self.server_name)
            .field("built", &self.built)
            .finish_non_exhaustive()
    }
}

impl<'b> Baked<'b> {
    /// Reads a section of [`SECTION`] bytes.
    pub fn parse(section: &'b [u8]) -> Result<Baked<'b>, BakedError> {
        if section.len() != SECTION {
            return Err(BakedError::Damaged);
        }
        if section.iter().all(|byte| *byte == 0xff) {
            return Err(BakedError::Blank);
        }
        let rest = section.strip_prefix(MAGIC).ok_or(BakedError::Damaged)?;
        let (version, rest) = number(rest).ok_or(BakedError::Damaged)?;
        if version != VERSION {
            return Err(BakedError::Version(version));
        }
        let (length, _) = number(rest).ok_or(BakedError::Damaged)?;
        let digest = section.get(8..HEAD).ok_or(BakedError::Damaged)?;
        let body = section.get(HEAD..).and_then(|rest| rest.get(..usize::from(length)));
        let body = body.filter(|body| body.len() <= MAX_BODY).ok_or(BakedError::Damaged)?;
        if Sha256::digest(body).as_slice() != digest {
            return Err(BakedError::Digest);
        }
        let mut baked = Baked {
            provisioning_jwt: "",
            issuers: Vec::new(),
            pins: Vec::new(),
            server_name: None,
            urls: Vec::new(),
            identity: None,
            built: 0,
            seed: None,
            flags: Flags::default(),
            time_server: None,
            digest: [0; 8],
        };
        for (to, from) in baked.digest.iter_mut().zip(digest) {
            *to = *from;
        }
        let mut rest = body;
        while let Some((tag, after)) = rest.split_first() {
            let (length, after) = number(after).ok_or(BakedError::Damaged)?;
            let (value, after) = after.split_at_checked(length.into()).ok_or(BakedError::Damaged)?;
            rest = after;
            baked.take(*tag, value)?;
        }
        if baked.provisioning_jwt.is_empty() {
            return Err(BakedError::Count(JWT));
        }
        Ok(baked)
    }

    fn take(&mut self, tag: u8, value: &'b [u8]) -> Result<(), BakedError> {
        let wrong = || BakedError::Value(tag);
        let text = || {
            let text = core::str::from_utf8(value).ok();
            text.filter(|text| !text.is_empty() && !text.contains(char::is_control)).ok_or_else(wrong)
        };
        let full = |_| BakedError::Count(tag);
        match tag {
            JWT => self.provisioning_jwt = text()?,
            ISSUER => {
                self.issuers.push(value.try_into().map_err(|_| wrong())?).map_err(|_| full(()))?;
            }
            PIN => self.pins.push(pin_of(value).ok_or_else(wrong)?).map_err(|_| full(()))?,
            SERVER_NAME => self.server_name = Some(text()?),
            URL => self.urls.push(text()?).map_err(|_| full(()))?,
            IDENTITY => self.identity = Some(text()?),
            BUILT => {
                let seconds = u64::from_le_bytes(value.try_into().map_err(|_| wrong())?);
                self.built = i64::try_from(seconds).map_err(|_| wrong())?;
            }
            SEED => self.seed = Some(value.try_into().map_err(|_| wrong())?),
            FLAGS => self.flags = Flags::of(u32::from_le_bytes(value.try_into().map_err(|_| wrong())?)),
            TIME_SERVER => self.time_server = Some(text()?),
            _ => {}
        }
        Ok(())
    }
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::super::{Record, write};
    use super::*;
    use std::vec;

    fn section(records: &[Record<'_>]) -> [u8; SECTION] {
        let mut section = [0; SECTION];
        write(records, &mut section).unwrap();
        section
    }

    const ALL: [Record<'static>; 10] = [
        Record::ProvisioningJwt("a.b.c"),
        Record::Issuer([1; 32]),
        Record::Issuer([2; 32]),
        Record::Pin(Pin::CaEd25519([3; 32])),
        Record::Pin(Pin::CaP256([4; 65])),
        Record::ServerName("broker.example.net"),
        Record::Url("nats://192.0.2.1:4222"),
        Record::Identity("d1.example.net"),
        Record::Built(1_700_000_000),
        Record::Flags(Flags {
            tls_required: true,
            require_clock: false,
            trust_signer_for_policies: true,
            half_duplex: false,
        }),
    ];

    #[test]
    fn what_is_written_is_read() {
        let section = section(&ALL);
        let baked = Baked::parse(&section).unwrap();
        assert_eq!(baked.provisioning_jwt, "a.b.c");
        assert_eq!(baked.issuers, [[1; 32], [2; 32]]);
        assert_eq!(baked.pins, [Pin::CaEd25519([3; 32]), Pin::CaP256([4; 65])]);
        assert_eq!((baked.server_name, baked.identity), (Some("broker.example.net"), Some("d1.example.net")));
        assert_eq!(baked.urls, ["nats://192.0.2.1:4222"]);
        assert_eq!((baked.built, baked.seed), (1_700_000_000, None));
        assert!(baked.flags.trust_signer_for_policies && !baked.flags.require_clock);
    }

    #[test]
    fn a_section_that_is_not_ours() {
        assert_eq!(Baked::parse(&[0xff; SECTION]).unwrap_err(), BakedError::Blank);
        assert_eq!(Baked::parse(&[0; SECTION]).unwrap_err(), BakedError::Damaged);
        assert_eq!(Baked::parse(&[0xff; 10]).unwrap_err(), BakedError::Damaged);
        let good = section(&ALL);
        for at in 0..MAX_BODY {
            let mut bad = good;
            bad[at] ^= 0x01;
            let whole = Baked::parse(&good).unwrap();
            // behind the body nothing counts
            if let Ok(read) = Baked::parse(&bad) {
                assert_eq!(read.digest, whole.digest, "byte {at}");
                assert!(at >= HEAD);
            }
        }
        let many = vec![Record::Issuer([1; 32]); 5];
        assert_eq!(Baked::parse(&section(&many)).unwrap_err(), BakedError::Count(ISSUER));
        assert_eq!(Baked::parse(&section(&ALL[1..])).unwrap_err(), BakedError::Count(JWT));
        assert_eq!(
            Baked::parse(&section(&[Record::ProvisioningJwt("a\nb")])).unwrap_err(),
            BakedError::Value(JWT)
        );
    }
}
