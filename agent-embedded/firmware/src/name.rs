//! Names that are made of the chip's number.

use core::fmt::Write as _;

use heapless::String;
use sha2::{Digest as _, Sha256};

/// Longer than any board's name with any chip's number.
pub type Name = String<64>;

/// `board-0123abcd…`: what a device is called whose image has no name (docs/spec/08 §7.2).
pub fn name(board: &str, chip: &[u8]) -> Name {
    let mut name = Name::new();
    let mut fits = name.push_str(board).and_then(|()| name.push('-')).is_ok();
    for byte in chip {
        fits = fits && write!(name, "{byte:02x}").is_ok();
    }
    name
}

/// An address for the network, the same at every start: locally administered, made of the chip's number.
pub fn hardware_address(chip: &[u8]) -> [u8; 6] {
    let [a, b, c, d, e, ..] = <[u8; 32]>::from(Sha256::digest(chip));
    [0x02, a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_has_one_name_and_one_address() {
        assert_eq!(name("rp2040-w5500", &[0xe6, 0x60, 0x0a]), "rp2040-w5500-e6600a");
        let address = hardware_address(&[1; 8]);
        assert_eq!((address[0], hardware_address(&[1; 8])), (0x02, address));
        assert_ne!(hardware_address(&[2; 8]), address);
    }
}
