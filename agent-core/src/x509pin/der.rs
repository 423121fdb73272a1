//! Strict DER: definite lengths in their shortest form, nothing left over.

use super::Refused;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
const LONG_TAG: u8 = 0x1f;

/// What is left to read of some DER.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'d>(&'d [u8]);

impl<'d> Reader<'d> {
    pub(super) fn new(bytes: &'d [u8]) -> Reader<'d> {
        Reader(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag of the next element.
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element: its tag, its content, and all of it.
    pub(super) fn any(&mut self) -> Result<(u8, &'d [u8], &'d [u8]), Refused> {
        let whole = self.0;
        let (&tag, rest) = whole.split_first().ok_or(Refused::Malformed)?;
        if tag & LONG_TAG == LONG_TAG {
            // A number that goes on in the next byte: nothing in a certificate has one.
            return Err(Refused::Malformed);
        }
        let (&first, mut rest) = rest.split_first().ok_or(Refused::Malformed)?;
        let len = if first < 0x80 {
            usize::from(first)
        } else {
            // 64 KiB bound a certificate
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 2 {
                return Err(Refused::Malformed);
            }
            let (digits, after) = rest.split_at_checked(count).ok_or(Refused::Malformed)?;
            rest = after;
            let len = digits.iter().fold(0_usize, |sum, digit| (sum << 8) | usize::from(*digit));
            let shortest = if count == 1 { 0x80 } else { 0x100 };
            if len < shortest {
                return Err(Refused::Malformed);
            }
            len
        };
        let (content, after) = rest.split_at_checked(len).ok_or(Refused::Malformed)?;
        self.0 = after;
        let taken = whole.len().saturating_sub(after.len());
        Ok((tag, content, whole.get(..taken).unwrap_or_default()))
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, wanted: u8) -> Result<&'d [u8], Refused> {
        match self.any()? {
            (tag, content, _) if tag == wanted => Ok(content),
            _ => Err(Refused::Malformed),
        }
    }

    /// The content of the next element if it has this tag.
    pub(super) fn optional(&mut self, wanted: u8) -> Result<Option<&'d [u8]>, Refused> {
        if self.peek() == Some(wanted) { self.expect(wanted).map(Some) } else { Ok(None) }
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Refused> {
        if self.0.is_empty() { Ok(()) } else { Err(Refused::Malformed) }
    }
}

/// The bytes of a bit string that has whole bytes.
pub(super) fn bits(content: &[u8]) -> Result<&[u8], Refused> {
    match content.split_first() {
        Some((0, bits)) => Ok(bits),
        _ => Err(Refused::Malformed),
    }
}

/// TRUE is one byte of ones in DER.
pub(super) fn boolean(content: &[u8]) -> Result<bool, Refused> {
    match content {
        [0xff] => Ok(true),
        [0x00] => Ok(false),
        _ => Err(Refused::Malformed),
    }
}

/// Unix seconds of a UTCTime or GeneralizedTime, which end in `Z` and have seconds (RFC 5280 §4.1.2.5).
pub(super) fn time(tag: u8, content: &[u8]) -> Result<i64, Refused> {
    let two = |at: usize| -> Result<i64, Refused> {
        let end = at.checked_add(2).ok_or(Refused::Malformed)?;
        match content.get(at..end) {
            Some([tens @ b'0'..=b'9', ones @ b'0'..=b'9']) => {
                let digit = |byte: &u8| i64::from(byte & 0x0f);
                Ok(digit(tens).saturating_mul(10).saturating_add(digit(ones)))
            }
            _ => Err(Refused::Malformed),
        }
    };
    let (year, at) = match (tag, content.len()) {
        (UTC_TIME, 13) => {
            let short = two(0)?;
            (short.saturating_add(if short < 50 { 2000 } else { 1900 }), 2)
        }
        (GENERALIZED_TIME, 15) => (two(0)?.saturating_mul(100).saturating_add(two(2)?), 4_usize),
        _ => return Err(Refused::Malformed),
    };
    if content.last() != Some(&b'Z') {
        return Err(Refused::Malformed);
    }
    let part = |number: usize| two(at.saturating_add(number.saturating_mul(2)));
    let (month, day, hour, minute, second) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28_i64.saturating_add(leap.into()),
        _ => return Err(Refused::Malformed),
    };
    // Before 1970 no clock of ours, and nobody's certificate, has ever been.
    if year < 1970 || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return Err(Refused::Malformed);
    }
    let days = days_from_civil(year, month, day);
    let clock = hour.saturating_mul(3600).saturating_add(minute.saturating_mul(60)).saturating_add(second);
    Ok(days.saturating_mul(86_400).saturating_add(clock))
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that the leap day is its last.
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let month = month.saturating_add(9).rem_euclid(12);
    let leaps = (year / 4).saturating_sub(year / 100).saturating_add(year / 400);
    let in_year = month.saturating_mul(153).saturating_add(2) / 5;
    year.saturating_mul(365)
        .saturating_add(leaps)
        .saturating_add(in_year)
        .saturating_add(day)
        .saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_definite_and_shortest() {
        let read = |bytes: &[u8]| Reader::new(bytes).any().map(|(tag, content, _)| (tag, content.len()));
        assert_eq!(read(&[0x30, 0x01, 0x00]), Ok((0x30, 1)));
        let long = [&[0x04, 0x81, 0x80][..], &[0; 128]].concat();
        assert_eq!(read(&long), Ok((0x04, 128)));
        for bad in [
            &[0x30][..],
            &[0x30, 0x80],
            &[0x30, 0x02, 0x00],
            &[0x04, 0x81, 0x01, 0],
            &[0x04, 0x83, 0, 0, 1, 0],
            &[0x04, 0xff],
            &[0x1f, 0x01, 0x00],
            &[0xbf, 0x22, 0x00],
        ] {
            assert_eq!(read(bad), Err(Refused::Malformed), "{bad:?}");
        }
        let padded = [&[0x04, 0x82, 0x00, 0xff][..], &[0; 255]].concat();
        assert_eq!(read(&padded), Err(Refused::Malformed));
    }

    #[test]
    fn times() {
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Ok(0));
        assert_eq!(time(GENERALIZED_TIME, b"20000229123456Z"), Ok(951_827_696));
        assert_eq!(time(UTC_TIME, b"491231235959Z"), Ok(2_524_607_999));
        assert_eq!(time(GENERALIZED_TIME, b"99991231235959Z"), Ok(253_402_300_799));
        for bad in [
            &b"700101000000"[..],
            b"7001010000Z",
            b"701301000000Z",
            b"700001000000Z",
            b"230229000000Z",
            b"230631000000Z",
            b"230600000000Z",
            b"230601240000Z",
            b"230601006000Z",
            b"230601000060Z",
            b"691231235959Z",
            b"70010100000aZ",
            b"700101000000+",
            b"",
        ] {
            assert_eq!(time(UTC_TIME, bad), Err(Refused::Malformed), "{}", bad.escape_ascii());
        }
        assert_eq!(time(GENERALIZED_TIME, b"21000229000000Z"), Err(Refused::Malformed));
        assert_eq!(time(OCTET_STRING, b"700101000000Z"), Err(Refused::Malformed));
    }
}
