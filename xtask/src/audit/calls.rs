//! Who calls whom in a linked Thumb image, and where it calls a debugger: read from its instructions and its symbols.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::image::elf;

const ARM: usize = 40;
const EXECUTABLE: u32 = 4;
const SYMBOLS: u32 = 2;
/// `bkpt #0xab`: a call to the debugger.
const SEMIHOSTING: u16 = 0xbeab;

/// A function: where it is, and its mangled name.
struct Function {
    start: u32,
    end: u32,
    name: String,
}

/// The code of an image.
struct Code<'e> {
    sections: Vec<(u32, &'e [u8])>,
    functions: Vec<Function>,
    /// Where instructions (true) and data (false) begin, by address.
    kinds: BTreeMap<u32, bool>,
}

impl<'e> Code<'e> {
    fn of(image: &'e [u8]) -> Result<Code<'e>> {
        ensure!(elf::machine(image)? == ARM, "this is no ARM firmware");
        let all = elf::sections(image)?;
        let sections = all.iter().filter(|section| section.flags & EXECUTABLE != 0 && section.is_loaded());
        let mut code = Code {
            sections: sections.map(|section| (section.address, section.bytes)).collect(),
            functions: Vec::new(),
            kinds: BTreeMap::new(),
        };
        if let Some(table) = all.iter().find(|section| section.kind == SYMBOLS) {
            let names = all.get(table.link).map_or(&[][..], |section| section.bytes);
            table.bytes.chunks_exact(16).for_each(|entry| code.symbol(entry, names));
        }
        ensure!(!code.functions.is_empty(), "the firmware has no symbols");
        code.functions.sort_by(|one, other| (one.start, &one.name).cmp(&(other.start, &other.name)));
        Ok(code)
    }

    fn symbol(&mut self, entry: &[u8], names: &[u8]) {
        let word = |at: usize| {
            let field = entry.get(at..).and_then(<[u8]>::first_chunk::<4>);
            field.map_or(0, |field| u32::from_le_bytes(*field))
        };
        let (value, size, info) = (word(4), word(8), word(12) & 0xf);
        let name = names.get(word(0) as usize..).and_then(|rest| rest.split(|byte| *byte == 0).next());
        let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
        if let Some(kind) = name.strip_prefix('$') {
            self.kinds.insert(value, kind.starts_with('t'));
        } else if info == 2 && size > 0 {
            let start = value & !1;
            self.functions.push(Function { start, end: start.saturating_add(size), name });
        }
    }

    fn half(&self, at: u32) -> Option<u16> {
        self.sections.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(at.checked_sub(*start)?).ok()?;
            Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
        })
    }

    /// The instructions of a stretch of code: address, first half, second half of those that have one.
    fn instructions(&self, start: u32, end: u32, mut seen: impl FnMut(u32, u16, Option<u16>)) {
        let mut at = start;
        while at < end {
            let is_code = self.kinds.range(..=at).next_back().is_none_or(|(_, is_code)| *is_code);
            let Some(first) = self.half(at) else { return };
            let second =
                if first >> 11 >= 0b11101 && is_code { self.half(at.saturating_add(2)) } else { None };
            if is_code {
                seen(at, first, second);
            }
            at = at.saturating_add(if second.is_some() { 4 } else { 2 });
        }
    }
}

/// For every function, those it calls or ends in, by mangled name.
pub(super) fn calls(image: &[u8]) -> Result<BTreeMap<String, Vec<String>>> {
    let code = Code::of(image)?;
    let at: BTreeMap<u32, &str> =
        code.functions.iter().rev().map(|function| (function.start, function.name.as_str())).collect();
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for function in &code.functions {
        let called = calls.entry(function.name.clone()).or_default();
        code.instructions(function.start, function.end, |address, first, second| {
            let target = target(address, first, second);
            if let Some(name) = target.filter(|target| *target != function.start).and_then(|to| at.get(&to)) {
                called.push((*name).to_owned());
            }
        });
    }
    Ok(calls)
}

/// How often it stops for a debugger.
pub(super) fn debugger_calls(image: &[u8]) -> Result<usize> {
    let code = Code::of(image)?;
    let mut count = 0;
    for (start, bytes) in &code.sections {
        let end = start.saturating_add(u32::try_from(bytes.len())?);
        code.instructions(*start, end, |_, first, _| count += usize::from(first == SEMIHOSTING));
    }
    Ok(count)
}

/// Where a branch of the instruction set goes (ARMv7-M ARM A7.7.12 B and A7.7.18 BL); `None` for what is no direct branch.
fn target(address: u32, first: u16, second: Option<u16>) -> Option<u32> {
    let (first, base) = (u32::from(first), address.wrapping_add(4));
    let bits = |word: u32, low: u32, count: u32| (word >> low) & ((1 << count) - 1);
    let signed = |offset: u32, width: u32| {
        let unused = 32 - width;
        ((offset << unused).cast_signed() >> unused).cast_unsigned()
    };
    let Some(second) = second.map(u32::from) else {
        return match (bits(first, 11, 5), bits(first, 12, 4), bits(first, 8, 4)) {
            (0b11100, ..) => Some(base.wrapping_add(signed(bits(first, 0, 11) << 1, 12))),
            (_, 0b1101, ..0b1110) => Some(base.wrapping_add(signed(bits(first, 0, 8) << 1, 9))),
            _ => None,
        };
    };
    if bits(first, 11, 5) != 0b11110 || bits(second, 15, 1) == 0 {
        return None;
    }
    let (sign, one, two) = (bits(first, 10, 1), bits(second, 13, 1), bits(second, 11, 1));
    let low = bits(second, 0, 11) << 1;
    if bits(second, 12, 1) == 1 {
        let (one, two) = (1 ^ one ^ sign, 1 ^ two ^ sign);
        let offset = sign << 24 | one << 23 | two << 22 | bits(first, 0, 10) << 12 | low;
        return Some(base.wrapping_add(signed(offset, 25)));
    }
    if bits(second, 14, 1) == 1 || bits(first, 7, 3) == 0b111 {
        return None;
    }
    let offset = sign << 20 | two << 19 | one << 18 | bits(first, 0, 6) << 12 | low;
    Some(base.wrapping_add(signed(offset, 21)))
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn branches_as_an_assembler_makes_them() {
        // From a linked image, with what llvm-objdump makes of them: bl, b.w, beq.w, b, beq.
        for (at, first, second, to) in [
            (0x059a, 0xf010, Some(0xfb89), Some(0x1_0cb0)),
            (0xdbf2, 0xf004, Some(0xfdc7), Some(0x1_2784)),
            (0x1dcc, 0xf002, Some(0xbc5e), Some(0x468c)),
            (0x9f1c, 0xf7f9, Some(0xb968), Some(0x31f0)),
            (0x0450, 0xf000, Some(0x8091), Some(0x0576)),
            (0x0420, 0xe7fa, None, Some(0x0418)),
            (0x064a, 0xe000, None, Some(0x064e)),
            (0x041a, 0xd002, None, Some(0x0422)),
            (0x05c8, 0xd0d5, None, Some(0x0576)),
            // bx lr, movs, svc, dmb, ldr.w
            (0x1000, 0x4770, None, None),
            (0x1000, 0x2000, None, None),
            (0x1000, 0xdf00, None, None),
            (0x1000, 0xf3bf, Some(0x8f5f), None),
            (0x1000, 0xf8d0, Some(0x0004), None),
        ] {
            assert_eq!(target(at, first, second), to, "{first:04x} {second:04x?}");
        }
    }
}
