//! Asking a time server, RFC 4330: one datagram out, one back.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Bytes of a question and of the part of an answer that is read.
pub const PACKET: usize = 48;
/// The port of time servers.
pub const PORT: u16 = 123;

/// Version 4, mode "client".
const QUESTION: u8 = 0x23;
const MODE_SERVER: u8 = 4;
/// Seconds from 1900 to 1970, and those of one turn of the format's 32 bits.
const ERA: i64 = 2_208_988_800;
const TURN: i64 = 1 << 32;

/// The question. `nonce` is random: only who has seen it can answer.
#[must_use]
pub fn question(nonce: &[u8; 8]) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    if let Some(first) = packet.first_mut() {
        *first = QUESTION;
    }
    if let Some(place) = packet.last_chunk_mut::<8>() {
        *place = *nonce;
    }
    packet
}

/// The time of an answer, Unix nanoseconds; `None` for what is no answer to this question, or is one of a server that does
/// not know the time itself.
#[must_use]
pub fn answer(packet: &[u8], nonce: &[u8; 8]) -> Option<i64> {
    let (head, rest) = packet.split_first_chunk::<24>()?;
    let [flags, stratum, ..] = head;
    let (origin, rest) = rest.split_first_chunk::<8>()?;
    let (_received, rest) = rest.split_first_chunk::<8>()?;
    let (seconds, rest) = rest.split_first_chunk::<4>()?;
    let (fraction, _) = rest.split_first_chunk::<4>()?;
    let synchronized = flags >> 6 != 3 && (1..=15).contains(stratum);
    if flags & 7 != MODE_SERVER || !synchronized || origin != nonce {
        return None;
    }
    if *seconds == [0; 4] && *fraction == [0; 4] {
        return None;
    }
    let counted = i64::from(u32::from_be_bytes(*seconds));
    // Without its highest bit the number is of the turn that begins in 2036 (RFC 4330 §3).
    let counted = if counted < TURN >> 1 { counted.checked_add(TURN)? } else { counted };
    let seconds = counted.checked_sub(ERA)?;
    let nanos = i64::from(u32::from_be_bytes(*fraction)).checked_mul(1_000_000_000)? >> 32;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: [u8; 8] = *b"12345678";

    fn reply(first: u8, stratum: u8, origin: [u8; 8], seconds: u32, fraction: u32) -> [u8; PACKET] {
        let mut packet = [0; PACKET];
        packet[0] = first;
        packet[1] = stratum;
        packet[24..32].copy_from_slice(&origin);
        packet[40..44].copy_from_slice(&seconds.to_be_bytes());
        packet[44..48].copy_from_slice(&fraction.to_be_bytes());
        packet
    }

    #[test]
    fn what_is_asked_and_what_is_answered() {
        let asked = question(&NONCE);
        assert_eq!((asked[0], &asked[40..]), (0x23, &NONCE[..]));
        assert!(asked[1..40].iter().all(|byte| *byte == 0));
        let at = 1_790_000_000_u32;
        let packet = reply(0x24, 2, NONCE, at.wrapping_add(2_208_988_800), 1 << 31);
        assert_eq!(answer(&packet, &NONCE), Some(1_790_000_000_500_000_000));
    }

    #[test]
    fn what_is_no_answer() {
        let at = 3_998_988_800;
        for (name, packet) in [
            ("another nonce", reply(0x24, 2, [9; 8], at, 0)),
            ("a question", reply(0x23, 2, NONCE, at, 0)),
            ("a broadcast", reply(0x25, 2, NONCE, at, 0)),
            ("an unsynchronized server", reply(0xe4, 2, NONCE, at, 0)),
            ("a kiss of death", reply(0x24, 0, NONCE, at, 0)),
            ("stratum 16", reply(0x24, 16, NONCE, at, 0)),
            ("no time", reply(0x24, 2, NONCE, 0, 0)),
        ] {
            assert_eq!(answer(&packet, &NONCE), None, "{name}");
        }
        assert_eq!(answer(&reply(0x24, 2, NONCE, at, 0)[..47], &NONCE), None);
    }

    /// The format's seconds begin anew on 7 February 2036.
    #[test]
    fn the_turn_of_the_format() {
        let packet = reply(0x24, 2, NONCE, 100, 0);
        let turned = TURN - ERA + 100;
        assert_eq!(answer(&packet, &NONCE), Some(turned * 1_000_000_000));
    }

    proptest! {
        #[test]
        fn any_bytes(packet in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(answer(&packet, &NONCE).is_none_or(|nanos| nanos > 0));
        }
    }
}
