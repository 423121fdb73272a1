//! `cargo xtask sizes`: bytes of what we ship, held to budgets.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{embedded::Toolchain, step};

const PROBE_TARGET: &str = "thumbv7m-none-eabi";
/// All of agent-core in one image: text, read-only and initialised data. It may not grow; the device work brings it down
/// to the budget of docs/spec/08 §8 (the decimal parser of fact filters alone is 16 KiB).
const PROBE_LIMIT: u64 = 144 * 1024;
/// The stand-alone agent of a Linux node, stripped.
const AGENT_LIMIT: u64 = 6 * 1024 * 1024;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the device image: the Linux agent's optimised build takes minutes
    #[arg(long)]
    probe: bool,
}

impl Options {
    pub(crate) fn probe() -> Self {
        Options { probe: true }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let probe = probe_image()?;
    println!(
        "{:<44} {:>9} bytes flash {:>7} bytes static RAM",
        "agent-core in a no_std image", probe.flash, probe.ram
    );
    if probe.flash > PROBE_LIMIT {
        bail!("the probe image holds {} bytes of flash, its limit is {PROBE_LIMIT}", probe.flash);
    }
    if options.probe {
        return Ok(());
    }
    let agent = agent_binary()?;
    println!("{:<44} {agent:>9} bytes", "choria-agent, stripped");
    if agent > AGENT_LIMIT {
        bail!("choria-agent has {agent} bytes, its limit is {AGENT_LIMIT}");
    }
    Ok(())
}

/// Builds the agent in its shipping profile and returns its size in bytes.
pub(crate) fn agent_binary() -> Result<u64> {
    let mut build = step::cargo(&[
        "build",
        "--locked",
        "--profile",
        "agent",
        "-p",
        "agent-linux",
        "--bin",
        "choria-agent",
    ]);
    step::run("choria-agent in its shipping profile", &mut build)?;
    let path = step::target_directory().join("agent/choria-agent");
    Ok(std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len())
}

struct Image {
    flash: u64,
    ram: u64,
}

fn probe_image() -> Result<Image> {
    let toolchain = Toolchain::find(PROBE_TARGET)?;
    let folder = step::root().join("agent-embedded/probe");
    let products = step::target_directory().join("embedded");
    let mut build = toolchain.cargo("build", PROBE_TARGET, &folder, &products);
    build.args(["--release", "--locked"]);
    step::run("probe image with agent-core and no allocator", &mut build)?;
    let path = products.join(PROBE_TARGET).join("release/agent-core-probe");
    sections(&path)
}

/// Adds up the loaded sections of a 32-bit little-endian ELF file.
fn sections(path: &Path) -> Result<Image> {
    const WRITE: u32 = 1;
    const ALLOC: u32 = 2;
    const NOBITS: u32 = 8;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let word = |at: usize| -> Result<u32> {
        let field = bytes.get(at..at + 4).context("truncated ELF file")?;
        Ok(u32::from_le_bytes(field.try_into()?))
    };
    let half = |at: usize| -> Result<usize> {
        let field = bytes.get(at..at + 2).context("truncated ELF file")?;
        Ok(usize::from(u16::from_le_bytes(field.try_into()?)))
    };
    if bytes.get(..5) != Some(b"\x7fELF\x01") {
        bail!("{} is not a 32-bit ELF file", path.display());
    }
    let table = usize::try_from(word(0x20)?)?;
    let (entry, count) = (half(0x2e)?, half(0x30)?);
    let mut image = Image { flash: 0, ram: 0 };
    for index in 0..count {
        let at = table + index * entry;
        let (kind, flags, size) = (word(at + 4)?, word(at + 8)?, u64::from(word(at + 20)?));
        if flags & ALLOC == 0 {
            continue;
        }
        if kind != NOBITS {
            image.flash += size;
        }
        if flags & WRITE != 0 {
            image.ram += size;
        }
    }
    Ok(image)
}
