//! `cargo xtask sizes`: bytes of what we ship, held to budgets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{embedded::Toolchain, step};

pub(crate) const DEVICE_TARGET: &str = "thumbv7m-none-eabi";
/// What images have been, committed: a build that has grown by more than two per cent fails until the file says so.
const COMMITTED: &str = "agent-embedded/sizes.yaml";
/// The stand-alone agent of a Linux node, stripped.
const AGENT_LIMIT: u64 = 6 * 1024 * 1024;

/// Images that are measured: their folder below `agent-embedded`, and their name.
const IMAGES: [(&str, &str); 3] = [
    ("probe", "agent-core-probe"),
    ("boards/qemu-lm3s", "qemu-lm3s"),
    ("conformance", "agent-core-conformance"),
];

/// What one image has been, bytes.
#[derive(serde::Deserialize)]
struct Committed {
    flash: u64,
    ram: u64,
    /// What docs/spec/08 §8 asks for; held once it has been reached.
    must_flash: u64,
    must_ram: u64,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the device images: the Linux agent's optimised build takes minutes
    #[arg(long)]
    devices: bool,
}

impl Options {
    pub(crate) fn devices() -> Self {
        Options { devices: true }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let file = step::root().join(COMMITTED);
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let committed: BTreeMap<String, Committed> =
        serde_saphyr::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
    println!("{:<20} {:>9} {:>9} {:>11} {:>9}", "bytes", "flash", "must be", "static RAM", "must be");
    let mut grown = Vec::new();
    for (folder, name) in IMAGES {
        let image = sections(&device_image(folder, name)?)?;
        let known = committed.get(name).with_context(|| format!("{COMMITTED} has no {name}"))?;
        println!(
            "{name:<20} {:>9} {:>9} {:>11} {:>9}",
            image.flash, known.must_flash, image.ram, known.must_ram
        );
        for (what, now, then, must) in [
            ("flash", image.flash, known.flash, known.must_flash),
            ("static RAM", image.ram, known.ram, known.must_ram),
        ] {
            if now > then + then / 50 {
                grown.push(format!("{name}: {what} was {then} and is {now}"));
            } else if then <= must && now > must {
                grown.push(format!("{name}: {what} must be {must} at most and is {now}"));
            }
        }
    }
    if !grown.is_empty() {
        bail!("{}; if that is meant, say so in {COMMITTED}", grown.join("; "));
    }
    if options.devices {
        return Ok(());
    }
    let agent = agent_binary()?;
    println!("{:<20} {agent:>9}", "choria-agent");
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

/// Builds the image in this folder below `agent-embedded`.
pub(crate) fn device_image(folder: &str, name: &str) -> Result<PathBuf> {
    let toolchain = Toolchain::find(DEVICE_TARGET)?;
    let products = step::target_directory().join("embedded");
    let folder = step::root().join("agent-embedded").join(folder);
    let mut build = toolchain.cargo("build", DEVICE_TARGET, &folder, &products);
    build.args(["--release", "--locked"]);
    toolchain.shrink(&mut build, DEVICE_TARGET);
    step::run(&format!("image {name} ({})", toolchain.describe()), &mut build)?;
    Ok(products.join(DEVICE_TARGET).join("release").join(name))
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
