//! The files that programmers take: raw binary, Intel HEX, UF2.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::elf::Segment;

/// Longest raw binary; more means that two memories are in one file.
const MAX_BINARY: usize = 16 << 20;

/// A file format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Elf,
    /// What flash holds, from the lowest address on
    Bin,
    /// Intel HEX
    Hex,
    /// For boards that show up as a drive
    Uf2,
}

impl Format {
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Format::Elf => "elf",
            Format::Bin => "bin",
            Format::Hex => "hex",
            Format::Uf2 => "uf2",
        }
    }
}

/// From the lowest address to the highest; what nothing is loaded into is 0xFF, as erased flash is.
pub(crate) fn binary(segments: &[Segment<'_>]) -> Result<Vec<u8>> {
    let base = segments.first().context("no segments")?.address;
    let mut bytes = Vec::new();
    for segment in segments {
        let at = usize::try_from(segment.address.checked_sub(base).context("segments are out of order")?)?;
        ensure!(
            at.saturating_add(segment.bytes.len()) <= MAX_BINARY,
            "the segments are too far apart for a binary"
        );
        bytes.resize(at, 0xff);
        bytes.extend_from_slice(segment.bytes);
    }
    Ok(bytes)
}

/// Records of 16 bytes, with the upper half of the address wherever it changes.
pub(crate) fn intel_hex(segments: &[Segment<'_>]) -> Result<String> {
    let mut text = String::new();
    let mut record = |address: u16, kind: u8, data: &[u8]| -> Result<()> {
        let mut bytes = vec![u8::try_from(data.len())?];
        bytes.extend_from_slice(&address.to_be_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(data);
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes.push(sum.wrapping_neg());
        text.push(':');
        bytes.iter().for_each(|byte| text.push_str(&format!("{byte:02X}")));
        text.push('\n');
        Ok(())
    };
    let mut upper = None;
    for segment in segments {
        let mut address = segment.address;
        let mut rest = segment.bytes;
        while !rest.is_empty() {
            let high = (address >> 16) as u16;
            if upper != Some(high) {
                record(0, 4, &high.to_be_bytes())?;
                upper = Some(high);
            }
            // a record does not cross into the next 64 KiB
            let room = 0x1_0000 - (address & 0xffff) as usize;
            let (part, after) = rest.split_at(rest.len().min(16).min(room));
            record((address & 0xffff) as u16, 0, part)?;
            address = address.wrapping_add(part.len() as u32);
            rest = after;
        }
    }
    record(0, 1, &[])?;
    Ok(text)
}

/// Blocks of 512 bytes with 256 of data, each with its address. A boot loader takes whole pages on their borders, so what
/// segments leave of a page is 0xFF, and two that share a page share a block.
pub(crate) fn uf2(segments: &[Segment<'_>], family: u32) -> Result<Vec<u8>> {
    const PAYLOAD: usize = 256;
    let mut pages: BTreeMap<u32, [u8; PAYLOAD]> = BTreeMap::new();
    for segment in segments {
        for (number, byte) in segment.bytes.iter().enumerate() {
            let address = segment.address.wrapping_add(u32::try_from(number)?);
            let page = pages.entry(address / PAYLOAD as u32).or_insert([0xff; PAYLOAD]);
            if let Some(to) = page.get_mut(address as usize % PAYLOAD) {
                *to = *byte;
            }
        }
    }
    let count = u32::try_from(pages.len())?;
    let mut file = Vec::with_capacity(pages.len() * 512);
    for (number, (page, bytes)) in pages.iter().enumerate() {
        let head = [
            0x0a32_4655,
            0x9e5d_5157,
            0x2000,
            page.wrapping_mul(PAYLOAD as u32),
            PAYLOAD as u32,
            u32::try_from(number)?,
            count,
            family,
        ];
        head.iter().for_each(|word| file.extend_from_slice(&word.to_le_bytes()));
        let mut data = [0_u8; 476];
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        file.extend_from_slice(&data);
        file.extend_from_slice(&0x0ab1_6f30_u32.to_le_bytes());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> [Segment<'static>; 2] {
        [
            Segment { address: 0x0800_fff8, bytes: &[0xa5; 24] },
            Segment { address: 0x0801_0020, bytes: b"end" },
        ]
    }

    #[test]
    fn a_binary_has_its_gaps_filled() {
        let bytes = binary(&segments()).unwrap();
        assert_eq!(bytes.len(), 0x28 + 3);
        assert_eq!((bytes[23], bytes[24], &bytes[0x28..]), (0xa5, 0xff, &b"end"[..]));
    }

    #[test]
    fn hex_has_checksums_and_upper_addresses() {
        let text = intel_hex(&segments()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], ":020000040800F2");
        assert_eq!(lines[1], ":08FFF800A5A5A5A5A5A5A5A5D9");
        assert_eq!(lines[2], ":020000040801F1");
        assert_eq!(lines[4], ":03002000656E64A6");
        assert_eq!(lines[5], ":00000001FF");
    }

    #[test]
    fn uf2_blocks_are_512_bytes_and_numbered() {
        let file = uf2(&[Segment { address: 0x1000_0000, bytes: &[1; 300] }], 0xe48b_ff56).unwrap();
        assert_eq!(file.len(), 1024);
        assert!(file.starts_with(b"UF2\n") && file[508..512] == [0x30, 0x6f, 0xb1, 0x0a]);
        assert_eq!(u32::from_le_bytes(file[512 + 12..512 + 16].try_into().unwrap()), 0x1000_0100);
        assert_eq!((file[20], file[24], file[512 + 20]), (0, 2, 1));
        assert_eq!(
            (file[512 + 32 + 43], file[512 + 32 + 44]),
            (1, 0xff),
            "the rest of the page is as if erased"
        );
        assert_eq!(file[512 + 32 + 256], 0, "padding");
    }

    /// As firmware comes: a table, and a program that begins in the middle of a page.
    #[test]
    fn segments_that_share_a_page_share_a_uf2_block() {
        let segments = [
            Segment { address: 0x1000_0100, bytes: &[1; 0xc0] },
            Segment { address: 0x1000_01c4, bytes: &[2; 0x100] },
        ];
        let file = uf2(&segments, 0xe48b_ff59).unwrap();
        let addresses: Vec<u32> =
            file.chunks(512).map(|block| u32::from_le_bytes(block[12..16].try_into().unwrap())).collect();
        assert_eq!(addresses, [0x1000_0100, 0x1000_0200]);
        assert_eq!((file[32 + 0xbf], file[32 + 0xc0], file[32 + 0xc4]), (1, 0xff, 2));
    }
}
