//! A 32-bit little endian ELF file as firmware comes in: where its sections stand, and what goes into flash.

use anyhow::{Context, Result, bail, ensure};

/// More is no microcontroller.
const MAX_FILE: usize = 64 << 20;
const MAX_HEADERS: usize = 1024;
const LOAD: u32 = 1;

/// Bytes that are loaded at an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'e> {
    pub(crate) address: u32,
    pub(crate) bytes: &'e [u8],
}

fn half(elf: &[u8], at: usize) -> Result<usize> {
    let field = elf.get(at..).and_then(<[u8]>::first_chunk::<2>).context("the ELF file is cut off")?;
    Ok(usize::from(u16::from_le_bytes(*field)))
}

fn word(elf: &[u8], at: usize) -> Result<u32> {
    let field = elf.get(at..).and_then(<[u8]>::first_chunk::<4>).context("the ELF file is cut off")?;
    Ok(u32::from_le_bytes(*field))
}

fn place(elf: &[u8], at: usize) -> Result<usize> {
    Ok(usize::try_from(word(elf, at)?)?)
}

/// Whether this is such a file at all.
pub(crate) fn check(elf: &[u8]) -> Result<()> {
    ensure!(elf.len() <= MAX_FILE, "the file is larger than {MAX_FILE} bytes");
    ensure!(elf.starts_with(b"\x7fELF\x01\x01"), "this is no 32-bit little endian ELF file");
    Ok(())
}

/// What kind of processor it is for.
pub(crate) fn machine(elf: &[u8]) -> Result<usize> {
    half(elf, 0x12)
}

/// One section.
#[derive(Debug)]
pub(crate) struct Section<'e> {
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) address: u32,
    /// Bytes of memory.
    pub(crate) size: u32,
    /// The number of the section that belongs to it, e.g. the names of symbols.
    pub(crate) link: usize,
    /// Empty when nothing of it is in the file.
    pub(crate) bytes: &'e [u8],
}

impl Section<'_> {
    /// Whether it takes memory of the device.
    pub(crate) fn is_allocated(&self) -> bool {
        const ALLOCATED: u32 = 2;
        self.flags & ALLOCATED != 0 && self.size > 0
    }

    /// Whether its bytes go into the device.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_allocated() && !self.bytes.is_empty()
    }
}

/// All sections, by their numbers.
pub(crate) fn sections(elf: &[u8]) -> Result<Vec<Section<'_>>> {
    const NOBITS: u32 = 8;
    let (table, entry, count, names) =
        (place(elf, 0x20)?, half(elf, 0x2e)?, half(elf, 0x30)?, half(elf, 0x32)?);
    ensure!(count <= MAX_HEADERS && entry >= 40, "the ELF file's section headers make no sense");
    let header = |number: usize| table.saturating_add(number.saturating_mul(entry));
    let names = place(elf, header(names).saturating_add(0x10))?;
    let mut sections = Vec::new();
    for number in 0..count {
        let field = |at: usize| word(elf, header(number).saturating_add(at));
        let name = elf.get(names.saturating_add(usize::try_from(field(0)?)?)..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let kind = field(4)?;
        let (offset, size) = (usize::try_from(field(0x10)?)?, usize::try_from(field(0x14)?)?);
        let end = if kind == NOBITS { offset } else { offset.saturating_add(size) };
        sections.push(Section {
            name: String::from_utf8_lossy(name).into_owned(),
            kind,
            flags: field(8)?,
            address: field(0x0c)?,
            size: field(0x14)?,
            link: usize::try_from(field(0x18)?)?,
            bytes: if kind == NOBITS { &[] } else { elf.get(offset..end).context("a section is cut off")? },
        });
    }
    Ok(sections)
}

/// Offset and length of a section in the file, and the address it is loaded at.
pub(crate) fn section(elf: &[u8], name: &str) -> Result<(usize, usize, u32)> {
    let (table, entry, count, names) =
        (place(elf, 0x20)?, half(elf, 0x2e)?, half(elf, 0x30)?, half(elf, 0x32)?);
    ensure!(count <= MAX_HEADERS && entry >= 40, "the ELF file's section headers make no sense");
    let header = |number: usize| table.saturating_add(number.saturating_mul(entry));
    let names = place(elf, header(names).saturating_add(0x10))?;
    let wanted = [name.as_bytes(), b"\0"].concat();
    for number in 0..count {
        let at = header(number);
        let text = names.saturating_add(place(elf, at)?);
        if elf.get(text..).is_some_and(|rest| rest.starts_with(&wanted)) {
            let (offset, size) = (place(elf, at.saturating_add(0x10))?, place(elf, at.saturating_add(0x14))?);
            let end = offset.checked_add(size).context("the section has no end")?;
            ensure!(end <= elf.len(), "section {name} is cut off");
            return Ok((offset, size, word(elf, at.saturating_add(0x0c))?));
        }
    }
    bail!("the firmware has no section {name}: it is none of ours, or linked without baked.x")
}

/// What is loaded, by address.
pub(crate) fn segments(elf: &[u8]) -> Result<Vec<Segment<'_>>> {
    let (table, entry, count) = (place(elf, 0x1c)?, half(elf, 0x2a)?, half(elf, 0x2c)?);
    ensure!(count <= MAX_HEADERS && entry >= 32, "the ELF file's program headers make no sense");
    let mut segments = Vec::new();
    for number in 0..count {
        let at = table.saturating_add(number.saturating_mul(entry));
        let (offset, address, size) = (
            place(elf, at.saturating_add(0x04))?,
            word(elf, at.saturating_add(0x0c))?,
            place(elf, at.saturating_add(0x10))?,
        );
        if word(elf, at)? != LOAD || size == 0 {
            continue;
        }
        let end = offset.checked_add(size).context("a segment has no end")?;
        segments.push(Segment { address, bytes: elf.get(offset..end).context("a segment is cut off")? });
    }
    segments.sort_by_key(|segment| segment.address);
    ensure!(!segments.is_empty(), "nothing in the firmware is to be loaded");
    for pair in segments.windows(2) {
        if let [low, high] = pair {
            let end = u64::from(low.address) + low.bytes.len() as u64;
            ensure!(end <= u64::from(high.address), "two segments share an address");
        }
    }
    Ok(segments)
}
