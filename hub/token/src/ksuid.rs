//! KSUID: token ids that carry their time of issue. 27 characters of base 62 for 4 bytes of seconds since
//! 2014-05-13T16:53:20Z and 16 random bytes.

/// Second 0 of a KSUID, in seconds since 1970.
const EPOCH: i64 = 1_400_000_000;
const LENGTH: usize = 27;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A parsed KSUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ksuid {
    /// Time of issue, seconds since 1970.
    pub unix: i64,
    /// The random part.
    pub payload: [u8; 16],
}

/// The KSUID of this time (seconds since 1970) and these 16 random bytes. Times outside of what the form can hold
/// (2014 to 2150) are moved to its nearest end.
pub fn new(now_unix: i64, payload: &[u8; 16]) -> String {
    let seconds =
        u32::try_from(now_unix.saturating_sub(EPOCH).clamp(0, i64::from(u32::MAX))).unwrap_or(u32::MAX);
    let mut raw = [0_u8; 20];
    for (to, from) in raw.iter_mut().zip(seconds.to_be_bytes().iter().chain(payload)) {
        *to = *from;
    }
    let mut text = [b'0'; LENGTH];
    for digit in text.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut raw {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *digit = ALPHABET.get(remainder as usize).copied().unwrap_or(b'0');
    }
    text.iter().map(|b| char::from(*b)).collect()
}

/// Reads a KSUID; `None` when the text is none.
pub fn parse(text: &str) -> Option<Ksuid> {
    if text.len() != LENGTH {
        return None;
    }
    let mut raw = [0_u8; 20];
    for byte in text.bytes() {
        let mut carry = u32::try_from(ALPHABET.iter().position(|c| *c == byte)?).ok()?;
        for to in raw.iter_mut().rev() {
            carry = carry.checked_add(u32::from(*to).checked_mul(62)?)?;
            *to = u8::try_from(carry & 0xff).ok()?;
            carry >>= 8;
        }
        if carry != 0 {
            return None;
        }
    }
    let (seconds, payload) = raw.split_first_chunk::<4>()?;
    Some(Ksuid {
        unix: EPOCH.checked_add(i64::from(u32::from_be_bytes(*seconds)))?,
        payload: payload.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_vectors() {
        let text = include_str!("../../../tests/fixtures/tokens/chain.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        for vector in vectors["ksuid"].as_array().unwrap() {
            let unix = vector["unix"].as_i64().unwrap();
            let payload: [u8; 16] =
                hex::decode(vector["payload_hex"].as_str().unwrap()).unwrap().try_into().unwrap();
            let id = vector["ksuid"].as_str().unwrap();
            assert_eq!(new(unix, &payload), id);
            assert_eq!(parse(id), Some(Ksuid { unix, payload }));
        }
    }

    #[test]
    fn values_beyond_160_bits_are_refused() {
        assert_eq!(parse("aWgEPTl1tmebfsQzFP4bxwgy80W"), None);
        assert_eq!(parse(&"z".repeat(27)), None);
        assert_eq!(parse("37dGao6a6GXEqNFFtVGRsaNa2i"), None);
        assert_eq!(parse("37dGao6a6GXEqNFFtVGRsaNa2i-"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(unix in EPOCH..=EPOCH + i64::from(u32::MAX), payload: [u8; 16]) {
            prop_assert_eq!(parse(&new(unix, &payload)), Some(Ksuid { unix, payload }));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            if let Some(id) = parse(&text) {
                prop_assert_eq!(new(id.unix, &id.payload), text);
            }
        }
    }
}
