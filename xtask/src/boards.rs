//! The boards there are: each folder in `agent-embedded/boards` says in its `board.yaml` what it is (docs/another-board.md).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::step;

/// One board.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Board {
    /// As its folder and its program are called.
    pub(crate) name: String,
    /// What to buy, or where it exists.
    pub(crate) summary: String,
    pub(crate) target: String,
    /// Buffers of the agent, docs/spec/08 §6.4.
    pub(crate) profile: String,
    /// The build leaves out what a panic says and where: it ends in a fault. Such images are held to docs/spec/10 T-309.
    #[serde(default)]
    pub(crate) shrink: bool,
    /// As memory.x has it; where the chip's own crate brings that file, what it says.
    pub(crate) memory: BTreeMap<String, Region>,
    pub(crate) budget: Budget,
    /// Family of UF2 files, where the boot loader takes them.
    #[serde(default)]
    pub(crate) uf2_family: Option<u32>,
    /// Wires: what is where.
    pub(crate) pins: BTreeMap<String, String>,
    /// How an image gets into the chip.
    pub(crate) flashing: String,
    /// How nobody else reads it out, or puts another one in.
    pub(crate) locking: String,
}

/// Bytes of memory.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Region {
    pub(crate) origin: u32,
    pub(crate) length: u32,
    pub(crate) holds: Holds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Holds {
    /// The program, read only.
    Flash,
    /// Static data and the stack.
    Ram,
    /// The credential store; nothing is linked there.
    Store,
}

/// The most that an image may take, bytes.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    pub(crate) flash: u64,
    pub(crate) ram: u64,
}

impl Board {
    pub(crate) fn folder(&self) -> PathBuf {
        folder().join(&self.name)
    }

    /// What the memory at this address is for; `None` where the board has none.
    pub(crate) fn memory_at(&self, address: u32) -> Option<Holds> {
        let inside =
            |region: &&Region| address.checked_sub(region.origin).is_some_and(|at| at < region.length);
        self.memory.values().find(inside).map(|region| region.holds)
    }

    /// What does not fit together, in one sentence.
    fn check(&self, folder: &Path) -> Result<()> {
        ensure!(folder.ends_with(&self.name), "it says that it is {}", self.name);
        ensure!(
            ["tiny", "small", "medium"].contains(&self.profile.as_str()),
            "there is no profile {}",
            self.profile
        );
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        let chosen =
            ["tiny", "medium"].into_iter().find(|profile| manifest.contains(&format!("\"{profile}\"")));
        ensure!(
            chosen.unwrap_or("small") == self.profile,
            "Cargo.toml does not choose profile {}",
            self.profile
        );
        let room = |holds: Holds| -> u64 {
            let regions = self.memory.values().filter(|region| region.holds == holds);
            regions.map(|region| u64::from(region.length)).sum()
        };
        ensure!(self.budget.flash <= room(Holds::Flash), "the budget is more than there is flash");
        ensure!(self.budget.ram <= room(Holds::Ram), "the budget is more than there is RAM");
        for text in [&self.summary, &self.flashing, &self.locking] {
            ensure!(!text.trim().is_empty(), "summary, flashing and locking are there to be read");
        }
        ensure!(!self.pins.is_empty(), "it says nothing of its pins");
        let script = folder.join("memory.x");
        if script.exists() {
            let linked = regions(&std::fs::read_to_string(script)?)?;
            let declared: BTreeMap<&str, (u32, u32)> = self
                .memory
                .iter()
                .map(|(name, region)| (name.as_str(), (region.origin, region.length)))
                .collect();
            let linked: BTreeMap<&str, (u32, u32)> =
                linked.iter().map(|(name, region)| (name.as_str(), *region)).collect();
            ensure!(linked == declared, "its memory is {declared:x?} and memory.x says {linked:x?}");
        }
        Ok(())
    }
}

fn folder() -> PathBuf {
    step::root().join("agent-embedded/boards")
}

/// All boards, by name.
pub(crate) fn all() -> Result<Vec<Board>> {
    let mut boards = Vec::new();
    for entry in std::fs::read_dir(folder())? {
        let folder = entry?.path();
        if !folder.join("Cargo.toml").exists() {
            continue;
        }
        let file = folder.join("board.yaml");
        let read = || -> Result<Board> {
            let board: Board = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
            board.check(&folder)?;
            Ok(board)
        };
        boards.push(read().with_context(|| file.display().to_string())?);
    }
    boards.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(!boards.is_empty(), "there are no boards in {}", folder().display());
    Ok(boards)
}

/// The board of this name.
pub(crate) fn named(name: &str) -> Result<Board> {
    let (mut found, others): (Vec<Board>, Vec<Board>) =
        all()?.into_iter().partition(|board| board.name == name);
    let names: Vec<&str> = others.iter().map(|board| board.name.as_str()).collect();
    found.pop().with_context(|| format!("there is no board {name}: {} are there", names.join(", ")))
}

/// The regions of a linker script: origin and length of each. One region on each line, which stack checkers expect, too.
fn regions(script: &str) -> Result<BTreeMap<String, (u32, u32)>> {
    let inside = script.split_once("MEMORY").and_then(|(_, rest)| rest.split_once('{'));
    let (inside, _) = inside.and_then(|(_, rest)| rest.split_once('}')).context("memory.x has no MEMORY")?;
    let mut regions = BTreeMap::new();
    for line in inside.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let parts = line.split_once(" : ORIGIN = ").and_then(|(name, rest)| {
            let (origin, length) = rest.split_once(", LENGTH = ")?;
            Some((name, origin, length))
        });
        let Some((name, origin, length)) = parts else {
            bail!("memory.x: '{line}' is not 'NAME : ORIGIN = …, LENGTH = …'")
        };
        regions.insert(name.to_owned(), (number(origin)?, number(length)?));
    }
    Ok(regions)
}

/// `0x10000000`, `2032K`, or one less the other.
fn number(text: &str) -> Result<u32> {
    if let Some((from, less)) = text.split_once(" - ") {
        return number(from)?
            .checked_sub(number(less)?)
            .with_context(|| format!("{text} is less than nothing"));
    }
    let text = text.trim();
    let value = match (text.strip_prefix("0x"), text.strip_suffix('K')) {
        (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
        (None, Some(digits)) => digits.parse::<u32>().ok().and_then(|kilobytes| kilobytes.checked_mul(1024)),
        (None, None) => text.parse().ok(),
    };
    value.with_context(|| format!("memory.x: '{text}' is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_says_what_its_linker_script_says() {
        let boards = all().unwrap();
        for name in [
            "esp32c3-w5500",
            "nucleo-h743zi",
            "qemu-lm3s",
            "qemu-lm3s-names",
            "qemu-mps2",
            "rp2040-w5500",
            "rp2350-w5500",
        ] {
            assert!(boards.iter().any(|board| board.name == name), "{name} is gone");
        }
        assert!(named("rp2040-w5501").unwrap_err().to_string().contains("rp2040-w5500"));
    }

    #[test]
    fn a_board_that_contradicts_its_script_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("board");
        std::fs::create_dir(&folder).unwrap();
        let yaml = "name: board\nsummary: s\ntarget: t\nprofile: small\nmemory:\n  FLASH: {origin: 0x10000100, \
                    length: 0x7700, holds: flash}\nbudget: {flash: 0x7700, ram: 0}\npins: {a: b}\nflashing: f\nlocking: l\n";
        let board: Board = serde_saphyr::from_str(yaml).unwrap();
        board.check(&folder).unwrap();
        let script = |length: &str| {
            format!("MEMORY\n{{\n  FLASH : ORIGIN = 0x10000100, LENGTH = {length}\n}}\nSECTIONS {{}}\n")
        };
        std::fs::write(folder.join("memory.x"), script("30K - 0x100")).unwrap();
        board.check(&folder).unwrap();
        std::fs::write(folder.join("memory.x"), script("31K")).unwrap();
        assert!(board.check(&folder).is_err());
        std::fs::write(folder.join("memory.x"), "RAM : ORIGIN = 0, LENGTH = 1K").unwrap();
        assert!(board.check(&folder).is_err(), "no regions at all");
        let unknown = yaml.replace("summary", "sumary");
        assert!(serde_saphyr::from_str::<Board>(&unknown).is_err(), "a misspelt word");
    }
}
