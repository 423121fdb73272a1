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

/// Days of a year before each month, and of the whole year.
const DAYS: [u32; 13] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365];

/// Unix seconds of a UTCTime or GeneralizedTime, which end in `Z` and have seconds (RFC 5280 §4.1.2.5). Years before 1970 are
/// refused: no clock of ours, and no certificate, has ever been there.
pub(super) fn time(tag: u8, content: &[u8]) -> Result<i64, Refused> {
    let digits = content.strip_suffix(b"Z").ok_or(Refused::Malformed)?;
    let short = match (tag, digits.len()) {
        (UTC_TIME, 12) => true,
        (GENERALIZED_TIME, 14) => false,
        _ => return Err(Refused::Malformed),
    };
    let mut numbers = [0_u32; 7];
    for (number, pair) in numbers.iter_mut().skip(short.into()).zip(digits.chunks_exact(2)) {
        *number = match pair {
            [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => two_digits(*tens, *ones),
            _ => return Err(Refused::Malformed),
        };
    }
    let [century, year, month, day, hour, minute, second] = numbers;
    let century = match (short, year) {
        (true, 0..50) => 20,
        (true, _) => 19,
        (false, _) => century,
    };
    if month == 0 || day == 0 || hour > 23 || minute > 59 || second > 59 {
        return Err(Refused::Malformed);
    }
    // Nothing below wraps: every number has two digits. 32 bits, because a small processor has no more.
    let year = century.wrapping_mul(100).wrapping_add(year);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let month = month.wrapping_sub(1) as usize;
    let Some([before, after, ..]) = DAYS.get(month..) else { return Err(Refused::Malformed) };
    let longer = u32::from(leap && month == 1);
    if year < 1970 || day > after.wrapping_sub(*before).wrapping_add(longer) {
        return Err(Refused::Malformed);
    }
    let years = year.wrapping_sub(1);
    let leap_days = (years / 4).wrapping_sub(years / 100).wrapping_add(years / 400);
    let days = years
        .wrapping_mul(365)
        .wrapping_add(leap_days)
        .wrapping_add(*before)
        .wrapping_add(u32::from(leap && month > 1))
        .wrapping_add(day)
        // from the first day of year 1 to 1970
        .wrapping_sub(719_163);
    let clock = hour.wrapping_mul(3600).wrapping_add(minute.wrapping_mul(60)).wrapping_add(second);
    Ok(i64::from(days).wrapping_mul(86_400).wrapping_add(i64::from(clock)))
}

fn two_digits(tens: u8, ones: u8) -> u32 {
    u32::from(tens & 0x0f).wrapping_mul(10).wrapping_add(u32::from(ones & 0x0f))
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
        assert_eq!(time(UTC_TIME, b"000301000000Z"), Ok(951_868_800));
        assert_eq!(time(UTC_TIME, b"261231000000Z"), Ok(1_798_675_200));
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

    #[test]
    fn every_day_for_three_centuries() {
        let mut days = 0;
        for year in 1970..2270 {
            let leap = year % 400 == 0 || year % 4 == 0 && year % 100 != 0;
            let february = if leap { 29 } else { 28 };
            for (month, last) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
                for day in 1..=31 {
                    let text = std::format!("{year:04}{month:02}{day:02}000001Z");
                    let expected = if day > last { Err(Refused::Malformed) } else { Ok(days * 86_400 + 1) };
                    assert_eq!(time(GENERALIZED_TIME, text.as_bytes()), expected, "{text}");
                    days += i64::from(day <= last);
                }
            }
        }
    }
}
