//! The server's id: shaped like the public key of a server, `N` and 55 letters and digits of base32, with its
//! checksum. Clients only compare it; there is no private key.

use crate::engine::random;
use crate::error::EngineError;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// First byte: the one that makes the text begin with `N`.
const SERVER: u8 = 13 << 3;

/// A new random id.
pub(crate) fn generate() -> Result<String, EngineError> {
    Ok(encode(&random::<32>()?))
}

fn encode(key: &[u8; 32]) -> String {
    let mut bytes = vec![SERVER];
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&crc16(&bytes).to_le_bytes());
    let mut text = String::with_capacity(56);
    let (mut buffer, mut bits) = (0u32, 0u32);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            let index = (buffer >> bits) & 31;
            text.push(char::from(ALPHABET.get(index as usize).copied().unwrap_or(b'A')));
        }
        buffer &= (1 << bits) - 1;
    }
    text
}

/// CRC-16 with polynomial 0x1021 and initial value 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_that_of_a_server_key() {
        let id = generate().unwrap();
        assert_eq!(id.len(), 56);
        assert!(id.starts_with('N'));
        assert_ne!(id, generate().unwrap());
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }
}
